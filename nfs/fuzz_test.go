package nfs

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// sink is a connection that keeps what is written to it.
type sink struct{ bytes.Buffer }

func (*sink) Close() error                     { return nil }
func (*sink) LocalAddr() net.Addr              { return nil }
func (*sink) RemoteAddr() net.Addr             { return nil }
func (*sink) SetDeadline(time.Time) error      { return nil }
func (*sink) SetReadDeadline(time.Time) error  { return nil }
func (*sink) SetWriteDeadline(time.Time) error { return nil }

// FuzzCall makes calls of every procedure with arguments that may be anything; a first word of 1 or 2 stands for the handle of a directory
// or a file. Each is answered by a whole reply, and nothing is left behind.
func FuzzCall(f *testing.F) {
	s := newSite(f)
	u, dirFH := s.root("/repo/@main")
	fileFH := put(f, u, dirFH, "f", "some text")
	for s.srv.nodes.pinned() {
		time.Sleep(time.Millisecond) // a reply comes before all that it took is given back
	}
	name := func(n string) []byte {
		var w xdr.Writer
		w.String(n)
		return w
	}
	f.Add(uint32(1), []byte{0, 0, 0, 1})
	f.Add(uint32(3), append([]byte{0, 0, 0, 1}, name("f")...))
	f.Add(uint32(6), []byte{0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8})
	f.Add(uint32(7), []byte{0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 'a', 'b', 0, 0})
	f.Add(uint32(8), append(append([]byte{0, 0, 0, 1}, name("g")...), make([]byte, 28)...))
	f.Add(uint32(2), append([]byte{0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 1, 255}, make([]byte, 28)...))
	f.Add(uint32(17), append([]byte{0, 0, 0, 1}, bytes.Repeat([]byte{0, 0, 16, 0}, 6)...))
	f.Add(uint32(16), append([]byte{0, 0, 0, 1}, bytes.Repeat([]byte{0, 0, 0, 0}, 6)...))
	f.Add(uint32(14), append(append([]byte{0, 0, 0, 1}, name("g")...), append([]byte{0, 0, 0, 1}, name("h")...)...))
	f.Add(uint32(101), name("/repo/@main"))
	f.Fuzz(func(t *testing.T, proc uint32, args []byte) {
		if len(args) > maxRecord-1000 {
			return
		}
		var w xdr.Writer
		for len(args) >= 4 {
			switch word := binary.BigEndian.Uint32(args); {
			case word == 1 && len(w) == 0:
				w.String(string(dirFH))
			case word == 2 && len(w) == 0:
				w.String(string(fileFH))
			default:
				w = append(w, args[:4]...)
			}
			args = args[4:]
		}
		w = append(w, args...)
		out := &sink{}
		c := newConn(s.srv, out, netip.MustParseAddrPort("127.0.0.1:1"))
		prog := uint32(progNFS)
		if proc >= 100 {
			prog, proc = progMount, proc-100
		}
		m := nfstest.Message(5, prog, 3, proc, &xdr.Sys{}, w)[4:]
		c.answer(m, len(m) > smallCall)
		b, err := nfstest.ReadRecord(out)
		if err != nil {
			t.Fatalf("no reply: %v", err)
		}
		if len(b)%4 != 0 || out.Len() > 0 || binary.BigEndian.Uint32(b) != 5 {
			t.Fatalf("a reply of %d bytes, and %d after it", len(b), out.Len())
		}
		if r, err := nfstest.Accepted(b); err == nil && prog == progNFS && proc != 0 && len(r.Rest()) < 4 && r.Err() == nil && proc == 1 {
			t.Fatalf("procedure %d answers %x", proc, b)
		}
		if s.srv.budget.left != s.srv.cfg.Memory {
			t.Fatalf("%d bytes of the budget are gone", s.srv.cfg.Memory-s.srv.budget.left)
		}
		if s.srv.nodes.pinned() {
			t.Fatal("a node is pinned still")
		}
	})
}

// pinned reports whether a request has a node.
func (t *nodes) pinned() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byFH {
		if n.pins != 0 {
			return true
		}
	}
	return false
}

func FuzzHandle(f *testing.F) {
	s := newSealer(bytes.Repeat([]byte{1}, KeySize))
	f.Add(byte(formBranch), uint64(1), uint64(2), uint64(3), uint16(0))
	f.Add(byte(formCommit), uint64(1), uint64(2), uint64(3), uint16(17))
	f.Add(byte(formTop), uint64(1), uint64(2), uint64(3), uint16(1))
	f.Fuzz(func(t *testing.T, form byte, a, b, c uint64, ctl uint16) {
		h := handle{form: formOf(form), ctl: ctl, export: uint32(c)}
		switch h.form {
		case formTop:
		case formRepo:
			h.repo = a
		case formBranch:
			h.branch, h.number, h.home = a, b, c
		case formCommit:
			h.repo, h.slot = a, uint32(b)
			binary.BigEndian.PutUint64(h.commit[:], b)
			binary.BigEndian.PutUint64(h.path[:], c)
		default:
			return
		}
		fh := s.seal(&h)
		if len(fh) > maxHandle {
			t.Fatalf("%d bytes", len(fh))
		}
		if got, ok := s.open(fh); !ok || got != h {
			t.Fatalf("opened %+v, %v, sealed %+v", got, ok, h)
		}
		fh[int(a%uint64(len(fh)))] ^= byte(b) | 1
		if _, ok := s.open(fh); ok {
			t.Fatal("a changed handle is taken")
		}
	})
}

func FuzzReadCall(f *testing.F) {
	f.Add(nfstest.Message(1, progNFS, 3, 1, &xdr.Sys{Machine: "m", UID: 1, NGroups: 2}, nil)[4:])
	f.Add(nfstest.Message(1, progNFS, 3, 1, nil, []byte{1})[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r := xdr.NewReader(b)
		c, err := xdr.ReadCall(&r)
		if err != nil || c.BadCred {
			return
		}
		if c.Flavor > xdr.AuthSys {
			return
		}
		var sys *xdr.Sys
		if c.Flavor == xdr.AuthSys {
			sys = &c.Sys
		}
		again := xdr.NewReader(nfstest.Message(c.XID, c.Prog, c.Vers, c.Proc, sys, nil)[4:])
		d, err := xdr.ReadCall(&again)
		c.RPC = d.RPC
		for i := c.Sys.NGroups; i < len(c.Sys.Groups); i++ {
			c.Sys.Groups[i] = 0
		}
		if err != nil || c != d {
			t.Fatalf("read %+v, written and read %+v, %v", c, d, err)
		}
	})
}
