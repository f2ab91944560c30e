package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Nodes speak on one address. The first byte of a connection says what is spoken on it: raft's protocol, or that of peers.go. Then comes the
// name of the cluster that the node is of, or zeros: nodes of another one, such as that from whose snapshot this one was restored, have no
// say here although they may think that they reach one of theirs.
const (
	speakRaft = 'R'
	speakPeer = 'P'
)

const (
	// shakeTime is how long a connection may take to say what it is.
	shakeTime = 10 * time.Second
	// maxShaking bounds the connections that have not said it yet.
	maxShaking = 256
	// installIdle is how long a leader that sends its state may send nothing.
	installIdle = 10 * time.Second
)

// network is where the other nodes reach this one. It is raft.StreamLayer.
type network struct {
	n    *node
	lis  net.Listener
	tls  *certificates // nil without TLS
	raft chan net.Conn
	done sync.WaitGroup
	told atomic.Int64 // when it was last told of a node of another cluster, in seconds

	mu     sync.Mutex
	conns  map[*tracked]bool
	closed bool
}

func (n *node) listen() (*network, error) {
	w := &network{n: n, raft: make(chan net.Conn), conns: map[*tracked]bool{}}
	var err error
	if n.cfg.TLS != nil {
		if w.tls, err = loadTLS(*n.cfg.TLS, n.r.cfg.Logger); err != nil {
			return nil, err
		}
	} else {
		n.r.cfg.Logger.Warn("the nodes of the cluster speak without TLS: anybody on this machine can be one", "listen", n.cfg.Listen)
	}
	if w.lis, err = net.Listen("tcp", n.cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen for the nodes of the cluster: %v: %w", err, graveler.Unavailable)
	}
	return w, nil
}

// serve begins to accept.
func (w *network) serve() {
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		shaking := make(chan struct{}, maxShaking)
		for {
			c, err := w.lis.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				select {
				case <-w.n.stopped:
					return
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
			select {
			case shaking <- struct{}{}:
			default:
				c.Close()
				continue
			}
			w.done.Add(1)
			go func() {
				defer w.done.Done()
				w.receive(c, func() { <-shaking })
			}()
		}
	}()
}

// receive finds out what a connection is for.
func (w *network) receive(raw net.Conn, shaken func()) {
	c, err := w.track(raw)
	if err != nil {
		shaken()
		return
	}
	c.SetDeadline(time.Now().Add(shakeTime))
	var hello [1 + clusterNameLen]byte
	_, err = io.ReadFull(c, hello[:])
	shaken()
	if err != nil {
		c.Close()
		return
	}
	if name := strings.TrimRight(string(hello[1:]), "\x00"); w.n.foreign(name) {
		if now := time.Now().Unix(); now-w.told.Swap(now) >= 60 {
			w.n.r.cfg.Logger.Warn("a node of another cluster is not answered", "from", raw.RemoteAddr(), "cluster", name, "mine", w.n.name())
		}
		c.Close()
		return
	}
	c.SetDeadline(time.Time{})
	switch hello[0] {
	case speakRaft:
		select {
		case w.raft <- c:
		case <-w.n.stopped:
			c.Close()
		}
	case speakPeer:
		defer c.Close()
		w.n.servePeer(c)
	default:
		c.Close()
	}
}

// tracked is a connection from or to another node. All of them break when the node stops: who reads or writes one then doesn't wait.
type tracked struct {
	net.Conn
	w  *network
	in bool // the other one made it
	mu sync.Mutex
	at time.Time // of the last bytes
}

func (w *network) track(raw net.Conn) (*tracked, error) {
	c := raw
	if w.tls != nil {
		c = tls.Server(raw, w.tls.server())
	}
	return w.keep(&tracked{Conn: c, w: w, in: true, at: time.Now()})
}

func (w *network) keep(t *tracked) (*tracked, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		t.Conn.Close()
		return nil, net.ErrClosed
	}
	w.conns[t] = true
	return t, nil
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.mu.Lock()
		t.at = time.Now()
		t.mu.Unlock()
	}
	return n, err
}

func (t *tracked) Close() error {
	t.w.mu.Lock()
	delete(t.w.conns, t)
	t.w.mu.Unlock()
	return t.Conn.Close()
}

// closeIdle closes the connections of others on which nothing came for a while.
func (w *network) closeIdle(d time.Duration) {
	w.mu.Lock()
	var idle []*tracked
	for t := range w.conns {
		t.mu.Lock()
		if t.in && time.Since(t.at) > d {
			idle = append(idle, t)
		}
		t.mu.Unlock()
	}
	w.mu.Unlock()
	for _, t := range idle {
		t.Close()
	}
}

// Accept is net.Listener's, of raft's connections.
func (w *network) Accept() (net.Conn, error) {
	select {
	case c := <-w.raft:
		return c, nil
	case <-w.n.stopped:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's.
func (w *network) Close() error {
	w.mu.Lock()
	w.closed = true
	conns := w.conns
	w.conns = map[*tracked]bool{}
	w.mu.Unlock()
	err := w.lis.Close()
	for t := range conns {
		t.Conn.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (w *network) wait() { w.done.Wait() }

// Addr is the address that other nodes reach this one at.
func (w *network) Addr() net.Addr { return advertised(w.n.cfg.Advertise) }

type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// Dial is raft.StreamLayer's.
func (w *network) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(w.n.stop, min(timeout, 4*w.n.cfg.Heartbeat+time.Second))
	defer cancel()
	return w.dial(ctx, string(addr), speakRaft)
}

func (w *network) dial(ctx context.Context, addr string, kind byte) (net.Conn, error) {
	dial := w.n.cfg.Dial
	if dial == nil {
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the node at %s: %v: %w", addr, err, graveler.Unavailable)
	}
	if w.tls != nil {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("node address %q: %v: %w", addr, err, graveler.Invalid)
		}
		t := tls.Client(c, w.tls.client(host))
		if err := t.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, fmt.Errorf("speak TLS with the node at %s: %v: %w", addr, err, graveler.Unavailable)
		}
		c = t
	}
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	hello := append(make([]byte, 0, 1+clusterNameLen), kind)
	hello = append(hello, w.n.name()...)
	if _, err := c.Write(hello[:1+clusterNameLen]); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to the node at %s: %v: %w", addr, err, graveler.Unavailable)
	}
	c.SetDeadline(time.Time{})
	t, err := w.keep(&tracked{Conn: c, w: w, at: time.Now()})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// installing counts the states that are arriving, and notes that bytes came. Raft's main goroutine reads them, without a deadline: from a
// leader that stopped amid them it would never come back to vote. So careLoop breaks the connection then.
func (n *node) installing(d int64) {
	n.came.Store(int64(time.Since(began)))
	n.receiving.Add(d)
}

// began is the origin of times that are counted in steady nanoseconds.
var began = time.Now()
