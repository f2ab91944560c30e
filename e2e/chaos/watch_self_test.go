package chaos

import (
	"context"
	"iter"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
)

// tape is an engine whose watch tells what is written down, one part for each time that it is begun.
type tape struct {
	engine.Engine
	parts [][]engine.Event
	after []uint64
	end   context.CancelFunc
}

func (p *tape) Watch(_ context.Context, after uint64) iter.Seq2[engine.Event, error] {
	p.after = append(p.after, after)
	part := p.parts[0]
	p.parts = p.parts[1:]
	return func(yield func(engine.Event, error) bool) {
		for _, ev := range part {
			if !yield(ev, nil) {
				return
			}
		}
		if len(p.parts) == 0 {
			p.end()
		}
	}
}

func evs(indexes ...uint64) (out []engine.Event) {
	for _, i := range indexes {
		out = append(out, engine.Event{Type: engine.HeadMoved, Index: i})
	}
	return out
}

func TestWatchers(t *testing.T) {
	lost := engine.Event{Lost: true, Index: 4}
	other := evs(1, 2, 3, 4, 5)
	other[2].Branch = "other"
	for _, c := range []struct {
		name  string
		a, b  [][]engine.Event
		wrong string
	}{
		{"the same", [][]engine.Event{evs(1, 2, 3, 4, 5)}, [][]engine.Event{evs(1, 2, 3, 4, 5)}, ""},
		{"the same in parts", [][]engine.Event{evs(1, 2, 3, 4, 5)}, [][]engine.Event{evs(1, 2, 3), evs(3, 4, 5)}, ""},
		{"two at one index, torn", [][]engine.Event{evs(1, 2, 2, 3, 4)}, [][]engine.Event{evs(1, 2), evs(2, 2, 3, 4)}, ""},
		{"later begun", [][]engine.Event{evs(1, 2, 3, 4, 5)}, [][]engine.Event{evs(3, 4, 5)}, ""},
		{"told of a loss", [][]engine.Event{evs(1, 2, 3, 4, 5, 6)}, [][]engine.Event{append(append(evs(1, 2), lost), evs(5, 6)...)}, ""},
		{"one missing", [][]engine.Event{evs(1, 2, 3, 4, 5)}, [][]engine.Event{evs(1, 2, 4, 5)}, "doesn't tell of 3"},
		{"half of an index", [][]engine.Event{evs(1, 2, 2, 3, 4)}, [][]engine.Event{evs(1, 2, 3, 4)}, "another"},
		{"another thing", [][]engine.Event{evs(1, 2, 3, 4, 5)}, [][]engine.Event{other}, "another"},
		{"backwards", [][]engine.Event{evs(1, 2, 3, 4, 5)}, [][]engine.Event{evs(1, 3, 2, 4, 5)}, "tells of 2 after 3"},
		{"twice", [][]engine.Event{evs(1, 2, 3, 4, 5)}, [][]engine.Event{evs(1, 2, 3), evs(1, 2, 3, 4, 5)}, "tells of 1 after"},
	} {
		var l ledger
		w := newWatchers(&l, 2)
		for name, parts := range map[string][][]engine.Event{"a": c.a, "b": c.b} {
			ctx, cancel := context.WithCancel(t.Context())
			p := &tape{parts: parts, end: cancel}
			w.watch(ctx, name, p)
			if p.after[0] != 0 {
				t.Errorf("%s begins after %d", c.name, p.after[0])
			}
		}
		w.end()
		if said := strings.Join(l.wrong, "\n"); c.wrong == "" && said != "" || !strings.Contains(said, c.wrong) {
			t.Errorf("%s: %q, want %q", c.name, said, c.wrong)
		}
	}
}
