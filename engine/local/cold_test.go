package local

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
	"github.com/lakefsfs/lakefsfs/spill"
)

// coldRepo makes a repository of n files, 1,000 a directory, and an engine that has nothing of it in any cache.
func coldRepo(t testing.TB, n int, memory int64) (*Engine, *cache.Cache, *objecttest.Counting) {
	t.Helper()
	ns := "file://" + t.TempDir()
	st, err := object.Open(t.Context(), ns, object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	tables := committed.New(st, committed.Options{Raggedness: 5000})
	changes := make([]graveler.Change, n)
	for i := range changes {
		changes[i] = graveler.Change{Path: fmt.Sprintf("dir-%04d/file-%07d", i/1000, i), Entry: graveler.Entry{
			Address: object.NewAddress(), AddressType: graveler.AddressRelative, Size: int64(i), ETag: fmt.Sprintf("%032x", i), Modified: time.Unix(int64(i), 0),
		}}
	}
	meta, _, err := tables.Apply(t.Context(), "", graveler.SliceCursor(changes))
	if err != nil {
		t.Fatal(err)
	}
	c := graveler.Commit{Committer: "t", Message: "all", Created: time.Unix(1, 0), MetaRange: meta, Version: 1, Generation: 1}
	c.ID = c.ComputeID()
	if _, err := tables.DumpRefs(t.Context(), committed.RefsDump{Commits: []graveler.Commit{c}, Branches: []graveler.Branch{{ID: "main", Commit: c.ID}}}); err != nil {
		t.Fatal(err)
	}
	counting := objecttest.NewCounting(st)
	ca, err := cache.NewCache(cache.Options{MemoryBytes: memory})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	sp, err := spill.Open(t.TempDir(), spill.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), Config{
		Dir: t.TempDir(), Spill: sp, Tables: func(ns string) committed.TableCache { return ca.Tables(ns) },
		Objects: func(context.Context, string) (object.Store, error) { return cache.New(counting, ca), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.AttachRepository(t.Context(), engine.AttachRepository{ID: "repo", StorageNamespace: ns}); err != nil {
		t.Fatal(err)
	}
	counting.Reset()
	return e, ca, counting
}

// A walk of all directories of a cold commit costs a request for the metarange and one for each range, and memory stays within
// its bound.
func TestColdWalk(t *testing.T) {
	n := 200_000
	if testing.Short() {
		n = 50_000
	}
	const memory = 2 << 20 // the ranges take more
	e, ca, counting := coldRepo(t, n, memory)
	r, err := e.Resolve(t.Context(), "repo", "main")
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.space(t.Context(), e.namespace(t, "repo"))
	if err != nil {
		t.Fatal(err)
	}
	rs, err := s.tables.Ranges(t.Context(), r.Commit.MetaRange)
	if err != nil {
		t.Fatal(err)
	}
	start, names := time.Now(), 0
	for _, err := range e.List(t.Context(), "repo", "main", engine.ListQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if names++; names%10_000 == 0 {
			if got := ca.Stats().MemoryBytes; got > memory {
				t.Fatalf("%d bytes in memory, the bound is %d", got, memory)
			}
		}
	}
	t.Logf("%d names in %d ranges, %.0f names/s", names, len(rs), float64(names)/time.Since(start).Seconds())
	if got := counting.Counts(); names != n || got.Reads > int64(len(rs)+3) || got.Stats+got.Lists > 0 {
		t.Errorf("%d names of %d, %d ranges, %+v", names, n, len(rs), got)
	}
}

func (e *Engine) namespace(t testing.TB, repo graveler.RepositoryID) string {
	t.Helper()
	r, err := e.Repository(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	return r.StorageNamespace
}

// Walking by directories, as find does, costs no more requests, if the memory holds the range that is being walked.
func TestColdWalkByDirectory(t *testing.T) {
	e, _, counting := coldRepo(t, 50_000, 64<<20)
	dirs, names := 0, 0
	for l, err := range e.List(t.Context(), "repo", "main", engine.ListQuery{Delimiter: "/"}) {
		if err != nil {
			t.Fatal(err)
		}
		dirs++
		for _, err := range e.List(t.Context(), "repo", "main", engine.ListQuery{Prefix: l.Path, Delimiter: "/"}) {
			if err != nil {
				t.Fatal(err)
			}
			names++
		}
	}
	r, err := e.Resolve(t.Context(), "repo", "main")
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.space(t.Context(), e.namespace(t, "repo"))
	if err != nil {
		t.Fatal(err)
	}
	got := counting.Counts()
	rs, err := s.tables.Ranges(t.Context(), r.Commit.MetaRange)
	if err != nil {
		t.Fatal(err)
	}
	if dirs != 50 || names != 50_000 || got.Reads > int64(len(rs)+3) {
		t.Errorf("%d directories, %d names, %d ranges, %+v", dirs, names, len(rs), got)
	}
}
