package nfs

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// site is an engine with a server over it, which can be started again.
type site struct {
	t     testing.TB
	eng   *local.Engine
	vfs   vfs.Config
	cfg   Config
	srv   *Server
	addr  string
	locks *vfs.Locks
	// listed counts what is read of directories.
	listed *listed
}

// listed is an engine that counts the names that it lists.
type listed struct {
	engine.Engine
	names atomic.Int64
}

func (l *listed) List(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.ListQuery) iter.Seq2[graveler.Listed, error] {
	return func(yield func(graveler.Listed, error) bool) {
		for e, err := range l.Engine.List(ctx, repo, ref, q) {
			l.names.Add(1)
			if !yield(e, err) {
				return
			}
		}
	}
}

// newSite makes an engine with a repository, and serves exports of it.
func newSite(t testing.TB, exports ...Export) *site {
	return newSiteOver(t, func(st object.Store) object.Store { return st }, exports...)
}

func newSiteOver(t testing.TB, over func(object.Store) object.Store, exports ...Export) *site {
	t.Helper()
	d := t.TempDir()
	c, err := cache.NewCache(cache.Options{MemoryBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		st, err := object.Open(ctx, ns, object.Options{})
		if err != nil {
			return nil, err
		}
		return over(st), nil
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
	if len(exports) == 0 {
		exports = []Export{{Path: "/", Squash: SquashNone}}
	}
	s := &site{t: t, eng: eng, locks: new(vfs.Locks), listed: &listed{Engine: eng}}
	s.vfs = vfs.Config{Engine: s.listed, Spill: sp, Control: control.New(eng), Locks: s.locks, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	s.cfg = Config{Exports: exports, VFS: s.vfs, Key: bytes.Repeat([]byte{7}, KeySize), Data: d}
	s.start()
	t.Cleanup(func() { s.srv.Close() })
	return s
}

func (s *site) start() {
	s.t.Helper()
	srv, err := New(s.t.Context(), s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.srv, s.addr = srv, lis.Addr().String()
	go srv.Serve(lis)
}

// restart ends the server and begins another one, as a new process would.
func (s *site) restart() {
	s.t.Helper()
	s.srv.Close()
	s.start()
}

func (s *site) dial() *nfstest.Client {
	s.t.Helper()
	c, err := nfstest.Dial(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// root mounts a path as root.
func (s *site) root(path string) (*nfstest.User, nfstest.FH) {
	s.t.Helper()
	u := s.dial().Root()
	fh, err := u.Mount(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return u, fh
}

// is fails the test unless an error is a status, 0 being none.
func is(t testing.TB, what string, err error, want status) {
	t.Helper()
	got := status(0)
	var st nfstest.Status
	if errors.As(err, &st) {
		got = status(st)
	} else if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func must[T any](t *testing.T, what string) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
}

func TestFiles(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	m := must[nfstest.Made](t, "create")(u.Create(root, "a", nfstest.Guarded, nfstest.Set{Mode: nfstest.P(uint32(0o640))}))
	if m.Attr == nil || m.Attr.Mode != 0o640 || m.Attr.Type != typeReg || m.Attr.Size != 0 {
		t.Fatalf("made %+v", m.Attr)
	}
	if !m.Dir.Before || m.Dir.After == nil || !m.Dir.After.Ctime.After(m.Dir.Ctime) {
		t.Errorf("wcc %+v", m.Dir)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 70_000)
	for off := 0; off < len(data); off += maxData {
		p := data[off:min(off+maxData, len(data))]
		w := must[nfstest.Written](t, "write")(u.Write(m.FH, uint64(off), p, nfstest.Unstable))
		if int(w.Count) != len(p) || w.Stable != nfstest.Unstable || w.Wcc.After == nil || w.Wcc.After.Size != uint64(off+len(p)) {
			t.Fatalf("written %+v", w)
		}
	}
	must[uint64](t, "commit")(u.Commit(m.FH))
	read := func(fh nfstest.FH) {
		t.Helper()
		var got []byte
		for eof := false; !eof; {
			var b []byte
			var err error
			if b, eof, err = u.Read(fh, uint64(len(got)), maxData); err != nil {
				t.Fatal(err)
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes, other ones than the %d written", len(got), len(data))
		}
	}
	read(m.FH)
	must[nfstest.Made](t, "mkdir")(u.Mkdir(root, "d", 0o755))
	d, _, err := u.Lookup(root, "d")
	is(t, "lookup", err, statusOK)
	is(t, "rename", u.Rename(root, "a", d, "b"), statusOK)
	read(m.FH)
	_, _, err = u.Lookup(root, "a")
	is(t, "lookup of the old name", err, statusNoEnt)
	fh, _, err := u.Lookup(d, "b")
	is(t, "lookup of the new name", err, statusOK)
	if fh != m.FH {
		t.Error("a renamed file has another handle")
	}
	if _, err := s.eng.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"}); err != nil {
		t.Fatal(err)
	}
	read(m.FH)
	s.restart()
	u = s.dial().Root()
	read(m.FH)
	l := must[[]nfstest.Entry](t, "list")(u.List(d, true))
	if len(l) != 1 || l[0].Name != "b" || l[0].Attr == nil || l[0].Attr.Size != uint64(len(data)) {
		t.Fatalf("listed %+v", l)
	}
	_, err = u.Remove(root, "d")
	is(t, "remove of a directory", err, statusIsDir)
	_, err = u.Rmdir(root, "d")
	is(t, "rmdir of a full directory", err, statusNotEmpty)
	_, err = u.Remove(d, "b")
	is(t, "remove", err, statusOK)
	_, err = u.Getattr(m.FH)
	is(t, "getattr of what was removed", err, statusStale)
	_, err = u.Rmdir(root, "d")
	is(t, "rmdir", err, statusOK)
	_, err = u.Getattr(d)
	is(t, "getattr of a removed directory", err, statusStale)
}
