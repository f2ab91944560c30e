package local

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// large is the size of a state: in TestLargeState a fiftieth of what it is with LAKEFSFS_TEST_LARGE set.
type large struct{ entries, branches, repos int }

func openLarge(ctx context.Context, dir string, st object.Store) (*Engine, error) {
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	sp, err := spill.Open(filepath.Join(dir, "spill"), spill.Options{OpenBase: objects})
	if err != nil {
		return nil, err
	}
	return Open(ctx, Config{Dir: filepath.Join(dir, "meta"), Spill: sp, Objects: objects, DefaultNamespace: "file://" + dir + "/data", Snapshots: st, SnapshotEvery: -1})
}

// resident is a process's memory, in MiB, as /proc tells it under a name.
func resident(name string) (mib int) {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			fmt.Sscan(rest, &mib)
		}
	}
	return mib >> 10
}

// Much metadata: what it takes to keep it, to store a snapshot of it, all and what changed, to start again and to restore. It prints what it
// measures; LAKEFSFS_TEST_LARGE=1 go test -run TestLargeState -v ./engine/local has 1,000,000 staged entries, 10,000 branches, 1,000 repositories.
func TestLargeState(t *testing.T) {
	if dir := os.Getenv("LARGE_CHILD"); dir != "" {
		begin := time.Now()
		e, err := openLarge(t.Context(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("open %d\n", time.Since(begin).Milliseconds())
		begin = time.Now()
		n := 0
		for _, err := range e.List(t.Context(), "repo-000000", "main", engine.ListQuery{Limit: 1000}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		fmt.Printf("first %d %d\n", n, time.Since(begin).Milliseconds())
		fmt.Printf("memory %d\n", resident("VmRSS"))
		n = 0
		for _, err := range e.List(t.Context(), "repo-000000", "main", engine.ListQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		bs, err := e.ListBranches(t.Context(), "repo-000000", engine.RefQuery{})
		if err != nil {
			t.Fatal(err)
		}
		rs, err := e.ListRepositories(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("all %d %d %d %d\n", n, len(bs), len(rs), resident("VmRSS"))
		e.Close()
		return
	}
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	size := large{20_000, 200, 20}
	if os.Getenv("LAKEFSFS_TEST_LARGE") != "" {
		size = large{1_000_000, 10_000, 1_000}
	}
	dir := t.TempDir()
	st := openStore(t, "file://"+filepath.Join(dir, "snapshots"))
	e, err := openLarge(t.Context(), dir, st)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	took := func(what string, f func() error) time.Duration {
		t.Helper()
		begin := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		d := time.Since(begin)
		t.Logf("%-40s %8.3f s, %d MiB of memory", what, d.Seconds(), resident("VmRSS"))
		return d
	}
	took(fmt.Sprintf("%d repositories", size.repos), func() error {
		for i := range size.repos {
			if _, err := e.CreateRepository(ctx, engine.CreateRepository{ID: graveler.RepositoryID(fmt.Sprintf("repo-%06d", i))}); err != nil {
				return err
			}
		}
		return nil
	})
	took(fmt.Sprintf("%d branches", size.branches), func() error {
		for i := range size.branches - 1 {
			if _, err := e.CreateBranch(ctx, engine.CreateBranch{Repo: "repo-000000", ID: graveler.BranchID(fmt.Sprintf("branch-%06d", i))}); err != nil {
				return err
			}
		}
		return nil
	})
	took(fmt.Sprintf("%d staged entries, 1000 at a time", size.entries), func() error {
		for i := 0; i < size.entries; i += 1000 {
			var cs []graveler.Change
			for j := i; j < i+1000; j++ {
				cs = append(cs, graveler.Change{Path: fmt.Sprintf("data/part-%04d/file-%08d.parquet", j/1000, j), Entry: graveler.Entry{
					Address: fmt.Sprintf("data/gp0n1l7d77pn0cke6jjg/%020d", uint64(j)*0x9E3779B97F4A7C15), Size: int64(j), ETag: fmt.Sprintf("%016x%016x", uint64(j)*0x9E3779B97F4A7C15, uint64(j)*0xBF58476D1CE4E5B9),
					Modified: time.Unix(1.7e9+int64(j), 0), Metadata: map[string]string{graveler.MetaMtime: fmt.Sprint(1_700_000_000 + j)},
				}})
			}
			if err := e.Stage(ctx, "repo-000000", "main", cs); err != nil {
				return err
			}
		}
		return nil
	})
	var full, none, one, many engine.SnapshotInfo
	take := func(to *engine.SnapshotInfo) func() error {
		return func() (err error) { *to, err = e.Snapshot(ctx); return err }
	}
	say := func(i engine.SnapshotInfo) {
		t.Helper()
		t.Logf("  %d files of %.1f MiB, %.3f MiB stored", i.Tables, float64(i.Bytes)/(1<<20), float64(i.Uploaded)/(1<<20))
	}
	took("snapshot, the first", take(&full))
	say(full)
	took("snapshot, nothing has changed", take(&none))
	if none.Uploaded != 0 || none.URL != full.URL {
		t.Fatalf("%+v", none)
	}
	stage := func(from, n int) {
		t.Helper()
		var cs []graveler.Change
		for j := from; j < from+n; j++ {
			cs = append(cs, graveler.Change{Path: fmt.Sprintf("data/part-%04d/file-%08d.parquet", j/1000, j), Entry: graveler.Entry{Address: fmt.Sprintf("data/new/%d", j), ETag: "x", Size: 1}})
		}
		if err := e.Stage(ctx, "repo-000000", "main", cs); err != nil {
			t.Fatal(err)
		}
	}
	stage(0, 1)
	took("snapshot, one entry has changed", take(&one))
	say(one)
	stage(0, 1000)
	took("snapshot, 1000 entries have changed", take(&many))
	say(many)
	if one.Index <= full.Index || many.Index <= one.Index {
		t.Fatalf("%d, %d, %d", full.Index, one.Index, many.Index)
	}
	took("close", e.Close)

	child := func(what, dir string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestLargeState$")
		cmd.Env = append(os.Environ(), "LARGE_CHILD="+dir)
		out, err := cmd.CombinedOutput()
		var open, page, first, mem, n, bs, rs, after int
		for line := range strings.Lines(string(out)) {
			fmt.Sscanf(line, "open %d", &open)
			fmt.Sscanf(line, "first %d %d", &page, &first)
			fmt.Sscanf(line, "memory %d", &mem)
			fmt.Sscanf(line, "all %d %d %d %d", &n, &bs, &rs, &after)
		}
		if err != nil || n != size.entries || bs != size.branches || rs != size.repos {
			t.Fatalf("%s: %d entries, %d branches, %d repositories: %v: %s", what, n, bs, rs, err, out)
		}
		t.Logf("%-40s open %d ms, first %d names %d ms, %d MiB of memory; %d MiB after all was listed", what, open, page, first, mem, after)
	}
	child("started again", dir)
	again := filepath.Join(dir, "restored")
	took("restore", func() error {
		_, err := Restore(ctx, st, filepath.Join(again, "meta"), RestoreOptions{})
		return err
	})
	child("the restored one", again)
}
