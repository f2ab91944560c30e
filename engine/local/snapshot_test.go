package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

func openStore(t testing.TB, url string) object.Store {
	t.Helper()
	st, err := object.Open(t.Context(), url, object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// An engine whose machine is lost is there again from its snapshots, but for what is said to be missing.
func TestSnapshotAndRestore(t *testing.T) {
	d := newDirs(t)
	url := "file://" + filepath.Join(t.TempDir(), "snaps")
	st := openStore(t, url)
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	open := func(meta, spilled string, every time.Duration) (*Engine, *spill.Store) {
		t.Helper()
		sp, err := spill.Open(spilled, spill.Options{OpenBase: objects})
		if err != nil {
			t.Fatal(err)
		}
		e, err := Open(t.Context(), Config{
			Dir: meta, Spill: sp, Objects: objects, DefaultNamespace: "file://" + d.data, Snapshots: st, SnapshotEvery: every, Version: "v7",
		})
		if err != nil {
			t.Fatal(err)
		}
		return e, sp
	}
	e, sp := open(d.meta, d.spill, -1)
	newRepo(t, e)
	write(t, e, sp, "main", "committed", "1")
	c := commit(t, e, "main")
	write(t, e, sp, "main", "staged", "2")
	if err := e.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for { // until its bytes are an object
		if en, err := e.Stat(t.Context(), "repo", "main", "staged"); err != nil {
			t.Fatal(err)
		} else if en.Pending == "" {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	f, err := sp.Create() // stays open, so its bytes stay here
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: "open", Entry: graveler.Entry{Pending: f.ID()}}}); err != nil {
		t.Fatal(err)
	}
	far := engine.HolderID("machine7").ContentOf("x")
	if err := e.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: "far", Entry: graveler.Entry{Pending: far}}}); err != nil {
		t.Fatal(err)
	}
	info, err := e.Snapshot(t.Context())
	if err != nil || !strings.HasPrefix(info.URL, url+"/") {
		t.Fatalf("%+v, %v", info, err)
	}
	write(t, e, sp, "main", "after", "3")
	f.Close()
	e.Close()

	meta := filepath.Join(t.TempDir(), "meta")
	r, err := Restore(t.Context(), st, meta, RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Snapshot.Index != info.Index || r.Version != "v7" || len(r.Pending) != 2 {
		t.Fatalf("%+v", r)
	}
	line := r.Missing()
	for _, word := range []string{info.Taken.Format("2006-01-02 15:04:05"), fmt.Sprint(info.Index), "2 staged files", "machine7 (1)", "the machine that led (1)"} {
		if !strings.Contains(line, word) || strings.Contains(line, "\n") {
			t.Errorf("%q doesn't say %q in one line", line, word)
		}
	}
	// The spill directory is lost too.
	e, sp = open(meta, filepath.Join(t.TempDir(), "spill"), 20*time.Millisecond)
	defer e.Close()
	if got := read(t, e, "main", "committed") + read(t, e, "main", "staged"); got != "12" {
		t.Fatal(got)
	}
	if _, err := e.Stat(t.Context(), "repo", "main", "after"); !errors.Is(err, graveler.NotFound) {
		t.Fatal(err)
	}
	if res, err := e.Resolve(t.Context(), "repo", "main"); err != nil || res.Commit.ID != c.ID {
		t.Fatal(res, err)
	}
	// It goes on, and takes snapshots by itself.
	write(t, e, sp, "main", "new", "4")
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all, err := ListSnapshots(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(all); n > 1 && all[n-1].Cluster != all[0].Cluster {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no snapshot is taken")
		}
	}
	none, _ := openEngine(t, newDirs(t), nil)
	if _, err := none.Snapshot(t.Context()); !errors.Is(err, graveler.Invalid) {
		t.Fatal(err)
	}
}

// A refs dump carries all refs of a repository, which branches are hidden, the rules and the default branch, and no staged change.
func TestDumpAndAttach(t *testing.T) {
	d := newDirs(t)
	e, sp := openEngine(t, d, nil)
	newRepo(t, e)
	ctx := t.Context()
	write(t, e, sp, "main", "a", "1")
	first := commit(t, e, "main")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := e.CreateBranch(ctx, engine.CreateBranch{Repo: "repo", ID: "secret", Source: "main", Hidden: true})
	must(err)
	_, err = e.CreateBranch(ctx, engine.CreateBranch{Repo: "repo", ID: "dev", Source: "main"})
	must(err)
	write(t, e, sp, "dev", "b", "2")
	second := commit(t, e, "dev")
	_, err = e.Merge(ctx, engine.MergeRequest{Repo: "repo", Source: "dev", Dest: "main"})
	must(err)
	_, err = e.CreateTag(ctx, "repo", "v1", graveler.Ref(first.ID))
	must(err)
	must(e.RenameBranch(ctx, "repo", "main", "trunk")) // the default branch has another name than the usual
	rules := []graveler.Rule{{Pattern: "trunk", Block: []graveler.Action{graveler.BlockStaging, graveler.BlockDelete}}, {Pattern: "rel-*", Block: []graveler.Action{graveler.BlockCommit}}}
	must(e.SetRules(ctx, "repo", rules))
	write(t, e, sp, "dev", "staged", "3")

	type refs struct {
		branches map[graveler.BranchID]string
		tags     map[graveler.TagID]graveler.CommitID
		rules    string
		main     graveler.BranchID
	}
	of := func(e *Engine, repo graveler.RepositoryID) refs {
		t.Helper()
		out := refs{map[graveler.BranchID]string{}, map[graveler.TagID]graveler.CommitID{}, "", ""}
		bs, err := e.ListBranches(ctx, repo, engine.RefQuery{Hidden: true})
		must(err)
		for _, b := range bs {
			out.branches[b.ID] = fmt.Sprint(b.Commit, b.Hidden)
		}
		ts, err := e.ListTags(ctx, repo, engine.RefQuery{})
		must(err)
		for _, tag := range ts {
			out.tags[tag.ID] = tag.Commit
		}
		rs, err := e.Rules(ctx, repo)
		must(err)
		out.rules = fmt.Sprint(rs)
		r, err := e.Repository(ctx, repo)
		must(err)
		out.main = r.DefaultBranch
		return out
	}
	m, err := e.DumpRefs(ctx, "repo")
	must(err)
	want := of(e, "repo")

	// On another machine, which has nothing but the storage namespace.
	attach := func(r engine.AttachRepository) (*Engine, error) {
		t.Helper()
		other, _ := openEngine(t, newDirs(t), nil)
		r.ID, r.StorageNamespace = "again", "file://"+filepath.Join(d.data, "repo")
		_, err := other.AttachRepository(ctx, r)
		return other, err
	}
	other, err := attach(engine.AttachRepository{})
	must(err)
	got := of(other, "again")
	if !maps.Equal(got.branches, want.branches) || !maps.Equal(got.tags, want.tags) || got.rules != want.rules || got.main != "trunk" {
		t.Fatalf("%+v\n%+v", got, want)
	}
	n := 0
	for c, err := range other.Log(ctx, "again", "trunk", engine.LogQuery{}) {
		must(err)
		if c.ID == first.ID || c.ID == second.ID {
			n++
		}
	}
	if n != 2 {
		t.Fatal("the history is not whole")
	}
	for _, err := range other.Check(ctx, engine.CheckRequest{Repo: "again", Data: true}) {
		must(err)
	}
	if _, err := other.Stat(ctx, "again", "dev", "staged"); !errors.Is(err, graveler.NotFound) {
		t.Fatal("what was staged came along: ", err)
	}
	if err := other.Stage(ctx, "again", "trunk", []graveler.Change{{Path: "x", Remove: true}}); !errors.Is(err, graveler.Protected) {
		t.Fatalf("the rules don't count: %v", err)
	}
	// The manifest that is given is that of the dump, and who attaches has the last word on the default branch.
	other, err = attach(engine.AttachRepository{Manifest: &m, DefaultBranch: "dev"})
	must(err)
	if got := of(other, "again"); got.rules != want.rules || got.main != "dev" {
		t.Fatalf("%+v", got)
	}
	// Garbage collection leaves the dump alone.
	_, err = e.CollectGarbage(ctx, engine.GCRequest{Repo: "repo", Grace: 1})
	must(err)
	if _, err = attach(engine.AttachRepository{}); err != nil {
		t.Fatal(err)
	}
	// A dump that lakeFS made later has no rules; that of an earlier one of ours are not its.
	_, err = e.CreateTag(ctx, "repo", "v2", graveler.Ref(first.ID))
	must(err)
	name := filepath.Join(d.data, "repo", committed.ExtrasAddress)
	b, err := os.ReadFile(name)
	must(err)
	_, err = e.DumpRefs(ctx, "repo")
	must(err)
	replace := func(b []byte) {
		t.Helper()
		must(os.Remove(name))
		must(os.WriteFile(name, b, 0o666))
	}
	replace(b)
	other, err = attach(engine.AttachRepository{})
	must(err)
	if got := of(other, "again"); got.rules != "[]" || got.main == "trunk" || len(got.tags) != 2 {
		t.Fatalf("%+v", got)
	}
	replace(b[:len(b)/2])
	if _, err := attach(engine.AttachRepository{}); !errors.Is(err, graveler.Corrupt) || !strings.Contains(err.Error(), committed.ExtrasAddress) {
		t.Fatalf("damaged: %v", err)
	}
}
