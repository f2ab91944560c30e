package remote

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// pool are the servers that a client knows, and which of them leads.
type pool struct {
	opt *DialOptions

	mu     sync.Mutex
	peers  []*peer // those that were named, then those that servers told of
	named  int
	leader *peer // nil if not known
	next   int   // to try while none is known
	near   int   // that is asked for what every node knows
	shut   bool
}

// maxLearned bounds the addresses that servers told of.
const maxLearned = 32

func (p *pool) init(addrs string, o *DialOptions) error {
	p.opt = o
	for a := range strings.SplitSeq(addrs, ",") {
		a = strings.TrimSpace(a)
		if a == "" && strings.TrimSpace(addrs) != "" {
			continue
		}
		x, err := newPeer(a, o)
		if err != nil {
			return err
		}
		if p.find(x.addr) == nil {
			p.peers = append(p.peers, x)
		}
	}
	if len(p.peers) == 0 {
		return badAddress(addrs)
	}
	p.named = len(p.peers)
	p.near = rand.IntN(p.named)
	return nil
}

func (p *pool) find(addr string) *peer {
	for _, x := range p.peers {
		if x.addr == addr {
			return x
		}
	}
	return nil
}

func (p *pool) retryFor() time.Duration {
	if p.opt.RetryFor > 0 {
		return p.opt.RetryFor
	}
	return defaultRetry
}

// several reports whether there is more than one server, or may be.
func (p *pool) several() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.peers) > 1 || !p.peers[0].unix
}

func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.peers)
}

// pick chooses the server for an attempt.
func (p *pool) pick(any bool) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if any {
		return p.peers[p.near%len(p.peers)]
	}
	if p.leader != nil {
		return p.leader
	}
	return p.peers[p.next%len(p.peers)]
}

// works notes that a server answered.
func (p *pool) works(x *peer, any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !any && p.leader == nil {
		p.leader = x
	}
}

// failed notes that a server didn't answer.
func (p *pool) failed(x *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skip(x)
}

// skip makes the next attempt another server's. Hold mu.
func (p *pool) skip(x *peer) {
	if p.leader == x {
		p.leader = nil
	}
	if p.peers[p.next%len(p.peers)] == x {
		p.next++
	}
	if p.peers[p.near%len(p.peers)] == x {
		p.near++
	}
}

// moved notes that a server doesn't lead, and which does if it knows. It reports whether there is another to ask at once.
func (p *pool) moved(x *peer, leader string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skip(x)
	if leader == "" {
		return false
	}
	l := p.find(leader)
	if l == nil && len(p.peers) < p.named+maxLearned && !p.shut {
		var err error
		if l, err = newPeer(leader, p.opt); err != nil {
			return false
		}
		p.peers = append(p.peers, l)
	}
	if l == nil || l == x {
		return false
	}
	p.leader = l
	return true
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	for _, x := range p.peers {
		x.close()
	}
}
