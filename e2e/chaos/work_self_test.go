package chaos

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

func newLocal(t *testing.T) engine.Engine {
	t.Helper()
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	d := t.TempDir()
	sp, err := spill.Open(d+"/spill", spill.Options{OpenBase: objects})
	if err != nil {
		t.Fatal(err)
	}
	e, err := local.Open(t.Context(), local.Config{Dir: d + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + d + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.CreateRepository(t.Context(), engine.CreateRepository{ID: repo}); err != nil {
		t.Fatal(err)
	}
	return e
}

// broken is an engine that does wrong what clusters do wrong.
type broken struct {
	engine.Engine
	how string
	mu  sync.Mutex
	r   *rand.Rand
	old map[string]graveler.Entry // what was read
}

// now decides whether to do wrong now.
func (b *broken) now(how string, oneIn int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.how == how && b.r.IntN(oneIn) == 0
}

func (b *broken) Stage(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, cs []graveler.Change) error {
	switch {
	case b.now("loses writes", 20):
		return nil
	case b.now("stages a part", 2) && len(cs) > 1:
		cs = cs[1:]
	case b.now("writes twice", 5):
		cs := slices.Clone(cs)
		time.AfterFunc(20*time.Millisecond, func() { b.Engine.Stage(context.Background(), repo, branch, cs) })
	}
	err := b.Engine.Stage(ctx, repo, branch, cs)
	if err == nil && b.now("forgets answers", 10) {
		return graveler.Unavailable // no violation: the step is open
	}
	return err
}

func (b *broken) Stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Entry, error) {
	en, err := b.Engine.Stat(ctx, repo, ref, path)
	if b.how == "reads stale" && err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		was, ok := b.old[string(ref)+path]
		b.old[string(ref)+path] = en
		if ok && b.r.IntN(5) == 0 {
			return was, nil
		}
	}
	return en, err
}

func (b *broken) Commit(ctx context.Context, r engine.CommitRequest) (graveler.Commit, error) {
	c, err := b.Engine.Commit(ctx, r)
	switch {
	case err == nil && b.now("commits twice", 4):
		r.AllowEmpty = true
		return b.Engine.Commit(ctx, r)
	case err == nil && b.now("loses commits", 4):
		b.Engine.SetHead(ctx, r.Repo, r.Branch, graveler.Ref(c.Parents[0]), true)
	}
	return c, err
}

func (b *broken) CreateBranch(ctx context.Context, r engine.CreateBranch) (graveler.Branch, error) {
	br, err := b.Engine.CreateBranch(ctx, r)
	if err == nil && b.now("retries creates", 2) {
		_, err = b.Engine.CreateBranch(ctx, r)
	}
	return br, err
}

func (b *broken) DeleteTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID) error {
	if b.now("keeps tags", 3) {
		_, err := b.Resolve(ctx, repo, graveler.Ref(id))
		return err
	}
	return b.Engine.DeleteTag(ctx, repo, id)
}

func (b *broken) SetHead(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, ref graveler.Ref, drop bool) (graveler.Branch, error) {
	if b.now("moves heads late", 2) {
		time.AfterFunc(10*time.Millisecond, func() { b.Engine.SetHead(context.Background(), repo, id, ref, drop) })
		br, err := b.Engine.Resolve(ctx, repo, graveler.Ref(id))
		return br.Branch, err
	}
	return b.Engine.SetHead(ctx, repo, id, ref, drop)
}

// The judges find nothing in what a sound engine did, and what each kind of broken one did.
func TestJudges(t *testing.T) {
	for _, how := range []string{
		"", "forgets answers", "loses writes", "stages a part", "writes twice", "reads stale", "commits twice", "loses commits", "retries creates", "keeps tags", "moves heads late",
	} {
		t.Run("engine that "+how, func(t *testing.T) {
			t.Parallel()
			right := how == "" || how == "forgets answers"
			var l ledger
			// What goes wrong by chance is given more chances.
			for n := range 8 {
				c := &broken{Engine: newLocal(t), r: rand.New(rand.NewPCG(1, uint64(n))), old: map[string]graveler.Entry{}}
				e, err := newEpoch(t.Context(), c, &l, "e1", repo)
				if err != nil {
					t.Fatal(err)
				}
				c.how = how
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				e.work(ctx, []engine.Engine{c}, 4, uint64(n))
				cancel()
				c.how = ""
				time.Sleep(30 * time.Millisecond) // what comes late has come
				end, err := e.look(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if err := e.judge(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if err := end.again(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				c.Close()
				if right || len(l.wrong) > 0 {
					break
				}
			}
			if l.undecided.Load() > 0 {
				t.Errorf("%d undecided", l.undecided.Load())
			}
			if right && len(l.wrong) > 0 {
				t.Errorf("%d violations, the first: %s", len(l.wrong), l.wrong[0])
			}
			if !right && len(l.wrong) == 0 {
				t.Error("nothing was found")
			}
			t.Logf("%d steps, %d open, %d objects, %d violations", l.steps.Load(), l.open.Load(), l.objects.Load(), len(l.wrong))
			if how == "" && (l.steps.Load() < 200 || l.open.Load() > l.steps.Load()/10) {
				t.Error("too little was done for the others to be judged by it")
			}
		})
	}
}

// What is lost or comes back after an epoch is found by the last look.
func TestLastLook(t *testing.T) {
	for _, how := range []func(e *epoch, c engine.Engine, n *end){
		func(e *epoch, c engine.Engine, _ *end) {
			c.Stage(t.Context(), repo, e.branches()[0], []graveler.Change{{Path: "k/0", Remove: true}})
		},
		func(e *epoch, c engine.Engine, _ *end) {
			c.Stage(t.Context(), repo, e.branches()[0], []graveler.Change{{Path: "k/1", Entry: entry("x")}})
		},
		func(e *epoch, c engine.Engine, _ *end) {
			c.Commit(t.Context(), engine.CommitRequest{Repo: repo, Branch: e.dst(), Message: "x", AllowEmpty: true})
		},
		func(e *epoch, c engine.Engine, _ *end) {
			c.CreateTag(t.Context(), repo, graveler.TagID(e.refName(1, 0)), graveler.Ref(e.first))
		},
	} {
		var l ledger
		c := newLocal(t)
		e, err := newEpoch(t.Context(), c, &l, "e1", repo)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Stage(t.Context(), repo, e.branches()[0], []graveler.Change{{Path: "k/0", Entry: entry("v")}}); err != nil {
			t.Fatal(err)
		}
		end, err := e.look(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := end.again(t.Context(), c); err != nil || len(l.wrong) > 0 {
			t.Fatalf("unchanged: %v, %v", err, l.wrong)
		}
		how(e, c, end)
		if err := end.again(t.Context(), c); err != nil || len(l.wrong) != 1 {
			t.Errorf("changed: %v, %v", err, l.wrong)
		}
	}
}
