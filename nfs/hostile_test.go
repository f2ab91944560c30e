package nfs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
	"github.com/lakefsfs/lakefsfs/nfs/xdr"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// raw makes a call and returns the words of its reply.
func raw(t *testing.T, c *nfstest.Client, prog, vers, proc uint32, sys *xdr.Sys, args []byte) []uint32 {
	t.Helper()
	b, err := c.Raw(0, prog, vers, proc, sys, args)
	if err != nil {
		t.Fatal(err)
	}
	var out []uint32
	for b = b[4:]; len(b) >= 4; b = b[4:] {
		out = append(out, binary.BigEndian.Uint32(b))
	}
	return out
}

func equal(a []uint32, b ...uint32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestRPC(t *testing.T) {
	s := newSite(t)
	c := s.dial()
	sys := c.Sys
	for what, x := range map[string]struct{ got, want []uint32 }{
		"null":                {raw(t, c, 100003, 3, 0, nil, nil), []uint32{1, 0, 0, 0, 0}},
		"mount null":          {raw(t, c, 100005, 3, 0, nil, nil), []uint32{1, 0, 0, 0, 0}},
		"version 4":           {raw(t, c, 100003, 4, 0, sys, nil), []uint32{1, 0, 0, 0, 2, 3, 3}},
		"version 2":           {raw(t, c, 100003, 2, 0, sys, nil), []uint32{1, 0, 0, 0, 2, 3, 3}},
		"mount version 1":     {raw(t, c, 100005, 1, 0, sys, nil), []uint32{1, 0, 0, 0, 2, 3, 3}},
		"NFS_ACL":             {raw(t, c, 100227, 3, 0, sys, nil), []uint32{1, 0, 0, 0, 1}},
		"procedure 22":        {raw(t, c, 100003, 3, 22, sys, nil), []uint32{1, 0, 0, 0, 3}},
		"mount procedure 6":   {raw(t, c, 100005, 3, 6, sys, nil), []uint32{1, 0, 0, 0, 3}},
		"getattr of nothing":  {raw(t, c, 100003, 3, 1, sys, nil), []uint32{1, 0, 0, 0, 4}},
		"getattr, long":       {raw(t, c, 100003, 3, 1, sys, []byte{255, 255, 255, 255}), []uint32{1, 0, 0, 0, 4}},
		"getattr, 65 bytes":   {raw(t, c, 100003, 3, 1, sys, append([]byte{0, 0, 0, 65}, make([]byte, 68)...)), []uint32{1, 0, 0, 0, 4}},
		"getattr of no one's": {raw(t, c, 100003, 3, 1, sys, []byte{0, 0, 0, 4, 1, 2, 3, 4}), []uint32{1, 0, 0, 0, 0, 70}},
	} {
		if !equal(x.got, x.want...) {
			t.Errorf("%s: %v, want %v", what, x.got, x.want)
		}
	}
	// What is wrong with the call itself.
	send := func(w xdr.Writer) []uint32 {
		t.Helper()
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		w.SetUint32(0, uint32(len(w)-4)|xdr.LastFragment)
		nc.Write(w)
		b, err := nfstest.ReadRecord(nc)
		if err != nil {
			return nil
		}
		var out []uint32
		for b = b[4:]; len(b) >= 4; b = b[4:] {
			out = append(out, binary.BigEndian.Uint32(b))
		}
		return out
	}
	head := func(rpc, flavor uint32, cred []byte) xdr.Writer {
		w := xdr.Writer{0, 0, 0, 0}
		for _, v := range []uint32{1, 0, rpc, 100003, 3, 0, flavor} {
			w.Uint32(v)
		}
		w.Bytes(cred)
		w.Uint32(0)
		w.Uint32(0)
		return w
	}
	for what, x := range map[string]struct{ got, want []uint32 }{
		"RPC version 3":        {send(head(3, 0, nil)), []uint32{1, 1, 0, 2, 2}},
		"AUTH_DH":              {send(head(2, 3, nil)), []uint32{1, 1, 1, 5}},
		"AUTH_SYS, empty":      {send(head(2, 1, nil)), []uint32{1, 1, 1, 1}},
		"AUTH_SYS, 17 groups":  {send(head(2, 1, append(make([]byte, 16), append([]byte{0, 0, 0, 17}, make([]byte, 68)...)...))), []uint32{1, 1, 1, 1}},
		"half a head":          {send(xdr.Writer{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}), nil},
		"a reply":              {send(xdr.Writer{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}), nil},
		"credential too large": {send(head(2, 0, make([]byte, 500))), nil},
	} {
		if !equal(x.got, x.want...) {
			t.Errorf("%s: %v, want %v", what, x.got, x.want)
		}
	}
	// In fragments.
	m := nfstest.Message(9, 100003, 3, 0, nil, nil)[4:]
	var b []byte
	for i, p := range [][]byte{m[:1], m[1:1], m[1:20], m[20:]} {
		n := uint32(len(p))
		if i == 3 {
			n |= xdr.LastFragment
		}
		b = append(binary.BigEndian.AppendUint32(b, n), p...)
	}
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.Write(b)
	if got, err := nfstest.ReadRecord(nc); err != nil || len(got) != 24 {
		t.Errorf("a call in fragments: %x, %v", got, err)
	}
}

// TestOversize sends records that are too large, and fragments without an end. The connection goes; others don't notice.
func TestOversize(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	for what, b := range map[string][]byte{
		"2 GiB":     {0xff, 0xff, 0xff, 0xff},
		"too large": binary.BigEndian.AppendUint32(nil, maxRecord+1|xdr.LastFragment),
		"fragments": bytes.Repeat([]byte{0, 0, 0, 1, 0}, maxFrags+10),
		"empty":     bytes.Repeat([]byte{0, 0, 0, 0}, maxFrags+10),
	} {
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(30 * time.Second))
		go nc.Write(b)
		if n, err := io.Copy(io.Discard, nc); n > 0 || err != nil && isTimeout(err) {
			t.Errorf("%s: %d bytes and %v", what, n, err)
		}
		nc.Close()
	}
	_, err := u.Getattr(root)
	is(t, "getattr", err, statusOK)
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// TestStalledClients has clients that ask for much and read nothing: they take no more than the memory there is, and others are served.
func TestStalledClients(t *testing.T) {
	s := newSite(t)
	s.cfg.Memory = 64 << 20
	s.cfg.Stall = 20 * time.Second
	s.restart()
	u, root := s.root("/repo/@main")
	f := put(t, u, root, "f", "")
	data := bytes.Repeat([]byte("x"), maxData)
	_, err := u.Write(f, 0, data, nfstest.FileSync)
	is(t, "write", err, statusOK)
	var args xdr.Writer
	args.String(string(f))
	args.Uint64(0)
	args.Uint32(maxData)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 10 {
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		go func() {
			for j := range 200 {
				if _, err := nc.Write(nfstest.Message(uint32(i*1000+j), 100003, 3, 6, u.Sys, args)); err != nil {
					return
				}
			}
		}()
	}
	for i := range 20 {
		if b, _, err := u.Read(f, 0, maxData); err != nil || len(b) != maxData {
			t.Fatalf("read %d beside those who don't read: %d, %v", i, len(b), err)
		}
		_, err := u.Getattr(root)
		is(t, "getattr", err, statusOK)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 200<<20 {
		t.Errorf("it took %d MiB", grown>>20)
	}
}

func TestThousandConnections(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	f := put(t, u, root, "f", "x")
	var group sync.WaitGroup
	errs := make(chan error, 1000)
	for i := range 1000 {
		c, err := nfstest.Dial(s.addr)
		if err != nil {
			t.Fatal(i, err)
		}
		defer c.Close()
		group.Go(func() {
			if b, _, err := c.Root().Read(f, 0, 10); err != nil || string(b) != "x" {
				errs <- fmt.Errorf("connection %d: %q, %v", i, b, err)
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	_, err := u.Getattr(root)
	is(t, "getattr", err, statusOK)
}

func TestTooManyConnections(t *testing.T) {
	s := newSite(t)
	s.cfg.Connections = 3
	s.restart()
	var held []*nfstest.Client
	for range 3 {
		c := s.dial()
		raw(t, c, 100003, 3, 0, nil, nil)
		held = append(held, c)
	}
	if _, err := s.dial().Raw(0, 100003, 3, 0, nil, nil); err == nil {
		t.Error("a fourth one is answered")
	}
	held[0].Close()
	for i := 0; ; i++ {
		if _, err := s.dial().Raw(0, 100003, 3, 0, nil, nil); err == nil {
			break
		} else if i > 1000 {
			t.Fatal("none is answered although one went")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestSlowRead has a read that waits for its object store. What else the connection asks for is answered meanwhile.
func TestSlowRead(t *testing.T) {
	gate, asked := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var on bool
	var mu sync.Mutex
	s := newSiteOver(t, func(st object.Store) object.Store {
		return objecttest.NewFaulty(st, 1, objecttest.Faults{Before: func(ctx context.Context, call, address string) error {
			mu.Lock()
			wait := on && call == "ReadAt" && len(address) > 5 && address[:5] == "data/"
			mu.Unlock()
			if !wait {
				return nil
			}
			once.Do(func() { close(asked) })
			select {
			case <-gate:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
	})
	s.cfg.Idle = 50 * time.Millisecond
	s.restart()
	u, root := s.root("/repo/@main")
	f := put(t, u, root, "f", "slow text")
	s.settled("f")
	mu.Lock()
	on = true
	mu.Unlock()
	done := make(chan error, 1)
	go func() {
		b, _, err := u.Read(f, 0, 100)
		if err == nil && string(b) != "slow text" {
			err = fmt.Errorf("read %q", b)
		}
		done <- err
	}()
	select {
	case <-asked:
	case <-time.After(30 * time.Second):
		t.Fatal("the object store isn't asked")
	}
	for range 3 {
		_, err := u.Getattr(f)
		is(t, "getattr of the file", err, statusOK)
		_, err = u.Getattr(root)
		is(t, "getattr", err, statusOK)
		put(t, u, root, fmt.Sprint("g", time.Now().UnixNano()), "quick")
	}
	select {
	case err := <-done:
		t.Fatalf("the read is done before its store: %v", err)
	default:
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestGoneClient has clients that go away in the middle of everything.
func TestGoneClient(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	f := put(t, u, root, "f", "x")
	var args xdr.Writer
	args.String(string(f))
	m := nfstest.Message(1, 100003, 3, 1, u.Sys, args)
	for i := range len(m) {
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.Write(m[:i])
		nc.Close()
	}
	_, err := u.Getattr(f)
	is(t, "getattr", err, statusOK)
	s.srv.Close()
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if n := len(s.srv.conns); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if left := s.srv.budget.left; left != s.srv.cfg.Memory {
		t.Errorf("%d of %d bytes are left of the budget", left, s.srv.cfg.Memory)
	}
	for _, n := range s.srv.nodes.byFH {
		if n.pins != 0 {
			t.Errorf("a node is pinned %d times", n.pins)
		}
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 4, 1, 2, 3, 4})
	f.Add([]byte{0, 0, 0, 1, 1, 0x80, 0, 0, 1, 2})
	f.Add([]byte{0x80, 0x20, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		buf, err := readRecord(bufio.NewReader(bytes.NewReader(b)), func(n int) error {
			if n > maxRecord {
				t.Errorf("asks for %d bytes", n)
			}
			return nil
		})
		if err != nil {
			return
		}
		if want, err := nfstest.ReadRecord(bytes.NewReader(b)); err != nil || !bytes.Equal(*buf, want) {
			t.Errorf("read %x, want %x, %v", *buf, want, err)
		}
		freeBuffer(buf)
	})
}

// TestFailedReplies has each procedure fail: what follows the status is as long as it has to be.
func TestFailedReplies(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	_, err := u.Setattr(root, nfstest.Set{Mode: nfstest.P(uint32(0o755))}, nil)
	is(t, "chmod", err, statusOK)
	f := put(t, u, root, "f", "x")
	nobody := u.C.As(1000, 1000)
	dirName := func(name string) xdr.Writer {
		var w xdr.Writer
		w.String(string(root))
		w.String(name)
		return w
	}
	with := func(w xdr.Writer, words ...uint32) xdr.Writer {
		w = slices.Clone(w)
		for _, v := range words {
			w.Uint32(v)
		}
		return w
	}
	var file, gone xdr.Writer
	file.String(string(f))
	gone.String("not a handle")
	noSet := []uint32{0, 0, 0, 0, 0, 0}
	post, wcc := "post", "wcc"
	for _, x := range []struct {
		proc uint32
		args xdr.Writer
		want status
		body []string
	}{
		{1, gone, statusStale, nil},
		{2, with(file, 1, 0o777, 0, 0, 0, 0, 0, 0), statusPerm, []string{wcc}},
		{2, with(gone, 0, 0, 0, 0, 0, 0, 0), statusStale, []string{wcc}},
		{3, dirName("none"), statusNoEnt, []string{post}},
		{4, with(gone, 63), statusStale, []string{post}},
		{5, file, statusInval, []string{post}},
		{6, with(dirName("")[:len(dirName(""))-4], 0, 0, 10), statusIsDir, []string{post}},
		{7, with(file, 0, 0, 0, 0, 0), statusAcces, []string{wcc}},
		{8, with(dirName("f"), append([]uint32{1}, noSet...)...), statusAcces, []string{wcc}},
		{9, with(dirName("d"), noSet...), statusAcces, []string{wcc}},
		{10, with(dirName("l"), append(noSet, 1, 0x41000000)...), statusAcces, []string{wcc}},
		{11, with(dirName("p"), append([]uint32{typeFifo}, noSet...)...), statusAcces, []string{wcc}},
		{12, dirName("f"), statusAcces, []string{wcc}},
		{13, dirName("f"), statusAcces, []string{wcc}},
		{14, append(dirName("f"), dirName("g")...), statusAcces, []string{wcc, wcc}},
		{15, append(append(xdr.Writer{}, file...), dirName("l")...), statusAcces, []string{post, wcc}},
		{16, with(append(xdr.Writer{}, file...), 0, 0, 0, 0, 4096), statusNotDir, []string{post}},
		{17, with(append(xdr.Writer{}, file...), 0, 0, 0, 0, 4096, 4096), statusNotDir, []string{post}},
		{18, gone, statusStale, []string{post}},
		{19, gone, statusStale, []string{post}},
		{20, gone, statusStale, []string{post}},
		{21, with(gone, 0, 0, 0), statusStale, []string{wcc}},
	} {
		r, err := nobody.Call(x.proc, x.args)
		is(t, fmt.Sprint("procedure ", x.proc), err, x.want)
		for _, b := range x.body {
			if b == post {
				nfstest.ReadPost(&r)
			} else {
				nfstest.ReadWcc(&r)
			}
		}
		if r.Err() != nil || len(r.Rest()) > 0 {
			t.Errorf("procedure %d: a failure's reply is too short, or has %d bytes more", x.proc, len(r.Rest()))
		}
	}
}
