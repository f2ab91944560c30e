package nfs

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
)

func TestPermissions(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	set := func(who *nfstest.User, fh nfstest.FH, x nfstest.Set) error {
		_, err := who.Setattr(fh, x, nil)
		return err
	}
	open := dir(t, u, root, "open")
	is(t, "chmod", set(u, open, nfstest.Set{Mode: nfstest.P(uint32(0o777))}), statusOK)
	al, bo := u.C.As(1000, 1000, 2000), u.C.As(1001, 1001, 2000)
	f := put(t, al, open, "f", "al's")
	a, err := al.Getattr(f)
	is(t, "getattr", err, statusOK)
	if a.UID != 1000 || a.GID != 1000 || a.Mode != 0o644 {
		t.Errorf("made as %d:%d, %o", a.UID, a.GID, a.Mode)
	}
	// The mode counts, but not against the owner, who may have had it open.
	_, err = bo.Write(f, 0, []byte("x"), nfstest.Unstable)
	is(t, "write of another's file", err, statusAcces)
	is(t, "chmod 000", set(al, f, nfstest.Set{Mode: nfstest.P(uint32(0))}), statusOK)
	_, _, err = bo.Read(f, 0, 10)
	is(t, "read of another's file", err, statusAcces)
	if got := text(t, al, f); got != "al's" {
		t.Errorf("the owner reads %q", got)
	}
	if got := text(t, u, f); got != "al's" {
		t.Errorf("root reads %q", got)
	}
	if m, err := al.Access(f, 63); err != nil || m != 0 {
		t.Errorf("the owner is told %b, %v", m, err)
	}
	is(t, "chmod 610", set(al, f, nfstest.Set{Mode: nfstest.P(uint32(0o610))}), statusOK)
	if m, err := u.Access(f, 63); err != nil || m != accessRead|accessModify|accessExtend|accessExecute {
		t.Errorf("root is told %b, %v", m, err)
	}
	if m, err := al.Access(open, 63); err != nil || m != accessRead|accessLookup|accessModify|accessExtend|accessDelete {
		t.Errorf("of a directory, %b, %v", m, err)
	}
	// Groups, also those beyond the first.
	is(t, "chgrp to a group that he is in", set(al, f, nfstest.Set{GID: nfstest.P(uint32(2000))}), statusOK)
	is(t, "chmod 640", set(al, f, nfstest.Set{Mode: nfstest.P(uint32(0o640))}), statusOK)
	if got := text(t, bo, f); got != "al's" {
		t.Errorf("the group reads %q", got)
	}
	is(t, "chgrp to another", set(al, f, nfstest.Set{GID: nfstest.P(uint32(3000))}), statusPerm)
	is(t, "chown", set(al, f, nfstest.Set{UID: nfstest.P(uint32(1001))}), statusPerm)
	is(t, "chmod of another's", set(bo, f, nfstest.Set{Mode: nfstest.P(uint32(0o666))}), statusPerm)
	is(t, "truncate of another's", set(bo, f, nfstest.Set{Size: nfstest.P(uint64(0))}), statusAcces)
	when := time.Unix(1000, 5)
	is(t, "times of another's", set(bo, f, nfstest.Set{Mtime: &when}), statusPerm)
	is(t, "touch of another's that he may not write", set(bo, f, nfstest.Set{Now: true}), statusAcces)
	is(t, "chmod 660", set(al, f, nfstest.Set{Mode: nfstest.P(uint32(0o660))}), statusOK)
	is(t, "touch of another's that he may write", set(bo, f, nfstest.Set{Now: true}), statusOK)
	is(t, "times of his own", set(al, f, nfstest.Set{Atime: &when, Mtime: &when}), statusOK)
	if a, err = al.Getattr(f); err != nil || !a.Mtime.Equal(when) || !a.Atime.Equal(when) || a.Ctime.Before(time.Now().Add(-time.Minute)) {
		t.Errorf("times %v %v %v, %v", a.Atime, a.Mtime, a.Ctime, err)
	}
	// What makes a program run as its owner.
	is(t, "chmod 6775", set(al, f, nfstest.Set{Mode: nfstest.P(uint32(0o6775))}), statusOK)
	_, err = bo.Write(f, 0, []byte("b"), nfstest.Unstable)
	is(t, "write", err, statusOK)
	if a, err = al.Getattr(f); err != nil || a.Mode != 0o775 {
		t.Errorf("after a write %o, %v", a.Mode, err)
	}
	is(t, "chmod 6775", set(u, f, nfstest.Set{Mode: nfstest.P(uint32(0o6775))}), statusOK)
	is(t, "chown by root", set(u, f, nfstest.Set{UID: nfstest.P(uint32(1001))}), statusOK)
	if a, err = al.Getattr(f); err != nil || a.Mode != 0o775 || a.UID != 1001 {
		t.Errorf("after chown %o %d, %v", a.Mode, a.UID, err)
	}
	is(t, "set-group-id by who isn't in the group", set(bo, f, nfstest.Set{GID: nfstest.P(uint32(1001))}), statusOK)
	is(t, "chown", set(u, f, nfstest.Set{GID: nfstest.P(uint32(77))}), statusOK)
	is(t, "chmod 2775", set(bo, f, nfstest.Set{Mode: nfstest.P(uint32(0o2775))}), statusOK)
	if a, err = al.Getattr(f); err != nil || a.Mode != 0o775 {
		t.Errorf("set-group-id stays: %o, %v", a.Mode, err)
	}
	// Directories: who may search and write them, sticky ones, and those that hand on their group.
	closed := dir(t, u, root, "closed")
	_, err = al.Create(closed, "x", nfstest.Guarded, nfstest.Set{})
	is(t, "create", err, statusAcces)
	_, err = al.Remove(root, "closed")
	is(t, "remove", err, statusAcces)
	is(t, "rename", al.Rename(open, "f", closed, "f"), statusAcces)
	is(t, "chmod 700", set(u, closed, nfstest.Set{Mode: nfstest.P(uint32(0o700))}), statusOK)
	_, _, err = al.Lookup(closed, "x")
	is(t, "lookup", err, statusAcces)
	_, err = al.Readdir(closed, 0, 0, 4096)
	is(t, "readdir", err, statusAcces)
	is(t, "chmod 3777", set(u, open, nfstest.Set{Mode: nfstest.P(uint32(0o3777))}), statusOK)
	is(t, "chgrp", set(u, open, nfstest.Set{GID: nfstest.P(uint32(77))}), statusOK)
	is(t, "chmod 3777", set(u, open, nfstest.Set{Mode: nfstest.P(uint32(0o3777))}), statusOK)
	put(t, al, open, "al", "")
	_, err = bo.Remove(open, "al")
	is(t, "remove from a sticky directory", err, statusPerm)
	is(t, "rename in a sticky directory", bo.Rename(open, "al", open, "x"), statusPerm)
	put(t, bo, open, "bo", "")
	is(t, "rename over another's in a sticky directory", bo.Rename(open, "bo", open, "al"), statusPerm)
	_, err = al.Remove(open, "al")
	is(t, "remove of his own", err, statusOK)
	m, err := al.Mkdir(open, "sub", 0o755)
	is(t, "mkdir", err, statusOK)
	if m.Attr.GID != 77 || m.Attr.Mode != 0o2755 {
		t.Errorf("a directory in a set-group-id one: %d %o", m.Attr.GID, m.Attr.Mode)
	}
	m, err = al.Create(open, "prog", nfstest.Guarded, nfstest.Set{Mode: nfstest.P(uint32(0o2775))})
	is(t, "create", err, statusOK)
	if m.Attr.GID != 77 || m.Attr.Mode != 0o775 {
		t.Errorf("a program in a set-group-id directory: %d %o", m.Attr.GID, m.Attr.Mode)
	}
	_, err = al.Mknod(open, "null", typeChr, 0o666, 1, 3)
	is(t, "device by an ordinary user", err, statusPerm)
	// A directory that moves is changed itself.
	is(t, "chmod 555", set(al, find(t, al, open, "sub"), nfstest.Set{Mode: nfstest.P(uint32(0o555))}), statusOK)
	there := dir(t, al, open, "there")
	is(t, "move of a directory without the right to write it", al.Rename(open, "sub", there, "sub"), statusAcces)
	is(t, "rename of it in its place", al.Rename(open, "sub", open, "sub2"), statusOK)
}

func TestExports(t *testing.T) {
	loop := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	far := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	s := newSite(t,
		Export{Path: "/repo", Squash: SquashNone, Networks: loop},
		Export{Path: "/repo/@main", Squash: SquashRoot, AnonUID: 99, AnonGID: 98, Networks: loop},
		Export{Path: "/", Squash: SquashNone, Networks: far},
	)
	u := s.dial().Root()
	_, err := u.Mount("/")
	is(t, "mount from a network that isn't let in", err, statusAcces)
	_, err = u.Mount("/other")
	is(t, "mount of what isn't there", err, statusAcces)
	_, err = u.Mount("/repo/@none")
	is(t, "mount of a branch that isn't there", err, statusNoEnt)
	repo, err := u.Mount("/repo/")
	is(t, "mount", err, statusOK)
	main, err := u.Mount("/repo/@main")
	is(t, "mount", err, statusOK)
	up, _, err := u.Lookup(main, "..")
	is(t, "lookup ..", err, statusOK)
	if up != main {
		t.Error(".. of an export leads out of it")
	}
	inRepo := find(t, u, repo, "@main")
	is(t, "chmod", func() error {
		_, err := u.Setattr(inRepo, nfstest.Set{Mode: nfstest.P(uint32(0o777))}, nil)
		return err
	}(), statusOK)
	m, err := u.Create(dir(t, u, inRepo, "d"), "f", nfstest.Guarded, nfstest.Set{})
	is(t, "create", err, statusOK)
	if m.Attr.UID != 0 {
		t.Errorf("root is %d", m.Attr.UID)
	}
	_, err = u.Create(find(t, u, main, "d"), "g", nfstest.Guarded, nfstest.Set{})
	is(t, "create as root who is nobody", err, statusAcces)
	is(t, "rename from one export to another", u.Rename(inRepo, "d", main, "d2"), statusXDev)
	sub, err := u.Mount("/repo/@main/d")
	is(t, "mount of a directory", err, statusOK)
	if _, a, err := u.Lookup(sub, "f"); err != nil || a.Type != typeReg {
		t.Errorf("in it: %v", err)
	}
	_, err = u.Mount("/repo/@main/d/f")
	is(t, "mount of a file", err, statusNotDir)

	r, err := u.C.Raw(0, nfstest.Mount, 3, 5, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	x, err := nfstest.Accepted(r)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for x.Bool() {
		paths = append(paths, x.String(1024))
		for x.Bool() {
			if n := x.String(255); n != "127.0.0.0/8" {
				t.Errorf("network %q", n)
			}
		}
	}
	if x.Err() != nil || len(paths) != 2 || paths[0] != "/repo" || paths[1] != "/repo/@main" {
		t.Errorf("exports %v", paths)
	}
	r, err = u.C.Raw(0, nfstest.Mount, 3, 2, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if x, err = nfstest.Accepted(r); err != nil || !x.Bool() || x.String(255) != "127.0.0.1" {
		t.Errorf("dump: %v", err)
	}
}

// TestExportBeforeItsTime exports what isn't there yet.
func TestExportBeforeItsTime(t *testing.T) {
	s := newSite(t, Export{Path: "/repo/@dev", Squash: SquashNone}, Export{Path: "/other", Squash: SquashNone})
	u := s.dial().Root()
	_, err := u.Mount("/repo/@dev")
	is(t, "mount", err, statusNoEnt)
	_, err = u.Mount("/other")
	is(t, "mount", err, statusNoEnt)
	if _, err := s.eng.CreateBranch(t.Context(), engine.CreateBranch{Repo: "repo", ID: "dev"}); err != nil {
		t.Fatal(err)
	}
	root, err := u.Mount("/repo/@dev")
	is(t, "mount of what has been made", err, statusOK)
	f := put(t, u, root, "f", "x")
	if err := s.eng.DeleteBranch(t.Context(), "repo", "dev", true); err != nil {
		t.Fatal(err)
	}
	_, err = u.Mount("/repo/@dev")
	is(t, "mount of what is gone", err, statusNoEnt)
	_, err = u.Getattr(f)
	is(t, "getattr in it", err, statusStale)
	s.restart()
	u = s.dial().Root()
	_, err = u.Getattr(f)
	is(t, "getattr in it after a restart", err, statusStale)
}

func TestReadOnlyAndMaps(t *testing.T) {
	s := newSite(t,
		Export{Path: "/repo", Squash: SquashNone, UIDs: map[uint32]uint32{500: 1000}, GIDs: map[uint32]uint32{500: 1000}},
		Export{Path: "/repo/@main", ReadOnly: true, Squash: SquashNone},
		Export{Path: "/", Squash: SquashAll, AnonUID: 7, AnonGID: 8},
	)
	u, repo := s.root("/repo")
	main := find(t, u, repo, "@main")
	d := dir(t, u, main, "d")
	_, err := u.Setattr(d, nfstest.Set{Mode: nfstest.P(uint32(0o777))}, nil)
	is(t, "chmod", err, statusOK)
	m, err := u.C.As(500, 500).Create(d, "f", nfstest.Guarded, nfstest.Set{Mode: nfstest.P(uint32(0o600))})
	is(t, "create", err, statusOK)
	if m.Attr.UID != 500 || m.Attr.GID != 500 {
		t.Errorf("the client is shown %d:%d", m.Attr.UID, m.Attr.GID)
	}
	_, all := s.root("/repo/@main")
	f := find(t, u, all, "d", "f")
	if a, err := u.Getattr(f); err != nil || a.UID != 1000 || a.GID != 1000 {
		t.Errorf("here it is %+v, %v", a, err)
	}
	for what, err := range map[string]error{
		"write":  func() error { _, err := u.Write(f, 0, []byte("x"), nfstest.Unstable); return err }(),
		"create": func() error { _, err := u.Create(all, "x", nfstest.Guarded, nfstest.Set{}); return err }(),
		"remove": func() error { _, err := u.Remove(find(t, u, all, "d"), "f"); return err }(),
		"chmod":  func() error { _, err := u.Setattr(f, nfstest.Set{Mode: nfstest.P(uint32(0))}, nil); return err }(),
		"rename": u.Rename(all, "d", all, "e"),
		"link":   func() error { _, err := u.Link(f, all, "l"); return err }(),
	} {
		is(t, what+" through a read-only export", err, statusROFS)
	}
	if m, err := u.Access(f, 63); err != nil || m != accessRead {
		t.Errorf("access %b, %v", m, err)
	}
	_, top := s.root("/")
	m, err = u.Create(find(t, u, top, "repo", "@main", "d"), "anon", nfstest.Guarded, nfstest.Set{})
	is(t, "create", err, statusOK)
	if m.Attr.UID != 7 || m.Attr.GID != 8 {
		t.Errorf("squashed to %d:%d", m.Attr.UID, m.Attr.GID)
	}
}

func TestSpecialFiles(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	for _, x := range []struct {
		name         string
		typ          uint32
		major, minor uint32
	}{{"chr", typeChr, 1, 3}, {"blk", typeBlk, 0xabc, 0xfedcb}, {"fifo", typeFifo, 0, 0}, {"sock", typeSock, 0, 0}} {
		m, err := u.Mknod(root, x.name, x.typ, 0o640, x.major, x.minor)
		is(t, "mknod "+x.name, err, statusOK)
		s.restart()
		u = s.dial().Root()
		a, err := u.Getattr(m.FH)
		is(t, "getattr "+x.name, err, statusOK)
		if a.Type != x.typ || a.Mode != 0o640 || a.Major != x.major || a.Minor != x.minor {
			t.Errorf("%s: %+v", x.name, a)
		}
	}
	_, err := u.Mknod(root, "reg", typeReg, 0o640, 0, 0)
	is(t, "mknod of a file", err, statusBadType)
	m, err := u.Symlink(root, "link", "some\xffwhere")
	is(t, "symlink", err, statusOK)
	if m.Attr.Type != typeLnk || m.Attr.Size != 10 {
		t.Errorf("%+v", m.Attr)
	}
	s.commit("m")
	s.restart()
	u = s.dial().Root()
	if to, err := u.Readlink(m.FH); err != nil || to != "some\xffwhere" {
		t.Errorf("link to %q, %v", to, err)
	}
	_, err = u.Readlink(root)
	is(t, "readlink of a directory", err, statusInval)
	_, _, err = u.Read(m.FH, 0, 10)
	is(t, "read of a link", err, statusInval)
	if total, free, err := u.FSStat(root); err != nil || total == 0 || free > total {
		t.Errorf("statfs %d %d, %v", total, free, err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Data, &st); err != nil {
		t.Fatal(err)
	}
	if total, _, _ := u.FSStat(root); total != st.Blocks*uint64(st.Bsize) {
		t.Errorf("the disk has %d bytes, not %d", st.Blocks*uint64(st.Bsize), total)
	}
	if i, err := u.FSInfo(root); err != nil || i.RtMax != 1<<20 || i.WtMax != 1<<20 || i.DtPref < 64<<10 || i.Properties != 0x1b {
		t.Errorf("fsinfo %+v, %v", i, err)
	}
}
