package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
)

// verifier tells a leader whether it was still the only one at a moment that lies after the question: then what it has applied is all that
// anybody was told is done. It asks the voters whether they know a newer term, and a majority must say no. Raft's own check doesn't do: it
// takes an answer to what was sent before the question for one, as that which waits in the socket of a leader that was stopped for a while.
// No clock has a say.
//
// Each other voter has one goroutine, whose question, once sent, serves all who came before.
type verifier struct {
	n *node
	l *lead

	mu      sync.Mutex
	asked   uint64 // number of the newest question
	voters  map[raft.ServerID]*voter
	waiting []*question
	closed  bool
	done    sync.WaitGroup
}

// question is somebody who waits.
type question struct {
	number uint64
	voters []raft.ServerID // the others
	need   int             // of them
	ok     chan struct{}
}

// voter is another node that is asked.
type voter struct {
	answered uint64 // number of the newest question that it said no to; guarded by the verifier's mu
	wake     chan struct{}
}

func newVerifier(n *node, l *lead) *verifier {
	return &verifier{n: n, l: l, voters: map[raft.ServerID]*voter{}}
}

// verify returns nil if the lead lasted until after the call began.
func (v *verifier) verify(ctx context.Context) error {
	q := &question{ok: make(chan struct{})}
	own := 0
	for _, s := range v.n.servers() {
		switch {
		case s.Suffrage != raft.Voter:
		case s.ID == v.n.id:
			own = 1
		default:
			q.voters = append(q.voters, s.ID)
		}
	}
	q.need = (len(q.voters)+own)/2 + 1 - own
	if q.need > 0 {
		if err := v.ask(ctx, q); err != nil {
			return err
		}
	}
	if v.l.ctx.Err() != nil || v.n.raft.CurrentTerm() != v.l.term {
		return v.n.notLeader()
	}
	return nil
}

func (v *verifier) ask(ctx context.Context, q *question) error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return v.n.notLeader()
	}
	v.asked++
	q.number = v.asked
	v.waiting = append(v.waiting, q)
	for _, id := range q.voters {
		o := v.voters[id]
		if o == nil {
			o = &voter{wake: make(chan struct{}, 1)}
			v.voters[id] = o
			v.done.Add(1)
			go v.loop(id, o)
		}
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
	v.mu.Unlock()
	limit := time.NewTimer(4 * v.n.cfg.Heartbeat)
	defer limit.Stop()
	var err error
	select {
	case <-q.ok:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-v.l.ctx.Done():
		err = v.n.notLeader()
	case <-limit.C:
		err = fmt.Errorf("no majority of the cluster answers: %w", &engine.NotLeader{})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, o := range v.waiting {
		if o == q {
			v.waiting = append(v.waiting[:i], v.waiting[i+1:]...)
			break
		}
	}
	return err
}

// loop asks one voter, while somebody waits.
func (v *verifier) loop(id raft.ServerID, o *voter) {
	defer v.done.Done()
	c := &peerConn{n: v.n, id: id}
	defer c.close()
	for {
		select {
		case <-v.l.ctx.Done():
			return
		case <-o.wake:
		}
		for {
			v.mu.Lock()
			number := v.asked
			wanted := number > o.answered && len(v.waiting) > 0
			v.mu.Unlock()
			if !wanted {
				break
			}
			ctx, cancel := context.WithTimeout(v.l.ctx, 2*v.n.cfg.Heartbeat)
			resp, err := c.call(ctx, &pb.PeerRequest{Ask: &pb.PeerRequest_Confirm{Confirm: v.l.term}})
			cancel()
			if err != nil {
				select {
				case <-v.l.ctx.Done():
					return
				case <-time.After(v.n.cfg.Heartbeat / 20):
				}
				continue
			}
			if resp.Term > v.l.term {
				v.l.end(errLeadMoved) // raft comes to know it by itself
				return
			}
			v.note(o, number)
		}
	}
}

// note counts an answer, and serves those for whom it was the last one needed.
func (v *verifier) note(o *voter, number uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o.answered = number
	rest := v.waiting[:0]
	for _, q := range v.waiting {
		have := 0
		for _, id := range q.voters {
			if v.voters[id].answered >= q.number {
				have++
			}
		}
		if have >= q.need {
			close(q.ok)
		} else {
			rest = append(rest, q)
		}
	}
	clear(v.waiting[len(rest):])
	v.waiting = rest
}

// close ends the goroutines, after the lead has.
func (v *verifier) close() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.done.Wait()
}
