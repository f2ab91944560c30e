package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// holders are the machines that serve their contents now.
type holders struct {
	mu    sync.Mutex
	at    map[engine.HolderID]*holding
	moved chan struct{} // closed when one comes; nil if nobody waits
}

// holding is one Hold call.
type holding struct {
	serve func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error)
	ctx   context.Context
	end   context.CancelCauseFunc
}

const (
	// holderWait is how long a holder is waited for that isn't connected: it may be on its way, from another node.
	holderWait = 5 * time.Second
	// holderTime is how long a holder may take to upload what it is asked for.
	holderTime = 2 * time.Minute
	// secureBatch is how many contents a holder is asked for at a time.
	secureBatch = 1024
)

var errTakenOver = fmt.Errorf("another connection of the same holder took over: %w", graveler.Conflict)

// hold serves a holder's contents until ctx ends.
func (e *Engine) hold(ctx context.Context, holder engine.HolderID, serve func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error)) error {
	if holder == "" {
		return fmt.Errorf("a holder needs a name: %w", graveler.Invalid)
	}
	h := &holding{serve: serve}
	h.ctx, h.end = context.WithCancelCause(ctx)
	defer h.end(nil)
	e.holders.mu.Lock()
	if e.holders.at == nil {
		e.holders.at = map[engine.HolderID]*holding{}
	}
	if old := e.holders.at[holder]; old != nil {
		old.end(errTakenOver)
	}
	e.holders.at[holder] = h
	if e.holders.moved != nil {
		close(e.holders.moved)
		e.holders.moved = nil
	}
	e.holders.mu.Unlock()
	<-h.ctx.Done()
	e.holders.mu.Lock()
	if e.holders.at[holder] == h {
		delete(e.holders.at, holder)
	}
	e.holders.mu.Unlock()
	return context.Cause(h.ctx)
}

// holder waits for a holder that isn't connected.
func (e *Engine) holder(ctx context.Context, id engine.HolderID) (*holding, error) {
	timeout := time.NewTimer(holderWait)
	defer timeout.Stop()
	for {
		e.holders.mu.Lock()
		h := e.holders.at[id]
		if h == nil && e.holders.moved == nil {
			e.holders.moved = make(chan struct{})
		}
		moved := e.holders.moved
		e.holders.mu.Unlock()
		if h != nil {
			return h, nil
		}
		select {
		case <-moved:
		case <-timeout.C:
			return nil, fmt.Errorf("the machine %s, which holds the bytes of files that are not on the object store yet, isn't connected: %w", id, graveler.Unavailable)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// named tells which contents some entry names.
func (e *Engine) named(ctx context.Context, contents []graveler.ContentID) (map[graveler.ContentID]graveler.RepositoryID, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return e.names.of(v, contents)
}

// settle names the objects that contents became.
func (e *Engine) settle(ctx context.Context, settled []engine.Settled) error {
	for i := range settled {
		s := &settled[i]
		if s.Content == "" || s.Address == "" || s.Size < 0 {
			return fmt.Errorf("settle content %q: it needs an address and a size: %w", s.Content, graveler.Invalid)
		}
	}
	if len(settled) == 0 {
		return nil
	}
	return e.names.Settle(ctx, settled)
}

// secure makes the bytes of contents objects.
func (e *Engine) secure(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error) {
	own, foreign := byHolder(contents)
	var out []engine.Settled
	if len(own) > 0 {
		var err error
		if out, err = e.settler.Secure(ctx, own); err != nil {
			return nil, err
		}
	}
	snaps := map[graveler.ContentID]engine.Settled{}
	if err := e.secureForeign(ctx, foreign, snaps); err != nil {
		return nil, err
	}
	have := make(map[graveler.ContentID]bool, len(contents))
	for _, s := range out {
		have[s.Content] = true
	}
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	for _, id := range contents {
		if have[id] {
			continue
		}
		have[id] = true
		s, ok, err := v.SettledAs(id)
		if err != nil {
			return nil, err
		}
		if !ok {
			s, ok = snaps[id]
		}
		if ok {
			out = append(out, s)
			continue
		}
		if named, err := v.IsPending(id); err != nil {
			return nil, err
		} else if named {
			return nil, fmt.Errorf("content %s is named by a staged file, and its holder doesn't have it; remove or reset the file: %w", id, graveler.Corrupt)
		}
	}
	return out, nil
}

// byHolder parts the contents of this process from those held elsewhere, which it sorts by holder.
func byHolder(contents []graveler.ContentID) (own, foreign []graveler.ContentID) {
	for _, id := range contents {
		if engine.HolderOf(id) == "" {
			own = append(own, id)
		} else {
			foreign = append(foreign, id)
		}
	}
	slices.Sort(foreign)
	return own, foreign
}

// secureForeign has the holders of contents, sorted, put them on the object store. Those that are being written are returned in snaps.
func (e *Engine) secureForeign(ctx context.Context, contents []graveler.ContentID, snaps map[graveler.ContentID]engine.Settled) error {
	if len(contents) == 0 {
		return nil
	}
	// What was settled, or isn't named any more, need not be asked for.
	v, err := e.rep.View()
	if err != nil {
		return err
	}
	var ask []graveler.ContentID
	for _, id := range slices.Compact(contents) {
		pending, perr := v.IsPending(id)
		if pending {
			ask = append(ask, id)
		}
		err = errors.Join(err, perr)
	}
	v.Close()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	for len(ask) > 0 {
		h := engine.HolderOf(ask[0])
		n := 1
		for n < len(ask) && n < secureBatch && engine.HolderOf(ask[n]) == h {
			n++
		}
		batch := ask[:n]
		ask = ask[n:]
		g.Go(func() error {
			got, err := e.ask(gctx, h, batch)
			if errors.Is(err, graveler.Unavailable) {
				got, err = e.backups(batch, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, s := range got {
				if s.Snapshot {
					snaps[s.Content] = s
				}
			}
			return err
		})
	}
	return g.Wait()
}

// backups are the last snapshots of contents whose holder is away. If one has none there are none, and why is the error.
func (e *Engine) backups(contents []graveler.ContentID, why error) ([]engine.Settled, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var out []engine.Settled
	for _, id := range contents {
		s, ok, err := v.BackedUp(id)
		if err != nil {
			return nil, err
		}
		pending, err := v.IsPending(id)
		switch {
		case err != nil:
			return nil, err
		case !pending:
			continue
		case !ok:
			return nil, why
		}
		out = append(out, s)
	}
	e.log.Warn("files of a machine that is away are taken as they were at their last fsync", "files", len(out), "err", why)
	return out, nil
}

// ask has one holder secure contents. A holder whose connection breaks meanwhile is waited for, and asked once more.
func (e *Engine) ask(ctx context.Context, id engine.HolderID, contents []graveler.ContentID) (got []engine.Settled, err error) {
	for try := 0; ; try++ {
		var h *holding
		if h, err = e.holder(ctx, id); err != nil {
			return nil, err
		}
		sctx, cancel := context.WithTimeout(ctx, holderTime)
		stop := context.AfterFunc(h.ctx, cancel)
		got, err = h.serve(sctx, contents)
		stop()
		late := errors.Is(sctx.Err(), context.DeadlineExceeded)
		cancel()
		switch {
		case err == nil:
			return got, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case h.ctx.Err() != nil && try < 3:
			continue
		case late || h.ctx.Err() != nil:
			return nil, fmt.Errorf("the machine %s, which holds the bytes of %d files, doesn't put them on the object store in time (%v): %w", id, len(contents), err, graveler.Unavailable)
		}
		return nil, fmt.Errorf("the machine %s puts %d files on the object store: %w", id, len(contents), err)
	}
}
