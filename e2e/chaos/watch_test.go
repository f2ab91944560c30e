package chaos

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
)

// watchers compare what the watches of all nodes tell: the same changes with the same indexes, in order, each once.
type watchers struct {
	l     *ledger
	nodes int

	mu     sync.Mutex
	at     map[uint64]told // what not all have told yet
	seen   map[string]*seen
	events int64
	lost   int64 // times that a watcher missed something, and was told so
}

// told is what was told of one index, and by whom.
type told struct {
	sum uint64
	how string
	by  map[string]bool
}

// seen is what one node's watcher saw: all between first and last but for gaps, of which it was told.
type seen struct {
	first, last uint64
	gaps        [][2]uint64 // after the one, up to the other
}

func newWatchers(l *ledger, nodes int) *watchers {
	return &watchers{l: l, nodes: nodes, at: map[uint64]told{}, seen: map[string]*seen{}}
}

// watch watches one node until ctx ends, and takes up again where it broke off.
func (w *watchers) watch(ctx context.Context, node string, c engine.Engine) {
	var index, done uint64 // of what is being told, and of what was told whole
	var sum uint64
	var how string
	for ctx.Err() == nil {
		index, sum, how = 0, 0, ""
		for ev, err := range c.Watch(ctx, done) {
			if err != nil {
				break
			}
			if ev.Lost {
				w.gap(node, done, ev.Index)
				index, sum, how, done = 0, 0, "", max(done, ev.Index)
				continue
			}
			if ev.Index < index || ev.Index <= done {
				w.l.violation("the watch of %s tells of %d after %d", node, ev.Index, max(index, done))
			}
			if index != 0 && ev.Index > index {
				w.tell(node, index, sum, how)
				done, sum, how = index, 0, ""
			}
			index = ev.Index
			h := fnv.New64a()
			fmt.Fprint(h, sum, ev.Type, ev.Repo, ev.Branch, ev.Paths, ev.Unchanged)
			sum = h.Sum64()
			how += fmt.Sprintf("[%d %s@%s %q]", ev.Type, ev.Repo, ev.Branch, ev.Paths)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func (w *watchers) of(node string) *seen {
	if w.seen[node] == nil {
		w.seen[node] = &seen{}
	}
	return w.seen[node]
}

func (w *watchers) gap(node string, after, to uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost++
	s := w.of(node)
	s.gaps = append(s.gaps, [2]uint64{after, to})
}

// tell is told what one watcher saw of one index.
func (w *watchers) tell(node string, index, sum uint64, how string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	s := w.of(node)
	if s.first == 0 {
		s.first = index
	}
	s.last = max(s.last, index)
	was, ok := w.at[index]
	if ok && was.sum != sum {
		w.l.violation("the watch of %s tells of %d %s, another %s", node, index, how, was.how)
	}
	if !ok {
		was = told{sum: sum, how: how, by: map[string]bool{}}
	}
	was.by[node] = true
	w.at[index] = was
	if len(was.by) == w.nodes {
		delete(w.at, index)
	}
}

// end looks for changes that a watcher should have told of, and didn't.
func (w *watchers) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	missed := 0
	for index, t := range w.at {
		for node, s := range w.seen {
			if t.by[node] || index < s.first || index > s.last || slices.ContainsFunc(s.gaps, func(g [2]uint64) bool { return index > g[0] && index <= g[1] }) {
				continue
			}
			if missed++; missed <= 10 {
				w.l.violation("the watch of %s doesn't tell of %d: %s", node, index, t.how)
			}
		}
	}
	if missed > 10 {
		w.l.violation("and %d more that watches don't tell of", missed-10)
	}
}
