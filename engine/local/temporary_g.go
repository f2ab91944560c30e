package local

import (
	"context"
	"iter"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func (e *Engine) OpenSession(ctx context.Context) (engine.SessionID, error) {
	return 1, nil
}

func (e *Engine) Hold(ctx context.Context, h engine.HolderID, serve func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error)) error {
	return graveler.Unavailable
}
func (e *Engine) Settle(ctx context.Context, s []engine.Settled) error { return graveler.Unavailable }
func (e *Engine) Secure(ctx context.Context, c []graveler.ContentID) ([]engine.Settled, error) {
	return nil, graveler.Unavailable
}

func (e *Engine) Watch(ctx context.Context, _ uint64) iter.Seq2[engine.Event, error] {
	return e.watch(ctx)
}
