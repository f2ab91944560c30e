package nfs

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// put makes a file with a text.
func put(t testing.TB, u *nfstest.User, dir nfstest.FH, name, text string) nfstest.FH {
	t.Helper()
	m, err := u.Create(dir, name, nfstest.Guarded, nfstest.Set{Mode: nfstest.P(uint32(0o644))})
	is(t, "create "+name, err, statusOK)
	if text != "" {
		_, err = u.Write(m.FH, 0, []byte(text), nfstest.FileSync)
		is(t, "write "+name, err, statusOK)
	}
	return m.FH
}

func dir(t testing.TB, u *nfstest.User, at nfstest.FH, name string) nfstest.FH {
	t.Helper()
	m, err := u.Mkdir(at, name, 0o755)
	is(t, "mkdir "+name, err, statusOK)
	return m.FH
}

func text(t *testing.T, u *nfstest.User, fh nfstest.FH) string {
	t.Helper()
	b, _, err := u.Read(fh, 0, maxData)
	is(t, "read", err, statusOK)
	return string(b)
}

func find(t *testing.T, u *nfstest.User, at nfstest.FH, names ...string) nfstest.FH {
	t.Helper()
	for _, n := range names {
		fh, _, err := u.Lookup(at, n)
		is(t, "lookup "+n, err, statusOK)
		at = fh
	}
	return at
}

func (s *site) commit(message string) graveler.CommitID {
	s.t.Helper()
	c, err := s.eng.Commit(s.t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: message})
	if err != nil {
		s.t.Fatal(err)
	}
	return c.ID
}

// tree is that of an export.
func (s *site) tree(path string) *tree { return s.srv.byPath[path].tree }

// settled waits until nothing that was written is pending any more.
func (s *site) settled(path string) {
	s.t.Helper()
	for range 600 {
		e, err := s.eng.Stat(s.t.Context(), "repo", "main", path)
		if err != nil {
			s.t.Fatal(err)
		}
		if e.Pending == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("%s is still not an object", path)
}

// TestHandlesStay moves files and directories about, and asks by their handles after each step, also of a server that knows nothing yet.
func TestHandlesStay(t *testing.T) {
	s := newSite(t)
	s.cfg.Idle = 100 * time.Millisecond
	s.restart()
	u, root := s.root("/repo/@main")
	a := dir(t, u, root, "a")
	b := dir(t, u, root, "b")
	sub := dir(t, u, a, "sub")
	f := put(t, u, sub, "f", "of f")
	g := put(t, u, a, "g", "of g")
	one := put(t, u, root, "one", "of one")
	ctl := find(t, u, sub, ".lakefs")
	check := func(what string) {
		t.Helper()
		for i, x := range []struct {
			fh   nfstest.FH
			text string
			at   []string
		}{{f, "of f", nil}, {g, "of g", nil}, {one, "of one", nil}} {
			if got := text(t, u, x.fh); got != x.text {
				t.Fatalf("%s: handle %d reads %q", what, i, got)
			}
		}
		for i, d := range []nfstest.FH{root, a, b, sub, ctl} {
			if at, err := u.Getattr(d); err != nil || at.Type != typeDir {
				t.Fatalf("%s: directory %d: %v", what, i, err)
			}
		}
	}
	same := func(what string, want nfstest.FH, names ...string) {
		t.Helper()
		if got := find(t, u, root, names...); got != want {
			t.Fatalf("%s: %v has another handle now", what, names)
		}
	}
	step := func(what string, names map[string][]string) {
		t.Helper()
		handles := map[string]nfstest.FH{"f": f, "g": g, "one": one, "a": a, "b": b, "sub": sub}
		check(what)
		for n, p := range names {
			same(what, handles[n], p...)
		}
		s.restart()
		u = s.dial().Root()
		check(what + ", by handle first after a restart")
		s.restart()
		u = s.dial().Root()
		for n, p := range names {
			same(what+", by name first after a restart", handles[n], p...)
		}
		check(what + ", after that")
	}
	step("made", map[string][]string{"f": {"a", "sub", "f"}, "g": {"a", "g"}, "one": {"one"}, "sub": {"a", "sub"}})
	is(t, "rename", u.Rename(a, "g", a, "g2"), statusOK)
	step("renamed in its directory", map[string][]string{"g": {"a", "g2"}})
	is(t, "rename", u.Rename(a, "g2", b, "g3"), statusOK)
	is(t, "rename", u.Rename(root, "one", b, "uno"), statusOK)
	step("moved to another directory", map[string][]string{"g": {"b", "g3"}, "one": {"b", "uno"}})
	is(t, "rename", u.Rename(b, "uno", root, "one"), statusOK)
	is(t, "rename", u.Rename(a, "sub", b, "sub2"), statusOK)
	step("directory moved", map[string][]string{"f": {"b", "sub2", "f"}, "sub": {"b", "sub2"}, "one": {"one"}})
	s.commit("one")
	step("committed", map[string][]string{"f": {"b", "sub2", "f"}, "g": {"b", "g3"}})
	is(t, "rename", u.Rename(root, "b", a, "b"), statusOK)
	step("directory above moved", map[string][]string{"f": {"a", "b", "sub2", "f"}, "g": {"a", "b", "g3"}, "b": {"a", "b"}})
	_, err := u.Link(g, root, "hard")
	is(t, "link", err, statusOK)
	step("linked", map[string][]string{"g": {"hard"}})
	_, err = u.Remove(b, "g3")
	is(t, "remove", err, statusOK)
	step("the first name removed", map[string][]string{"g": {"hard"}})
	s.commit("two")
	step("committed again", map[string][]string{"g": {"hard"}})

	_, err = u.Remove(root, "hard")
	is(t, "remove", err, statusOK)
	put(t, u, root, "hard", "another one")
	_, err = u.Getattr(g)
	is(t, "handle of what was removed", err, statusStale)
	s.restart()
	u = s.dial().Root()
	_, err = u.Getattr(g)
	is(t, "handle of what was removed, after a restart", err, statusStale)
	_, err = u.Getattr(f)
	is(t, "another handle", err, statusOK)
}

// TestHandlesOthersMove moves files by another tree, as a FUSE mount has.
func TestHandlesOthersMove(t *testing.T) {
	s := newSite(t, Export{Path: "/repo/@main", Squash: SquashNone})
	u, root := s.root("/repo/@main")
	a, b := dir(t, u, root, "a"), dir(t, u, root, "b")
	f := put(t, u, a, "f", "of f")
	c := s.vfs
	c.Place = graveler.Place{Repo: "repo", Ref: "main"}
	other, err := vfs.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx := t.Context()
	oa, _, err := other.Lookup(ctx, vfs.RootID, "a")
	if err != nil {
		t.Fatal(err)
	}
	ob, _, err := other.Lookup(ctx, vfs.RootID, "b")
	if err != nil {
		t.Fatal(err)
	}
	before, err := u.Getattr(b)
	is(t, "getattr", err, statusOK)
	if err := other.Rename(ctx, oa, "f", ob, "g", 0); err != nil {
		t.Fatal(err)
	}
	if got := text(t, u, f); got != "of f" {
		t.Errorf("read %q", got)
	}
	after, err := u.Getattr(b)
	is(t, "getattr", err, statusOK)
	if !after.Ctime.After(before.Ctime) || !after.Mtime.After(before.Mtime) {
		t.Errorf("a name that another tree made doesn't change its directory: %v %v, %v %v", before.Mtime, before.Ctime, after.Mtime, after.Ctime)
	}
	if find(t, u, b, "g") != f {
		t.Error("another handle")
	}
	if err := other.Rename(ctx, vfs.RootID, "b", oa, "bb", 0); err != nil {
		t.Fatal(err)
	}
	if got := text(t, u, f); got != "of f" {
		t.Errorf("read %q", got)
	}
	if find(t, u, a, "bb") != b {
		t.Error("another handle of the directory")
	}
	if err := other.Unlink(ctx, ob, "g"); err != nil {
		t.Fatal(err)
	}
	_, err = u.Getattr(f)
	for ; errors.Is(err, nfstest.Status(statusJukebox)); _, err = u.Getattr(f) { // come again, as a client does
		time.Sleep(50 * time.Millisecond)
	}
	is(t, "getattr of what another tree removed", err, statusStale)
	_, err = u.Remove(b, "g")
	is(t, "remove of it", err, statusNoEnt)
}

// TestHandlesOfCommits asks another server for what one gave handles of: a commit's are enough to find the file.
func TestHandlesOfCommits(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	d := dir(t, u, root, "d")
	dd := dir(t, u, d, "dd")
	for i := range 50 {
		put(t, u, dd, fmt.Sprintf("f%d", i), fmt.Sprint("text ", i))
	}
	id := s.commit("one")
	if _, err := s.eng.CreateTag(t.Context(), "repo", "v1", "main"); err != nil {
		t.Fatal(err)
	}
	for name, fh := range map[string]nfstest.FH{"by tag": find(t, u, root, "..", "@v1"), "by id": find(t, u, root, "..", "@"+string(id))} {
		t.Run(name, func(t *testing.T) {
			f := find(t, u, fh, "d", "dd", "f7")
			at, err := u.Getattr(f)
			is(t, "getattr", err, statusOK)
			dirFH, ctl := find(t, u, fh, "d"), find(t, u, fh, ".lakefs", "head")
			is(t, "rename of the original", u.Rename(d, "dd", d, "dd"), statusOK)
			s.restart()
			u = s.dial().Root()
			if got := text(t, u, f); got != "text 7" {
				t.Errorf("read %q", got)
			}
			again, err := u.Getattr(f)
			is(t, "getattr", err, statusOK)
			if *again != *at {
				t.Errorf("attributes %+v, then %+v", at, again)
			}
			if l, err := u.List(find(t, u, dirFH, "dd"), true); err != nil || len(l) != 50 {
				t.Errorf("listed %d, %v", len(l), err)
			}
			if got := text(t, u, ctl); got != string(id)+"\n" {
				t.Errorf("head %q", got)
			}
			_, err = u.Write(f, 0, []byte("x"), nfstest.Unstable)
			is(t, "write to a commit", err, statusROFS)
			_, err = u.Create(dirFH, "new", nfstest.Guarded, nfstest.Set{})
			is(t, "create in a commit", err, statusROFS)
		})
	}
}

func TestForeignHandles(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	f := put(t, u, root, "f", "x")
	for i := range len(f) {
		b := []byte(f)
		b[i] ^= 1
		_, err := u.Getattr(nfstest.FH(b))
		is(t, fmt.Sprintf("handle with byte %d changed", i), err, statusStale)
	}
	for _, fh := range []nfstest.FH{"", "x", f[:len(f)-1], f + "x"} {
		_, err := u.Getattr(fh)
		is(t, fmt.Sprintf("handle %q", fh), err, statusStale)
	}
	s.cfg.Key = bytes.Repeat([]byte{8}, KeySize)
	s.restart()
	u = s.dial().Root()
	_, err := u.Getattr(f)
	is(t, "handle of another key", err, statusStale)
	// A branch's handles end with it, and don't become those of another one of its name.
	if _, err := s.eng.CreateBranch(t.Context(), engine.CreateBranch{Repo: "repo", ID: "dev"}); err != nil {
		t.Fatal(err)
	}
	u, dev := s.root("/repo/@dev")
	f = put(t, u, dev, "f", "of dev")
	if err := s.eng.DeleteBranch(t.Context(), "repo", "dev", true); err != nil {
		t.Fatal(err)
	}
	_, err = u.Getattr(f)
	is(t, "file of a deleted branch", err, statusStale)
	_, err = u.Getattr(dev)
	is(t, "deleted branch", err, statusStale)
	if _, err := s.eng.CreateBranch(t.Context(), engine.CreateBranch{Repo: "repo", ID: "dev"}); err != nil {
		t.Fatal(err)
	}
	_, err = u.Getattr(f)
	is(t, "file of a branch that was made anew", err, statusStale)
}

// TestSmallTable has a table of handles that is far too small for what is asked.
func TestSmallTable(t *testing.T) {
	s := newSite(t)
	s.cfg.Nodes = 20
	s.restart()
	u, root := s.root("/repo/@main")
	var fhs []nfstest.FH
	for i := range 20 {
		d := dir(t, u, root, fmt.Sprint("d", i))
		for j := range 10 {
			fhs = append(fhs, put(t, u, d, fmt.Sprint("f", j), fmt.Sprint(i, " ", j)))
		}
	}
	for i, fh := range fhs {
		if got, want := text(t, u, fh), fmt.Sprint(i/10, " ", i%10); got != want {
			t.Fatalf("handle %d reads %q", i, got)
		}
	}
	x := s.srv.nodes
	x.mu.Lock()
	n, ring := len(x.byFH), len(x.ring)
	x.mu.Unlock()
	if n > 21 || ring > 30 {
		t.Errorf("%d files in a table of 20, with room for %d", n, ring)
	}
	if n := s.tree("/").fs.Nodes(); n > 400 {
		t.Errorf("%d nodes are kept for 20 handles", n)
	}
}

// TestLargeDirectory finds many files of one directory by their handles alone.
func TestLargeDirectory(t *testing.T) {
	s := newSite(t)
	s.cfg.Nodes = 1000
	s.restart()
	names := s.many("big", 6000)
	u, root := s.root("/repo/@main")
	l, err := u.List(find(t, u, root, "big"), true)
	if err != nil || len(l) != len(names) {
		t.Fatalf("listed %d, %v", len(l), err)
	}
	check := func() {
		t.Helper()
		for i := 0; i < len(l); i += 7 {
			e := l[i*2477%len(l)]
			if a, err := u.Getattr(e.FH); err != nil || a.FileID != e.FileID {
				t.Fatalf("%s: %+v, %v", e.Name, a, err)
			}
		}
	}
	check()
	s.restart()
	u = s.dial().Root()
	check()
	scans := 0
	for _, f := range s.tree("/").finders {
		if !f.last.IsZero() {
			scans++
		}
	}
	if d := s.tree("/").large.dirs[0]; d == nil || len(d.files) != len(names) || scans != 1 {
		t.Errorf("the directory isn't known, or the branch was scanned %d times", scans)
	}
	_, err = u.Remove(find(t, u, root, "big"), l[5000].Name)
	is(t, "remove", err, statusOK)
	_, err = u.Getattr(l[5000].FH)
	is(t, "getattr of what was removed", err, statusStale)
}
