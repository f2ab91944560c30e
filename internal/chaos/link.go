package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Clients is the name of everybody who is no node.
const Clients = "clients"

// Shape is what one direction of a link does to what is sent.
type Shape struct {
	Cut        bool          // nothing arrives; what was sent waits until the link is whole again, as TCP would send it again
	Delay      time.Duration // before anything arrives
	Jitter     time.Duration // at most, on top of Delay, for each piece
	LossOneIn  int           // one piece in so many is lost and comes after Retransmit; 0 is none
	ResetOneIn int           // one piece in so many breaks its connection; 0 is none
}

// Retransmit is how long a lost piece takes to be sent again: the least that Linux waits.
const Retransmit = 200 * time.Millisecond

// way is one direction of a link.
type way struct{ from, to string }

// Net is the network: fronts that nodes are reached at, and the shape of the way from each to each.
type Net struct {
	mu      sync.Mutex
	shapes  map[way]Shape
	changed chan struct{} // closed and replaced when shapes change
	conns   map[*link]bool
	closed  bool
	who     func(client, front net.Addr) string
	rnd     *rand.Rand
	running sync.WaitGroup
	fronts  []net.Listener
}

// NewNet makes a whole network. who tells the name of the node that a connection to a front comes from, Clients if from none.
func NewNet(seed uint64, who func(client, front net.Addr) string) *Net {
	return &Net{
		shapes: map[way]Shape{}, changed: make(chan struct{}), conns: map[*link]bool{}, who: who,
		rnd: rand.New(rand.NewPCG(seed, 0x6e6574)),
	}
}

// link is one connection through a front.
type link struct {
	a, b   string // who asked, and whose front it is
	ends   [2]net.Conn
	ctx    context.Context
	cancel context.CancelFunc
}

func (l *link) kill() {
	l.cancel()
	for _, c := range l.ends {
		if t, ok := c.(*net.TCPConn); ok {
			t.SetLinger(0) // a reset: what waits to be sent is lost
		}
		if c != nil {
			c.Close()
		}
	}
}

// Front listens at an address for a node that listens at another.
func (n *Net) Front(owner, at, behind string) error {
	lis, err := net.Listen("tcp", at)
	if err != nil {
		return fmt.Errorf("front of %s: %w", owner, err)
	}
	n.mu.Lock()
	n.fronts = append(n.fronts, lis)
	n.mu.Unlock()
	n.running.Go(func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				time.Sleep(10 * time.Millisecond) // out of descriptors, for a while
				continue
			}
			n.running.Go(func() { n.serve(owner, c, behind) })
		}
	})
	return nil
}

func (n *Net) serve(owner string, c net.Conn, behind string) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{a: n.who(c.RemoteAddr(), c.LocalAddr()), b: owner, ends: [2]net.Conn{c, nil}, ctx: ctx, cancel: cancel}
	if !n.add(l) {
		l.kill()
		return
	}
	defer n.drop(l)
	// The first packet has to get there, and its answer back.
	if n.pass(ctx, way{l.a, l.b}, time.Now()) != nil || n.pass(ctx, way{l.b, l.a}, time.Now()) != nil {
		return
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	up, err := d.DialContext(ctx, "tcp", behind)
	if err != nil {
		return // drop resets it, as nobody listens
	}
	n.mu.Lock()
	l.ends[1] = up
	dead := ctx.Err() != nil
	n.mu.Unlock()
	if dead {
		up.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { n.pump(l, way{l.a, l.b}, c, up) })
	both.Go(func() { n.pump(l, way{l.b, l.a}, up, c) })
	both.Wait()
}

func (n *Net) add(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.conns[l] = true
	return true
}

func (n *Net) drop(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, l)
	l.kill()
}

// piece is what was read at once, and when it may arrive.
type piece struct {
	b   []byte
	due time.Time
}

// pump carries what from sends to to, until either ends.
func (n *Net) pump(l *link, w way, from, to net.Conn) {
	pieces := make(chan piece, 64)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(pieces)
		var last time.Time
		for {
			b := make([]byte, 16<<10)
			k, err := from.Read(b)
			if k > 0 {
				s, lost, reset := n.draw(w)
				due := time.Now().Add(s)
				if lost {
					due = due.Add(Retransmit)
				}
				if due.Before(last) {
					due = last // a stream doesn't overtake itself
				}
				last = due
				if reset {
					l.kill()
					return
				}
				select {
				case pieces <- piece{b[:k], due}:
				case <-l.ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	defer reading.Wait()
	for p := range pieces {
		if n.pass(l.ctx, w, p.due) != nil {
			l.kill()
			return
		}
		if _, err := to.Write(p.b); err != nil {
			l.kill()
			return
		}
	}
	if l.ctx.Err() != nil {
		return
	}
	// The end of a stream has to get there too: who is cut off doesn't learn that the other side died.
	if n.pass(l.ctx, w, time.Now()) == nil {
		if t, ok := to.(*net.TCPConn); ok {
			t.CloseWrite()
		}
	}
}

// draw decides what happens to one piece.
func (n *Net) draw(w way) (delay time.Duration, lost, reset bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.shapes[w]
	delay = s.Delay
	if s.Jitter > 0 {
		delay += time.Duration(n.rnd.Int64N(int64(s.Jitter)))
	}
	return delay, s.LossOneIn > 0 && n.rnd.IntN(s.LossOneIn) == 0, s.ResetOneIn > 0 && n.rnd.IntN(s.ResetOneIn) == 0
}

// pass waits until something that is due then may arrive.
func (n *Net) pass(ctx context.Context, w way, due time.Time) error {
	if d := time.Until(due); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		n.mu.Lock()
		cut, changed := n.shapes[w].Cut, n.changed
		n.mu.Unlock()
		if !cut {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Set gives the way from one to another a shape.
func (n *Net) Set(from, to string, s Shape) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shapes[way{from, to}] = s
	close(n.changed)
	n.changed = make(chan struct{})
}

// Heal makes all ways whole. What was sent before arrives now, late; unless reset is set: then the connections that were cut break, as
// those do whose ends gave up before.
func (n *Net) Heal(reset bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if reset {
		for l := range n.conns {
			if n.shapes[way{l.a, l.b}].Cut || n.shapes[way{l.b, l.a}].Cut {
				l.kill()
			}
		}
	}
	clear(n.shapes)
	close(n.changed)
	n.changed = make(chan struct{})
}

// Close takes the fronts away and breaks all connections.
func (n *Net) Close() {
	n.mu.Lock()
	n.closed = true
	for _, lis := range n.fronts {
		lis.Close()
	}
	for l := range n.conns {
		l.kill()
	}
	n.mu.Unlock()
	n.running.Wait()
}
