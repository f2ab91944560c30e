package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func open(t testing.TB, dir string) *Replica {
	t.Helper()
	r, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var first = func() graveler.Commit {
	c := graveler.Commit{Message: "Repository created", Created: time.Unix(1000, 0), Version: 1, Generation: 1}
	c.ID = c.ComputeID()
	return c
}()

func makeRepo(t testing.TB, r *Replica) {
	t.Helper()
	repo := graveler.Repository{ID: "repo", StorageNamespace: "mem://x", DefaultBranch: "main", Created: time.Unix(1000, 0)}
	err := r.CreateRepository(t.Context(), repo, []graveler.Commit{first}, []graveler.Branch{{ID: "main", Commit: first.ID, Token: "t0"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

func put(path, etag string) graveler.Change {
	return graveler.Change{Path: path, Entry: graveler.Entry{Address: "data/" + etag, Size: 1, ETag: etag}}
}

func pending(path, content string) graveler.Change {
	return graveler.Change{Path: path, Entry: graveler.Entry{Pending: graveler.ContentID(content)}}
}

func staged(t testing.TB, r *Replica, token graveler.StagingToken) map[string]string {
	t.Helper()
	v, err := r.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	c, err := v.StagedCursor(token)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := map[string]string{}
	for c.Next() {
		ch, err := c.Change()
		if err != nil {
			t.Fatal(err)
		}
		s := ch.Entry.ETag
		if ch.Remove {
			s = "-"
		}
		if ch.Entry.Pending != "" {
			s = "pending " + string(ch.Entry.Pending)
		}
		out[ch.Path] = s
	}
	return out
}

func TestStageSettleAdvance(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	makeRepo(t, r)
	must := func(res Result, err error) Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	must(r.Stage(t.Context(), "repo", "main", []graveler.Change{put("a", "1"), pending("b", "c1"), pending("open", "c2")}))
	if err := r.Settle(t.Context(), []engine.Settled{{Content: "c1", Address: "data/z", Size: 5, ETag: "e5", Modified: time.Unix(5, 0)}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := staged(t, r, "t0"); got["b"] != "e5" || got["open"] != "pending c2" {
		t.Fatal(got)
	}
	must(r.Stage(t.Context(), "repo", "main", []graveler.Change{pending("b2", "c1")})) // a copy by one who saw it pending
	if got := staged(t, r, "t0"); got["b2"] != "e5" {
		t.Fatal(got)
	}
	if err := r.Seal(t.Context(), "repo", "main", "t1"); err != nil {
		t.Fatal(err)
	}
	must(r.Stage(t.Context(), "repo", "main", []graveler.Change{put("later", "9")}))
	c := graveler.Commit{Message: "m", Created: time.Unix(2000, 0), Version: 1, Generation: 2, Parents: []graveler.CommitID{first.ID}}
	c.ID = c.ComputeID()
	adv := Advance{Repo: "repo", Branch: "main", Expect: first.ID, Commit: c, Drop: []graveler.StagingToken{"t0"}, Keep: []Keep{{"open", "c2"}}}
	res := must(r.AdvanceBranch(t.Context(), adv))
	if len(res.Orphans) != 0 {
		t.Fatal(res.Orphans)
	}
	must(r.AdvanceBranch(t.Context(), adv)) // again
	if got := staged(t, r, "t1"); len(got) != 2 || got["open"] != "pending c2" || got["later"] != "9" {
		t.Fatal(got)
	}
	if got := staged(t, r, "t0"); len(got) != 0 {
		t.Fatal(got)
	}
	res = must(r.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: "open", Remove: true}}))
	if len(res.Orphans) != 1 || res.Orphans[0] != "c2" {
		t.Fatalf("orphans %v", res.Orphans)
	}
	adv.Commit.Message = "other"
	adv.Commit.ID = adv.Commit.ComputeID()
	if _, err := r.AdvanceBranch(t.Context(), adv); !errors.Is(err, graveler.Conflict) {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir)
	defer r.Close()
	if got := staged(t, r, "t1"); got["open"] != "-" || got["later"] != "9" {
		t.Fatal(got)
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, graveler.Unavailable) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second open: %v", err)
	}
}

// Every command that was acknowledged before kill -9 is there after it.
func TestKill(t *testing.T) {
	if dir := os.Getenv("REPLICA_KILL_DIR"); dir != "" {
		r := open(t, dir)
		if os.Getenv("REPLICA_KILL_FIRST") != "" {
			makeRepo(t, r)
		}
		for i := 0; ; i++ {
			p := fmt.Sprintf("%s-%06d", os.Getenv("REPLICA_KILL_ROUND"), i)
			if _, err := r.Stage(context.Background(), "repo", "main", []graveler.Change{put(p, "x")}); err != nil {
				t.Fatal(err)
			}
			fmt.Println("ack", p)
		}
	}
	dir := t.TempDir()
	acked := map[string]bool{}
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKill$")
		cmd.Env = append(os.Environ(), "REPLICA_KILL_DIR="+dir, fmt.Sprintf("REPLICA_KILL_ROUND=%d", round))
		if round == 0 {
			cmd.Env = append(cmd.Env, "REPLICA_KILL_FIRST=1")
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); {
			if p, ok := strings.CutPrefix(sc.Text(), "ack "); ok {
				acked[p] = true
				if n++; n == 300+round*217 {
					cmd.Process.Kill()
				}
			}
		}
		cmd.Wait()
	}
	r := open(t, dir)
	defer r.Close()
	got := staged(t, r, "t0")
	for p := range acked {
		if got[p] == "" {
			t.Errorf("%s was acknowledged and is gone", p)
		}
	}
	if len(acked) < 1000 {
		t.Fatalf("only %d commands ran", len(acked))
	}
}

func FuzzApply(f *testing.F) {
	r := open(f, f.TempDir())
	makeRepo(f, r)
	f.Cleanup(func() { r.Close() })
	f.Add([]byte{})
	f.Add([]byte{0x52, 4, 0x0a, 2, 'x', 'y'})
	f.Fuzz(func(t *testing.T, data []byte) {
		b := r.state.NewIndexedBatch()
		defer b.Close()
		_, _, _ = apply(b, entry{index: 7, term: 3, data: data}, new(openLayers), CommandVersion)
	})
}

func BenchmarkStage(b *testing.B) {
	r := open(b, b.TempDir())
	defer r.Close()
	makeRepo(b, r)
	for i := 0; b.Loop(); i++ {
		if _, err := r.Stage(context.Background(), "repo", "main", []graveler.Change{put(fmt.Sprint(i), "x")}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStageParallel(b *testing.B) {
	r := open(b, b.TempDir())
	defer r.Close()
	makeRepo(b, r)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := r.Stage(context.Background(), "repo", "main", []graveler.Change{put(fmt.Sprint(i), "x")}); err != nil {
				b.Error(err)
			}
		}
	})
}
