package enginetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

func testObjects(t *testing.T, s *suite) {
	s.create()
	st, err := s.Objects(s.ctx, repo)
	s.ok(err)
	big := make([]byte, 5<<20+17)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(big)
	a := object.NewAddress()
	// A reader of parts, which can't be read again.
	info, err := st.Put(s.ctx, a, io.MultiReader(bytes.NewReader(big[:100]), bytes.NewReader(big[100:])), object.PutOptions{Size: -1})
	sum := md5.Sum(big)
	if err != nil || info.Size != int64(len(big)) || info.MD5 != hex.EncodeToString(sum[:]) {
		t.Fatalf("%+v %v", info, err)
	}
	o := object.Object{Address: a, Type: graveler.AddressRelative, Size: info.Size, MD5: info.MD5}
	for _, c := range []struct{ off, n, want int }{{0, len(big), len(big)}, {3 << 20, 1 << 20, 1 << 20}, {len(big) - 10, 20, 10}, {len(big), 5, 0}, {17, 1, 1}} {
		b := make([]byte, c.n)
		n, err := st.ReadAt(s.ctx, o, b, int64(c.off))
		if n != c.want || !bytes.Equal(b[:n], big[c.off:c.off+n]) || (n < c.n) != errors.Is(err, io.EOF) || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%d at %d: %d %v", c.n, c.off, n, err)
		}
	}
	if i, err := st.Stat(s.ctx, a); err != nil || i.Size != info.Size || i.Address != a {
		t.Errorf("%+v %v", i, err)
	}
	infos, err := gather(st.List(s.ctx, "data/"))
	if err != nil || !slices.ContainsFunc(infos, func(i object.Info) bool { return i.Address == a && i.Size == info.Size }) {
		t.Errorf("%+v %v", infos, err)
	}
	s.wants(graveler.NotFound, second(st.Stat(s.ctx, "data/none")))
	s.wants(graveler.NotFound, second(st.ReadAt(s.ctx, object.Object{Address: "data/none", Type: graveler.AddressRelative, Size: 5}, make([]byte, 5), 0)))
	s.wants(graveler.Invalid, second(st.Put(s.ctx, "../x", bytes.NewReader(nil), object.PutOptions{})))
	fails := errors.Join(errors.New("a reader that fails"), graveler.NoSpace)
	if _, err := st.Put(s.ctx, object.NewAddress(), io.MultiReader(bytes.NewReader(big), failing{fails}), object.PutOptions{Size: -1}); graveler.KindOf(err) != graveler.NoSpace {
		t.Error(err)
	}
	s.ok(st.Delete(s.ctx, a))
	s.ok(st.Delete(s.ctx, a))
	s.wants(graveler.NotFound, second(st.Stat(s.ctx, a)))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// next takes events until one that is wanted, for a while.
func next(t *testing.T, events <-chan engine.Event, want func(engine.Event) bool) engine.Event {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the watch ended")
			}
			if e.Lost {
				t.Fatalf("events were lost before %+v", e)
			}
			if want(e) {
				return e
			}
		case <-late:
			t.Fatal("no such event")
		}
	}
}

func (s *suite) watch(ctx context.Context, after uint64) <-chan engine.Event {
	out := make(chan engine.Event, 1000)
	seq := s.Watch(ctx, after)
	go func() {
		defer close(out)
		for e, err := range seq {
			if err != nil {
				return
			}
			out <- e
		}
	}()
	return out
}

// All changes are told, in order, from when Watch returned; and again to who goes on after one.
func testWatch(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	events := s.watch(ctx, 0)
	s.create()
	made := next(t, events, func(e engine.Event) bool { return e.Type == engine.ReposChanged && e.Repo == repo })
	ctx1 := engine.WithOrigin(s.ctx, 42)
	s.ok(s.Stage(ctx1, repo, "main", []graveler.Change{{Path: "a\xff"}, {Path: "b"}}))
	e := next(t, events, func(e engine.Event) bool { return e.Type == engine.StagingChanged })
	if e.Repo != repo || e.Branch != "main" || e.Origin != 42 || !slices.Equal(e.Paths, []string{"a\xff", "b"}) {
		t.Errorf("%+v", e)
	}
	if e.Index <= made.Index {
		t.Errorf("index %d after %d", e.Index, made.Index)
	}
	s.commit("main", "x")
	moved := next(t, events, func(e engine.Event) bool { return e.Type == engine.HeadMoved })
	if moved.Branch != "main" || !moved.Unchanged {
		t.Errorf("%+v", moved)
	}
	s.branch("dev", "")
	refs := next(t, events, func(e engine.Event) bool { return e.Type == engine.RefsChanged && e.Branch == "dev" })
	cancel()
	for range events {
	}
	ctx, cancel = context.WithCancel(s.ctx)
	defer cancel()
	again := s.watch(ctx, made.Index)
	got := next(t, again, func(e engine.Event) bool { return true })
	if got.Index != e.Index || got.Type != e.Type || !slices.Equal(got.Paths, e.Paths) {
		t.Errorf("%+v, want %+v", got, e)
	}
	next(t, again, func(e engine.Event) bool { return e.Index == refs.Index && e.Type == engine.RefsChanged })
}

// Who gives up is told so.
func testContexts(t *testing.T, s *suite) {
	s.create()
	s.touch("main", "a")
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	for name, err := range map[string]error{
		"stage":  s.Stage(ctx, repo, "main", []graveler.Change{{Path: "b"}}),
		"commit": second(s.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "x"})),
	} {
		if k := graveler.KindOf(err); err != nil && k != graveler.Canceled {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range s.Watch(ctx, 0) {
	}
}

// The bytes of a holder's contents become objects when somebody wants them.
func testHolders(t *testing.T, s *suite) {
	s.create()
	const holder engine.HolderID = "h0lder"
	id, gone := holder.ContentOf("c1"), holder.ContentOf("gone")
	s.ok(s.Stage(s.ctx, repo, "main", []graveler.Change{{Path: "f", Entry: graveler.Entry{Pending: id}}}))
	named, err := s.Named(s.ctx, []graveler.ContentID{id, gone})
	if err != nil || len(named) != 1 || named[id] != repo {
		t.Errorf("%v %v", named, err)
	}
	short, stop := context.WithTimeout(s.ctx, 30*time.Second)
	defer stop()
	s.wants(graveler.Unavailable, second(s.Commit(short, engine.CommitRequest{Repo: repo, Branch: "main", Message: "nobody holds it"})))

	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	asked := make(chan []graveler.ContentID, 100)
	go func() {
		ended <- s.Hold(ctx, holder, func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error) {
			asked <- contents
			var out []engine.Settled
			for _, c := range contents {
				if c != id {
					continue
				}
				e := s.put("held")
				out = append(out, engine.Settled{Content: c, Address: e.Address, AddressType: e.AddressType, Size: e.Size, ETag: e.ETag, Modified: time.Unix(5, 0).UTC()})
			}
			return out, s.Settle(ctx, out)
		})
	}()
	var list []engine.Settled
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // until Hold is there
		if list, err = s.Secure(s.ctx, []graveler.ContentID{id}); err == nil || time.Now().After(late) {
			break
		}
	}
	if err != nil || len(list) != 1 || list[0].Content != id || list[0].Size != 4 || list[0].Snapshot {
		t.Fatalf("%+v %v", list, err)
	}
	if contents := <-asked; !slices.Contains(contents, id) {
		t.Errorf("%q", contents)
	}
	s.ok(s.Settle(s.ctx, list))
	e, err := s.Stat(s.ctx, repo, "main", "f")
	if err != nil || e.Pending != "" || e.Size != 4 {
		t.Errorf("%+v %v", e, err)
	}
	s.commit("main", "f")
	if got := s.read("main", "f"); got != "held" {
		t.Errorf("%q", got)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("Hold returned without a reason")
	}
}

// A request that is made twice is made once.
func testSessions(t *testing.T, s *suite) {
	s.create()
	id, err := s.OpenSession(s.ctx)
	s.ok(err)
	other, err := s.OpenSession(s.ctx)
	s.ok(err)
	if id == 0 || id == other {
		t.Errorf("sessions %d and %d", id, other)
	}
	seq := uint64(0)
	twice := func(name string, call func(ctx context.Context) (string, error)) {
		t.Helper()
		seq++
		ctx := engine.WithRequest(s.ctx, engine.Request{Session: id, Seq: seq, Done: seq - 1})
		first, err1 := call(ctx)
		again, err2 := call(ctx)
		if first != again || fmt.Sprint(err1) != fmt.Sprint(err2) || graveler.KindOf(err1) != graveler.KindOf(err2) && err1 != nil {
			t.Errorf("%s: %q %v, then %q %v", name, first, err1, again, err2)
		}
		if err1 != nil {
			t.Errorf("%s: %v", name, err1)
		}
	}
	head := func() graveler.Commit {
		r, err := s.Resolve(s.ctx, repo, "main")
		s.ok(err)
		return r.Commit
	}
	twice("create", func(ctx context.Context) (string, error) {
		r, err := s.CreateRepository(ctx, engine.CreateRepository{ID: "once"})
		return string(r.ID), err
	})
	twice("branch", func(ctx context.Context) (string, error) {
		b, err := s.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: "dev"})
		return string(b.Commit), err
	})
	twice("tag", func(ctx context.Context) (string, error) {
		x, err := s.CreateTag(ctx, repo, "v1", "main")
		return string(x.Commit), err
	})
	twice("stage", func(ctx context.Context) (string, error) {
		return "", s.Stage(ctx, repo, "main", []graveler.Change{{Path: "d/f"}})
	})
	// The second is not made even though it would change something by now.
	seq++
	ctx := engine.WithRequest(s.ctx, engine.Request{Session: id, Seq: seq, Done: seq - 1})
	s.ok(s.Stage(ctx, repo, "main", []graveler.Change{{Path: "gone", Remove: true}, {Path: "x"}}))
	s.remove("main", "x")
	s.ok(s.Stage(ctx, repo, "main", []graveler.Change{{Path: "gone", Remove: true}, {Path: "x"}}))
	s.wants(graveler.NotFound, second(s.Stat(s.ctx, repo, "main", "x")))
	twice("move", func(ctx context.Context) (string, error) { return "", s.Move(ctx, repo, "main", "d/", "e/") })
	before := head()
	twice("commit", func(ctx context.Context) (string, error) {
		c, err := s.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "once"})
		return string(c.ID), err
	})
	if c := head(); !slices.Equal(c.Parents, []graveler.CommitID{before.ID}) {
		t.Errorf("head %+v", c)
	}
	s.touch("dev", "dev")
	s.commit("dev", "dev")
	before = head()
	twice("merge", func(ctx context.Context) (string, error) {
		c, err := s.Merge(ctx, engine.MergeRequest{Repo: repo, Source: "dev", Dest: "main"})
		return string(c.ID), err
	})
	if c := head(); c.Parents[0] != before.ID {
		t.Errorf("head %+v", c)
	}
	before = head()
	twice("revert", func(ctx context.Context) (string, error) {
		c, err := s.Revert(ctx, engine.PickRequest{Repo: repo, Branch: "main", Ref: graveler.Ref(before.ID), Parent: 1})
		return string(c.ID), err
	})
	if c := head(); c.Parents[0] != before.ID {
		t.Errorf("head %+v", c)
	}
	twice("head", func(ctx context.Context) (string, error) {
		b, err := s.SetHead(ctx, repo, "dev", "main", true)
		return string(b.Commit), err
	})
	twice("rename", func(ctx context.Context) (string, error) { return "", s.RenameBranch(ctx, repo, "dev", "new") })
	twice("rules", func(ctx context.Context) (string, error) {
		return "", s.SetRules(ctx, repo, []graveler.Rule{{Pattern: "x", Block: []graveler.Action{graveler.BlockDelete}}})
	})
	twice("untag", func(ctx context.Context) (string, error) { return "", s.DeleteTag(ctx, repo, "v1") })
	twice("unbranch", func(ctx context.Context) (string, error) { return "", s.DeleteBranch(ctx, repo, "new", true) })
	twice("reset", func(ctx context.Context) (string, error) { return "", s.Reset(ctx, repo, "main", "") })
	twice("delete", func(ctx context.Context) (string, error) { return "", s.DeleteRepository(ctx, "once") })

	ctx = engine.WithRequest(s.ctx, engine.Request{Session: 1 << 60, Seq: 1})
	err = s.Stage(ctx, repo, "main", []graveler.Change{{Path: "y"}})
	if _, ok := errors.AsType[*engine.SessionEnded](err); !ok || graveler.KindOf(err) != graveler.Stale {
		t.Errorf("a session that never was: %v", err)
	}
	s.wants(graveler.NotFound, second(s.Stat(s.ctx, repo, "main", "y")))
	// An error is an answer too.
	ctx = engine.WithRequest(s.ctx, engine.Request{Session: other, Seq: 1})
	s.wants(graveler.Exists, second(s.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: "main"})))
	s.wants(graveler.Exists, second(s.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: "main"})))
}

// Many at a time lose nothing of each other's.
func testTogether(t *testing.T, s *suite) {
	s.create()
	var wg sync.WaitGroup
	const n, each = 8, 30
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range each {
				if err := s.Stage(s.ctx, repo, "main", []graveler.Change{{Path: fmt.Sprintf("%d/%d", i, j)}}); err != nil {
					t.Error(err)
				}
				if _, err := s.Stat(s.ctx, repo, "main", fmt.Sprintf("%d/%d", i, j)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for range 3 {
		if _, err := s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "meanwhile"}); err != nil && graveler.KindOf(err) != graveler.NothingToDo {
			t.Error(err)
		}
	}
	wg.Wait()
	if got := s.paths("main", engine.ListQuery{}); len(got) != n*each {
		t.Errorf("%d paths of %d", len(got), n*each)
	}
}
