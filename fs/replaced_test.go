package fs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
)

// replacing are the ways in which a file gets another content without a write to it. Each begins with the branch's file as old, where
// staged tells whether that is staged on content new, or the branch's head has it, and makes it new.
var replacing = []struct {
	name   string
	staged bool
	do     func(t *testing.T, m *mounted, file string)
}{
	{"reset", true, func(t *testing.T, m *mounted, file string) {
		write(t, m.path(".lakefs/reset"), file+"\n")
	}},
	{"reset all", true, func(t *testing.T, m *mounted, file string) {
		ok(t, "reset", m.eng.Reset(t.Context(), "repo", "main", ""))
	}},
	{"merge", false, func(t *testing.T, m *mounted, file string) {
		write(t, m.path(".lakefs/merge"), "@other\n")
	}},
	{"set head", false, func(t *testing.T, m *mounted, file string) {
		write(t, m.path(".lakefs/head"), "other\n")
	}},
}

// A file gets another content while it is open, for reading or for writing: who opens it now has the new content, at once and whatever is
// still open; who had it open goes on with the old one.
func TestContentReplacedWhileOpen(t *testing.T) {
	for _, pass := range []bool{true, false} {
		for _, size := range []int{20, 1 << 20} {
			for _, mounts := range []int{1, 2} {
				t.Run(fmt.Sprintf("passthrough %v, %d bytes, %d mounts", pass, size, mounts), func(t *testing.T) {
					m := mountWith(t, Options{NoPassthrough: !pass})
					places := []string{m.path("")}
					if mounts > 1 {
						places = append(places, m.another(t, "repo/@main"))
					}
					for i, r := range replacing {
						for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
							for j, at := range places {
								file := fmt.Sprintf("f%d-%d-%d", i, flags, j)
								t.Run(fmt.Sprintf("%s, flags %d, mount %d", r.name, flags, j), func(t *testing.T) {
									replaceOpen(t, m, at, file, size, flags, r.staged, r.do)
								})
							}
						}
					}
				})
			}
		}
	}
}

func replaceOpen(t *testing.T, m *mounted, at, file string, size, flags int, staged bool, do func(*testing.T, *mounted, string)) {
	older, newer := strings.Repeat("old ", size/4), strings.Repeat("new ", size/4)+"longer"
	if staged {
		write(t, m.path(file), newer)
		m.commit(t)
		write(t, m.path(file), older)
	} else {
		write(t, m.path(file), older)
		m.commit(t)
		m.eng.DeleteBranch(t.Context(), "repo", "other", true)
		_, err := m.eng.CreateBranch(t.Context(), engine.CreateBranch{Repo: "repo", ID: "other", Source: "main"})
		ok(t, "branch", err)
		write(t, filepath.Join(m.dir, "repo/@other", file), newer)
		write(t, filepath.Join(m.dir, "repo/@other/.lakefs/commit"), "newer\n")
	}
	fd, err := os.OpenFile(filepath.Join(at, file), flags, 0)
	ok(t, "open", err)
	defer fd.Close()
	buf := make([]byte, len(older))
	if _, err := fd.ReadAt(buf, 0); err != nil || string(buf) != older {
		t.Fatalf("the file begins with %.8q %v", buf, err)
	}
	if flags == os.O_RDWR && staged {
		_, err := fd.WriteAt([]byte("OLD "), 0)
		ok(t, "write", err)
		older = "OLD " + older[4:]
	}
	do(t, m, file)
	// The kernel is told in the background.
	deadline := time.Now().Add(20 * time.Second)
	for _, p := range []string{filepath.Join(at, file), m.path(file)} {
		for read(t, p) != newer {
			if time.Now().After(deadline) {
				t.Fatalf("%s has %.8q, %d bytes, want %.8q, %d bytes", p, read(t, p), len(read(t, p)), newer, len(newer))
			}
			time.Sleep(time.Millisecond)
		}
	}
	for range 3 {
		if _, err := fd.ReadAt(buf, 0); err != nil || string(buf) != older {
			t.Fatalf("who had it open reads %.8q %v", buf, err)
		}
		var st syscall.Stat_t
		if err := syscall.Fstat(int(fd.Fd()), &st); err != nil || st.Size != int64(len(older)) {
			t.Fatalf("who had it open sees %d bytes, %v; want %d", st.Size, err, len(older))
		}
		for _, p := range []string{filepath.Join(at, file), m.path(file)} {
			if got := read(t, p); got != newer {
				t.Fatalf("%s has %.8q again", p, got)
			}
			if st := lstat(t, p); st.Size != int64(len(newer)) {
				t.Fatalf("%s is said to have %d bytes, want %d", p, st.Size, len(newer))
			}
		}
	}
	if flags == os.O_RDWR {
		// As to a file that was removed: it is this handle's alone.
		_, err := fd.WriteAt([]byte("mine"), 0)
		ok(t, "write to what was replaced", err)
		_, err = fd.ReadAt(buf[:4], 0)
		if err != nil || string(buf[:4]) != "mine" {
			t.Errorf("who wrote reads %q %v", buf[:4], err)
		}
		ok(t, "fsync", fd.Sync())
	}
	ok(t, "close", fd.Close())
	for _, p := range []string{filepath.Join(at, file), m.path(file)} {
		if got := read(t, p); got != newer {
			t.Errorf("after the close %s has %.8q", p, got)
		}
	}
	// And it can be written again.
	again, err := os.OpenFile(filepath.Join(at, file), os.O_RDWR, 0)
	ok(t, "open again", err)
	defer again.Close()
	_, err = again.WriteAt([]byte("NEW "), 0)
	ok(t, "write again", err)
	_, err = again.Seek(0, io.SeekStart)
	ok(t, "seek", err)
	if b, err := io.ReadAll(again); err != nil || string(b) != "NEW "+newer[4:] {
		t.Errorf("written again it has %.8q %v", b, err)
	}
	ok(t, "close", again.Close())
	if got := read(t, m.path(file)); got != "NEW "+newer[4:] {
		t.Errorf("at the other mount it has %.8q", got)
	}
	ok(t, "reset", m.eng.Reset(t.Context(), "repo", "main", ""))
}
