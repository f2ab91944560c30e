package cache

import (
	"context"
	"sync"
)

// flights share one run of a function among all who want its result at the same time.
type flights[K comparable, V any] struct {
	mu sync.Mutex // guards m and the waiters of its flights
	m  map[K]*flight[V]
}

// flight is one run.
type flight[V any] struct {
	done    chan struct{} // closed when val and err are there
	val     V
	err     error
	waiters int
	cancel  context.CancelFunc
}

// join returns the flight for k, and starts run if there is none. The context of run ends when nobody waits any more, or with
// ctx, which isn't that of one waiter. Each join is followed by one wait or leave. wg counts the goroutine.
func (s *flights[K, V]) join(ctx context.Context, wg *sync.WaitGroup, k K, run func(context.Context) (V, error)) *flight[V] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.m[k]; f != nil {
		f.waiters++
		return f
	}
	f := &flight[V]{done: make(chan struct{}), waiters: 1}
	ctx, f.cancel = context.WithCancel(ctx)
	if s.m == nil {
		s.m = map[K]*flight[V]{}
	}
	s.m[k] = f
	wg.Go(func() {
		defer f.cancel()
		f.val, f.err = run(ctx)
		s.mu.Lock()
		if s.m[k] == f {
			delete(s.m, k)
		}
		s.mu.Unlock()
		close(f.done)
	})
	return f
}

// wait returns the flight's result, or ctx's error when that ends before.
func (s *flights[K, V]) wait(ctx context.Context, k K, f *flight[V]) (V, error) {
	select {
	case <-f.done:
		return f.val, f.err
	default:
	}
	select {
	case <-f.done:
		return f.val, f.err
	case <-ctx.Done():
		s.leave(k, f)
		var zero V
		return zero, ctx.Err()
	}
}

// leave gives up waiting. A flight that nobody waits for is ended, and the next to come starts another.
func (s *flights[K, V]) leave(k K, f *flight[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	if s.m[k] == f {
		delete(s.m, k)
	}
	f.cancel()
}

// busy reports whether there is a flight for k.
func (s *flights[K, V]) busy(k K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[k] != nil
}
