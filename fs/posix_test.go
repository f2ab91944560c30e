package fs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
)

func lstat(t *testing.T, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(name, err)
	}
	return st
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestHardLinks(t *testing.T) {
	m := mount(t)
	a, b, c := m.path("a"), m.path("d/b"), m.path("d/e/c")
	write(t, a, "one")
	ok(t, "mkdir", os.MkdirAll(m.path("d/e"), 0o755))
	ok(t, "link", os.Link(a, b))
	ok(t, "link", os.Link(b, c))
	names := []string{a, b, c}
	alike := func(state, text string) {
		t.Helper()
		first := lstat(t, names[0])
		for _, n := range names {
			st := lstat(t, n)
			if st.Ino != first.Ino || int(st.Nlink) != len(names) || st.Mode != first.Mode || st.Mtim != first.Mtim {
				t.Errorf("%s: %s has number %d, %d links, mode %o; the first has %d, %o", state, n, st.Ino, st.Nlink, st.Mode, first.Ino, first.Mode)
			}
			if got := read(t, n); got != text {
				t.Errorf("%s: %s has %q, want %q", state, n, got, text)
			}
		}
	}
	m.states(t, func(state string) { alike(state, "one") })
	// Changes by one name are seen by all, in each state.
	i := 0
	m.states(t, func(state string) {
		text := fmt.Sprint("text of ", state)
		write(t, names[i%3], text)
		ok(t, "chmod", os.Chmod(names[(i+1)%3], os.FileMode(0o600+i)))
		i++
		alike(state, text)
	})
	// Through a directory's rename, and an exchange.
	ok(t, "rename", os.Rename(m.path("d"), m.path("z")))
	names = []string{a, m.path("z/b"), m.path("z/e/c")}
	m.states(t, func(state string) { alike(state, read(t, a)) })
	write(t, m.path("x"), "x")
	ok(t, "exchange", unix.Renameat2(unix.AT_FDCWD, names[1], unix.AT_FDCWD, m.path("x"), unix.RENAME_EXCHANGE))
	names[1] = m.path("x")
	alike("exchanged", read(t, a))
	// A name moves, over one that is not the file's.
	write(t, m.path("over"), "gone")
	ok(t, "rename", os.Rename(names[0], m.path("over")))
	names[0] = m.path("over")
	alike("moved", read(t, names[2]))
	// One name over another of the same file: both stay.
	ok(t, "rename of a file onto itself", os.Rename(names[0], names[1]))
	alike("renamed onto itself", read(t, names[2]))
	// Removed one by one, the last reads on; and an open handle writes on to the file, not to a copy.
	fd, err := os.OpenFile(names[0], os.O_RDWR, 0)
	ok(t, "open", err)
	ok(t, "remove", os.Remove(names[0]))
	names = names[1:]
	if _, err := fd.WriteAt([]byte("TEXT"), 0); err != nil {
		t.Fatal(err)
	}
	if got := read(t, names[1]); !strings.HasPrefix(got, "TEXT") {
		t.Errorf("after a write by a handle of a removed name: %q", got)
	}
	ok(t, "close", fd.Close())
	alike("one removed", read(t, names[0]))
	ok(t, "remove", os.Remove(names[0]))
	if st := lstat(t, names[1]); st.Nlink != 1 {
		t.Errorf("the last name has %d links", st.Nlink)
	}
	m.states(t, func(state string) {
		if st := lstat(t, names[1]); st.Nlink != 1 {
			t.Errorf("%s: the last name has %d links", state, st.Nlink)
		}
	})
	wantErr(t, "link of a directory", os.Link(m.path("z"), m.path("zz")), syscall.EPERM)
	wantErr(t, "link over a file", os.Link(names[1], m.path("x")), nil)
	wantErr(t, "link over a file", os.Link(names[1], m.path("x")), syscall.EEXIST)
	ok(t, "branch", os.Mkdir(m.dir+"/repo/@other", 0o755))
	wantErr(t, "link to another branch", os.Link(names[1], m.dir+"/repo/@other/l"), syscall.EXDEV)
	var lerr error
	for i := 0; i < 5000 && lerr == nil; i++ {
		lerr = os.Link(names[1], m.path(fmt.Sprintf("%s-%d", strings.Repeat("long", 50), i)))
	}
	wantErr(t, "too many links", lerr, syscall.EMLINK)
}

// Several processes change the names of one file at the same time, on one mount and on two.
func TestNamesAtTheSameTime(t *testing.T) {
	for _, mounts := range []int{1, 2} {
		m := mount(t)
		dirs := []string{m.path(""), m.path("")}
		if mounts == 2 {
			dirs[1] = m.another(t, "repo/@main")
		}
		write(t, m.path("f"), "text")
		done := make(chan error, 8)
		for w := range 4 {
			dir := dirs[w%2]
			go func() {
				var err error
				for k := 0; k < 20 && err == nil; k++ {
					name := filepath.Join(dir, fmt.Sprintf("l%d-%d", w, k))
					if err = os.Link(filepath.Join(dir, "f"), name); err != nil {
						err = fmt.Errorf("link: %w", err)
					} else if k%2 == 0 {
						err = os.Remove(name)
					} else {
						err = os.Rename(name, name+".moved")
					}
				}
				done <- err
			}()
			go func() {
				var err error
				for k := 0; k < 40 && err == nil; k++ {
					err = os.Chmod(filepath.Join(dir, "f"), os.FileMode(0o600+k%8))
				}
				done <- err
			}()
		}
		for range 8 {
			ok(t, "names at the same time", <-done)
		}
		for _, dir := range dirs {
			f := lstat(t, filepath.Join(dir, "f"))
			if f.Nlink != 41 {
				t.Errorf("%s: %d links, want 41", dir, f.Nlink)
			}
			for w := range 4 {
				for k := 1; k < 20; k += 2 {
					st := lstat(t, filepath.Join(dir, fmt.Sprintf("l%d-%d.moved", w, k)))
					if st.Ino != f.Ino || st.Nlink != f.Nlink || st.Mode != f.Mode {
						t.Fatalf("%s: l%d-%d has number %d, %d links, mode %o; f has %d, %d, %o", dir, w, k, st.Ino, st.Nlink, st.Mode, f.Ino, f.Nlink, f.Mode)
					}
				}
			}
		}
	}
}

func TestInodeNumbers(t *testing.T) {
	m := mount(t)
	ok(t, "mkdir", os.Mkdir(m.path("d"), 0o755))
	write(t, m.path("d/f"), "x")
	ok(t, "symlink", os.Symlink("f", m.path("d/l")))
	dir, file, link := lstat(t, m.path("d")).Ino, lstat(t, m.path("d/f")).Ino, lstat(t, m.path("d/l")).Ino
	at := "d"
	m.states(t, func(state string) {
		next := at + state
		ok(t, "rename", os.Rename(m.path(at), m.path(next)))
		at = next
		ok(t, "rename", os.Rename(m.path(at+"/f"), m.path(at+"/g")))
		ok(t, "rename", os.Rename(m.path(at+"/g"), m.path(at+"/f")))
		write(t, m.path(at+"/f"), state)
		if d, f, l := lstat(t, m.path(at)).Ino, lstat(t, m.path(at+"/f")).Ino, lstat(t, m.path(at+"/l")).Ino; d != dir || f != file || l != link {
			t.Errorf("%s: numbers %d %d %d, were %d %d %d", state, d, f, l, dir, file, link)
		}
		ents, err := os.ReadDir(m.path(at))
		ok(t, "readdir", err)
		if len(ents) != 2 {
			t.Errorf("%s: %v", state, ents)
		}
	})
	// The same file of two versions isn't one file: cp and diff compare numbers.
	m.commit(t)
	head := strings.TrimSpace(read(t, m.path(".lakefs/head")))
	if lstat(t, m.dir+"/repo/@"+head+"/"+at+"/f").Ino == file {
		t.Error("a file has the same number in two versions")
	}
	// A new file in the place of one alike, within a second, is another file.
	for range 3 {
		ok(t, "mkdir", os.Mkdir(m.path("same"), 0o755))
		was := lstat(t, m.path("same")).Ino
		m.commit(t)
		ok(t, "rmdir", os.Remove(m.path("same")))
		ok(t, "mkdir", os.Mkdir(m.path("same"), 0o755))
		now := lstat(t, m.path("same")).Ino
		m.commit(t)
		m.again(t)
		if got := lstat(t, m.path("same")).Ino; got != now || got == was {
			t.Errorf("number %d after the commit, was %d, before that another's %d", got, now, was)
		}
		ok(t, "rmdir", os.Remove(m.path("same")))
	}
}

func TestSpecialFiles(t *testing.T) {
	m := mount(t)
	kinds := map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "plain": unix.S_IFREG}
	if os.Getuid() == 0 {
		kinds["char"], kinds["block"] = unix.S_IFCHR, unix.S_IFBLK
	}
	for name, kind := range kinds {
		ok(t, name, unix.Mknod(m.path(name), kind|0o640, int(unix.Mkdev(12, 345))))
	}
	m.states(t, func(state string) {
		for name, kind := range kinds {
			st := lstat(t, m.path(name))
			if st.Mode != kind|0o640 {
				t.Errorf("%s: %s has mode %o", state, name, st.Mode)
			}
			if (kind == unix.S_IFCHR || kind == unix.S_IFBLK) && st.Rdev != unix.Mkdev(12, 345) {
				t.Errorf("%s: %s has device %x", state, name, st.Rdev)
			}
		}
	})
}

func TestExchange(t *testing.T) {
	m := mount(t)
	ok(t, "mkdir", os.MkdirAll(m.path("a/sub"), 0o755))
	ok(t, "mkdir", os.Mkdir(m.path("b"), 0o755))
	write(t, m.path("a/sub/f"), "in a")
	write(t, m.path("b/g"), "in b")
	write(t, m.path("file"), "plain")
	swap := func(x, y string) error {
		return unix.Renameat2(unix.AT_FDCWD, m.path(x), unix.AT_FDCWD, m.path(y), unix.RENAME_EXCHANGE)
	}
	numbers := [2]uint64{lstat(t, m.path("a")).Ino, lstat(t, m.path("b")).Ino}
	m.states(t, func(state string) {
		ok(t, "exchange of directories", swap("a", "b"))
		if read(t, m.path("b/sub/f")) != "in a" || read(t, m.path("a/g")) != "in b" {
			t.Errorf("%s: not exchanged", state)
		}
		if lstat(t, m.path("b")).Ino != numbers[0] || lstat(t, m.path("a")).Ino != numbers[1] {
			t.Errorf("%s: numbers did not move with their directories", state)
		}
		ok(t, "exchange of a directory and a file", swap("b", "file"))
		if read(t, m.path("file/sub/f")) != "in a" || read(t, m.path("b")) != "plain" {
			t.Errorf("%s: not exchanged", state)
		}
		ok(t, "exchange back", swap("b", "file"))
		ok(t, "exchange back", swap("b", "a"))
	})
	wantErr(t, "exchange with nothing", swap("a", "none"), syscall.ENOENT)
	wantErr(t, "exchange with a parent", swap("a", "a/sub"), syscall.EINVAL)
	wantErr(t, "exchange with a child", swap("a/sub", "a"), syscall.EINVAL)
}

func TestTmpfile(t *testing.T) {
	m := mount(t)
	fd, err := unix.Open(m.path(""), unix.O_TMPFILE|unix.O_RDWR, 0o640)
	ok(t, "open", err)
	f := os.NewFile(uintptr(fd), "tmp")
	_, err = f.WriteString("from nowhere")
	ok(t, "write", err)
	if got := names(t, m.path("")); len(got) != 0 {
		t.Errorf("an unnamed file shows: %q", got)
	}
	ok(t, "link", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, m.path("named"), unix.AT_SYMLINK_FOLLOW))
	_, err = f.WriteString(", named")
	ok(t, "write", err)
	ok(t, "close", f.Close())
	m.states(t, func(state string) {
		if got := read(t, m.path("named")); got != "from nowhere, named" {
			t.Errorf("%s: %q", state, got)
		}
		if st := lstat(t, m.path("named")); st.Nlink != 1 || st.Mode&0o777 != 0o640 {
			t.Errorf("%s: %d links, mode %o", state, st.Nlink, st.Mode)
		}
	})
	fd, err = unix.Open(m.path(""), unix.O_TMPFILE|unix.O_RDWR, 0o600)
	ok(t, "open", err)
	unix.Close(fd)
	// Nothing of it is left on disk.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ids, err := m.spill.IDs()
		ok(t, "list spill files", err)
		if len(ids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("spill files %v are left", ids)
		}
	}
}

// A committed file that is copied with copy_file_range shares its object: no byte moves.
func TestCopyFileRange(t *testing.T) {
	for _, opt := range []Options{{}, {NoPassthrough: true}} {
		m := mountWith(t, opt)
		data := bytes.Repeat([]byte("0123456789abcde\n"), 300<<10) // 4.7 MiB
		write(t, m.path("src"), string(data))
		m.commit(t)
		head := strings.TrimSpace(read(t, m.path(".lakefs/head")))
		write(t, m.path("src"), "changed since")
		copyOf := func(to, from string) {
			t.Helper()
			src, err := os.Open(from)
			ok(t, "open", err)
			defer src.Close()
			dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
			ok(t, "create", err)
			defer dst.Close()
			fi, err := src.Stat()
			ok(t, "stat", err)
			// In three parts, as for files of more than 4 GiB.
			size := int(fi.Size())
			for _, part := range []int{size / 3 &^ 4095, size / 3 &^ 4095, size} {
				for part > 0 {
					n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, part, 0)
					ok(t, "copy_file_range", err)
					if n == 0 {
						break
					}
					part -= n
				}
			}
			got, err := io.ReadAll(io.NewSectionReader(dst, 0, 1<<40))
			ok(t, "read", err)
			want, err := os.ReadFile(from)
			ok(t, "read", err)
			if !bytes.Equal(got, want) {
				t.Errorf("%s has %d bytes, not those of %s", to, len(got), from)
			}
		}
		old := m.dir + "/repo/@" + head + "/src"
		copyOf(m.path("copy"), old)
		m.states(t, func(state string) {
			if got := read(t, m.path("copy")); got != string(data) {
				t.Errorf("%s: the copy differs", state)
			}
		})
		a, err := m.eng.Stat(t.Context(), "repo", graveler.Ref(head), "src")
		ok(t, "stat", err)
		b, err := m.eng.Stat(t.Context(), "repo", "main", "copy")
		ok(t, "stat", err)
		if a.Address != b.Address || a.ETag != b.ETag {
			t.Errorf("the copy has object %s, the original %s", b.Address, a.Address)
		}
		// What is written into a copy is not in the original.
		f, err := os.OpenFile(m.path("copy"), os.O_RDWR, 0)
		ok(t, "open", err)
		_, err = f.WriteAt([]byte("NEW"), 2<<20)
		ok(t, "write", err)
		ok(t, "close", f.Close())
		want := slices.Clone(data)
		copy(want[2<<20:], "NEW")
		m.states(t, func(state string) {
			if got := read(t, m.path("copy")); got != string(want) {
				t.Errorf("%s: a copy that was written to differs", state)
			}
			if got := read(t, old); got != string(data) {
				t.Errorf("%s: the original changed with its copy", state)
			}
		})
		copyOf(m.path("again"), m.path("src")) // a staged one
		copyOf(m.path("src"), m.path("copy"))  // over another
	}
}

func TestTimes(t *testing.T) {
	m := mount(t)
	f := m.path("f")
	write(t, f, "x")
	atime, mtime := time.Unix(1_000_000_000, 123_456_789), time.Unix(900_000_000, 987_654_321)
	before := time.Now().Add(-time.Second)
	ok(t, "chtimes", os.Chtimes(f, atime, mtime))
	m.states(t, func(state string) {
		st := lstat(t, f)
		if st.Atim.Nano() != atime.UnixNano() || st.Mtim.Nano() != mtime.UnixNano() || st.Ctim.Nano() < before.UnixNano() {
			t.Errorf("%s: atime %v mtime %v ctime %v", state, st.Atim, st.Mtim, st.Ctim)
		}
	})
	moves := func(what string, do func() error) {
		t.Helper()
		was := lstat(t, f)
		for time.Now().UnixNano()-was.Ctim.Nano() < 20e6 {
			time.Sleep(time.Millisecond) // the clock of local file systems ticks every few milliseconds
		}
		ok(t, what, do())
		if now := lstat(t, f); now.Ctim.Nano() <= was.Ctim.Nano() {
			t.Errorf("%s: ctime stays %v", what, now.Ctim)
		}
	}
	moves("chmod", func() error { return os.Chmod(f, 0o600) })
	moves("write", func() error { return os.WriteFile(f, []byte("new"), 0o600) })
	moves("truncate", func() error { return os.Truncate(f, 1) })
	moves("link", func() error { return os.Link(f, m.path("g")) })
	moves("unlink", func() error { return os.Remove(m.path("g")) })
	moves("rename", func() error {
		if err := os.Rename(f, m.path("h")); err != nil {
			return err
		}
		return os.Rename(m.path("h"), f)
	})
	moves("setxattr", func() error { return unix.Setxattr(f, "user.k", []byte("v"), 0) })
}

func TestLinkCountsOfDirectories(t *testing.T) {
	m := mount(t)
	d := m.path("d")
	count := func(what, dir string, want uint64) {
		t.Helper()
		if got := lstat(t, dir).Nlink; got != want {
			t.Errorf("%s: %d links, want %d", what, got, want)
		}
	}
	ok(t, "mkdir", os.Mkdir(d, 0o755))
	count("empty", d, 2)
	ok(t, "mkdir", os.Mkdir(d+"/a", 0o755))
	ok(t, "mkdir", os.Mkdir(m.path("e"), 0o755))
	count("with one", d, 3)
	ok(t, "rename", os.Rename(d+"/a", m.path("e/a")))
	count("moved out", d, 2)
	count("moved in", m.path("e"), 3)
	ok(t, "rmdir", os.Remove(m.path("e/a")))
	count("removed", m.path("e"), 2)
}

// Holes stay holes, and are found.
func TestHoles(t *testing.T) {
	m := mount(t)
	f, err := os.OpenFile(m.path("sparse"), os.O_RDWR|os.O_CREATE, 0o644)
	ok(t, "create", err)
	defer f.Close()
	const tera = 1 << 40
	ok(t, "truncate", f.Truncate(tera))
	_, err = f.WriteAt([]byte("end"), tera-3)
	ok(t, "write", err)
	_, err = f.WriteAt([]byte("middle"), 1<<30)
	ok(t, "write", err)
	if st := lstat(t, m.path("sparse")); st.Size != tera || st.Blocks > 1<<10 {
		t.Errorf("size %d in %d blocks", st.Size, st.Blocks)
	}
	off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	if err != nil || off > 1<<30 || off < 1<<30-1<<20 {
		t.Errorf("data at %d %v", off, err)
	}
	if off, err = unix.Seek(int(f.Fd()), 1<<30, unix.SEEK_HOLE); err != nil || off > 1<<30+1<<20 || off <= 1<<30 {
		t.Errorf("hole at %d %v", off, err)
	}
	b := make([]byte, 3)
	if _, err := f.ReadAt(b, tera-3); err != nil || string(b) != "end" {
		t.Errorf("%q %v", b, err)
	}
	wantErr(t, "beyond", func() error { _, err := unix.Seek(int(f.Fd()), tera+1, unix.SEEK_DATA); return err }(), unix.ENXIO)
	wantErr(t, "too large", f.Truncate(1<<62), syscall.EFBIG)
	ok(t, "remove", os.Remove(m.path("sparse")))
}

// inotify tells of what is done through the mount.
func TestInotify(t *testing.T) {
	m := mount(t)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	ok(t, "inotify", err)
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, m.path(""), unix.IN_CREATE|unix.IN_MODIFY|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE)
	ok(t, "watch", err)
	write(t, m.path("f"), "x")
	ok(t, "rename", os.Rename(m.path("f"), m.path("g")))
	ok(t, "remove", os.Remove(m.path("g")))
	want := []uint32{unix.IN_CREATE, unix.IN_MODIFY, unix.IN_CLOSE_WRITE, unix.IN_MOVED_FROM, unix.IN_MOVED_TO, unix.IN_DELETE}
	var got []uint32
	buf := make([]byte, 64<<10)
	for deadline := time.Now().Add(20 * time.Second); len(got) < len(want) && time.Now().Before(deadline); {
		n, err := unix.Read(fd, buf)
		if err == unix.EAGAIN {
			time.Sleep(time.Millisecond)
			continue
		}
		ok(t, "read", err)
		for p := 0; p < n; {
			mask := uint32(buf[p+4]) | uint32(buf[p+5])<<8
			size := int(buf[p+12]) | int(buf[p+13])<<8
			got = append(got, mask&unix.IN_ALL_EVENTS)
			p += unix.SizeofInotifyEvent + size
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("events %x, want %x", got, want)
	}
}
