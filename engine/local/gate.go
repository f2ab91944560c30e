package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/graveler"
)

type gateKey struct{}

// inside reports whether a context is that of a call that has passed the gate.
func inside(ctx context.Context) bool { return ctx.Value(gateKey{}) != nil }

// plain reports whether a call needs no gate: the engine has no cluster, and nobody asks twice.
func (e *Engine) plain(ctx context.Context) bool {
	return e.rep.Alone() && engine.RequestOf(ctx).Session == 0
}

// change runs a call that changes something. In a cluster that is the leader's, and what it proposes counts only under the lead under
// which it began. A request that has its answer gets that again; one that fails before its command came has that recorded, or a copy of it
// that was under way could be made later.
func change[T any](ctx context.Context, e *Engine, f func(ctx context.Context) (T, error)) (out T, err error) {
	return changeBy(ctx, e, true, f)
}

// changeBy is change. Where one command is all that a call proposes, its answer is found when that is applied: nobody need look before.
func changeBy[T any](ctx context.Context, e *Engine, look bool, f func(ctx context.Context) (T, error)) (out T, err error) {
	if e.plain(ctx) || inside(ctx) {
		return f(ctx)
	}
	ctx, end, err := e.rep.Begin(ctx, false)
	if err != nil {
		return out, err
	}
	defer end()
	requested := engine.RequestOf(ctx).Session != 0
	var known replica.Result
	ctx = replica.WithAnswer(context.WithValue(ctx, gateKey{}, true), &known)
	if requested && look {
		if known, err = e.answered(ctx); err != nil {
			return out, err
		}
	}
	if !known.Known {
		out, err = f(ctx)
	}
	if err != nil && !known.Known {
		if lost := e.rep.Lost(ctx); lost != nil {
			return out, inDoubt(lost, err)
		}
		switch {
		case !definite(err):
		case requested:
			if res := e.rep.Refuse(ctx, err); res.Known {
				known = res
			} else if !definite(res.Err) {
				err = res.Err
			}
		default:
			// What it failed for may be old.
			if verr := e.rep.Verify(ctx); verr != nil {
				return out, verr
			}
		}
	}
	if !known.Known {
		return out, err
	}
	var again T
	if known.Err != nil {
		return again, known.Err
	}
	if len(known.Value) > 0 {
		if err := json.Unmarshal(known.Value, &again); err != nil {
			return again, fmt.Errorf("what the request returned before: %v: %w", err, graveler.Corrupt)
		}
	}
	return again, nil
}

// do is change for a call that returns nothing.
func do(ctx context.Context, e *Engine, f func(ctx context.Context) error) error {
	_, err := change(ctx, e, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	return err
}

// definite reports whether an error says that nothing was changed, nor will be, by the call.
func definite(err error) bool {
	switch graveler.KindOf(err) {
	case graveler.Unavailable, graveler.Canceled, graveler.Timeout, graveler.Internal:
		return false
	}
	return true
}

// inDoubt is the error of a call whose lead was lost before it ended.
func inDoubt(lost, err error) error {
	if errors.Is(err, engine.ErrInDoubt) {
		return err
	}
	return lost
}

func (e *Engine) answered(ctx context.Context) (replica.Result, error) {
	v, err := e.rep.Peek()
	if err != nil {
		return replica.Result{}, err
	}
	defer v.Close()
	return v.Answered(ctx)
}

// returning gives what a call's deciding command makes it return, so that who asks again is told the same.
func returning(ctx context.Context, v any) context.Context {
	if engine.RequestOf(ctx).Session == 0 {
		return ctx
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // none of what calls return can't be encoded
	}
	return replica.WithValue(ctx, b)
}

// read begins a call that reads what may change: in a cluster it is the leader's, who asks the others first whether it still is.
func (e *Engine) read(ctx context.Context) (context.Context, error) {
	if e.rep.Alone() || inside(ctx) {
		return ctx, nil
	}
	_, end, err := e.rep.Begin(ctx, true)
	if err != nil {
		return ctx, err
	}
	// What it reads from now on is new enough, whoever leads when it ends.
	end()
	return context.WithValue(ctx, gateKey{}, true), nil
}

// readOf is read of refs. Full ids of commits never change their meaning, so every node that knows them answers.
func (e *Engine) readOf(ctx context.Context, repo graveler.RepositoryID, refs ...graveler.Ref) (context.Context, error) {
	if e.rep.Alone() || inside(ctx) {
		return ctx, nil
	}
	v, err := e.rep.Peek()
	if err != nil {
		return ctx, err
	}
	defer v.Close()
	for _, ref := range refs {
		if !fullID(ref) {
			return e.read(ctx)
		}
		if _, err := v.Commit(repo, graveler.CommitID(ref)); err != nil {
			return e.read(ctx)
		}
	}
	if _, err := v.Repository(repo); err != nil {
		return e.read(ctx)
	}
	return context.WithValue(ctx, gateKey{}, true), nil
}

func fullID(ref graveler.Ref) bool {
	if len(ref) != 64 {
		return false
	}
	for _, c := range []byte(ref) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
