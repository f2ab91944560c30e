package e2e

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// memory is what the daemon has in memory and what it had at most, in bytes.
func (w *world) memory() (now, most int64) {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.up.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var to *int64
		switch f := strings.Fields(line); f[0] {
		case "VmRSS:":
			to = &now
			fallthrough
		case "VmHWM:":
			if to == nil {
				to = &most
			}
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			*to = kb << 10
		}
	}
	return now, most
}

// processor is what the daemon has used of processors until now, in seconds.
func (w *world) processor() float64 {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.up.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	// What follows the name in brackets begins with the third field; the 14th and 15th are ticks of 10 ms in programs and in the kernel.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	ticks := 0
	for _, s := range f[11:13] {
		n, err := strconv.Atoi(s)
		if err != nil {
			w.t.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100
}

// A directory of very many files, made through the mount by eight at once: listed, looked up, committed, read again after a restart,
// and removed, with bounded memory.
func TestHugeDirectory(t *testing.T) {
	n := 10_000
	if os.Getenv("LAKEFSFS_TEST_ALL") != "" {
		n = 1_000_000
	}
	// cache.memory, cache.nodes and the 512 MiB that docs/config.md tells, and some for what isn't counted, as the program itself.
	const bound = (256 + 128 + 512 + 150) << 20
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	dir := w.at("repo/@main/huge")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return fmt.Sprintf("file-%07d", i*7919%n) } // not in order: 7919 is a prime
	text := func(name string) string { return "this is " + name }
	begin := time.Now()
	lap := func(what string) {
		now, most := w.memory()
		t.Logf("%-22s %8.1f s, %6.0f names/s, memory %d MB, at most %d MB", what, time.Since(begin).Seconds(), float64(n)/time.Since(begin).Seconds(), now>>20, most>>20)
		if most > bound {
			t.Errorf("%s: the daemon took %d bytes", what, most)
		}
		begin = time.Now()
	}
	each := func(do func(path, name string) error) {
		t.Helper()
		var g errgroup.Group
		for k := range 8 {
			g.Go(func() error {
				for i := k; i < n; i += 8 {
					if err := do(filepath.Join(dir, name(i)), name(i)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	list := func(want int) {
		t.Helper()
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		seen := make(map[string]bool, want)
		for {
			names, err := d.Readdirnames(4096)
			for _, name := range names {
				if seen[name] {
					t.Fatalf("%s is listed twice", name)
				}
				seen[name] = true
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != want {
			t.Fatalf("%d names are listed, want %d", len(seen), want)
		}
	}
	some := func() {
		t.Helper()
		for range 1000 {
			name := name(rand.IntN(n))
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text(name) {
				t.Fatalf("%s has %q, %v", name, b, err)
			}
		}
		if _, err := os.Lstat(dir + "/no such file"); !errors.Is(err, iofs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	each(func(path, name string) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.WriteString(text(name))
			err = errors.Join(err, f.Close())
		}
		return err
	})
	lap("made")
	list(n)
	lap("listed")
	some()
	lap("looked up 1,000")
	w.ok("commit", "repo/@main", "-m", "huge")
	lap("committed")
	w.killed()
	begin = time.Now()
	list(n)
	lap("listed after a kill")
	some()
	lap("looked up 1,000")
	each(func(path, name string) error {
		fi, err := os.Lstat(path)
		if err == nil && fi.Size() != int64(len(text(name))) {
			err = fmt.Errorf("%s is said to have %d bytes", name, fi.Size())
		}
		return err
	})
	lap("looked up all")
	if err := os.Rename(dir, dir+"2"); err != nil {
		t.Fatal(err)
	}
	dir += "2"
	lap("directory renamed")
	list(n)
	some()
	lap("listed again")
	each(func(path, name string) error { return os.Remove(path) })
	lap("removed")
	list(0)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	w.ok("commit", "repo/@main", "-m", "nothing left")
	lap("committed")
}
