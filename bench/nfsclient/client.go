// Package nfsclient is a client of NFSv3, for measuring servers from a program that costs the same with each: it keeps nothing, does
// each call that it is asked to, and many at a time on one connection, as a kernel's does.
package nfsclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

const (
	programNFS   = 100003
	programMount = 100005
	version      = 3

	// maxReply bounds a reply, in bytes: a READ of 1 MiB and its head.
	maxReply = 1<<20 + 64<<10
)

// Status is what a server answered instead of NFS3_OK.
type Status uint32

// NoEntry tells that there is no such name.
const NoEntry Status = 2

func (s Status) Error() string { return fmt.Sprintf("the server answered status %d", uint32(s)) }

// conn is one connection, of any program.
type conn struct {
	net  net.Conn
	prog uint32

	send sync.Mutex // one record at a time

	mu      sync.Mutex // guards the fields below
	xid     uint32
	waiting map[uint32]chan []byte
	err     error // of the connection, for good
}

func dial(ctx context.Context, addr string, prog uint32) (*conn, error) {
	var d net.Dialer
	n, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{net: n, prog: prog, waiting: map[uint32]chan []byte{}, xid: uint32(time.Now().UnixNano())}
	go c.receive()
	return c, nil
}

func (c *conn) receive() {
	r := bufio.NewReaderSize(c.net, 256<<10)
	for {
		rec, err := record(r)
		if err == nil && len(rec) < 4 {
			err = xdr.ErrShort
		}
		c.mu.Lock()
		if err != nil {
			c.err = fmt.Errorf("the connection: %w", err)
			for xid, ch := range c.waiting {
				close(ch)
				delete(c.waiting, xid)
			}
			c.mu.Unlock()
			c.net.Close()
			return
		}
		xid := binary.BigEndian.Uint32(rec)
		if ch := c.waiting[xid]; ch != nil {
			ch <- rec
			delete(c.waiting, xid)
		}
		c.mu.Unlock()
	}
}

// record reads a record of one fragment or several.
func record(r io.Reader) (rec []byte, err error) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, err
		}
		v := binary.BigEndian.Uint32(head[:])
		n := int(v &^ xdr.LastFragment)
		if n > maxReply-len(rec) {
			return nil, fmt.Errorf("a reply of over %d bytes", maxReply)
		}
		at := len(rec)
		rec = append(rec, make([]byte, n)...)
		if _, err := io.ReadFull(r, rec[at:]); err != nil {
			return nil, err
		}
		if v&xdr.LastFragment != 0 {
			return rec, nil
		}
	}
}

// call calls a procedure and returns its results.
func (c *conn) call(ctx context.Context, proc uint32, args func(*xdr.Writer)) (xdr.Reader, error) {
	ch := make(chan []byte, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return xdr.Reader{}, c.err
	}
	c.xid++
	xid := c.xid
	c.waiting[xid] = ch
	c.mu.Unlock()
	w := make(xdr.Writer, 4, 256)
	xdr.WriteCall(&w, xid, c.prog, version, proc, &xdr.Sys{Machine: "bench"})
	args(&w)
	w.SetUint32(0, uint32(len(w)-4)|xdr.LastFragment)
	c.send.Lock()
	_, err := c.net.Write(w)
	c.send.Unlock()
	if err != nil {
		c.net.Close() // receive tells the others
		return xdr.Reader{}, err
	}
	var rec []byte
	select {
	case rec = <-ch:
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, xid)
		c.mu.Unlock()
		return xdr.Reader{}, fmt.Errorf("procedure %d: %w", proc, ctx.Err())
	}
	if rec == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return xdr.Reader{}, c.err
	}
	r := xdr.NewReader(rec)
	r.Uint32() // xid
	if t, s := r.Uint32(), r.Uint32(); t != xdr.MsgReply || s != xdr.ReplyAccepted {
		return r, fmt.Errorf("procedure %d: denied", proc)
	}
	r.Uint32() // verifier
	r.Bytes(400)
	if s := r.Uint32(); s != xdr.AcceptSuccess || r.Err() != nil {
		return r, fmt.Errorf("procedure %d: not accepted: %d", proc, s)
	}
	return r, nil
}

// Client is a mounted export. Its methods are safe for concurrent use, and errors of the server are a Status.
type Client struct {
	*conn
	// Root is the export's directory.
	Root Handle
}

// Handle names a file.
type Handle string

// maxHandle is the longest handle of NFSv3, in bytes.
const maxHandle = 64

// Dial mounts an export. The MOUNT program may have another address than NFS.
func Dial(ctx context.Context, nfs, mount, export string) (*Client, error) {
	m, err := dial(ctx, mount, programMount)
	if err != nil {
		return nil, err
	}
	defer m.net.Close()
	r, err := m.call(ctx, 1, func(w *xdr.Writer) { w.String(export) })
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", export, err)
	}
	if s := r.Uint32(); s != 0 {
		return nil, fmt.Errorf("mount %s: %w", export, Status(s))
	}
	root := Handle(r.String(maxHandle))
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("mount %s: %w", export, err)
	}
	c, err := dial(ctx, nfs, programNFS)
	if err != nil {
		return nil, err
	}
	return &Client{c, root}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.net.Close() }

// do calls a procedure whose results begin with a status.
func (c *Client) do(ctx context.Context, name string, proc uint32, args func(*xdr.Writer)) (xdr.Reader, error) {
	r, err := c.call(ctx, proc, args)
	if err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	if s := r.Uint32(); s != 0 {
		return r, fmt.Errorf("%s: %w", name, Status(s))
	}
	return r, nil
}

// done is the error of reading results.
func done(name string, r *xdr.Reader) error {
	if err := r.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

var errNoHandle = errors.New("the server gave no handle")
