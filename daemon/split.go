package daemon

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// preface is what a connection of gRPC begins with, as any of HTTP/2.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// prefaceTimeout bounds how long a connection may take to say what it is.
const prefaceTimeout = 10 * time.Second

// split parts the connections of a listener into those of gRPC and those of HTTP/1. Closing either closes the listener.
func split(lis net.Listener) (rpc, http net.Listener) {
	s := &splitter{Listener: lis, done: make(chan struct{})}
	a, b := &half{splitter: s, conns: make(chan net.Conn)}, &half{splitter: s, conns: make(chan net.Conn)}
	go s.run(a, b)
	return a, b
}

type splitter struct {
	net.Listener
	done chan struct{}
	once sync.Once
	err  error // of Accept; set before done is closed
}

func (s *splitter) run(rpc, http *half) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			// Out of descriptors, for one: it may pass, unless the listener is closed.
			select {
			case <-s.done:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				s.once.Do(func() { s.err = err; close(s.done) })
				return
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go s.sort(c, rpc, http)
	}
}

// sort reads as much of a connection as shows what it is.
func (s *splitter) sort(c net.Conn, rpc, http *half) {
	r := bufio.NewReaderSize(c, 512)
	c.SetReadDeadline(time.Now().Add(prefaceTimeout))
	to := rpc
	for n := 1; n <= len(preface); n++ {
		b, err := r.Peek(n)
		if err != nil {
			c.Close()
			return
		}
		if b[n-1] != preface[n-1] {
			to = http
			break
		}
	}
	c.SetReadDeadline(time.Time{})
	select {
	case to.conns <- &peeked{Conn: c, r: r}:
	case <-s.done:
		c.Close()
	}
}

// peeked is a connection whose beginning was read already.
type peeked struct {
	net.Conn
	r *bufio.Reader // nil once it has nothing left
}

func (p *peeked) Read(b []byte) (int, error) {
	if p.r != nil {
		if n := p.r.Buffered(); n > 0 {
			return p.r.Read(b[:min(len(b), n)])
		}
		p.r = nil
	}
	return p.Conn.Read(b)
}

// half is one side of a split listener.
type half struct {
	*splitter
	conns chan net.Conn
}

func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		if h.err != nil {
			return nil, h.err
		}
		return nil, io.EOF
	}
}

func (h *half) Close() error {
	err := h.Listener.Close()
	h.once.Do(func() { h.err = net.ErrClosed; close(h.done) })
	return err
}
