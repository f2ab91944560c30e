package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// numbers gives each change its number in a session.
type numbers struct {
	mu      sync.Mutex
	session *session // nil before the first change, and after the end of one
	opening chan struct{}
}

// session is one session of a client. Its id is 0 if the server needs none.
type session struct {
	id engine.SessionID

	mu    sync.Mutex
	last  uint64
	done  uint64
	ended map[uint64]struct{} // above done
}

// begin gives a change the next number.
func (s *session) begin() (seq, done uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last, s.done
}

// end notes that the answer to a number has arrived.
func (s *session) end(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = map[uint64]struct{}{}
	}
	s.ended[seq] = struct{}{}
	for {
		if _, ok := s.ended[s.done+1]; !ok {
			return
		}
		delete(s.ended, s.done+1)
		s.done++
	}
}

// current is the session for a new change.
func (c *Client) current(ctx context.Context) (*session, error) {
	n := &c.numbers
	for {
		n.mu.Lock()
		if s := n.session; s != nil {
			n.mu.Unlock()
			return s, nil
		}
		if opening := n.opening; opening != nil {
			n.mu.Unlock()
			select {
			case <-opening:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		opening := make(chan struct{})
		n.opening = opening
		n.mu.Unlock()
		// The request that opens a session may be repeated: one that nobody knows of ends by itself.
		r, err := unary[pb.OpenSessionResponse](ctx, c, mOpenSession, &pb.OpenSessionRequest{UnlessAlone: !c.several()})
		n.mu.Lock()
		if err == nil {
			n.session = &session{id: engine.SessionID(r.GetSession())}
		}
		n.opening = nil
		n.mu.Unlock()
		close(opening)
		if err != nil {
			return nil, err
		}
	}
}

// retire makes later changes use another session.
func (c *Client) retire(s *session) {
	c.numbers.mu.Lock()
	defer c.numbers.mu.Unlock()
	if c.numbers.session == s {
		c.numbers.session = nil
	}
}

// numbered makes a change: once, whatever is repeated.
func (c *Client) numbered(ctx context.Context, m method, call func(*tries, *pb.RequestInfo) error) error {
	info := &pb.RequestInfo{Origin: engine.OriginOf(ctx)}
	if r := engine.RequestOf(ctx); r.Session != 0 {
		// The caller has a session of its own, as a server that asks another for its client.
		info.Session, info.Seq, info.Done = uint64(r.Session), r.Seq, r.Done
		t := c.tries(ctx, m)
		t.session = true
		err := call(t, info)
		if err != nil && t.doubt {
			err = inDoubt(err)
		}
		return err
	}
	for again := 0; ; again++ {
		s, err := c.current(ctx)
		if err != nil {
			return err
		}
		t := c.tries(ctx, m)
		if s.id == 0 {
			err := call(t, info)
			if err != nil && t.doubt {
				err = inDoubt(err)
				c.retire(s) // the daemon may come back as one of a cluster
			}
			return err
		}
		t.session = true
		info.Session = uint64(s.id)
		info.Seq, info.Done = s.begin()
		err = call(t, info)
		_, ended := errors.AsType[*engine.SessionEnded](err)
		switch {
		case ended:
			c.retire(s)
			if !t.doubt && again < 3 {
				continue
			}
			return doubtful(fmt.Errorf("the session of this change has ended: %w", graveler.Unavailable))
		case err != nil && t.doubt:
			err = inDoubt(err)
		}
		// A number that was given up is done too: should its change still arrive somewhere, it is refused.
		s.end(info.Seq)
		return err
	}
}

// unanswered reports whether an error says nothing of what became of the change.
func unanswered(err error) bool {
	k := graveler.KindOf(err)
	return k == graveler.Unavailable || k == graveler.Canceled || k == graveler.Timeout
}

func inDoubt(err error) error {
	if unanswered(err) {
		return doubtful(err)
	}
	return err
}
