// Package nfstest is a small NFSv3 client for tests: it says each call as it is asked to, and shows each reply as it came.
package nfstest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// Programs.
const (
	NFS   = 100003
	Mount = 100005
)

// Client is a connection to a server. Its methods may be called from many goroutines; each waits for its own reply.
type Client struct {
	Sys  *xdr.Sys      // who asks; nil is AUTH_NONE
	Wait time.Duration // for a reply; 0 is a minute

	nc   net.Conn
	xid  *atomic.Uint32
	out  sync.Mutex
	mu   sync.Mutex
	wait map[uint32]chan []byte
	err  error
}

// Dial connects to a server, as root.
func Dial(addr string) (*Client, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Client{Sys: &xdr.Sys{Machine: "test"}, nc: nc, xid: new(atomic.Uint32), wait: map[uint32]chan []byte{}}
	c.xid.Store(uint32(time.Now().UnixNano()))
	go c.read()
	return c, nil
}

// As is the same connection for another user.
func (c *Client) As(uid, gid uint32, groups ...uint32) *User {
	s := &xdr.Sys{Machine: "test", UID: uid, GID: gid, NGroups: len(groups)}
	copy(s.Groups[:], groups)
	return &User{c, s}
}

// Root is the connection for root.
func (c *Client) Root() *User { return c.As(0, 0) }

// Close ends the connection.
func (c *Client) Close() error { return c.nc.Close() }

// Conn is the connection itself.
func (c *Client) Conn() net.Conn { return c.nc }

func (c *Client) read() {
	r := bufio.NewReader(c.nc)
	for {
		b, err := ReadRecord(r)
		if err != nil {
			c.mu.Lock()
			c.err = err
			for x, ch := range c.wait {
				close(ch)
				delete(c.wait, x)
			}
			c.mu.Unlock()
			return
		}
		x := xdr.NewReader(b)
		xid := x.Uint32()
		c.mu.Lock()
		ch := c.wait[xid]
		delete(c.wait, xid)
		c.mu.Unlock()
		if ch != nil {
			ch <- b
		}
	}
}

// ReadRecord reads one record.
func ReadRecord(r io.Reader) ([]byte, error) {
	var out []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, err
		}
		v := binary.BigEndian.Uint32(head[:])
		at := len(out)
		out = append(out, make([]byte, v&^xdr.LastFragment)...)
		if _, err := io.ReadFull(r, out[at:]); err != nil {
			return nil, err
		}
		if v&xdr.LastFragment != 0 {
			return out, nil
		}
	}
}

// Message is a call, with its record mark.
func Message(xid, prog, vers, proc uint32, sys *xdr.Sys, args []byte) []byte {
	w := xdr.Writer{0, 0, 0, 0}
	xdr.WriteCall(&w, xid, prog, vers, proc, sys)
	w = append(w, args...)
	w.SetUint32(0, uint32(len(w)-4)|xdr.LastFragment)
	return w
}

// Raw sends a call, and returns its reply from the number on. A number of 0 is chosen.
func (c *Client) Raw(xid, prog, vers, proc uint32, sys *xdr.Sys, args []byte) ([]byte, error) {
	if xid == 0 {
		xid = c.xid.Add(1)
	}
	ch := make(chan []byte, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	c.wait[xid] = ch
	c.mu.Unlock()
	c.out.Lock()
	_, err := c.nc.Write(Message(xid, prog, vers, proc, sys, args))
	c.out.Unlock()
	if err != nil {
		return nil, err
	}
	wait := c.Wait
	if wait == 0 {
		wait = time.Minute
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case b, ok := <-ch:
		if !ok {
			return nil, errors.New("connection closed")
		}
		return b, nil
	case <-t.C:
		return nil, errors.New("no reply")
	}
}

// Accepted takes a reply's head off; an error unless the call was accepted and carried out.
func Accepted(b []byte) (xdr.Reader, error) {
	r := xdr.NewReader(b)
	r.Uint32()
	if t := r.Uint32(); t != xdr.MsgReply {
		return r, fmt.Errorf("message type %d", t)
	}
	if s := r.Uint32(); s != xdr.ReplyAccepted {
		return r, fmt.Errorf("denied: %d %d", r.Uint32(), r.Uint32())
	}
	r.Uint32()
	r.Bytes(400)
	if s := r.Uint32(); s != xdr.AcceptSuccess {
		return r, AcceptError(s)
	}
	return r, r.Err()
}

// AcceptError is an accept_stat that is no success.
type AcceptError uint32

// Error names the number.
func (e AcceptError) Error() string { return fmt.Sprintf("accepted with %d", uint32(e)) }

// Status is nfsstat3 or mountstat3, as an error.
type Status uint32

// Error names the number.
func (s Status) Error() string { return fmt.Sprintf("status %d", uint32(s)) }
