package local

import (
	"context"
	"strings"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// withSpill reads the bytes of pending entries too. Closing it closes nothing: the engine keeps the store.
type withSpill struct {
	object.Store
	e *Engine
}

func (s *withSpill) Close() error { return nil }

func (s *withSpill) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	if id, ok := strings.CutPrefix(o.Address, engine.SpillScheme); ok {
		return s.e.readPending(ctx, s.Store, graveler.ContentID(id), p, off)
	}
	return s.Store.ReadAt(ctx, o, p, off)
}

// localWithSpill is withSpill over a store of local files.
type localWithSpill struct {
	object.Local
	e *Engine
}

func (s *localWithSpill) Close() error { return nil }

func (s *localWithSpill) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	if id, ok := strings.CutPrefix(o.Address, engine.SpillScheme); ok {
		return s.e.readPending(ctx, s.Local, graveler.ContentID(id), p, off)
	}
	return s.Local.ReadAt(ctx, o, p, off)
}

func (s *localWithSpill) Path(o object.Object) string {
	if strings.HasPrefix(o.Address, engine.SpillScheme) {
		return ""
	}
	return s.Local.Path(o)
}
