package fs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A mount of one commit, where the kernel opens nothing: everything that can be done with a file that never changes can be done.
func TestStillMount(t *testing.T) {
	m := mount(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	write(t, m.path("big"), string(big))
	write(t, m.path("empty"), "")
	ok(t, "mkdir", os.MkdirAll(m.path("many/sub"), 0o755))
	for i := range 2500 { // more than two pages
		write(t, m.path(fmt.Sprintf("many/%05d", i)), fmt.Sprint(i))
	}
	ok(t, "symlink", os.Symlink("big", m.path("link")))
	ok(t, "link", os.Link(m.path("big"), m.path("same")))
	m.commit(t)
	head := strings.TrimSpace(read(t, m.path(".lakefs/head")))
	write(t, m.path("big"), "changed since")
	dir := m.another(t, "repo/@"+head)
	for range 2 { // asked, and known
		if got := names(t, dir); strings.Join(got, " ") != "big empty link many same" {
			t.Errorf("names %q", got)
		}
		if got := len(names(t, dir+"/many")); got != 2501 {
			t.Errorf("%d names in many", got)
		}
		if got := read(t, dir+"/link"); got != string(big) {
			t.Errorf("the link's target has %d bytes", len(got))
		}
		for i := 0; i < 2500; i += 7 {
			if got := read(t, fmt.Sprintf("%s/many/%05d", dir, i)); got != fmt.Sprint(i) {
				t.Fatalf("file %d has %q", i, got)
			}
		}
		if got := read(t, dir+"/empty"); got != "" {
			t.Errorf("the empty file has %q", got)
		}
		if got := strings.TrimSpace(read(t, dir+"/.lakefs/head")); got != head {
			t.Errorf("the head is %q, want %q", got, head)
		}
		if a, b := lstat(t, dir+"/big"), lstat(t, dir+"/same"); a.Ino != b.Ino || a.Nlink != 2 {
			t.Errorf("two names of one file: numbers %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
		}
	}
	f, err := os.Open(dir + "/big")
	ok(t, "open", err)
	if off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || off != int64(len(big)) {
		t.Errorf("hole at %d %v", off, err)
	}
	ok(t, "lock", unix.Flock(int(f.Fd()), unix.LOCK_SH))
	if got := exits(t, other(t, "trylock-read", dir+"/big", "flock", "w", "0", "0")); got != syscall.EAGAIN {
		t.Errorf("a lock beside another: %v", got)
	}
	ok(t, "unlock", unix.Flock(int(f.Fd()), unix.LOCK_UN))
	ok(t, "sync", f.Sync())
	part := make([]byte, 10)
	if _, err := f.ReadAt(part, int64(len(big))-5); err != io.EOF || string(part[:5]) != "bcdef" {
		t.Errorf("the end reads %q %v", part, err)
	}
	ok(t, "close", f.Close())
	wantErr(t, "open for writing", func() error { _, err := os.OpenFile(dir+"/big", os.O_RDWR, 0); return err }(), syscall.EROFS)
	wantErr(t, "create", os.WriteFile(filepath.Join(dir, "new"), nil, 0o644), syscall.EROFS)
	wantErr(t, "remove", os.Remove(dir+"/big"), syscall.EROFS)
	wantErr(t, "chmod", os.Chmod(dir+"/big", 0), syscall.EROFS)
	wantErr(t, "missing", func() error { _, err := os.Stat(dir + "/none"); return err }(), syscall.ENOENT)
	d, err := os.Open(dir + "/many")
	ok(t, "open", err)
	defer d.Close()
	for range 2 { // a directory is read again from its start
		got, err := d.Readdirnames(-1)
		if err != nil || len(got) != 2501 {
			t.Errorf("%d names %v", len(got), err)
		}
		_, err = d.Seek(0, io.SeekStart)
		ok(t, "rewind", err)
	}
}
