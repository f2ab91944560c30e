package local

import (
	"context"
	"fmt"
	"iter"
	"sort"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// hub hands events to watchers. It keeps the last ones for those who come back.
type hub struct {
	mu     sync.Mutex
	subs   map[*watcher]struct{}
	closed bool

	kept  []engine.Event // in order
	bytes int            // about what they need
	floor uint64         // index of the last change whose event may be missing
	last  uint64         // of the newest one that was sent
	begun bool           // floor counts
}

const (
	keptEvents = 64 << 10
	keptBytes  = 16 << 20
)

// start says where the state stands before its first event.
func (h *hub) start(applied uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.begun {
		h.begun, h.floor, h.last = true, applied, applied
	}
}

func sizeOf(ev *engine.Event) int {
	n := 160
	for _, p := range ev.Paths {
		n += 16 + len(p)
	}
	return n
}

// keep remembers an event. Hold mu.
func (h *hub) keep(ev engine.Event) {
	if !h.begun {
		h.begun, h.floor = true, max(ev.Index, 1)-1
	}
	h.last = max(h.last, ev.Index)
	if ev.Lost {
		h.kept, h.bytes, h.floor = nil, 0, ev.Index
		return
	}
	h.kept = append(h.kept, ev)
	h.bytes += sizeOf(&ev)
	if len(h.kept) <= keptEvents && h.bytes <= keptBytes {
		return
	}
	// Some at a time: what is kept is moved then.
	n := 0
	for n < len(h.kept)-1 && (n < len(h.kept)/8 || h.bytes > keptBytes/8*7) {
		h.bytes -= sizeOf(&h.kept[n])
		n++
	}
	h.floor = h.kept[n-1].Index
	h.kept = append([]engine.Event(nil), h.kept[n:]...)
}

// since lists what came after an index. Hold mu.
func (h *hub) since(after uint64) []engine.Event {
	if after >= h.last {
		return nil
	}
	if after < h.floor {
		return []engine.Event{{Lost: true, Index: h.last}}
	}
	i := sort.Search(len(h.kept), func(i int) bool { return h.kept[i].Index > after })
	return append([]engine.Event(nil), h.kept[i:]...)
}

type watcher struct {
	ch         chan engine.Event
	lost       bool
	sent, seen int           // events
	moved      chan struct{} // closed when seen moves on
}

// CaughtUp waits until every watcher has dealt with the events of what returned so far, or for a second: then what a caller was
// told is done, others see. Don't call it where a watcher may be waiting for the caller.
func (e *Engine) CaughtUp(ctx context.Context) {
	h := &e.events
	timeout := time.NewTimer(time.Second)
	defer timeout.Stop()
	h.mu.Lock()
	goal := map[*watcher]int{}
	for w := range h.subs {
		goal[w] = w.sent
	}
	for w, sent := range goal {
		for w.seen < sent {
			if _, ok := h.subs[w]; !ok {
				break
			}
			if w.moved == nil {
				w.moved = make(chan struct{})
			}
			moved := w.moved
			h.mu.Unlock()
			select {
			case <-moved:
			case <-ctx.Done():
				return
			case <-timeout.C:
				return
			}
			h.mu.Lock()
		}
	}
	h.mu.Unlock()
}

// dealt notes that a watcher has dealt with an event, or is gone. Hold mu.
func (w *watcher) dealt() {
	w.seen++
	if w.moved != nil {
		close(w.moved)
		w.moved = nil
	}
}

const watchBuffer = 4096

func (h *hub) send(ev engine.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep(ev)
	for w := range h.subs {
		ev := ev
		ev.Lost = ev.Lost || w.lost
		select {
		case w.ch <- ev:
			w.lost = false
			w.sent++
		default:
			w.lost = true
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.subs {
		close(w.ch)
	}
	h.subs = nil
}

// Watch yields events until ctx ends or the engine closes.
func (e *Engine) Watch(ctx context.Context, after uint64) iter.Seq2[engine.Event, error] {
	h := &e.events
	w := &watcher{ch: make(chan engine.Event, watchBuffer)}
	var missed []engine.Event
	h.mu.Lock()
	if h.subs == nil {
		h.subs = map[*watcher]struct{}{}
	}
	if h.closed {
		close(w.ch)
	} else {
		h.subs[w] = struct{}{}
		if after > 0 {
			missed = h.since(after)
		}
	}
	h.mu.Unlock()
	return func(yield func(engine.Event, error) bool) {
		defer func() {
			h.mu.Lock()
			delete(h.subs, w)
			w.dealt()
			h.mu.Unlock()
		}()
		for _, ev := range missed {
			if ctx.Err() != nil || !yield(ev, nil) {
				return
			}
		}
		missed = nil
		for {
			select {
			case <-ctx.Done():
				return
			case ev, ok := <-w.ch:
				if !ok {
					yield(engine.Event{}, fmt.Errorf("the engine is closed: %w", graveler.Unavailable))
					return
				}
				// A node that is behind the one that was watched before comes to what is known.
				if (ev.Index > after || ev.Lost) && !yield(ev, nil) {
					return
				}
				h.mu.Lock()
				w.dealt()
				h.mu.Unlock()
			}
		}
	}
}
