package edge

import (
	"context"
	"errors"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/settle"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// names asks the engine elsewhere what its entries name. It is settle.Names.
type names struct{ e *Engine }

// namedBatch bounds how many contents are asked for in one call.
const namedBatch = 1000

// Stores is settle.Names's. What nothing names any more, and nobody has open, is removed.
func (n names) Stores(ctx context.Context, ids []graveler.ContentID) (map[graveler.ContentID]*settle.Store, error) {
	out := make(map[graveler.ContentID]*settle.Store, len(ids))
	for len(ids) > 0 {
		batch := ids[:min(len(ids), namedBatch)]
		ids = ids[len(batch):]
		// Only a content that somebody has open can get a name that it doesn't have: one that nobody had open when the question was asked
		// has none for good.
		idle := n.e.spill.Idle(batch)
		repos, err := n.e.Named(ctx, batch)
		if err != nil {
			return nil, err
		}
		for _, id := range batch {
			repo, ok := repos[id]
			switch {
			case !ok && idle[id]:
				n.e.spill.DropIdle(id)
				continue
			case !ok:
				continue
			case repo == "":
				continue // being moved; it is named elsewhere soon, or dropped
			}
			s, err := n.e.space(ctx, repo)
			if errors.Is(err, graveler.NotFound) {
				continue // the repository is gone, and its staging with it
			}
			if err != nil {
				return nil, err
			}
			out[id] = &s.Store
		}
	}
	return out, nil
}

// settleRetry is the longest pause between two tries to name objects.
const settleRetry = 5 * time.Second

// Settle is settle.Names's: it asks until there is an answer, or the engine closes. An engine that can't be reached may have taken the
// change, and then nobody may write to the contents any more.
func (n names) Settle(_ context.Context, settled []engine.Settled) error {
	wait := 50 * time.Millisecond
	for {
		err := n.e.Engine.Settle(n.e.ctx, settled)
		if !errors.Is(err, graveler.Unavailable) && !errors.Is(err, graveler.Timeout) && !errors.Is(err, graveler.Stale) || n.e.ctx.Err() != nil {
			return err
		}
		n.e.log.Warn("naming uploaded files isn't answered; it is asked again", "files", len(settled), "err", err)
		select {
		case <-n.e.ctx.Done():
			return err
		case <-time.After(wait):
		}
		wait = min(2*wait, settleRetry)
	}
}
