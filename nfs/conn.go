package nfs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

const (
	maxInFlight  = 128      // calls of one connection that are being answered
	connMemory   = 40 << 20 // bytes of them, where they carry data
	recordWithin = 30 * time.Second
	shedAfter    = 2 * time.Second // a reply that is unread for so long costs the client its connection if memory is short
)

// conn is a client's connection. Its calls are answered at the same time, in the order in which they are done.
type conn struct {
	s    *Server
	nc   net.Conn
	peer netip.AddrPort
	ctx  context.Context // of its calls: it ends with the connection
	end  context.CancelFunc
	seat chan struct{} // taken by each call
	mem  *budget

	out     sync.Mutex // held while a reply is written
	writing atomic.Int64
}

func newConn(s *Server, nc net.Conn, peer netip.AddrPort) *conn {
	c := &conn{s: s, nc: nc, peer: peer, seat: make(chan struct{}, maxInFlight), mem: newBudget(connMemory)}
	c.ctx, c.end = context.WithCancel(s.ctx)
	return c
}

// run reads calls until the connection ends, and returns when all of them are answered or given up.
func (c *conn) run() {
	var calls sync.WaitGroup
	defer calls.Wait()
	defer c.nc.Close()
	defer c.end()
	r := bufio.NewReaderSize(c.nc, smallCall)
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		// A call that has begun has to come to its end; between calls a client may be silent for as long as it likes.
		c.nc.SetReadDeadline(time.Now().Add(recordWithin))
		charged := int64(0)
		buf, err := readRecord(r, func(n int) error {
			if n <= smallCall || charged > 0 {
				return nil
			}
			charged = maxRecord
			return c.take(maxRecord)
		})
		if err != nil {
			c.give(charged)
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && c.ctx.Err() == nil && !c.s.said.already(c.peer.Addr().String()+err.Error(), time.Now()) {
				c.s.log.Warn("nfs: connection closed", "client", c.peer, "err", err)
			}
			return
		}
		c.nc.SetReadDeadline(time.Time{})
		select {
		case c.seat <- struct{}{}:
		case <-c.ctx.Done():
			freeBuffer(buf)
			c.give(charged)
			return
		}
		calls.Go(func() {
			defer func() { <-c.seat }()
			defer c.give(charged)
			defer freeBuffer(buf)
			c.answer(*buf, charged > 0)
		})
	}
}

// take takes bytes of the connection's and the server's budget.
func (c *conn) take(n int64) error {
	if err := c.mem.take(c.ctx, n, func() {}); err != nil {
		return err
	}
	if err := c.s.budget.take(c.ctx, n, c.s.shed); err != nil {
		c.mem.give(n)
		return err
	}
	return nil
}

func (c *conn) give(n int64) {
	if n > 0 {
		c.s.budget.give(n)
		c.mem.give(n)
	}
}

// shed closes the connections of clients that don't read, so that others get their memory.
func (s *Server) shed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if at := c.writing.Load(); at != 0 && time.Since(time.Unix(0, at)) > shedAfter {
			s.log.Warn("nfs: memory is short; a client that doesn't read its replies is cut off", "client", c.peer)
			c.nc.Close()
		}
	}
}

// answer answers one call.
func (c *conn) answer(b []byte, large bool) {
	q := &request{s: c.s, c: c, args: xdr.NewReader(b)}
	defer q.free()
	var err error
	if q.call, err = xdr.ReadCall(&q.args); err != nil {
		// Without a call's head there is nobody to answer.
		c.nc.Close()
		return
	}
	q.large = large
	q.reset(xdr.AcceptSuccess)
	defer func() {
		if p := recover(); p != nil {
			c.s.log.Error("nfs: panic in a request", "prog", q.call.Prog, "proc", q.call.Proc, "panic", p, "stack", string(debug.Stack()))
			q.dropBody()
			q.reset(xdr.AcceptSystemErr)
			c.send(q.w, nil)
		}
	}()
	if q.dispatch(b) {
		c.send(q.w, q.data)
	}
}

// send writes a reply: a message with room for its record mark at the front, and data that belongs to it.
func (c *conn) send(w xdr.Writer, data []byte) {
	pad := -len(data) & 3
	w.SetUint32(0, uint32(len(w)-4+len(data)+pad)|xdr.LastFragment)
	c.out.Lock()
	defer c.out.Unlock()
	now := time.Now()
	c.writing.Store(now.UnixNano())
	defer c.writing.Store(0)
	c.nc.SetWriteDeadline(now.Add(c.s.cfg.Stall))
	var err error
	if len(data) == 0 {
		_, err = c.nc.Write(w)
	} else {
		parts := net.Buffers{w, data, zeros[:pad]}
		_, err = parts.WriteTo(c.nc)
	}
	if err != nil {
		c.nc.Close()
	}
}

var zeros [3]byte

// request is a call that is being answered.
type request struct {
	s    *Server
	c    *conn
	call xdr.Call
	args xdr.Reader

	x    *exports // that its handles are of
	opt  *export
	who  who
	pins []*node
	post *post // attributes that a failure gives too

	jukebox bool // the reply asks to try again
	large   bool
	w       xdr.Writer
	small   *[]byte // that w is in
	body    *[]byte // that data is in, or w
	data    []byte
	charged int64
}

// reset begins the reply anew.
func (q *request) reset(status uint32) {
	if q.small == nil {
		q.small = smallBuffers.Get().(*[]byte)
	}
	q.w = append(xdr.Writer((*q.small)[:0]), 0, 0, 0, 0)
	xdr.WriteAccepted(&q.w, q.call.XID, status)
}

func (q *request) deny(why, detail uint32) {
	q.w = append(xdr.Writer((*q.small)[:0]), 0, 0, 0, 0)
	xdr.WriteDenied(&q.w, q.call.XID, why, detail)
}

// takeBody gets a large buffer for the reply.
func (q *request) takeBody(n int) ([]byte, error) {
	if n > smallCall {
		if err := q.c.take(maxRecord); err != nil {
			return nil, graveler.Canceled
		}
		q.charged = maxRecord
	}
	q.body = buffer(n)
	return (*q.body)[:n], nil
}

func (q *request) dropBody() {
	q.data = nil
	freeBuffer(q.body)
	q.body = nil
	q.c.give(q.charged)
	q.charged = 0
}

// free gives back what the request has, after the reply was sent.
func (q *request) free() {
	for _, n := range q.pins {
		q.s.nodes.unpin(n)
	}
	q.pins = nil
	q.dropBody()
	freeBuffer(q.small)
	q.small = nil
}

// enter takes the export that a handle is of for the request, if the client may use it.
func (q *request) enter(x *exports) error {
	if q.x != nil {
		if q.x != x {
			return statusXDev
		}
		return nil
	}
	opt := x.admit(q.c.peer.Addr())
	if opt == nil {
		return statusAcces
	}
	q.x, q.opt, q.who = x, opt, opt.squash(&q.call)
	return nil
}

// handle reads a handle and returns its node, which stays until the request is answered.
func (q *request) handle(ctx context.Context) (**node, error) {
	fh := q.args.Bytes(maxHandle)
	if q.args.Err() != nil {
		return nil, errGarbage
	}
	n, err := q.s.node(ctx, q, fh)
	if err != nil {
		return nil, err
	}
	return q.pin(n), nil
}

// pin has a node unpinned at the end. What it returns points to where the node is kept, so that attr can exchange it.
func (q *request) pin(n *node) **node {
	if q.pins == nil {
		q.pins = make([]*node, 0, 4) // no call has more
	}
	q.pins = append(q.pins, n)
	return &q.pins[len(q.pins)-1]
}

var errGarbage = errors.New("arguments can't be read")
