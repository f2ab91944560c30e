package nfs

import (
	"context"
	"sync"
	"time"
)

// budget bounds the bytes that calls and replies with data take, in the order in which they were asked for.
type budget struct {
	mu    sync.Mutex
	left  int64
	waits []*waiting
}

type waiting struct {
	n     int64
	ready chan struct{}
}

func newBudget(n int64) *budget { return &budget{left: n} }

// take waits until n bytes are left, and calls pressed each time that it has waited for a while.
func (b *budget) take(ctx context.Context, n int64, pressed func()) error {
	b.mu.Lock()
	if len(b.waits) == 0 && b.left >= n {
		b.left -= n
		b.mu.Unlock()
		return nil
	}
	w := &waiting{n, make(chan struct{})}
	b.waits = append(b.waits, w)
	b.mu.Unlock()
	t := time.NewTicker(pressAfter)
	defer t.Stop()
	for {
		select {
		case <-w.ready:
			return nil
		case <-t.C:
			pressed()
		case <-ctx.Done():
			b.mu.Lock()
			defer b.mu.Unlock()
			for i, o := range b.waits {
				if o == w {
					b.waits = append(b.waits[:i], b.waits[i+1:]...)
					b.wake()
					return ctx.Err()
				}
			}
			b.left += n // it was ready just now
			b.wake()
			return ctx.Err()
		}
	}
}

// pressAfter is how long a request waits for memory before the slowest clients are cut off.
const pressAfter = 500 * time.Millisecond

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	b.wake()
}

// wake lets those go on whose turn it is. Hold b.mu.
func (b *budget) wake() {
	for len(b.waits) > 0 && b.left >= b.waits[0].n {
		b.left -= b.waits[0].n
		close(b.waits[0].ready)
		b.waits = b.waits[1:]
	}
}
