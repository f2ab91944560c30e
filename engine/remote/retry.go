package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// method is how calls of one method are made.
type method struct {
	name  string
	mode  mode
	limit time.Duration // of one attempt, where the caller has no deadline
}

// mode says when a call may be made again.
type mode uint8

const (
	reads  mode = iota // changes nothing, or the same thing again
	change             // made once: again only with a number in a session, or if it was certainly not made
	once               // never again once it has been sent
)

// Limits of attempts.
const (
	short = time.Minute // waits for the object store at most
	long  = time.Hour   // reads or writes much
	days  = 24 * time.Hour
)

// tries is one call with all its attempts.
type tries struct {
	c       *Client
	ctx     context.Context
	m       method
	any     bool      // any node can answer
	session bool      // the call has a number in a session
	since   time.Time // that nothing has worked; zero if it has
	n       int       // attempts without a pause
	pause   time.Duration
	asked   []string // servers that were tried since
	doubt   bool     // an attempt was sent, and nobody knows what it did
	at      *peer    // of the last attempt
	sent    bool     // the last attempt was
	died    bool     // and the server was found dead
}

// attempt makes the call once, of a server that may answer it.
func (t *tries) attempt(fn func(ctx context.Context, cc *grpc.ClientConn) error) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	t.at = t.c.pick(t.any)
	if !slices.Contains(t.asked, t.at.addr) {
		t.asked = append(t.asked, t.at.addr)
	}
	t.n++
	t.sent, t.died = false, false
	cc, err := t.at.conn()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	defer cancel(nil)
	if _, ok := ctx.Deadline(); !ok {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, t.m.limit)
		defer stop()
	}
	mark := new(sentMark)
	f := t.at.enter(cancel)
	err = fn(context.WithValue(ctx, sentKey{}, mark), cc)
	t.at.leave(f)
	t.sent = mark.Load()
	if err != nil && context.Cause(ctx) == errDead {
		t.died = true
	}
	if err == nil {
		t.c.works(t.at, t.any)
	}
	return err
}

// progress notes that a stream gave something.
func (t *tries) progress() {
	t.since, t.n, t.pause, t.asked = time.Time{}, 0, 0, t.asked[:0]
}

// next returns nil if the call is to be made again, else its error. It waits before.
func (t *tries) next(err error) error {
	if cerr := t.ctx.Err(); cerr != nil {
		t.doubt = t.doubt || t.sent
		return cerr
	}
	again, wait, failure := t.judge(err)
	if !again {
		return failure
	}
	if t.since.IsZero() {
		t.since = time.Now()
	}
	if _, ok := t.ctx.Deadline(); !ok && time.Since(t.since) > t.c.retryFor() {
		return t.gaveUp(failure)
	}
	if !wait && t.n < 2*t.c.size() {
		return nil
	}
	t.n, t.pause = 0, min(max(2*t.pause, 10*time.Millisecond), 500*time.Millisecond)
	timer := time.NewTimer(t.pause/2 + rand.N(t.pause/2))
	defer timer.Stop()
	select {
	case <-t.ctx.Done():
		return t.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// judge tells whether a call that failed is to be made again, whether to wait before, and with what it fails if not.
func (t *tries) judge(err error) (again, wait bool, failure error) {
	failure = errorFrom(err)
	if e, ok := answered(err); ok {
		var nl *engine.NotLeader
		switch {
		case errors.As(e, &nl):
			return true, !t.c.moved(t.at, nl.Leader), failure
		case e.busy:
			return true, true, failure
		case errors.Is(e, engine.ErrInDoubt):
			// A node that lost the lead meanwhile doesn't know what became of a change; the next leader does.
			t.doubt = t.doubt || t.m.mode != reads
			t.c.failed(t.at)
			return t.m.mode == reads || t.session, true, failure
		case graveler.KindOf(e) == graveler.Unavailable && (t.session || t.m.mode == reads) && len(t.asked) < t.c.size():
			t.c.failed(t.at) // what is out of this server's reach may be in another's
			return true, false, failure
		}
		return false, false, failure
	}
	st, ok := statusOf(err)
	if !ok {
		return false, false, failure // made by this side
	}
	switch st.Code() {
	case codes.Unavailable, codes.Internal, codes.Unknown, codes.Canceled, codes.DeadlineExceeded:
	case codes.Unimplemented:
		return false, false, fmt.Errorf("the server at %s doesn't know %s: is it of an older version?: %w", t.at.addr, t.m.name, graveler.Unavailable)
	default:
		return false, false, failure
	}
	if t.died {
		failure = &remoteError{text: errDead.Error(), err: graveler.Unavailable}
	}
	t.c.failed(t.at)
	if !t.sent {
		if t.at.unix && !t.c.several() {
			return false, false, fmt.Errorf("no daemon answers at %s (%v); start one with lakefsfs up, or name another with --server: %w", t.at.addr, st.Message(), graveler.Unavailable)
		}
		return true, false, failure
	}
	t.doubt = t.doubt || t.m.mode != reads
	if t.m.mode == reads || t.m.mode == change && t.session {
		return true, false, failure
	}
	return false, false, fmt.Errorf("the connection to the server at %s broke (%v): %w", t.at.addr, st.Message(), graveler.Unavailable)
}

// gaveUp is the error of a call that was tried for long enough.
func (t *tries) gaveUp(err error) error {
	return &remoteError{
		text: fmt.Sprintf("tried for %s, of %s: %v", t.c.retryFor(), strings.Join(t.asked, ", "), err),
		err:  graveler.KindOf(err),
	}
}

// doubtful is an error of a change that may have been made all the same.
func doubtful(err error) error {
	if errors.Is(err, engine.ErrInDoubt) {
		return err
	}
	return fmt.Errorf("%w: %w", engine.ErrInDoubt, err)
}
