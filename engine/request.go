package engine

import (
	"context"
	"fmt"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Sessions is the part of an Engine with which a change that may have been asked for twice is made once: a client opens a session,
// numbers its changes in it, and repeats one whose outcome it doesn't know, with the same number, to whichever node leads then.
type Sessions interface {
	// OpenSession begins a session. It ends when nothing was asked in it for a day.
	OpenSession(ctx context.Context) (SessionID, error)
}

// SessionID names a session. 0 is none.
type SessionID uint64

// Request numbers one change of a session. A change that was made already isn't made again: what it returned then is returned. A
// request of a session that has ended is refused as Stale.
type Request struct {
	Session SessionID
	Seq     uint64 // from 1, each used for one change
	Done    uint64 // the answers to all up to this one have arrived: they are not asked for again, and are forgotten
}

// ErrInDoubt is the error of a change of which it is not known whether it was made, as when the lead of the cluster is lost meanwhile. Its
// Kind is Unavailable. Who numbered the change asks again; who did not has to look.
var ErrInDoubt = fmt.Errorf("whether the change was made is not known: %w", graveler.Unavailable)

type requestKey struct{}

// WithRequest numbers the change that is made under a context. It is one call of one method.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf is the request that WithRequest gave; its Session is 0 if none.
func RequestOf(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}

// NotLeader is the error of a node of a cluster that is asked for what only the leader may answer. Its Kind is Unavailable: who is told
// so asks the leader.
type NotLeader struct {
	Leader string // the address that clients reach the leader at, "" if none is known: ask again soon, any node
}

// Error says where to ask.
func (e *NotLeader) Error() string {
	if e.Leader == "" {
		return "this node doesn't lead the cluster, and knows no leader: " + graveler.Unavailable.Error()
	}
	return "this node doesn't lead the cluster, " + e.Leader + " does: " + graveler.Unavailable.Error()
}

// Unwrap returns Unavailable.
func (e *NotLeader) Unwrap() error { return graveler.Unavailable }

// SessionEnded is the error of a change whose session is not there any more, or never was: nothing was done. Its Kind is Stale.
type SessionEnded struct{ Session SessionID }

// Error names the session.
func (e *SessionEnded) Error() string {
	return fmt.Sprintf("session %x has ended: %s", uint64(e.Session), graveler.Stale.Error())
}

// Unwrap returns Stale.
func (e *SessionEnded) Unwrap() error { return graveler.Stale }
