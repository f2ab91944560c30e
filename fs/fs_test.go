package fs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// fewNodes is how much the nodes of a tree may take in bytes if a test doesn't say: some hundred nodes, so that there always are some to be
// forgotten.
const fewNodes = 128 << 10

// mounted is a real mount over a real engine.
type mounted struct {
	eng   *local.Engine
	spill *spill.Store
	locks *vfs.Locks
	opt   Options
	dir   string // of the mount
	mnt   *Mount
	fs    *vfs.FS
	extra int
	nodes int64 // vfs.Config.NodeMemory of the trees to come
}

func mount(t *testing.T) *mounted { return mountWith(t, Options{}) }

func mountWith(t *testing.T, opt Options) *mounted { return mountCached(t, opt, 64<<20) }

// mountCached is mountWith, with a memory cache of a size in bytes.
func mountCached(t *testing.T, opt Options, memory int64) *mounted {
	t.Helper()
	d := t.TempDir()
	os.Chmod(d, 0o755)
	os.Chmod(filepath.Dir(d), 0o755) // other users may go there
	c, err := cache.NewCache(cache.Options{MemoryBytes: memory})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	sp, err := spill.Open(d+"/spill", spill.Options{Ahead: 4, OpenBase: objects})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sp.Close)
	eng, err := local.Open(t.Context(), local.Config{Dir: d + "/meta", Tables: func(ns string) committed.TableCache { return c.Tables(ns) }, Spill: sp, Objects: objects, DefaultNamespace: "file://" + d + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	if _, err := eng.CreateRepository(t.Context(), engine.CreateRepository{ID: "repo"}); err != nil {
		t.Fatal(err)
	}
	m := &mounted{eng: eng, spill: sp, locks: new(vfs.Locks), opt: opt, dir: d + "/mnt"}
	m.mnt, m.fs = m.at(t, m.dir, graveler.Place{})
	t.Cleanup(func() {
		if err := m.mnt.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// at mounts a place of the engine at a directory.
func (m *mounted) at(t *testing.T, dir string, p graveler.Place) (*Mount, *vfs.FS) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tree, err := vfs.New(t.Context(), vfs.Config{Engine: m.eng, Spill: m.spill, Control: control.New(m.eng), Locks: m.locks, Place: p, NodeMemory: cmp.Or(m.nodes, fewNodes), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())})
	if err != nil {
		t.Fatal(err)
	}
	opt := m.opt
	opt.Dir = dir
	mnt, err := New(tree, opt)
	if err != nil {
		t.Fatal(err)
	}
	return mnt, tree
}

// another mounts a place a second time, beside the first.
func (m *mounted) another(t *testing.T, place string) string {
	t.Helper()
	var p graveler.Place
	if place != "" {
		var err error
		if p, err = graveler.ParsePlace(place); err != nil {
			t.Fatal(err)
		}
	}
	m.extra++
	dir := fmt.Sprintf("%s-%d", m.dir, m.extra)
	mnt, _ := m.at(t, dir, p)
	t.Cleanup(func() {
		if err := mnt.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// again unmounts and mounts: nothing is left of what the tree and the kernel knew.
func (m *mounted) again(t *testing.T) {
	t.Helper()
	if err := m.mnt.Unmount(); err != nil {
		t.Fatal(err)
	}
	m.mnt, m.fs = m.at(t, m.dir, graveler.Place{})
}

func (m *mounted) commit(t *testing.T) {
	t.Helper()
	write(t, m.path(".lakefs/commit"), "c\n")
}

// states runs a test of what was staged, then committed, then of a tree that had forgotten it.
func (m *mounted) states(t *testing.T, check func(state string)) {
	t.Helper()
	check("staged")
	m.commit(t)
	check("committed")
	m.again(t)
	check("forgotten")
}

func (m *mounted) path(p string) string { return filepath.Join(m.dir, "repo/@main", p) }

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wantErr(t *testing.T, what string, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range ents {
		out = append(out, e.Name())
	}
	return out
}

func TestErrnosAreTotal(t *testing.T) {
	for _, k := range graveler.Kinds() {
		if errnos[k] == 0 {
			t.Errorf("kind %v has no errno", k)
		}
		if got := errnoOf(fmt.Errorf("x: %w", k)); got != errnos[k] {
			t.Errorf("kind %v gives %v", k, got)
		}
	}
}

func TestTree(t *testing.T) {
	m := mount(t)
	if got := names(t, m.dir); !slices.Equal(got, []string{"repo"}) {
		t.Error(got)
	}
	if got := names(t, m.dir+"/repo"); !slices.Equal(got, []string{"@main"}) {
		t.Error(got)
	}
	if err := os.Mkdir(m.dir+"/other", 0o755); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("sh", "-c", "ls -l /proc/self/fd").CombinedOutput(); err != nil || strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("a program that the daemon starts has its connection to the kernel: %v\n%s", err, out)
	}
	write(t, m.dir+"/other/@main/f", "x")
	wantErr(t, "bad repository name", os.Mkdir(m.dir+"/X", 0o755), syscall.EINVAL)
	wantErr(t, "file among refs", os.WriteFile(m.dir+"/repo/f", nil, 0o644), syscall.EPERM)
	for dir, want := range map[string]string{m.dir + "/none": "not there", m.path("f"): "", m.dir: "mount point already"} {
		_, err := New(m.fs, Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mount at %s: %v", dir, err)
		}
	}
}

func TestVersions(t *testing.T) {
	m := mount(t)
	if err := os.MkdirAll(m.path("dir/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, m.path("dir/sub/f"), "one")
	write(t, m.path("top"), "1")
	if got := read(t, m.path(".lakefs/status")); got != "A\tdir/\nA\tdir/sub/\nA\tdir/sub/f\nA\ttop\n" {
		t.Errorf("status %q", got)
	}
	write(t, m.path(".lakefs/commit"), "first\n")
	first := strings.TrimSpace(read(t, m.path(".lakefs/head")))
	if got := strings.TrimSpace(read(t, m.path(".lakefs/commit"))); got != first || len(first) != 64 {
		t.Errorf("commit %q head %q", got, first)
	}
	if got := read(t, m.path(".lakefs/status")); got != "" {
		t.Errorf("status %q", got)
	}
	wantErr(t, "empty commit", os.WriteFile(m.path(".lakefs/commit"), []byte("again\n"), 0), syscall.ENODATA)
	if got := read(t, m.path(".lakefs/error")); !strings.Contains(got, "nothing") {
		t.Errorf("error %q", got)
	}
	if err := os.Mkdir(m.dir+"/repo/@dev", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, m.dir+"/repo/@dev/top", "2")
	if got := read(t, m.path("top")); got != "1" {
		t.Errorf("main sees %q", got)
	}
	wantErr(t, "rmdir of a branch with staged changes", syscall.Rmdir(m.dir+"/repo/@dev"), syscall.ENOTEMPTY)
	write(t, m.dir+"/repo/@dev/.lakefs/commit", "second\n")
	write(t, m.path(".lakefs/merge"), "dev\n")
	if got := read(t, m.path("top")); got != "2" {
		t.Errorf("after the merge main has %q", got)
	}
	old := m.dir + "/repo/@" + first
	if got := read(t, old+"/top"); got != "1" {
		t.Errorf("the first commit has %q", got)
	}
	if got := read(t, m.dir+"/repo/@"+first[:8]+"/dir/sub/f"); got != "one" {
		t.Errorf("by prefix %q", got)
	}
	if got := read(t, m.dir+"/repo/@main~1/top"); got != "1" {
		t.Errorf("main~1 has %q", got)
	}
	wantErr(t, "write to a commit", os.WriteFile(old+"/top", nil, 0o644), syscall.EROFS)
	wantErr(t, "mkdir in a commit", os.Mkdir(old+"/new", 0o755), syscall.EROFS)
	wantErr(t, "remove from a commit", os.Remove(old+"/top"), syscall.EROFS)
	if _, err := m.eng.CreateTag(t.Context(), "repo", "v1.0", "main"); err != nil {
		t.Fatal(err)
	}
	if got := names(t, m.dir+"/repo"); !slices.Equal(got, []string{"@dev", "@main", "@v1.0"}) {
		t.Errorf("refs %v", got)
	}
	if got := names(t, m.path("")); !slices.Equal(got, []string{"dir", "top"}) {
		t.Errorf("root %v", got)
	}
	if err := os.Rename(m.dir+"/repo/@dev", m.dir+"/repo/@dev2"); err != nil {
		t.Error(err)
	}
	if err := syscall.Rmdir(m.dir + "/repo/@dev2"); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("@main", m.dir+"/repo/@linked"); err != nil {
		t.Error(err)
	}
	if got := read(t, m.dir+"/repo/@linked/top"); got != "2" {
		t.Errorf("the linked branch has %q", got)
	}
	write(t, m.path("junk"), "x")
	write(t, m.path(".lakefs/reset"), ".\n")
	if _, err := os.Stat(m.path("junk")); !os.IsNotExist(err) {
		t.Errorf("after reset: %v", err)
	}
	write(t, m.path(".lakefs/head"), first+"\n")
	if got := read(t, m.path("top")); got != "1" {
		t.Errorf("after the reset to the first commit main has %q", got)
	}
}

func TestFiles(t *testing.T) {
	m := mount(t)
	f := m.path("f")
	write(t, f, "hello world")
	for round, name := range []string{"staged", "committed"} {
		fh, err := os.OpenFile(f, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fh.WriteAt([]byte("HELLO"), 0); err != nil {
			t.Fatal(name, err)
		}
		if got := read(t, f); got != "HELLO world" {
			t.Errorf("%s: %q", name, got)
		}
		if err := fh.Truncate(5); err != nil {
			t.Fatal(err)
		}
		if _, err := fh.WriteAt([]byte("!"), 10); err != nil {
			t.Fatal(err)
		}
		if got := read(t, f); got != "HELLO\x00\x00\x00\x00\x00!" {
			t.Errorf("%s: %q", name, got)
		}
		if err := fh.Sync(); err != nil {
			t.Fatal(err)
		}
		// Removed while open: readable and writable until it is closed.
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
		if _, err := fh.WriteAt([]byte("gone"), 0); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 11)
		if n, err := fh.ReadAt(b, 0); n != 11 || string(b[:5]) != "goneO" {
			t.Errorf("%s: removed file reads %q %v", name, b, err)
		}
		fh.Close()
		if _, err := os.Stat(f); !os.IsNotExist(err) {
			t.Error(err)
		}
		write(t, f, "hello world")
		if round == 0 {
			write(t, m.path(".lakefs/commit"), "c\n")
		}
	}
	ap, err := os.OpenFile(f, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(ap, " and")
	fmt.Fprint(ap, " more")
	ap.Close()
	if got := read(t, f); got != "hello world and more" {
		t.Errorf("append: %q", got)
	}
	if _, err := os.OpenFile(f, os.O_CREATE|os.O_EXCL, 0o644); !os.IsExist(err) {
		t.Error(err)
	}
	// Over another, open, file.
	write(t, m.path("g"), "target")
	g, err := os.Open(m.path("g"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f, m.path("g")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 6)
	if _, err := g.ReadAt(b, 0); err != nil || string(b) != "target" {
		t.Errorf("replaced file reads %q %v", b, err)
	}
	g.Close()
	if got := read(t, m.path("g")); got != "hello world and more" {
		t.Errorf("%q", got)
	}
	big := make([]byte, 3<<20+17)
	rand.Read(big)
	write(t, m.path("big"), string(big))
	if got := read(t, m.path("big")); got != string(big) {
		t.Error("a big file differs")
	}
	sum := sha256.Sum256(big)
	if err := other(t, "mapped", m.path("big"), hex.EncodeToString(sum[:])).Run(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, m.path("big")); got[1<<20:1<<20+6] != "mapped" {
		t.Error("a write through the mapping is lost")
	}
}

func TestNamesAndErrors(t *testing.T) {
	m := mount(t)
	odd := []string{"with space", "tab\tand\nnewline", "ünïcødé", "-dash", strings.Repeat("x", 255), "a\xff\xfeb", `quo"te'`, "*?[", "...", "~tilde", "@at"}
	for _, n := range odd {
		write(t, m.path(n), n)
	}
	write(t, m.path(".lakefs/commit"), "odd\n")
	got := names(t, m.path(""))
	slices.Sort(odd)
	if !slices.Equal(got, odd) {
		t.Errorf("names %q, want %q", got, odd)
	}
	for _, n := range odd {
		if s := read(t, m.path(n)); s != n {
			t.Errorf("%q has %q", n, s)
		}
	}
	wantErr(t, "long name", os.WriteFile(m.path(strings.Repeat("y", 256)), nil, 0o644), syscall.ENAMETOOLONG)
	os.Mkdir(m.path("d"), 0o755)
	write(t, m.path("d/f"), "")
	wantErr(t, "rmdir full", syscall.Rmdir(m.path("d")), syscall.ENOTEMPTY)
	wantErr(t, "rmdir file", syscall.Rmdir(m.path("d/f")), syscall.ENOTDIR)
	wantErr(t, "unlink dir", syscall.Unlink(m.path("d")), syscall.EISDIR)
	wantErr(t, "mkdir again", os.Mkdir(m.path("d"), 0o755), syscall.EEXIST)
	wantErr(t, "into itself", os.Rename(m.path("d"), m.path("d/x")), syscall.EINVAL)
	wantErr(t, "dir over file", syscall.Rename(m.path("d"), m.path("-dash")), syscall.ENOTDIR)
	wantErr(t, "file over dir", syscall.Rename(m.path("-dash"), m.path("d")), syscall.EISDIR)
	wantErr(t, "between branches", func() error {
		os.Mkdir(m.dir+"/repo/@b", 0o755)
		return syscall.Rename(m.path("-dash"), m.dir+"/repo/@b/x")
	}(), syscall.EXDEV)
	wantErr(t, "missing", os.Remove(m.path("none")), syscall.ENOENT)
	wantErr(t, "no repo", func() error { _, err := os.Stat(m.dir + "/none"); return err }(), syscall.ENOENT)
	wantErr(t, "no ref", func() error { _, err := os.Stat(m.dir + "/repo/@none"); return err }(), syscall.ENOENT)
	if err := unix.Renameat2(unix.AT_FDCWD, m.path("-dash"), unix.AT_FDCWD, m.path("@at"), unix.RENAME_NOREPLACE); err != unix.EEXIST {
		t.Error(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, m.path("-dash"), unix.AT_FDCWD, m.path("@at"), unix.RENAME_EXCHANGE); err != nil {
		t.Error(err)
	}
	if s := read(t, m.path("-dash")); s != "@at" {
		t.Errorf("after the exchange %q", s)
	}
}

func TestDirectories(t *testing.T) {
	m := mount(t)
	os.MkdirAll(m.path("a/b"), 0o755)
	for i := range 3000 {
		write(t, m.path(fmt.Sprintf("a/b/%04d", i)), "x")
	}
	if n := len(names(t, m.path("a/b"))); n != 3000 {
		t.Errorf("%d names", n)
	}
	open, err := os.Open(m.path("a/b/0007"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := os.Rename(m.path("a"), m.path("z")); err != nil {
		t.Fatal(err)
	}
	if n := len(names(t, m.path("z/b"))); n != 3000 {
		t.Errorf("%d names after the rename", n)
	}
	b := make([]byte, 1)
	if _, err := open.ReadAt(b, 0); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.path("a")); !os.IsNotExist(err) {
		t.Error(err)
	}
	write(t, m.path(".lakefs/commit"), "c\n")
	if err := os.RemoveAll(m.path("z")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, m.path("")); len(got) != 0 {
		t.Error(got)
	}
	if got := read(t, m.path(".lakefs/status")); strings.Count(got, "\n") != 3002 {
		t.Errorf("%d lines of status", strings.Count(got, "\n"))
	}
}

func TestAttributes(t *testing.T) {
	m := mount(t)
	f := m.path("f")
	write(t, f, "x")
	when := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	check := func() {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(f, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != 0o751 || st.Mtim.Nano() != when.UnixNano() || st.Uid != 12 || st.Gid != 34 {
			t.Errorf("mode %o mtime %v uid %d gid %d", st.Mode, time.Unix(st.Mtim.Unix()), st.Uid, st.Gid)
		}
		if l, err := os.Readlink(m.path("l")); err != nil || l != "some/where else" {
			t.Error(l, err)
		}
		b := make([]byte, 100)
		n, err := unix.Getxattr(f, "user.color", b)
		if err != nil || string(b[:n]) != "green" {
			t.Errorf("xattr %q %v", b[:max(n, 0)], err)
		}
		if n, err = unix.Getxattr(f, "user.bin", b); err != nil || string(b[:n]) != "\xff\x00" {
			t.Errorf("xattr %q %v", b[:max(n, 0)], err)
		}
		fi, err := os.Stat(m.path("d"))
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Error(fi, err)
		}
	}
	os.Chown(f, 12, 34)
	os.Chmod(f, 0o751)
	os.Symlink("some/where else", m.path("l"))
	os.Mkdir(m.path("d"), 0o700)
	if err := unix.Setxattr(f, "user.color", []byte("green"), 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(f, "user.bin", []byte("\xff\x00"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(f, when, when); err != nil {
		t.Fatal(err)
	}
	check()
	write(t, m.path(".lakefs/commit"), "c\n")
	check()
	if err := unix.Removexattr(f, "user.color"); err != nil {
		t.Error(err)
	}
	if _, err := unix.Getxattr(f, "user.color", nil); err != unix.ENODATA {
		t.Error(err)
	}
	b := make([]byte, 100)
	if n, err := unix.Getxattr(f, "user.lakefs.checksum", b); err != nil || n != 32 {
		t.Errorf("checksum %q %v", b[:max(n, 0)], err)
	}
}

// Changes by others, here through the engine, are seen at the next look.
func TestChangesByOthers(t *testing.T) {
	m := mount(t)
	write(t, m.path("f"), "one")
	write(t, m.path(".lakefs/commit"), "c\n")
	read(t, m.path("f"))
	if _, err := os.Stat(m.path("new")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	en, err := m.eng.Stat(t.Context(), "repo", "main", "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.eng.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: "new", Entry: en}, {Path: "f", Remove: true}}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err1 := os.Stat(m.path("new"))
		_, err2 := os.Stat(m.path("f"))
		if err1 == nil && os.IsNotExist(err2) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("new: %v, f: %v", err1, err2)
		}
	}
}

func TestExclusiveCreate(t *testing.T) {
	m := mount(t)
	var won sync.Map
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				f, err := os.OpenFile(m.path(fmt.Sprint(i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				if err == nil {
					if other, loaded := won.LoadOrStore(i, w); loaded {
						t.Errorf("%d and %v both made %d", w, other, i)
					}
					f.Close()
				}
			}
		})
	}
	wg.Wait()
}

// Random operations have the same outcome as on a plain directory.
func TestAgainstPlainDirectory(t *testing.T) {
	m := mount(t)
	plain := t.TempDir()
	r := mrand.New(mrand.NewPCG(7, 8))
	name := func() string {
		n := string(rune('a' + r.IntN(4)))
		for r.IntN(2) == 0 && len(n) < 7 {
			n += "/" + string(rune('a'+r.IntN(4)))
		}
		return n
	}
	for step := range 4000 {
		op, p, q, k := r.IntN(15), name(), name(), r.IntN(5000)
		do := func(root string) error {
			p, q := filepath.Join(root, p), filepath.Join(root, q)
			switch op {
			case 0, 1:
				return os.Mkdir(p, 0o755)
			case 2, 3:
				return os.WriteFile(p, bytes.Repeat([]byte{byte(step)}, k), 0o644)
			case 4:
				return syscall.Unlink(p)
			case 5:
				return syscall.Rmdir(p)
			case 6, 7:
				return syscall.Rename(p, q)
			case 8:
				return os.Truncate(p, int64(k))
			case 9:
				f, err := os.OpenFile(p, os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.WriteAt([]byte("patch"), int64(k))
				return err
			case 10:
				return os.Symlink(q[len(root):], p)
			case 11, 12:
				return syscall.Link(p, q)
			case 13:
				return unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, unix.RENAME_EXCHANGE)
			}
			return os.Chmod(p, os.FileMode(0o600+k%64))
		}
		got, want := do(m.path("")), do(plain)
		var ge, we syscall.Errno
		errors.As(got, &ge)
		errors.As(want, &we)
		if ge != we {
			t.Fatalf("step %d: op %d %q %q: %v, plain %v", step, op, p, q, got, want)
		}
		if step%500 == 250 {
			os.WriteFile(m.path(".lakefs/commit"), []byte("c\n"), 0)
		}
		if step%100 == 99 || step%500 == 251 {
			if out, err := exec.Command("diff", "-r", "--no-dereference", plain, m.path("")).CombinedOutput(); err != nil {
				t.Fatalf("step %d: %s", step, out)
			}
			sameTree(t, step, plain, m.path(""))
		}
		if step%1000 == 700 {
			m.again(t)
			sameTree(t, step, plain, m.path(""))
		}
	}
}

// sameTree compares what stat tells, and which names are one file.
func sameTree(t *testing.T, step int, plain, dir string) {
	t.Helper()
	ino, path := map[uint64]uint64{}, map[uint64]string{}
	err := filepath.WalkDir(plain, func(p string, _ os.DirEntry, err error) error {
		if err != nil || p == plain {
			return err
		}
		var a, b unix.Stat_t
		if err := unix.Lstat(p, &a); err != nil {
			return err
		}
		name := p[len(plain):]
		if err := unix.Lstat(filepath.Join(dir, name), &b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if a.Mode != b.Mode || a.Mode&unix.S_IFMT != unix.S_IFDIR && (a.Nlink != b.Nlink || a.Size != b.Size) {
			return fmt.Errorf("%s: mode %o links %d size %d, plain has %o %d %d", name, b.Mode, b.Nlink, b.Size, a.Mode, a.Nlink, a.Size)
		}
		if was, ok := ino[a.Ino]; ok && was != b.Ino {
			return fmt.Errorf("%s: number %d, its other name %s has %d", name, b.Ino, path[a.Ino], was)
		}
		ino[a.Ino], path[a.Ino] = b.Ino, name
		return nil
	})
	if err != nil {
		t.Fatalf("step %d: %v", step, err)
	}
	seen := map[uint64]string{}
	for a, n := range ino {
		if other, ok := seen[n]; ok {
			t.Fatalf("step %d: %q and %q have the number %d", step, path[a], other, n)
		}
		seen[n] = path[a]
	}
}
