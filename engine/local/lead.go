package local

import (
	"context"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// onLead is what a node does when it has become the leader, before it serves anybody: what the leader before it had begun and can't finish
// any more is taken away.
func (e *Engine) onLead(ctx context.Context) error {
	select {
	case <-e.opened:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// A repository may have been made anew, elsewhere, since this node led.
	e.empties.Clear()
	v, err := e.rep.View()
	if err != nil {
		return err
	}
	defer v.Close()
	if err := e.dropBulks(ctx, v); err != nil {
		return err
	}
	settled, err := v.SettledContents()
	if err != nil {
		return err
	}
	if err := e.takeUp(v, e.leads == 0); err != nil {
		return err
	}
	e.leads++
	if len(settled) > 0 {
		go e.forgetSettled(ctx, settled)
	}
	return nil
}

// forgetSettled forgets what contents became that were settled under another lead, when nobody names them as pending any more.
func (e *Engine) forgetSettled(ctx context.Context, settled []graveler.ContentID) {
	for wait := settledKept; len(settled) > 0; wait = time.Second {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		n := min(len(settled), 1000)
		if err := e.rep.Settle(ctx, nil, settled[:n]); err != nil {
			if ctx.Err() == nil {
				e.log.Warn("what files became long ago is not forgotten", "err", err)
			}
			return
		}
		settled = settled[n:]
	}
}
