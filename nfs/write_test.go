package nfs

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

func TestExclusiveCreate(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	m, err := u.CreateExclusive(root, "x", 0xfedcba9876543210)
	is(t, "create", err, statusOK)
	again, err := u.CreateExclusive(root, "x", 0xfedcba9876543210)
	is(t, "the same again", err, statusOK)
	if again.FH != m.FH {
		t.Error("it gives another file")
	}
	_, err = u.CreateExclusive(root, "x", 1)
	is(t, "another one's", err, statusExist)
	s.restart()
	u = s.dial().Root()
	again, err = u.CreateExclusive(root, "x", 0xfedcba9876543210)
	is(t, "the same after a restart", err, statusOK)
	if again.FH != m.FH {
		t.Error("it gives another file after a restart")
	}
	_, err = u.Setattr(m.FH, nfstest.Set{Mode: nfstest.P(uint32(0o644)), Now: true}, nil)
	is(t, "setattr", err, statusOK)
	if a, err := u.Getattr(m.FH); err != nil || time.Since(a.Atime) > time.Minute || a.Mode != 0o644 {
		t.Errorf("then it is %+v, %v", a, err)
	}
	dir(t, u, root, "d")
	_, err = u.CreateExclusive(root, "d", 5)
	is(t, "over a directory", err, statusExist)
	_, err = u.Create(root, "d", nfstest.Unchecked, nfstest.Set{})
	is(t, "unchecked over a directory", err, statusExist)
	put(t, u, root, "full", "text")
	_, err = u.Create(root, "full", nfstest.Guarded, nfstest.Set{})
	is(t, "guarded over a file", err, statusExist)
	f, err := u.Create(root, "full", nfstest.Unchecked, nfstest.Set{Mode: nfstest.P(uint32(0o600))})
	is(t, "unchecked over a file", err, statusOK)
	if f.Attr.Size != 4 || f.Attr.Mode != 0o644 {
		t.Errorf("it became %+v", f.Attr)
	}
	f, err = u.Create(root, "full", nfstest.Unchecked, nfstest.Set{Size: nfstest.P(uint64(0))})
	is(t, "unchecked over a file, truncating", err, statusOK)
	if f.Attr.Size != 0 {
		t.Errorf("it has %d bytes", f.Attr.Size)
	}
}

func TestReplay(t *testing.T) {
	s := newSite(t)
	c := s.dial()
	u := c.Root()
	root, err := u.Mount("/repo/@main")
	is(t, "mount", err, statusOK)
	put(t, u, root, "f", "x")
	var w xdr.Writer
	w.String(string(root))
	w.String("f")
	send := func(c *nfstest.Client, xid uint32, args []byte) []byte {
		t.Helper()
		b, err := c.Raw(xid, nfstest.NFS, 3, 12, u.Sys, args)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	status := func(b []byte) status {
		t.Helper()
		r, err := nfstest.Accepted(b)
		if err != nil {
			t.Fatal(err)
		}
		return statusOf2(&r)
	}
	first := send(c, 77, w)
	if st := status(first); st != statusOK {
		t.Fatalf("remove: %v", st)
	}
	if again := send(c, 77, w); !bytes.Equal(again, first) {
		t.Errorf("sent again: %x, at first %x", again, first)
	}
	other := s.dial() // a client that connects anew
	if again := send(other, 77, w); !bytes.Equal(again, first) {
		t.Errorf("sent again over another connection: %x, at first %x", again, first)
	}
	if st := status(send(c, 78, w)); st != statusNoEnt {
		t.Errorf("another call: %v", st)
	}
	var w2 xdr.Writer
	w2.String(string(root))
	w2.String("g")
	if st := status(send(c, 77, w2)); st != statusNoEnt {
		t.Errorf("another call of that number: %v", st)
	}
}

func statusOf2(r *xdr.Reader) status { return status(r.Uint32()) }

func TestReplaysAreBounded(t *testing.T) {
	r := newReplays()
	now := time.Now()
	for i := range 3 * replaysKept {
		if _, first := r.begin(replayKey{xid: uint32(i)}, now); !first {
			t.Fatal("not the first")
		}
	}
	if len(r.m) != replaysKept {
		t.Errorf("%d are kept", len(r.m))
	}
	if _, first := r.begin(replayKey{xid: 3*replaysKept - 1}, now); first {
		t.Error("the last is forgotten")
	}
	if _, first := r.begin(replayKey{xid: 3*replaysKept - 1}, now.Add(replayFor)); !first {
		t.Error("it is kept for ever")
	}
}

func TestWriteVerifier(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	f := put(t, u, root, "f", "")
	w, err := u.Write(f, 0, []byte("abc"), nfstest.Unstable)
	is(t, "write", err, statusOK)
	v, err := u.Commit(f)
	is(t, "commit", err, statusOK)
	if v != w.Verf {
		t.Error("a commit has another verifier than a write")
	}
	if w, err = u.Write(f, 3, []byte("d"), nfstest.DataSync); err != nil || w.Stable != nfstest.FileSync {
		t.Errorf("%+v, %v", w, err)
	}
	s.restart()
	u = s.dial().Root()
	// Nothing was lost, so there is nothing to be sent again.
	if after, err := u.Commit(f); err != nil || after != v && verifiersStay(t) {
		t.Errorf("verifier after a restart %x, before %x, %v", after, v, err)
	}
	if got := text(t, u, f); got != "abcd" {
		t.Errorf("reads %q", got)
	}
}

func TestGuardAndSizes(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	f := put(t, u, root, "f", "0123456789")
	a, err := u.Getattr(f)
	is(t, "getattr", err, statusOK)
	wcc, err := u.Setattr(f, nfstest.Set{Size: nfstest.P(uint64(4))}, &a.Ctime)
	is(t, "guarded truncate", err, statusOK)
	if !wcc.Before || wcc.Size != 10 || wcc.After.Size != 4 {
		t.Errorf("wcc %+v", wcc)
	}
	_, err = u.Setattr(f, nfstest.Set{Size: nfstest.P(uint64(0))}, &a.Ctime)
	is(t, "truncate guarded by an old time", err, statusNotSync)
	_, err = u.Setattr(f, nfstest.Set{Size: nfstest.P(uint64(1 << 40))}, nil)
	is(t, "truncate to a terabyte", err, statusOK)
	b, eof, err := u.Read(f, 1<<40-2, 10)
	if err != nil || !eof || !bytes.Equal(b, []byte{0, 0}) {
		t.Errorf("its end reads %q %v, %v", b, eof, err)
	}
	b, eof, err = u.Read(f, 0, 6)
	if err != nil || eof || string(b) != "0123\x00\x00" {
		t.Errorf("its start reads %q %v, %v", b, eof, err)
	}
	b, eof, err = u.Read(f, 1<<62, 6)
	if err != nil || !eof || len(b) != 0 {
		t.Errorf("beyond it %q %v, %v", b, eof, err)
	}
	_, err = u.Setattr(f, nfstest.Set{Size: nfstest.P(uint64(1))}, nil) // what it has is made an object at the end
	is(t, "truncate", err, statusOK)
	_, err = u.Write(f, 1<<63-1, []byte("xy"), nfstest.Unstable)
	is(t, "write beyond the largest offset", err, statusFBig)
	_, err = u.Setattr(f, nfstest.Set{Size: nfstest.P(uint64(1 << 63))}, nil)
	is(t, "truncate to what no file can have", err, statusInval)
	_, err = u.Setattr(root, nfstest.Set{Size: nfstest.P(uint64(0))}, nil)
	is(t, "truncate of a directory", err, statusIsDir)
}

func TestNames(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	all := make([]byte, 0, 255)
	for b := 1; b < 256; b++ {
		if b != '/' {
			all = append(all, byte(b))
		}
	}
	for _, name := range []string{string(all), strings.Repeat("x", 255), " ", "...", "-", "a\nb"} {
		f := put(t, u, root, name, "x")
		if find(t, u, root, name) != f {
			t.Errorf("%q has two handles", name)
		}
	}
	l, err := u.List(root, true)
	if err != nil || len(l) != 6 || !slices.ContainsFunc(l, func(e nfstest.Entry) bool { return e.Name == string(all) }) {
		t.Errorf("listed %d, %v", len(l), err)
	}
	for name, want := range map[string]status{"": statusInval, ".": statusInval, "..": statusInval, "a/b": statusInval, "a\x00": statusInval, strings.Repeat("x", 256): statusNameTooLong, ".lakefs": statusPerm} {
		_, err := u.Create(root, name, nfstest.Guarded, nfstest.Set{})
		is(t, "create "+name, err, want)
	}
	_, _, err = u.Lookup(root, strings.Repeat("x", 300))
	is(t, "lookup of a long name", err, statusNameTooLong)
	f := find(t, u, root, "-")
	_, _, err = u.Lookup(f, "x")
	is(t, "lookup in a file", err, statusNotDir)
	_, err = u.Readdir(f, 0, 0, 4096)
	is(t, "readdir of a file", err, statusNotDir)
	_, _, err = u.Read(root, 0, 10)
	is(t, "read of a directory", err, statusIsDir)
	_, err = u.Rmdir(root, "-")
	is(t, "rmdir of a file", err, statusNotDir)
	_, err = u.Rmdir(root, ".")
	is(t, "rmdir of .", err, statusInval)
	d := dir(t, u, root, "d")
	is(t, "rename of a directory into itself", u.Rename(root, "d", d, "d"), statusInval)
	is(t, "rename of a file over a directory", u.Rename(root, "-", root, "d"), statusIsDir)
	is(t, "rename of a directory over a file", u.Rename(root, "d", root, "-"), statusNotDir)
	e := dir(t, u, root, "e")
	put(t, u, e, "x", "")
	is(t, "rename over a full directory", u.Rename(root, "d", root, "e"), statusNotEmpty)
	_, err = u.Link(d, root, "l")
	is(t, "link of a directory", err, statusPerm)
	a, err := u.Link(f, d, "l")
	if err != nil || a.Nlink != 2 {
		t.Errorf("link: %+v, %v", a, err)
	}
	is(t, "rename of one name over another of the same file", u.Rename(d, "l", root, "-"), statusOK)
	if find(t, u, d, "l") != f {
		t.Error("two names have two handles")
	}
}

func TestControlFiles(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	put(t, u, root, "f", "x")
	ctl := find(t, u, root, ".lakefs")
	status := find(t, u, ctl, "status")
	if a, err := u.Getattr(status); err != nil || a.Size != 4 {
		t.Errorf("status: %+v, %v", a, err)
	}
	if got := text(t, u, status); got != "A\tf\n" {
		t.Errorf("status %q", got)
	}
	c := find(t, u, ctl, "commit")
	// As a client does for echo message > .lakefs/commit.
	_, err := u.Setattr(c, nfstest.Set{Size: nfstest.P(uint64(0))}, nil)
	is(t, "truncate", err, statusOK)
	_, err = u.Write(c, 0, []byte("from afar\n"), nfstest.FileSync)
	is(t, "write", err, statusOK)
	head := func() graveler.Commit {
		r, err := s.eng.Resolve(t.Context(), "repo", "main")
		if err != nil {
			t.Fatal(err)
		}
		return r.Commit
	}
	if m := head().Message; m != "from afar" {
		t.Errorf("committed %q", m)
	}
	if got := text(t, u, status); got != "" {
		t.Errorf("status %q", got)
	}
	if got := text(t, u, c); got != string(head().ID)+"\n" {
		t.Errorf("commit reads %q", got)
	}
	// Sent again, it is not done again, and the answer is that of the first.
	var args xdr.Writer
	args.String(string(c))
	args.Uint64(0)
	args.Uint32(6)
	args.Uint32(nfstest.FileSync)
	args.String("twice\n")
	put(t, u, root, "twice", "x")
	for range 2 {
		b, err := u.C.Raw(4711, nfstest.NFS, 3, 7, u.Sys, args)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := nfstest.Accepted(b); err != nil || r.Uint32() != 0 {
			t.Errorf("a commit that is sent twice: %x, %v", b, err)
		}
	}
	_, err = u.Write(c, 0, []byte("nothing\n"), nfstest.FileSync)
	is(t, "commit of nothing", err, statusInval)
	if got := text(t, u, find(t, u, ctl, "error")); !strings.Contains(got, "nothing to commit") {
		t.Errorf("error reads %q", got)
	}
	// In parts, without a newline, ended by COMMIT.
	put(t, u, root, "g", "x")
	for i, p := range []string{"in ", "three ", "parts"} {
		_, err = u.Write(c, uint64(3*i), []byte(p), nfstest.Unstable)
		is(t, "write", err, statusOK)
	}
	_, err = u.Commit(c)
	is(t, "commit", err, statusOK)
	if m := head().Message; m != "in three parts" {
		t.Errorf("committed %q", m)
	}
	_, err = u.C.As(1000, 1000).Write(status, 0, []byte("x\n"), nfstest.FileSync)
	is(t, "write of what can't be written", err, statusAcces)
	l, err := u.List(ctl, true)
	if err != nil || len(l) < 8 {
		t.Errorf("listed %v, %v", l, err)
	}
	// Branches are made and removed as directories.
	repo := find(t, u, root, "..")
	_, err = u.Mkdir(repo, "@dev", 0o755)
	is(t, "mkdir of a branch", err, statusOK)
	if got := text(t, u, find(t, u, repo, "@dev", "f")); got != "x" {
		t.Errorf("on the new branch %q", got)
	}
	if _, err = u.Symlink(repo, "@two", "@dev"); err != nil {
		t.Errorf("link of a branch: %v", err)
	}
	is(t, "rename of a branch", u.Rename(repo, "@two", repo, "@three"), statusOK)
	find(t, u, repo, "@three", "f")
	_, err = u.Rmdir(repo, "@three")
	is(t, "rmdir of a branch", err, statusOK)
	is(t, "rename from branch to branch", u.Rename(find(t, u, repo, "@dev"), "f", root, "h"), statusXDev)
}

func TestStatuses(t *testing.T) {
	for _, k := range graveler.Kinds() {
		st, ok := kinds[k]
		if !ok || st == statusOK {
			t.Errorf("%v has no status", k)
		}
		if got := statusOf(errors.Join(k)); got != st {
			t.Errorf("%v is %v", k, got)
		}
	}
	for err, want := range map[error]status{
		syscall.ENOTEMPTY: statusNotEmpty, syscall.EXDEV: statusXDev, syscall.EMLINK: statusMLink, syscall.EFBIG: statusFBig,
		errors.Join(graveler.TooLarge, syscall.EFBIG): statusFBig, syscall.EBUSY: statusIO, errors.New("x"): statusIO,
		statusBadCookie: statusBadCookie, errors.Join(graveler.NoSpace, syscall.EIO): statusNoSpc, nil: statusOK,
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v is %v, not %v", err, got, want)
		}
	}
}
