package local

import (
	"context"
	"iter"

	"github.com/lakefsfs/lakefsfs/engine"
)

func (e *Engine) OpenSession(ctx context.Context) (engine.SessionID, error) {
	return 1, nil
}

func (e *Engine) Watch(ctx context.Context, _ uint64) iter.Seq2[engine.Event, error] {
	return e.watch(ctx)
}
