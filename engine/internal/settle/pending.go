package settle

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// Pending is where the bytes of pending entries are.
type Pending struct {
	Holder engine.HolderID // whose contents are in Spill
	Spill  *spill.Store
	Secure func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error) // of others', see engine.Holders
}

// WithPending returns st, which reads the bytes of pending entries too. Closing it closes nothing: who opened st keeps it.
func WithPending(st object.Store, p *Pending) object.Store {
	if l, ok := st.(object.Local); ok {
		return &local{Local: l, p: p}
	}
	return &remote{Store: st, p: p}
}

type remote struct {
	object.Store
	p *Pending
}

func (s *remote) Close() error { return nil }

func (s *remote) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	return s.p.readAt(ctx, s.Store, o, p, off)
}

// local is remote over a store of local files.
type local struct {
	object.Local
	p *Pending
}

func (s *local) Close() error { return nil }

func (s *local) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	return s.p.readAt(ctx, s.Local, o, p, off)
}

func (s *local) Path(o object.Object) string {
	if strings.HasPrefix(o.Address, engine.SpillScheme) {
		return ""
	}
	return s.Local.Path(o)
}

func (q *Pending) readAt(ctx context.Context, st object.Store, o object.Object, p []byte, off int64) (int, error) {
	name, ok := strings.CutPrefix(o.Address, engine.SpillScheme)
	if !ok {
		return st.ReadAt(ctx, o, p, off)
	}
	id := graveler.ContentID(name)
	if engine.HolderOf(id) == q.Holder {
		return q.Spill.ReadAt(ctx, id, p, off)
	}
	got, err := q.Secure(ctx, []graveler.ContentID{id})
	if err != nil {
		return 0, err
	}
	if len(got) == 0 {
		return 0, fmt.Errorf("content %s: %w", id, graveler.NotFound)
	}
	var e graveler.Entry
	got[0].Fill(&e)
	o = object.Of(&e)
	if off >= o.Size {
		return 0, io.EOF
	}
	return st.ReadAt(ctx, o, p, off)
}
