package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/internal/fixtures"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

type dirs struct{ meta, spill, data string }

func newDirs(t testing.TB) dirs {
	d := t.TempDir()
	return dirs{d + "/meta", d + "/spill", d + "/data"}
}

func openEngine(t testing.TB, d dirs, wrap func(object.Store) object.Store) (*Engine, *spill.Store) {
	t.Helper()
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		st, err := object.Open(ctx, ns, object.Options{})
		if err == nil && wrap != nil {
			st = wrap(st)
		}
		return st, err
	}
	sp, err := spill.Open(d.spill, spill.Options{OpenBase: objects})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), Config{Dir: d.meta, Spill: sp, Objects: objects, DefaultNamespace: "file://" + d.data, Committed: committed.Options{Raggedness: 7}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, sp
}

func newRepo(t testing.TB, e *Engine) {
	t.Helper()
	if _, err := e.CreateRepository(t.Context(), engine.CreateRepository{ID: "repo"}); err != nil {
		t.Fatal(err)
	}
}

// write stages a file the way the mount does.
func write(t testing.TB, e *Engine, sp *spill.Store, branch graveler.BranchID, path, text string) {
	t.Helper()
	f, err := sp.Create()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Stage(t.Context(), "repo", branch, []graveler.Change{{Path: path, Entry: graveler.Entry{Pending: f.ID()}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(t.Context(), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func read(t testing.TB, e *Engine, ref graveler.Ref, path string) string {
	t.Helper()
	for {
		en, err := e.Stat(t.Context(), "repo", ref, path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := e.Objects(t.Context(), "repo")
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, en.Size)
		_, err = st.ReadAt(t.Context(), engine.ObjectOf(&en), b, 0)
		if errors.Is(err, graveler.NotFound) && en.Pending != "" {
			continue // settled in between
		}
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return string(b)
	}
}

func files(t testing.TB, e *Engine, ref graveler.Ref) map[string]string {
	t.Helper()
	out := map[string]string{}
	for l, err := range e.List(t.Context(), "repo", ref, engine.ListQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		out[l.Path] = read(t, e, ref, l.Path)
	}
	return out
}

func commit(t testing.TB, e *Engine, branch graveler.BranchID) graveler.Commit {
	t.Helper()
	c, err := e.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: branch, Message: "m"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFixturesAttach(t *testing.T) {
	for _, name := range fixtures.Names {
		t.Run(name, func(t *testing.T) {
			f := fixtures.Open(t, name)
			e, _ := openEngine(t, newDirs(t), nil)
			repo := graveler.RepositoryID(name)
			if _, err := e.AttachRepository(t.Context(), engine.AttachRepository{ID: repo, StorageNamespace: "file://" + f.Dir, Manifest: &f.Manifest}); err != nil {
				t.Fatal(err)
			}
			for b, head := range f.Truth.Branches {
				r, err := e.Resolve(t.Context(), repo, graveler.Ref(b))
				if err != nil || string(r.Commit.ID) != head {
					t.Errorf("branch %s: %v %v", b, r.Commit.ID, err)
				}
			}
			for id, want := range f.Truth.Trees {
				i := 0
				for l, err := range e.List(t.Context(), repo, graveler.Ref(id), engine.ListQuery{}) {
					if err != nil {
						t.Fatal(err)
					}
					if l.Path != want[i].Path || l.Entry.Size != want[i].Size || l.Entry.ETag != want[i].Checksum {
						t.Fatalf("%+v, want %+v", l, want[i])
					}
					i++
				}
				if i != len(want) {
					t.Errorf("%d paths of %d", i, len(want))
				}
			}
			if _, err := e.DumpRefs(t.Context(), repo); err != nil {
				t.Error(err)
			}
		})
	}
}

// Random staging, commits, branches, merges and resets agree with maps, across restarts.
func TestAgainstModel(t *testing.T) {
	d := newDirs(t)
	e, sp := openEngine(t, d, nil)
	newRepo(t, e)
	r := rand.New(rand.NewPCG(5, 6))
	type branch struct{ head, now map[string]string }
	model := map[graveler.BranchID]*branch{"main": {map[string]string{}, map[string]string{}}}
	commits := map[graveler.CommitID]map[string]string{}
	path := func() string { return fmt.Sprintf("%c/%d", 'a'+r.IntN(3), r.IntN(15)) }
	pick := func() graveler.BranchID {
		names := slices.Sorted(maps.Keys(model))
		return names[r.IntN(len(names))]
	}
	for step := range 400 {
		b := pick()
		m := model[b]
		op := r.IntN(20)
		switch {
		case op < 9:
			p, text := path(), fmt.Sprint("text ", r.IntN(4))
			write(t, e, sp, b, p, text)
			m.now[p] = text
		case op < 12:
			p := path()
			if err := e.Stage(t.Context(), "repo", b, []graveler.Change{{Path: p, Remove: true}}); err != nil {
				t.Fatal(err)
			}
			delete(m.now, p)
		case op < 14:
			from, to := fmt.Sprintf("%c/", 'a'+r.IntN(3)), fmt.Sprintf("%c/", 'a'+r.IntN(3))
			moved := map[string]string{}
			for p, text := range m.now {
				if strings.HasPrefix(p, from) {
					moved[to+p[len(from):]] = text
				}
			}
			err := e.Move(t.Context(), "repo", b, from, to)
			if from == to {
				if !errors.Is(err, graveler.Invalid) {
					t.Fatal(err)
				}
				break
			}
			if len(moved) == 0 {
				if !errors.Is(err, graveler.NotFound) {
					t.Fatal(err)
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(m.now, func(p, _ string) bool { return strings.HasPrefix(p, from) || strings.HasPrefix(p, to) })
			maps.Copy(m.now, moved)
		case op < 16:
			_, err := e.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: b, Message: fmt.Sprint("step ", step)})
			if maps.Equal(m.head, m.now) {
				if !errors.Is(err, graveler.NothingToDo) {
					t.Fatal(err)
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			m.head = maps.Clone(m.now)
			res, err := e.Resolve(t.Context(), "repo", graveler.Ref(b)+"@")
			if err != nil {
				t.Fatal(err)
			}
			commits[res.Commit.ID] = m.head
		case op == 16 && len(model) < 5:
			n := graveler.BranchID(fmt.Sprint("b", step))
			if _, err := e.CreateBranch(t.Context(), engine.CreateBranch{Repo: "repo", ID: n, Source: graveler.Ref(b)}); err != nil {
				t.Fatal(err)
			}
			model[n] = &branch{maps.Clone(m.head), maps.Clone(m.head)}
		case op == 17:
			if err := e.Reset(t.Context(), "repo", b, ""); err != nil {
				t.Fatal(err)
			}
			m.now = maps.Clone(m.head)
		case op == 18:
			src := pick()
			_, err := e.Merge(t.Context(), engine.MergeRequest{Repo: "repo", Source: graveler.Ref(src), Dest: b, Strategy: graveler.SourceWins})
			if !maps.Equal(m.head, m.now) {
				if !errors.Is(err, graveler.NotEmpty) {
					t.Fatalf("merge into a branch with staged changes: %v", err)
				}
				break
			}
			if errors.Is(err, graveler.NothingToDo) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			// The three-way content is checked in package committed; here: both sides agree where source changed it.
			m.head = files(t, e, graveler.Ref(b)+"@")
			m.now = maps.Clone(m.head)
		case op == 19:
			e.Close()
			e, sp = openEngine(t, d, nil)
		}
		if got := files(t, e, graveler.Ref(b)); !maps.Equal(got, model[b].now) {
			t.Fatalf("step %d: op %d: branch %s has %v, want %v", step, op, b, got, model[b].now)
		}
		want := map[string]string{}
		for p := range m.head {
			if _, ok := m.now[p]; !ok {
				want[p] = "D"
			} else if m.now[p] != m.head[p] {
				want[p] = "M"
			}
		}
		for p := range m.now {
			if _, ok := m.head[p]; !ok {
				want[p] = "A"
			}
		}
		got := map[string]string{}
		for df, err := range e.Status(t.Context(), "repo", b, engine.DiffQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			if df.Type == graveler.Modified && df.Right.Another(&df.Left) && m.now[df.Path] == m.head[df.Path] {
				continue // another file was moved there, and is alike
			}
			got[df.Path] = df.Type.Letter()
		}
		if !maps.Equal(got, want) {
			t.Fatalf("step %d: status %v, want %v", step, got, want)
		}
	}
	for id, want := range commits {
		if got := files(t, e, graveler.Ref(id)); !maps.Equal(got, want) {
			t.Errorf("commit %.8s has %v, want %v", id, got, want)
		}
	}
	for p, err := range e.Check(t.Context(), engine.CheckRequest{Repo: "repo", Data: true}) {
		if err != nil || p.Level == "error" {
			t.Errorf("check: %v %v", p, err)
		}
	}
	rep, err := e.CollectGarbage(t.Context(), engine.GCRequest{Repo: "repo", Grace: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("garbage: %+v", engine.GCReport{Live: rep.Live, Kept: rep.Kept, Deleted: rep.Deleted, Bytes: rep.Bytes})
	for id, want := range commits {
		if got := files(t, e, graveler.Ref(id)); !maps.Equal(got, want) {
			t.Errorf("after garbage collection commit %.8s has %v, want %v", id, got, want)
		}
	}
}

// A commit takes a file that is being written as it is; the rest of the writing is staged after it.
func TestCommitWhileWriting(t *testing.T) {
	e, sp := openEngine(t, newDirs(t), nil)
	newRepo(t, e)
	f, err := sp.Create()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: "log", Entry: graveler.Entry{Pending: f.ID()}}}); err != nil {
		t.Fatal(err)
	}
	f.WriteAt(t.Context(), []byte("one"), 0)
	c := commit(t, e, "main")
	f.WriteAt(t.Context(), []byte(" two"), 3)
	if got := read(t, e, "main", "log"); got != "one two" {
		t.Fatalf("%q", got)
	}
	f.Close()
	if got := read(t, e, graveler.Ref(c.ID), "log"); got != "one" {
		t.Fatalf("%q", got)
	}
	c2 := commit(t, e, "main")
	if got := read(t, e, graveler.Ref(c2.ID), "log"); got != "one two" {
		t.Fatalf("%q", got)
	}
}

func TestMergeConflictChangesNothing(t *testing.T) {
	e, sp := openEngine(t, newDirs(t), nil)
	newRepo(t, e)
	write(t, e, sp, "main", "f", "base")
	commit(t, e, "main")
	if _, err := e.CreateBranch(t.Context(), engine.CreateBranch{Repo: "repo", ID: "dev"}); err != nil {
		t.Fatal(err)
	}
	write(t, e, sp, "main", "f", "ours")
	head := commit(t, e, "main")
	write(t, e, sp, "dev", "f", "theirs")
	write(t, e, sp, "dev", "g", "new")
	dev := commit(t, e, "dev")
	_, err := e.Merge(t.Context(), engine.MergeRequest{Repo: "repo", Source: "dev", Dest: "main"})
	var mc *graveler.MergeConflict
	if !errors.As(err, &mc) || !slices.Equal(mc.Paths, []string{"f"}) {
		t.Fatal(err)
	}
	if r, _ := e.Resolve(t.Context(), "repo", "main"); r.Commit.ID != head.ID {
		t.Fatal("the branch moved")
	}
	m, err := e.Merge(t.Context(), engine.MergeRequest{Repo: "repo", Source: "dev", Dest: "main", Strategy: graveler.DestWins})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.Parents, []graveler.CommitID{head.ID, dev.ID}) || m.Metadata[graveler.MetaMergeKey] != "dest-wins" {
		t.Fatalf("%+v", m)
	}
	if got := files(t, e, "main"); got["f"] != "ours" || got["g"] != "new" {
		t.Fatal(got)
	}
	rv, err := e.Revert(t.Context(), engine.PickRequest{Repo: "repo", Branch: "main", Ref: "main", Parent: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, e, graveler.Ref(rv.ID)); len(got) != 1 || got["f"] != "ours" {
		t.Fatal(got)
	}
	if _, err := e.CherryPick(t.Context(), engine.PickRequest{Repo: "repo", Branch: "main", Ref: "dev"}); !errors.Is(err, graveler.Conflict) {
		t.Fatal(err)
	}
	for ref, want := range map[graveler.Ref]string{"main~1": string(m.ID), "main^": string(m.ID), "main~2^0": string(head.ID), "main~1^2": string(dev.ID), graveler.Ref(dev.ID[:9]): string(dev.ID)} {
		if r, err := e.Resolve(t.Context(), "repo", ref); err != nil || string(r.Commit.ID) != want {
			t.Errorf("%s is %v %v", ref, r.Commit.ID, err)
		}
	}
}

func TestBadInput(t *testing.T) {
	e, _ := openEngine(t, newDirs(t), nil)
	newRepo(t, e)
	ctx := t.Context()
	second := func(_ any, err error) error { return err }
	for name, c := range map[string]struct {
		err  error
		kind graveler.Kind
	}{
		"repo name":     {second(e.CreateRepository(ctx, engine.CreateRepository{ID: "X"})), graveler.Invalid},
		"repo again":    {second(e.CreateRepository(ctx, engine.CreateRepository{ID: "repo"})), graveler.Exists},
		"scheme":        {second(e.CreateRepository(ctx, engine.CreateRepository{ID: "other", StorageNamespace: "ftp://x/y"})), graveler.Invalid},
		"no repo":       {second(e.Resolve(ctx, "none", "main")), graveler.NotFound},
		"no ref":        {second(e.Resolve(ctx, "repo", "none")), graveler.NotFound},
		"bad ref":       {second(e.Resolve(ctx, "repo", "a~b")), graveler.Invalid},
		"branch taken":  {second(e.CreateBranch(ctx, engine.CreateBranch{Repo: "repo", ID: "main"})), graveler.Exists},
		"default":       {e.DeleteBranch(ctx, "repo", "main", false), graveler.Protected},
		"empty commit":  {second(e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "x"})), graveler.NothingToDo},
		"no message":    {second(e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main"})), graveler.Invalid},
		"commit to tag": {second(e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "v1", Message: "x"})), graveler.NotFound},
		"empty path":    {e.Stage(ctx, "repo", "main", []graveler.Change{{Path: ""}}), graveler.Invalid},
		"attach":        {second(e.AttachRepository(ctx, engine.AttachRepository{ID: "att", StorageNamespace: "file://" + t.TempDir()})), graveler.NotFound},
	} {
		if graveler.KindOf(c.err) != c.kind {
			t.Errorf("%s: %v, want %v", name, c.err, c.kind)
		}
	}
}
