package replica

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

func statesIn(fs vfs.FS) (*states, error) {
	return openStates(fs, "/meta", func() *pebble.Options { return stateOptions(fs, quietPebble, func() {}) })
}

// put in a stream by another, s gets a state of its own.
func readInto(s *states, stream []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it stopped: %v", p) // Pebble stops the process when its list of tables can't be written
		}
	}()
	n, err := s.beside()
	if err != nil {
		return err
	}
	if err := n.fill(bytes.NewReader(stream)); err != nil {
		n.discard()
		return err
	}
	if sure, err := s.swap(n); err != nil {
		if sure {
			n.discard()
		}
		return err
	}
	return nil
}

// A power cut before each write to the disk while a state takes the place of another, or each of these writes failing, leaves the one or
// the other, whole.
func TestStateAndPowerCuts(t *testing.T) {
	from := open(t, t.TempDir())
	rnd := rand.New(rand.NewPCG(1, 1))
	scramble(t, from, rnd, 300)
	stamp(t, from, 77, 5)
	var stream bytes.Buffer
	if _, _, err := from.writeState(&stream); err != nil {
		t.Fatal(err)
	}
	after := records(t, from.state)
	from.Close()

	begin := func(fs vfs.FS) map[string]string {
		if err := fs.MkdirAll("/meta", 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := statesIn(fs)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if err := s.now.Load().Set(fmt.Appendf(nil, "s%d", i), []byte("old"), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		out := records(t, s)
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{"/", "/meta"} {
			if err := syncDir(fs, d); err != nil {
				t.Fatal(err)
			}
		}
		return out
	}
	// see tells which of the two is there.
	see := func(fs vfs.FS, before map[string]string, when string) (new bool) {
		t.Helper()
		s, err := statesIn(fs)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		got := records(t, s)
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if new = maps.Equal(got, after); !new && !maps.Equal(got, before) {
			t.Fatalf("%s: neither the state before nor the one after: %d records", when, len(got))
		}
		if left, err := fs.List("/meta"); err != nil || len(left) > 2 {
			t.Fatalf("%s: left: %q, %v", when, left, err)
		}
		return new
	}

	mem := vfs.NewCrashableMem()
	before := begin(mem)
	var mu sync.Mutex // Pebble's own goroutines write too
	var clones []*vfs.MemFS
	watch := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rnd}))
		}
		return nil
	}))
	s, err := statesIn(watch)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	clones = nil
	mu.Unlock()
	if err := readInto(s, stream.Bytes()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	done := len(clones)
	clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{}))
	mu.Unlock()
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	olds, news := 0, 0
	for i, c := range clones {
		is := see(c, before, fmt.Sprintf("power cut at write %d of %d", i, len(clones)))
		if is {
			news++
		} else {
			olds++
			if i >= done {
				t.Fatal("the new state was lost after the swap had returned")
			}
		}
	}
	if olds < 20 || news == 0 {
		t.Fatalf("%d old, %d new", olds, news)
	}

	news = 0
	for i := range int32(done) {
		mem := vfs.NewCrashableMem()
		before := begin(mem)
		on, n := false, int32(0)
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if !on || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			n++
			if n-1 == i {
				return errorfs.ErrInjected
			}
			return nil
		}))
		s, err := statesIn(fs)
		if err != nil {
			t.Fatal(err)
		}
		set := func(v bool) {
			mu.Lock()
			defer mu.Unlock()
			on = v
		}
		set(true)
		err = readInto(s, stream.Bytes())
		set(false)
		now := records(t, s)
		if err == nil && !maps.Equal(now, after) || err != nil && !maps.Equal(now, before) {
			t.Fatalf("write %d failed, the swap returned %v, and %d records are there", i, err, len(now))
		}
		if is := see(mem.CrashClone(vfs.CrashCloneCfg{}), before, fmt.Sprintf("write %d failed (%v), then a power cut", i, err)); is {
			news++
		} else if err == nil {
			t.Fatalf("write %d failed, the swap said that all was well, and the new state was lost", i)
		}
	}
	if news == done || news == 0 {
		t.Fatalf("%d of %d times the new state", news, done)
	}
}

// kills runs this test in other processes, which say a line when they begin and after each step, and are killed somewhere in the first step,
// the second or the third; and looks each time what they left.
func kills(t *testing.T, rounds int, env []string, look func(round int, said []string)) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(9, 9))
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(append(os.Environ(), "REPLICA_CHILD=1", fmt.Sprintf("REPLICA_ROUND=%d", round)), env...)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var said []string
		killed, steps := false, round%3
		for sc := bufio.NewScanner(out); sc.Scan(); {
			said = append(said, sc.Text())
			if steps--; steps < 0 && !killed {
				killed = true
				go func() {
					time.Sleep(time.Duration(rnd.IntN(150)) * time.Millisecond) // where it is then is chance
					cmd.Process.Kill()
				}()
			}
		}
		err = cmd.Wait()
		if !killed {
			t.Fatalf("round %d: the other process ended by itself: %v: %q %s", round, err, said, errs.String())
		}
		look(round, said)
	}
}

func child() bool { return os.Getenv("REPLICA_CHILD") != "" }

// Killed anywhere while states take each other's place, a node has one of them.
func TestStateAndKills(t *testing.T) {
	if child() {
		r := open(t, os.Getenv("REPLICA_DIR"))
		fmt.Println("go")
		for i := 0; ; i++ {
			b, err := os.ReadFile(os.Getenv("REPLICA_STREAM") + fmt.Sprint(i%2))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.readState(bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			fmt.Println("swapped")
		}
	}
	dir := t.TempDir()
	meta := filepath.Join(dir, "meta")
	var states [2]map[string]string
	for i := range states {
		r := open(t, filepath.Join(dir, fmt.Sprint("from", i)))
		scramble(t, r, rand.New(rand.NewPCG(uint64(i), 2)), 2000)
		stamp(t, r, 5000, 7) // the same index: the log is none of this test
		states[i] = records(t, r.state)
		var s bytes.Buffer
		if _, _, err := r.writeState(&s); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("stream", i)), s.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	r := open(t, meta)
	begun := records(t, r.state)
	r.Close()
	saw := [2]int{}
	kills(t, 9, []string{"REPLICA_DIR=" + meta, "REPLICA_STREAM=" + filepath.Join(dir, "stream")}, func(round int, _ []string) {
		r := open(t, meta)
		got := records(t, r.state)
		r.Close()
		switch {
		case maps.Equal(got, states[0]):
			saw[0]++
		case maps.Equal(got, states[1]):
			saw[1]++
		case !maps.Equal(got, begun):
			t.Fatalf("round %d: %d records, which are those of no state", round, len(got))
		}
		left, err := filepath.Glob(filepath.Join(meta, "state*"))
		if err != nil || len(left) > 2 {
			t.Fatalf("left: %q", left)
		}
	})
	if saw[0]+saw[1] == 0 {
		t.Fatal("no state was swapped")
	}
}

// Killed anywhere while it takes snapshots, a node leaves whole ones: the last that it told of, or a newer one.
func TestSnapshotsAndKills(t *testing.T) {
	if child() {
		st, err := object.Open(context.Background(), os.Getenv("REPLICA_URL"), object.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, os.Getenv("REPLICA_DIR"))
		s := r.Snapshots(st, "url", "v1")
		fmt.Println("go")
		for i := 0; ; i++ {
			stageMany(t, r, i*100, 1000)
			info := take(t, s)
			fmt.Println("took", info.Index)
		}
	}
	dir, url := t.TempDir(), "file://"+t.TempDir()
	r := open(t, dir)
	makeRepo(t, r)
	r.Close()
	st := openStore(t, url)
	known := map[string]*manifest{}
	highest := uint64(0)
	kills(t, 9, []string{"REPLICA_DIR=" + dir, "REPLICA_URL=" + url}, func(round int, said []string) {
		for _, line := range said {
			var n uint64
			if _, err := fmt.Sscanf(line, "took %d", &n); err == nil {
				highest = max(highest, n)
			}
		}
		if highest == 0 {
			return
		}
		all := allWhole(t, uint64(round), st, known)
		if last := all[len(all)-1]; last.Index < highest {
			t.Fatalf("round %d: the snapshot of %d was told of, and the last is %d", round, highest, last.Index)
		}
		if got, _ := restored(t, st, ""); got[string(stagedKey("t0", "dir-000/file-0000000"))] == "" {
			t.Fatalf("round %d: %d records", round, len(got))
		}
	})
	if highest == 0 {
		t.Fatal("no snapshot was taken")
	}
	r = open(t, dir)
	defer r.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, copyBeside+"*")); len(left) != 0 {
		t.Fatalf("left: %q", left)
	}
}

// Killed anywhere, a restore has made the whole directory or none, and can be begun again.
func TestRestoreAndKills(t *testing.T) {
	if child() {
		st, err := object.Open(context.Background(), os.Getenv("REPLICA_URL"), object.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("go")
		for i := 0; ; i++ {
			if _, err := Restore(context.Background(), st, "url", filepath.Join(os.Getenv("REPLICA_DIR"), os.Getenv("REPLICA_ROUND")+"-"+fmt.Sprint(i)), ""); err != nil {
				t.Fatal(err)
			}
			fmt.Println("restored")
		}
	}
	dir := t.TempDir()
	st, root := fileStore(t)
	r := open(t, filepath.Join(t.TempDir(), "meta"))
	makeRepo(t, r)
	stageMany(t, r, 0, 5000)
	take(t, r.Snapshots(st, "url", "v1"))
	want := but(records(t, r.state))
	r.Close()
	whole, broken := 0, 0
	kills(t, 9, []string{"REPLICA_DIR=" + dir, "REPLICA_URL=file://" + root}, func(round int, _ []string) {
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			name := filepath.Join(dir, e.Name())
			final, _, making := strings.Cut(name, ".making-")
			if making {
				broken++
				if _, err := os.Stat(final); err == nil {
					t.Fatalf("both %s and what it is made of", final)
				}
				if _, err := Restore(t.Context(), st, "url", final, ""); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(name); err == nil {
					t.Fatalf("%s is still there", name)
				}
				name = final
			}
			r := open(t, name)
			if got := but(records(t, r.state)); !maps.Equal(got, want) {
				t.Fatalf("round %d: %s has %d records of %d", round, name, len(got), len(want))
			}
			r.Close()
			os.RemoveAll(name)
			whole++
		}
	})
	if whole < 6 {
		t.Fatalf("only %d directories were made", whole)
	}
	t.Logf("%d directories, %d of them broken off", whole, broken)
}

// A state that is swapped while a stop of the disk is not certain stops the replica.
func TestSwapThatIsNotSure(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	makeRepo(t, r)
	var stream bytes.Buffer
	if _, _, err := r.writeState(&stream); err != nil {
		t.Fatal(err)
	}
	// The pointer can't be put in its place.
	if err := os.MkdirAll(filepath.Join(dir, statePointer, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.readState(&stream); !errors.Is(err, graveler.Unavailable) {
		t.Fatal(err)
	}
	if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put("a", "1")}); !errors.Is(err, graveler.Unavailable) {
		t.Fatal(err)
	}
	r.Close()
}
