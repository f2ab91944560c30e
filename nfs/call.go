package nfs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// Programs, and the one version of each that is served.
const (
	progNFS   = 100003
	progMount = 100005
	version3  = 3
)

// procedure is one of a program's.
type procedure struct {
	name string
	run  func(ctx context.Context, q *request) error
	// fail is how many words follow the status of a failure: attributes that aren't given.
	fail int
	// once marks what must not be done twice: a call that is sent again gets the reply of the first.
	once bool
}

// dispatch carries a call out, and reports whether there is a reply to send.
func (q *request) dispatch(b []byte) bool {
	c := &q.call
	var procs []procedure
	switch {
	case c.RPC != xdr.RPCVersion:
		q.deny(xdr.DeniedMismatch, 0)
		return true
	case c.Prog == progNFS:
		procs = nfsProcs
	case c.Prog == progMount:
		procs = mountProcs
	default:
		q.reset(xdr.AcceptProgUnavail)
		return true
	}
	switch {
	case c.Vers != version3:
		q.reset(xdr.AcceptProgMismatch)
		q.w.Uint32(version3)
		q.w.Uint32(version3)
		return true
	case int(c.Proc) >= len(procs):
		q.reset(xdr.AcceptProcUnavail)
		return true
	case c.BadCred:
		q.deny(xdr.DeniedAuth, xdr.AuthBadCred)
		return true
	case c.Flavor != xdr.AuthNone && c.Flavor != xdr.AuthSys:
		q.deny(xdr.DeniedAuth, xdr.AuthTooWeak)
		return true
	}
	p := &procs[c.Proc]
	if !p.once && !q.toControl() {
		q.run(p)
		return true
	}
	return q.runOnce(p, b)
}

// toControl reports whether a call writes to a control file: a commit must not be made twice.
func (q *request) toControl() bool {
	if q.call.Prog != progNFS || q.call.Proc != procWrite && q.call.Proc != procCommit {
		return false
	}
	r := q.args
	return isControl(r.Bytes(maxHandle))
}

// run runs a procedure and writes its reply.
func (q *request) run(p *procedure) {
	// A client that goes away doesn't end what it asked for: it may have been told already by what it sees.
	ctx, cancel := context.WithTimeout(q.s.ctx, q.s.cfg.Deadline)
	defer cancel()
	err := p.run(ctx, q)
	if err == nil {
		return
	}
	q.dropBody()
	if errors.Is(err, errGarbage) {
		q.reset(xdr.AcceptGarbage)
		return
	}
	st := statusOf(err)
	q.jukebox = st == statusJukebox
	q.logFailure(p, st, err)
	q.reset(xdr.AcceptSuccess)
	q.w.Uint32(uint32(st))
	words := p.fail
	if q.post == nil || words == 0 {
		for range words {
			q.w.Uint32(0)
		}
		return
	}
	// Two words are attributes before a change and after it; of others the first is what the object has.
	if words == 2 {
		q.w.Uint32(0)
		words--
	}
	q.post.put(q)
	for range words - 1 {
		q.w.Uint32(0)
	}
}

// logFailure logs what is the server's trouble, not the client's.
func (q *request) logFailure(p *procedure, st status, err error) {
	switch st {
	case statusIO, statusNoSpc, statusJukebox, statusServerFault:
	default:
		return
	}
	if errors.Is(err, syscall.EOPNOTSUPP) || q.s.ctx.Err() != nil || q.s.said.already(p.name+err.Error(), time.Now()) {
		return
	}
	q.s.log.Error("nfs: request failed", "op", p.name, "client", q.c.peer, "err", err)
}
