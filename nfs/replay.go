package nfs

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A client sends a call again if no reply comes, over a new connection if need be. What was done already, such as a removal, must not be
// done again, or not be answered by an error: the reply of the first is kept for a while, by who called, the number that he gave the
// call, and a checksum of all that he said.

const (
	replaysKept = 4096
	replayFor   = 5 * time.Minute
)

type replayKey struct {
	addr       netip.Addr
	xid        uint32
	prog, proc uint32
	sum        uint64
}

type replayed struct {
	key   replayKey
	done  chan struct{}
	reply []byte // once done is closed
	at    time.Time
}

type replays struct {
	seed maphash.Seed
	mu   sync.Mutex
	m    map[replayKey]*replayed
	ring [replaysKept]*replayed
	next int
}

func newReplays() *replays { return &replays{seed: maphash.MakeSeed(), m: map[replayKey]*replayed{}} }

// begin returns what is known of a call; first tells that it is new, and is to be ended.
func (r *replays) begin(k replayKey, now time.Time) (e *replayed, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.m[k]; e != nil && now.Sub(e.at) < replayFor {
		return e, false
	}
	e = &replayed{key: k, done: make(chan struct{}), at: now}
	if old := r.ring[r.next]; old != nil && r.m[old.key] == old {
		delete(r.m, old.key)
	}
	r.ring[r.next] = e
	r.next = (r.next + 1) % replaysKept
	r.m[k] = e
	return e, true
}

// forget takes out what was not done after all.
func (r *replays) forget(e *replayed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m[e.key] == e {
		delete(r.m, e.key)
	}
}

// runOnce is run of what must not be done twice.
func (q *request) runOnce(p *procedure, b []byte) bool {
	r := q.s.replay
	k := replayKey{q.c.peer.Addr(), q.call.XID, q.call.Prog, q.call.Proc, maphash.Bytes(r.seed, b)}
	e, first := r.begin(k, time.Now())
	if !first {
		select {
		case <-e.done:
		case <-q.c.ctx.Done():
			return false
		}
		if e.reply == nil {
			return false // it came to nothing; the client asks once more
		}
		q.w = append(q.w[:0], e.reply...)
		return true
	}
	defer close(e.done)
	defer func() {
		if e.reply == nil {
			r.forget(e)
		}
	}()
	q.run(p)
	if q.jukebox || q.data != nil {
		return true // is to be tried again
	}
	e.reply = slices.Clone(q.w)
	return true
}
