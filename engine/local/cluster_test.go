package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// engines are the nodes of a cluster in this process, with one object store.
type engines struct {
	t    testing.TB
	dir  string
	addr []string
	all  []*Engine
	// slow, if set, is called before each object is stored.
	slow atomic.Pointer[func()]
}

type slowStore struct {
	object.Store
	c *engines
}

func (s slowStore) Put(ctx context.Context, address string, r io.Reader, o object.PutOptions) (object.Info, error) {
	if f := s.c.slow.Load(); f != nil {
		(*f)()
	}
	return s.Store.Put(ctx, address, r, o)
}

func newEngines(t testing.TB, n int) *engines {
	c := &engines{t: t, dir: t.TempDir(), all: make([]*Engine, n)}
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.addr = append(c.addr, l.Addr().String())
		l.Close()
	}
	t.Cleanup(func() {
		for i := range c.all {
			c.stop(i)
		}
	})
	for i := range n {
		c.start(i)
		if i > 0 {
			ms, err := c.all[i].Members(t.Context())
			if err != nil || len(ms) != 1 {
				t.Fatal(ms, err)
			}
			ms[0].Voter = true
			c.ask(func(e *Engine) error { return e.AddMember(t.Context(), ms[0]) })
		}
	}
	await(t, "all vote", func() bool {
		ms, err := c.all[n-1].Members(t.Context())
		voters := 0
		for _, m := range ms {
			if m.Voter {
				voters++
			}
		}
		return err == nil && voters == n
	})
	return c
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it doesn't happen that %s", what)
		}
	}
}

func (c *engines) start(i int) {
	c.t.Helper()
	dir := filepath.Join(c.dir, fmt.Sprint(i))
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		st, err := object.Open(ctx, ns, object.Options{})
		return slowStore{st, c}, err
	}
	sp, err := spill.Open(dir+"/spill", spill.Options{OpenBase: objects})
	if err != nil {
		c.t.Fatal(err)
	}
	c.all[i], err = Open(c.t.Context(), Config{
		Dir: dir + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + c.dir + "/data", Committed: committed.Options{Raggedness: 7},
		Cluster: &ClusterConfig{Listen: c.addr[i], Serve: fmt.Sprintf("serve%d:1", i), Bootstrap: i == 0, Heartbeat: 150 * time.Millisecond, Insecure: true},
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *engines) stop(i int) {
	if e := c.all[i]; e != nil {
		c.all[i] = nil
		if err := e.Close(); err != nil {
			c.t.Error(err)
		}
		e.spill.Close()
	}
}

// ask asks the nodes until one, the leader, answers, as a client does.
func (c *engines) ask(f func(e *Engine) error) {
	c.t.Helper()
	var err error
	await(c.t, "the leader answers", func() bool {
		for _, e := range c.all {
			if e == nil {
				continue
			}
			if err = f(e); !errors.Is(err, graveler.Unavailable) {
				return true
			}
		}
		return false
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *engines) leader() (i int) {
	c.t.Helper()
	await(c.t, "there is a leader", func() bool {
		for i = range c.all {
			if c.all[i] != nil && c.all[i].rep.Leads() {
				return true
			}
		}
		return false
	})
	return i
}

func entry(path, etag string) graveler.Change {
	return graveler.Change{Path: path, Entry: graveler.Entry{Address: "data/" + etag, Size: 1, ETag: etag}}
}

// What may change is read and written on the leader, what can't is read anywhere; the others say who leads.
func TestClusterReads(t *testing.T) {
	c := newEngines(t, 3)
	ctx := t.Context()
	c.ask(func(e *Engine) error {
		_, err := e.CreateRepository(ctx, engine.CreateRepository{ID: "repo"})
		return err
	})
	c.ask(func(e *Engine) error { return e.Stage(ctx, "repo", "main", []graveler.Change{entry("a", "1")}) })
	var head graveler.Commit
	c.ask(func(e *Engine) (err error) {
		head, err = e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "one"})
		return err
	})
	l := c.leader()
	for i, e := range c.all {
		if i == l {
			continue
		}
		await(t, "a follower knows the commit", func() bool {
			en, err := e.Stat(ctx, "repo", graveler.Ref(head.ID), "a")
			return err == nil && en.ETag == "1"
		})
		n := 0
		for _, err := range e.List(ctx, "repo", graveler.Ref(head.ID), engine.ListQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d entries", n)
		}
		var nl *engine.NotLeader
		calls := map[string]func() error{
			"Stat of a branch": func() error { _, err := e.Stat(ctx, "repo", "main", "a"); return err },
			"Resolve":          func() error { _, err := e.Resolve(ctx, "repo", "main"); return err },
			"part of an id":    func() error { _, err := e.Resolve(ctx, "repo", graveler.Ref(head.ID[:12])); return err },
			"ListRepositories": func() error { _, err := e.ListRepositories(ctx); return err },
			"ListBranches":     func() error { _, err := e.ListBranches(ctx, "repo", engine.RefQuery{}); return err },
			"Stage":            func() error { return e.Stage(ctx, "repo", "main", []graveler.Change{entry("no", "1")}) },
			"Commit": func() error {
				_, err := e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "no"})
				return err
			},
			"OpenSession": func() error { _, err := e.OpenSession(ctx); return err },
			"Hold":        func() error { return e.Hold(ctx, "h", nil) },
			"Promote":     func() error { return e.Promote(ctx, "x") },
			"an unknown commit": func() error {
				_, err := e.Resolve(ctx, "repo", graveler.Ref(fmt.Sprintf("%064x", 7)))
				return err
			},
			"List": func() error {
				for _, err := range e.List(ctx, "repo", "main", engine.ListQuery{}) {
					return err
				}
				return nil
			},
		}
		for name, call := range calls {
			if err := call(); !errors.As(err, &nl) || nl.Leader != fmt.Sprintf("serve%d:1", l) {
				t.Errorf("%s on a follower: %v", name, err)
			}
		}
	}
}

// A commit whose leader goes away in the middle: asked again with the same number, of whoever leads, it is made once.
func TestClusterCommitThroughFailover(t *testing.T) {
	c := newEngines(t, 3)
	ctx := t.Context()
	c.ask(func(e *Engine) error {
		_, err := e.CreateRepository(ctx, engine.CreateRepository{ID: "repo"})
		return err
	})
	var session engine.SessionID
	c.ask(func(e *Engine) (err error) { session, err = e.OpenSession(ctx); return err })
	seq := uint64(0)
	next := func() context.Context {
		seq++
		return engine.WithRequest(ctx, engine.Request{Session: session, Seq: seq, Done: seq - 1})
	}
	var ids []graveler.CommitID
	for round := range 4 {
		sctx := next()
		c.ask(func(e *Engine) error {
			return e.Stage(sctx, "repo", "main", []graveler.Change{entry(fmt.Sprint("f", round), "1")})
		})
		// The tables of the commit are being stored when the leader is to hand its lead over.
		l := c.leader()
		var once atomic.Bool
		hand := func() {
			if once.CompareAndSwap(false, true) {
				if err := c.all[l].TransferLeadership(ctx, ""); err != nil && !errors.Is(err, graveler.Unavailable) {
					t.Error(err)
				}
			}
		}
		if round > 0 {
			c.slow.Store(&hand)
		}
		rctx := next()
		var got graveler.Commit
		commit := func(e *Engine) (err error) {
			got, err = e.Commit(rctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: fmt.Sprint(round)})
			return err
		}
		c.ask(commit)
		c.slow.Store(nil)
		if round > 0 && !once.Load() {
			t.Fatal("no object was stored")
		}
		first := got
		c.ask(commit) // the answer had been lost
		if first.ID != got.ID || got.Message != fmt.Sprint(round) || got.Created != first.Created {
			t.Errorf("asked again: %+v, not %+v", got, first)
		}
		ids = append(ids, got.ID)
	}
	// A request that failed fails again, also when it would not any more.
	rctx := next()
	for range 2 {
		var err error
		await(t, "the leader answers", func() bool {
			for _, e := range c.all {
				if _, err = e.Commit(rctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "nothing"}); !errors.Is(err, graveler.Unavailable) {
					return true
				}
			}
			return false
		})
		if !errors.Is(err, graveler.NothingToDo) {
			t.Fatalf("a commit of nothing: %v", err)
		}
		sctx := next()
		c.ask(func(e *Engine) error { return e.Stage(sctx, "repo", "main", []graveler.Change{entry("more", "1")}) })
	}
	var log []graveler.CommitID
	c.ask(func(e *Engine) error {
		log = nil
		for cm, err := range e.Log(ctx, "repo", "main", engine.LogQuery{}) {
			if err != nil {
				return err
			}
			log = append(log, cm.ID)
		}
		return nil
	})
	if len(log) != len(ids)+1 {
		t.Fatalf("%d commits, not %d", len(log), len(ids)+1)
	}
	for i, id := range ids {
		if log[len(ids)-1-i] != id {
			t.Errorf("commit %d is %s, not %s", i, log[len(ids)-1-i], id)
		}
	}
}

// A watch goes on at another node after the last event that it had, and is told if that can't be.
func TestClusterWatch(t *testing.T) {
	c := newEngines(t, 3)
	ctx := t.Context()
	c.ask(func(e *Engine) error {
		_, err := e.CreateRepository(ctx, engine.CreateRepository{ID: "repo"})
		return err
	})
	wctx, cancel := context.WithTimeout(ctx, 50*time.Second)
	defer cancel()
	at := uint64(0)
	watch := func(i int, after uint64, n int) []string {
		t.Helper()
		var got []string
		for ev, err := range c.all[i].Watch(wctx, after) {
			if err != nil {
				t.Fatal(err)
			}
			if ev.Lost {
				t.Fatal("events were lost")
			}
			if ev.Index <= at {
				t.Errorf("event %d after %d", ev.Index, at)
			}
			at = ev.Index
			if ev.Type == engine.StagingChanged {
				got = append(got, ev.Paths...)
			}
			if len(got) == n {
				break
			}
		}
		return got
	}
	stage := func(paths ...string) {
		for _, p := range paths {
			c.ask(func(e *Engine) error { return e.Stage(ctx, "repo", "main", []graveler.Change{entry(p, "1")}) })
		}
	}
	at = c.all[c.leader()].rep.Applied()
	stage("a", "b", "c", "d")
	if got := watch(0, at, 2); fmt.Sprint(got) != "[a b]" {
		t.Fatal(got)
	}
	if got := watch(1, at, 1); fmt.Sprint(got) != "[c]" {
		t.Fatal(got)
	}
	l := c.leader()
	c.stop(l)
	other := (l + 1) % 3
	stage("e")
	if got := watch(other, at, 2); fmt.Sprint(got) != "[d e]" {
		t.Fatal(got)
	}
	c.start(l)
	// It has not kept the events from before its start.
	for ev, err := range c.all[l].Watch(wctx, 1) {
		if err != nil || !ev.Lost || ev.Index == 0 {
			t.Fatal(ev, err)
		}
		at = ev.Index
		break
	}
	stage("f")
	if got := watch(l, at, 1); got[len(got)-1] != "f" && got[0] != "e" {
		t.Fatal(got)
	}
}

// A large move is one step also where it is staged in parts, and what an earlier leader left of one goes.
func TestClusterBulk(t *testing.T) {
	c := newEngines(t, 3)
	ctx := t.Context()
	c.ask(func(e *Engine) error {
		_, err := e.CreateRepository(ctx, engine.CreateRepository{ID: "repo"})
		return err
	})
	const n = 30_000
	for i := 0; i < n; i += 2000 {
		var changes []graveler.Change
		for k := range 2000 {
			changes = append(changes, entry(fmt.Sprintf("dir/%06d-with-a-name-of-some-length-so-that-it-takes-several-steps-%090d", i+k, 0), "1"))
		}
		c.ask(func(e *Engine) error { return e.Stage(ctx, "repo", "main", changes) })
	}
	l := c.leader()
	began, end, err := c.all[l].rep.Begin(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := c.all[l].rep.StageBulk(began, "left", []graveler.Change{entry("x", "1")}); err != nil {
		t.Fatal(err)
	}
	c.stop(l)
	// It may be asked for twice, if the lead is lost meanwhile, and is made once.
	var session engine.SessionID
	c.ask(func(e *Engine) (err error) { session, err = e.OpenSession(ctx); return err })
	once := engine.WithRequest(ctx, engine.Request{Session: session, Seq: 1})
	c.ask(func(e *Engine) error { return e.Move(once, "repo", "main", "dir/", "moved/") })
	c.start(l)
	c.ask(func(e *Engine) error {
		count := 0
		for x, err := range e.List(ctx, "repo", "main", engine.ListQuery{}) {
			if err != nil {
				return err
			}
			if count++; x.Path[:6] != "moved/" {
				t.Fatal(x.Path)
			}
		}
		if count != n {
			t.Errorf("%d entries", count)
		}
		return nil
	})
	for i := range c.all {
		await(t, "nothing is left of bulks", func() bool {
			v, err := c.all[i].rep.View()
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			bulks, err := v.Bulks()
			return err == nil && len(bulks) == 0
		})
	}
}
