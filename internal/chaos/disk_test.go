package chaos

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newTestDisk(t *testing.T) *Disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "faultfs")
	if out, err := exec.Command("go", "build", "-o", bin, "./faultfs").CombinedOutput(); err != nil {
		t.Fatalf("build faultfs: %v\n%s", err, out)
	}
	d, err := NewDisk(bin, dir, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes to a file from an offset on, and syncs it if told so.
func write(t *testing.T, path string, off int64, b []byte, sync bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(b, off)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
}

// What was synced survives every power cut; what wasn't is lost in some, whole or in part.
func TestPowerCut(t *testing.T) {
	d := newTestDisk(t)
	synced, tail := bytes.Repeat([]byte("s"), 10_000), bytes.Repeat([]byte("t"), 10_000)
	seen := map[string]int{}
	for seed := range uint64(60) {
		dir := filepath.Join(d.Dir, "d")
		must(t, os.RemoveAll(dir))
		must(t, os.Mkdir(dir, 0o700))
		syncDir(t, d.Dir)
		write(t, dir+"/log", 0, synced, true)
		write(t, dir+"/old", 0, []byte("old"), true)
		write(t, dir+"/gone", 0, []byte("gone"), true)
		syncDir(t, dir)
		// Everything from here on may be lost.
		write(t, dir+"/log", int64(len(synced)), tail, false)
		write(t, dir+"/over", 0, []byte("new"), true)
		must(t, os.Rename(dir+"/over", dir+"/old"))
		must(t, os.Remove(dir+"/gone"))
		if _, err := d.Cut(seed); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(dir + "/log")
		if err != nil || len(b) < len(synced) || !bytes.Equal(b[:len(synced)], synced) {
			t.Fatalf("seed %d: the synced part: %d bytes, %v", seed, len(b), err)
		}
		switch rest := b[len(synced):]; {
		case bytes.Equal(rest, tail):
			seen["all"]++
		case len(rest) == 0:
			seen["none"]++
		case len(rest) < len(tail) && bytes.HasPrefix(tail, rest):
			seen["torn"]++
		case strings.HasSuffix(string(rest), "\x00\x00"):
			seen["zeros"]++
		default:
			seen["junk"]++
		}
		old, err := os.ReadFile(dir + "/old")
		must(t, err)
		_, gone := os.Stat(dir + "/gone")
		_, over := os.Stat(dir + "/over")
		switch {
		case string(old) == "old" && gone == nil && over != nil:
			seen["no names"]++
		case string(old) == "old" && gone == nil && over == nil:
			seen["a file"]++
		case string(old) == "new" && gone == nil && over != nil:
			seen["a rename"]++
		case string(old) == "new" && errors.Is(gone, os.ErrNotExist) && over != nil:
			seen["all names"]++
		default:
			t.Errorf("seed %d: old is %q, gone: %v, over: %v, which never was", seed, old, gone, over)
		}
	}
	for _, want := range []string{"torn", "zeros", "junk", "no names", "a file", "a rename", "all names"} {
		if seen[want] == 0 {
			t.Errorf("no cut of 60 gave %q: %v", want, seen)
		}
	}
}

// Bytes that are written over or cut off are there again, unless that was synced.
func TestOverwrite(t *testing.T) {
	d := newTestDisk(t)
	path := d.Dir + "/f"
	seen := map[string]int{}
	for seed := range uint64(30) {
		must(t, os.RemoveAll(path))
		write(t, path, 0, []byte("aaaaaaaa"), true)
		syncDir(t, d.Dir)
		write(t, path, 2, []byte("bb"), true)
		write(t, path, 4, []byte("cc"), false)
		must(t, os.Truncate(path, 7))
		_, err := d.Cut(seed)
		must(t, err)
		b, err := os.ReadFile(path)
		must(t, err)
		seen[string(b)]++
	}
	for _, want := range []string{"aabbccaa", "aabbaaaa", "aabbcca", "aabbaaa"} {
		if seen[want] == 0 {
			t.Errorf("no cut gave %q", want)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("what never was: %v", seen)
	}
}

// After a failed fsync what wasn't durable is lost, though a later one says that all is well.
func TestFailingSync(t *testing.T) {
	d := newTestDisk(t)
	path := d.Dir + "/f"
	write(t, path, 0, []byte("safe"), true)
	syncDir(t, d.Dir)
	must(t, d.FailSync(true))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("lost"), 4)
	must(t, err)
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("fsync: %v", err)
	}
	must(t, d.FailSync(false))
	must(t, f.Sync())
	if _, err := d.tell("cut 1"); err == nil {
		t.Error("power is taken from under an open file")
	}
	must(t, f.Close())
	if syncs, _, err := d.Failed(); err != nil || syncs != 1 {
		t.Errorf("%d failed, %v", syncs, err)
	}
	l, err := d.Cut(1)
	must(t, err)
	if b, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(b, []byte("safe")) || bytes.Contains(b, []byte("lost")) {
		t.Errorf("%q, %v", b, err)
	}
	if l.Bytes != 4 || l.Files != 1 {
		t.Errorf("lost: %+v", l)
	}
	must(t, d.FailWrite(true))
	if err := os.WriteFile(path, []byte("x"), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("write: %v", err)
	}
	must(t, d.FailWrite(false))
	must(t, os.WriteFile(path, []byte("x"), 0))
}

// A disk is full to the last bytes, until room is made.
func TestFull(t *testing.T) {
	d := newTestDisk(t)
	must(t, d.Fill(8<<10))
	path := d.Dir + "/f"
	if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	must(t, d.Free())
	must(t, os.WriteFile(path, make([]byte, 64<<10), 0o600))
}
