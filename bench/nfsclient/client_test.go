package nfsclient

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// peer is a server that answers each call with what reply returns for it.
func peer(t testing.TB, reply func(call []byte) []byte) *Client {
	t.Helper()
	here, there := net.Pipe()
	c := &Client{&conn{net: here, prog: programNFS, waiting: map[uint32]chan []byte{}}, "root"}
	go c.receive()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer there.Close()
		for {
			call, err := record(there)
			if err != nil {
				return
			}
			if _, err := there.Write(reply(call)); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		here.Close()
		wg.Wait()
	})
	return c
}

// frame is a record of fragments of at most n bytes.
func frame(b []byte, n int) (out []byte) {
	for {
		part := b[:min(n, len(b))]
		b = b[len(part):]
		head := uint32(len(part))
		if len(b) == 0 {
			head |= xdr.LastFragment
		}
		out = append(binary.BigEndian.AppendUint32(out, head), part...)
		if len(b) == 0 {
			return out
		}
	}
}

func accepted(call []byte) xdr.Writer {
	var w xdr.Writer
	xdr.WriteAccepted(&w, binary.BigEndian.Uint32(call), xdr.AcceptSuccess)
	return w
}

func TestReplies(t *testing.T) {
	read := peer(t, func(call []byte) []byte {
		w := accepted(call)
		w.Uint32(0) // status
		w.Bool(false)
		w.Uint32(5)
		w.Bool(true)
		w.String("bytes")
		return frame(w, 7)
	})
	if b, err := read.Read(t.Context(), "f", 0, 100); string(b) != "bytes" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if _, err := read.Read(t.Context(), "f", 0, 4); !errors.Is(err, xdr.ErrShort) {
		t.Errorf("more than was asked for: %v", err)
	}
	none := peer(t, func(call []byte) []byte {
		w := accepted(call)
		w.Uint32(uint32(NoEntry))
		w.Bool(false)
		return frame(w, 1<<20)
	})
	if _, err := none.Lookup(t.Context(), none.Root, "f"); !errors.Is(err, NoEntry) {
		t.Errorf("lookup: %v", err)
	}
	large := peer(t, func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff} })
	if _, err := large.Getattr(t.Context(), "f"); err == nil {
		t.Error("a reply of 2 GiB is read")
	}
	silent := peer(t, func([]byte) []byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := silent.Getattr(ctx, "f"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
}

// Whatever a server answers, calls end, with an error or without.
func FuzzReplies(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, uint8(0))
	f.Add([]byte{}, uint8(3))
	f.Fuzz(func(t *testing.T, body []byte, proc uint8) {
		if len(body) > 4096 {
			return
		}
		answered := 0
		c := peer(t, func(call []byte) []byte {
			// A listing that never ends is a server's right, but not ours to follow.
			if answered++; answered > 3 {
				return frame(nil, 1)
			}
			return frame(append(accepted(call), body...), 1<<20)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var err error
		switch proc % 7 {
		case 0:
			_, err = c.List(ctx, c.Root)
		case 1:
			var b []byte
			if b, err = c.Read(ctx, c.Root, 0, 10); len(b) > 10 {
				t.Errorf("%d bytes", len(b))
			}
		case 2:
			_, err = c.Write(ctx, c.Root, 0, []byte("abc"), Unstable)
		case 3:
			_, err = c.Create(ctx, c.Root, "f")
		case 4:
			_, err = c.Getattr(ctx, c.Root)
		case 5:
			_, err = c.Commit(ctx, c.Root)
		case 6:
			_, err = c.Lookup(ctx, c.Root, "f")
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
}
