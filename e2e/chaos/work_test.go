package chaos

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakefsfs/lakefsfs/e2e/history"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

const (
	singles   = 6    // keys that are written by themselves
	together  = 4    // keys that are always written in one step
	bulk      = 4200 // keys of a directory that is moved as a whole; more than the engine puts into one command
	branches  = 2    // that are written and committed, of an epoch
	refGroups = 3    // groups of branches, and as many of tags
	commits   = 8    // that refs are set to
)

// ledger counts what all epochs did, and keeps what was found wrong.
type ledger struct {
	steps, open, objects, undecided atomic.Int64
	kinds                           sync.Map // name of a step -> *atomic.Int64
	mu                              sync.Mutex
	wrong                           []string
}

func (l *ledger) count(step string) {
	c, ok := l.kinds.Load(step)
	if !ok {
		c, _ = l.kinds.LoadOrStore(step, new(atomic.Int64))
	}
	c.(*atomic.Int64).Add(1)
}

func (l *ledger) violation(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (l *ledger) judge(vs ...history.Verdict) {
	for _, v := range vs {
		l.objects.Add(1)
		switch {
		case v.Undecided():
			l.undecided.Add(1)
		case !v.Right():
			l.violation("%s is not linearizable:\n%s", v.Object, v.Story)
		}
	}
}

// epoch is a piece of work with branches, tags and keys of its own, so that its history is short enough to be judged.
type epoch struct {
	name  string
	repo  graveler.RepositoryID
	l     *ledger
	first graveler.CommitID   // that its branches begin at
	pool  []graveler.CommitID // that refs are set to

	keys, refs, heads *history.Recorder
	next              atomic.Int64 // makes values unique

	mu      sync.Mutex
	commits []made
}

// made is a commit that was asked for, with when.
type made struct {
	branch          graveler.BranchID
	message         string
	id              graveler.CommitID // "" if the answer never came
	called, return_ int64
}

// newEpoch makes the branches and commits that an epoch works on. It tries until it succeeds, or ctx ends.
func newEpoch(ctx context.Context, c engine.Engine, l *ledger, name string, repo graveler.RepositoryID) (*epoch, error) {
	now := time.Now()
	e := &epoch{name: name, repo: repo, l: l, keys: history.New(now), refs: history.New(now), heads: history.New(now)}
	err := insist(ctx, func(ctx context.Context) error {
		r, err := c.Resolve(ctx, repo, "main")
		e.first = r.Commit.ID
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("epoch %s: %w", name, err)
	}
	for _, b := range append(e.branches(), e.src(), e.dst(), e.branch("pool")) {
		err := insist(ctx, func(ctx context.Context) error {
			_, err := c.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: b, Source: graveler.Ref(e.first)})
			if graveler.KindOf(err) == graveler.Exists {
				return nil // an earlier try of ours
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("epoch %s: %w", name, err)
		}
	}
	for i := range commits {
		err := insist(ctx, func(ctx context.Context) error {
			cm, err := c.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: e.branch("pool"), Message: fmt.Sprint("pool ", i), AllowEmpty: true})
			if err == nil {
				e.pool = append(e.pool, cm.ID)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("epoch %s: %w", name, err)
		}
	}
	return e, nil
}

func (e *epoch) branch(name string) graveler.BranchID { return graveler.BranchID(e.name + "-" + name) }

func (e *epoch) branches() (bs []graveler.BranchID) {
	for i := range branches {
		bs = append(bs, e.branch(fmt.Sprint("b", i)))
	}
	return bs
}

func (e *epoch) src() graveler.BranchID { return e.branch("src") }
func (e *epoch) dst() graveler.BranchID { return e.branch("dst") }

// insist repeats what may be unavailable for a while.
func insist(ctx context.Context, do func(ctx context.Context) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := do(one)
		cancel()
		if err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// passing tells errors that leave open whether the step was made.
func passing(err error) bool {
	switch graveler.KindOf(err) {
	case graveler.Unavailable, graveler.Timeout, graveler.Canceled, graveler.NoSpace:
		return true
	}
	return false
}

// worker is one client of an epoch.
type worker struct {
	*epoch
	id int
	c  engine.Engine
	r  *rand.Rand
}

// run makes steps until ctx ends. A step that is under way then is finished, or given up after its own time.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		b := w.branches()[w.r.IntN(branches)]
		switch n := w.r.IntN(100); {
		case n < 30:
			w.put(b, fmt.Sprintf("k/%d", w.r.IntN(singles)))
		case n < 34:
			w.remove(b, fmt.Sprintf("k/%d", w.r.IntN(singles)))
		case n < 50:
			w.get(b, fmt.Sprintf("k/%d", w.r.IntN(singles)))
		case n < 58:
			w.list(b)
		case n < 65:
			w.putTogether(b)
		case n < 73:
			w.commit(b)
		case n < 77:
			w.head(b)
		case n < 98:
			w.ref()
		default:
			w.refList()
		}
	}
}

// ask makes one step: do within its own time, which is short now and then, so that outcomes are left open.
func (w *worker) ask(step string, rec *history.Recorder, do func(ctx context.Context) error) (called, returned int64, err error) {
	most := 15 * time.Second
	if w.r.IntN(50) == 0 {
		most = time.Duration(100+w.r.IntN(2000)) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	called = rec.Now()
	err = do(ctx)
	returned = rec.Now()
	w.l.count(step)
	return called, returned, err
}

// odd is told of errors that no step may have.
func (w *worker) odd(step string, err error) {
	w.l.violation("%s: %s: %v (%v)", w.name, step, err, graveler.KindOf(err))
}

func (w *worker) value() string { return fmt.Sprintf("%s-%d", w.name, w.next.Add(1)) }

func entry(v string) graveler.Entry {
	sum := md5.Sum([]byte(v))
	return graveler.Entry{
		Address: "data/" + v, AddressType: graveler.AddressRelative, Size: int64(len(v)), ETag: hex.EncodeToString(sum[:]), Modified: time.Now(),
	}
}

func valueOf(e graveler.Entry) string { return strings.TrimPrefix(e.Address, "data/") }

func keyOf(b graveler.BranchID, key string) string { return string(b) + ":" + key }

func (w *worker) put(b graveler.BranchID, key string) {
	in := history.Put{Object: keyOf(b, key), Value: w.value()}
	w.write("put", in, b, graveler.Change{Path: key, Entry: entry(in.Value)})
}

func (w *worker) remove(b graveler.BranchID, key string) {
	if w.keys.Crowded(keyOf(b, key)) {
		return
	}
	w.write("remove", history.Put{Object: keyOf(b, key)}, b, graveler.Change{Path: key, Remove: true})
}

// putTogether writes some keys in one step: they are one object, of which nobody may see a part.
func (w *worker) putTogether(b graveler.BranchID) {
	in := history.Put{Object: keyOf(b, "g"), Value: w.value()}
	var cs []graveler.Change
	for i := range together {
		cs = append(cs, graveler.Change{Path: fmt.Sprintf("g/%d", i), Entry: entry(in.Value)})
	}
	w.write("put together", in, b, cs...)
}

func (w *worker) write(step string, in history.Put, b graveler.BranchID, cs ...graveler.Change) {
	called, returned, err := w.ask(step, w.keys, func(ctx context.Context) error { return w.c.Stage(ctx, w.repo, b, cs) })
	switch {
	case err == nil:
		w.keys.Add(w.id, called, returned, in, history.Done{})
	default:
		if !passing(err) {
			w.odd(step, err)
		}
		w.keys.Open(w.id, called, in)
	}
}

func (w *worker) get(b graveler.BranchID, key string) {
	var en graveler.Entry
	called, returned, err := w.ask("get", w.keys, func(ctx context.Context) (err error) {
		en, err = w.c.Stat(ctx, w.repo, graveler.Ref(b), key)
		return err
	})
	switch {
	case err == nil:
		w.keys.Add(w.id, called, returned, history.Get{Object: keyOf(b, key)}, history.Value(valueOf(en)))
	case graveler.KindOf(err) == graveler.NotFound:
		w.keys.Add(w.id, called, returned, history.Get{Object: keyOf(b, key)}, history.Value(""))
	case !passing(err):
		w.odd("get", err)
	}
}

func (w *worker) list(b graveler.BranchID) {
	var got map[string]string
	called, returned, err := w.ask("list", w.keys, func(ctx context.Context) (err error) {
		got, err = contents(ctx, w.c, w.repo, graveler.Ref(b))
		return err
	})
	if err != nil {
		if !passing(err) {
			w.odd("list", err)
		}
		return
	}
	w.saw(b, "a listing", got, called, returned)
}

// contents lists all values of a ref, by key.
func contents(ctx context.Context, c engine.Engine, repo graveler.RepositoryID, ref graveler.Ref) (map[string]string, error) {
	got := map[string]string{}
	for l, err := range c.List(ctx, repo, ref, engine.ListQuery{}) {
		if err != nil {
			return nil, err
		}
		got[l.Path] = valueOf(l.Entry)
	}
	return got, nil
}

// saw records that somebody saw the values of all keys of a branch at one time between two.
func (e *epoch) saw(b graveler.BranchID, how string, got map[string]string, called, returned int64) {
	for i := range singles {
		k := fmt.Sprintf("k/%d", i)
		e.keys.Add(0, called, returned, history.Get{Object: keyOf(b, k)}, history.Value(got[k]))
	}
	if v, whole := wholeGroup(got); whole {
		e.keys.Add(0, called, returned, history.Get{Object: keyOf(b, "g")}, history.Value(v))
	} else {
		e.l.violation("%s: %s of %s has a part of what was staged together: %v", e.name, how, b, got)
	}
	for k := range got {
		if !strings.HasPrefix(k, "k/") && !strings.HasPrefix(k, "g/") {
			e.l.violation("%s: %s of %s has %q, which nobody staged", e.name, how, b, k)
		}
	}
}

// wholeGroup is the value of the keys that are staged together, if they have one.
func wholeGroup(got map[string]string) (string, bool) {
	v := got["g/0"]
	for i := range together {
		if got[fmt.Sprintf("g/%d", i)] != v {
			return "", false
		}
	}
	return v, true
}

func (w *worker) commit(b graveler.BranchID) {
	m := made{branch: b, message: w.value()}
	var cm graveler.Commit
	called, returned, err := w.ask("commit", w.heads, func(ctx context.Context) (err error) {
		cm, err = w.c.Commit(ctx, engine.CommitRequest{Repo: w.repo, Branch: b, Message: m.message, AllowEmpty: w.r.IntN(3) == 0})
		return err
	})
	w.committed(m, cm, called, returned, err, "commit")
}

// committed records a commit or merge.
func (w *worker) committed(m made, cm graveler.Commit, called, returned int64, err error, step string) {
	in := history.Commit{Branch: string(m.branch), Message: m.message}
	m.called, m.return_ = called, returned
	switch {
	case err == nil:
		if cm.Message != m.message || len(cm.Parents) == 0 {
			w.l.violation("%s: a %s %q was answered with %+v", w.name, step, m.message, cm)
			return
		}
		m.id = cm.ID
		w.heads.Add(w.id, called, returned, in, history.Committed{ID: string(cm.ID), Parent: string(cm.Parents[0])})
	case graveler.KindOf(err) == graveler.NothingToDo:
		return
	default:
		// Another commit of the branch may have come between: then it is told so, and wasn't made.
		if !passing(err) && graveler.KindOf(err) != graveler.Conflict {
			w.odd(step, err)
		}
		w.heads.Open(w.id, called, in)
	}
	w.mu.Lock()
	w.commits = append(w.commits, m)
	w.mu.Unlock()
}

func (w *worker) head(b graveler.BranchID) {
	var res graveler.Resolved
	called, returned, err := w.ask("head", w.heads, func(ctx context.Context) (err error) {
		res, err = w.c.Resolve(ctx, w.repo, graveler.Ref(b))
		return err
	})
	if err == nil {
		w.heads.Add(w.id, called, returned, history.Head{Branch: string(b)}, history.Value(res.Commit.ID))
	} else if !passing(err) {
		w.odd("head", err)
	}
}

// merge runs on one worker of an epoch, beside run: it stages and commits on one branch, and merges it into another.
func (w *worker) merge(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		v := w.value()
		if _, _, err := w.ask("stage for merge", w.keys, func(ctx context.Context) error {
			return w.c.Stage(ctx, w.repo, w.src(), []graveler.Change{
				{Path: "m/" + v, Entry: entry(v)}, {Path: "m/last", Entry: entry(v)}, {Path: fmt.Sprintf("m/%d", i-2), Remove: true}, {Path: fmt.Sprintf("m/%d", i), Entry: entry(v)},
			})
		}); err != nil && !passing(err) {
			w.odd("stage for merge", err)
		}
		m := made{branch: w.src(), message: w.value()}
		var cm graveler.Commit
		called, returned, err := w.ask("commit for merge", w.heads, func(ctx context.Context) (err error) {
			cm, err = w.c.Commit(ctx, engine.CommitRequest{Repo: w.repo, Branch: w.src(), Message: m.message})
			return err
		})
		w.committed(m, cm, called, returned, err, "commit for merge")
		m = made{branch: w.dst(), message: w.value()}
		called, returned, err = w.ask("merge", w.heads, func(ctx context.Context) (err error) {
			cm, err = w.c.Merge(ctx, engine.MergeRequest{Repo: w.repo, Source: graveler.Ref(w.src()), Dest: w.dst(), Message: m.message, Strategy: graveler.SourceWins})
			return err
		})
		w.committed(m, cm, called, returned, err, "merge")
		w.head(w.dst())
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(w.r.IntN(200)) * time.Millisecond):
		}
	}
}

// refName is a branch or tag of a group: groups of odd numbers are of tags.
func (e *epoch) refName(group, n int) string {
	return fmt.Sprintf("%s-%s%d-%d", e.name, map[bool]string{false: "r", true: "t"}[group%2 == 1], group, n)
}

func (e *epoch) refPrefix(group int) string { return strings.TrimSuffix(e.refName(group, 0), "0") }

func (w *worker) ref() {
	group, n := w.r.IntN(2*refGroups), w.r.IntN(history.GroupSize)
	g, tag := fmt.Sprint(w.name, "-refs", group), group%2 == 1
	if w.refs.Crowded(g) {
		w.put(w.branches()[0], "k/0") // not to spin when all are
		return
	}
	name := w.refName(group, n)
	to := w.pool[w.r.IntN(len(w.pool))]
	var in, out any
	var step string
	var do func(ctx context.Context) error
	switch k := w.r.IntN(10); {
	case k < 3:
		step, in = "create", history.Create{Group: g, Ref: n, Commit: string(to), Tag: tag}
		do = func(ctx context.Context) (err error) {
			if tag {
				_, err = w.c.CreateTag(ctx, w.repo, graveler.TagID(name), graveler.Ref(to))
			} else {
				_, err = w.c.CreateBranch(ctx, engine.CreateBranch{Repo: w.repo, ID: graveler.BranchID(name), Source: graveler.Ref(to)})
			}
			return err
		}
	case k < 5:
		step, in = "delete", history.Delete{Group: g, Ref: n}
		do = func(ctx context.Context) error {
			if tag {
				return w.c.DeleteTag(ctx, w.repo, graveler.TagID(name))
			}
			return w.c.DeleteBranch(ctx, w.repo, graveler.BranchID(name), false)
		}
	case k < 7 && !tag:
		step, in = "set", history.Set{Group: g, Ref: n, Commit: string(to)}
		do = func(ctx context.Context) error {
			_, err := w.c.SetHead(ctx, w.repo, graveler.BranchID(name), graveler.Ref(to), false)
			return err
		}
	case k < 8 && !tag:
		other := (n + 1 + w.r.IntN(history.GroupSize-1)) % history.GroupSize
		step, in = "rename", history.Rename{Group: g, From: n, To: other}
		do = func(ctx context.Context) error {
			return w.c.RenameBranch(ctx, w.repo, graveler.BranchID(name), graveler.BranchID(w.refName(group, other)))
		}
	default:
		step, in, out = "resolve", history.Resolve{Group: g, Ref: n}, history.Value("")
		do = func(ctx context.Context) error {
			res, err := w.c.Resolve(ctx, w.repo, graveler.Ref(name))
			if graveler.KindOf(err) == graveler.NotFound {
				return nil
			}
			out = history.Value(res.Commit.ID)
			return err
		}
	}
	called, returned, err := w.ask(step, w.refs, do)
	switch kind := graveler.KindOf(err); {
	case err == nil && out == nil:
		out = history.Done{}
	case err == nil:
	case step == "resolve":
		if !passing(err) {
			w.odd(step, err)
		}
		return
	case kind == graveler.NotFound:
		out = history.NotFound{}
	case kind == graveler.Exists:
		out = history.Exists{}
	default:
		if !passing(err) {
			w.odd(step, err)
		}
		w.refs.Open(w.id, called, in)
		return
	}
	w.refs.Add(w.id, called, returned, in, out)
}

func (w *worker) refList() {
	group := w.r.IntN(2 * refGroups)
	var refs history.Refs
	called, returned, err := w.ask("list refs", w.refs, func(ctx context.Context) (err error) {
		refs, err = w.epoch.group(ctx, w.c, group)
		return err
	})
	if err == nil {
		w.refs.Add(w.id, called, returned, history.ListRefs{Group: fmt.Sprint(w.name, "-refs", group)}, refs)
	} else if !passing(err) {
		w.odd("list refs", err)
	}
}

// group lists a group of refs.
func (e *epoch) group(ctx context.Context, c engine.Engine, group int) (refs history.Refs, err error) {
	q := engine.RefQuery{Prefix: e.refPrefix(group)}
	put := func(name string, id graveler.CommitID) {
		for i := range refs {
			if name == e.refName(group, i) {
				refs[i] = string(id)
			}
		}
	}
	if group%2 == 1 {
		ts, err := c.ListTags(ctx, e.repo, q)
		for _, t := range ts {
			put(string(t.ID), t.Commit)
		}
		return refs, err
	}
	bs, err := c.ListBranches(ctx, e.repo, q)
	for _, b := range bs {
		put(string(b.ID), b.Commit)
	}
	return refs, err
}

// work lets so many workers, on these clients, work on an epoch for a while.
func (e *epoch) work(ctx context.Context, clients []engine.Engine, workers int, seed uint64) {
	var all sync.WaitGroup
	for i := range workers {
		w := &worker{epoch: e, id: i, c: clients[i%len(clients)], r: rand.New(rand.NewPCG(seed, uint64(i)))}
		all.Go(func() { w.run(ctx) })
	}
	m := &worker{epoch: e, id: workers, c: clients[workers%len(clients)], r: rand.New(rand.NewPCG(seed, uint64(workers)))}
	all.Go(func() { m.merge(ctx) })
	all.Wait()
}

// end is what an epoch left: what may be found there later.
type end struct {
	e     *epoch
	keys  map[graveler.BranchID]map[string]string
	heads map[graveler.BranchID]graveler.CommitID
	refs  map[int]history.Refs
}

// look reads all that an epoch made.
func (e *epoch) look(ctx context.Context, c engine.Engine) (*end, error) {
	n := &end{e: e, keys: map[graveler.BranchID]map[string]string{}, heads: map[graveler.BranchID]graveler.CommitID{}, refs: map[int]history.Refs{}}
	for _, b := range append(e.branches(), e.src(), e.dst()) {
		err := insist(ctx, func(ctx context.Context) (err error) {
			called := e.keys.Now()
			n.keys[b], err = contents(ctx, c, e.repo, graveler.Ref(b))
			if err == nil && slices.Contains(e.branches(), b) {
				e.saw(b, "the last listing", n.keys[b], called, e.keys.Now())
			}
			return err
		})
		if err == nil {
			err = insist(ctx, func(ctx context.Context) error {
				called := e.heads.Now()
				res, err := c.Resolve(ctx, e.repo, graveler.Ref(b))
				if err == nil {
					n.heads[b] = res.Commit.ID
					e.heads.Add(0, called, e.heads.Now(), history.Head{Branch: string(b)}, history.Value(res.Commit.ID))
				}
				return err
			})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: the end of %s: %w", e.name, b, err)
		}
	}
	for g := range 2 * refGroups {
		err := insist(ctx, func(ctx context.Context) (err error) {
			called := e.refs.Now()
			n.refs[g], err = e.group(ctx, c, g)
			if err == nil {
				e.refs.Add(0, called, e.refs.Now(), history.ListRefs{Group: fmt.Sprint(e.name, "-refs", g)}, n.refs[g])
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: the refs at the end: %w", e.name, err)
		}
	}
	return n, nil
}
