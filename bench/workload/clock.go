package main

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// clock times a measure and its operations.
type clock struct {
	limit time.Duration // of a measure that needn't be whole

	began time.Time
	took  time.Duration // 0 until stop
	count atomic.Int64
	bytes atomic.Int64

	mu    sync.Mutex
	times []time.Duration // of single operations, in no order
}

// start begins, or after preparations that don't count begins again.
func (c *clock) start() { c.began, c.took = time.Now(), 0 }

// stop ends the timed part; what follows is checks.
func (c *clock) stop() {
	if c.took == 0 {
		c.took = time.Since(c.began)
	}
}

func (c *clock) over() bool { return time.Since(c.began) > c.limit }

// each calls do for 0 to n-1, in order, from so many workers, times each call, and stops at the first error or, unless whole, at the
// limit. do returns the bytes of content that it moved.
func (c *clock) each(workers, n int, whole bool, do func(i int) (int, error)) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			times := make([]time.Duration, 0, n/workers+1)
			defer func() {
				c.mu.Lock()
				c.times = append(c.times, times...)
				c.mu.Unlock()
			}()
			for failed.Load() == nil && (whole || !c.over()) {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				t := time.Now()
				b, err := do(i)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				times = append(times, time.Since(t))
				c.count.Add(1)
				c.bytes.Add(int64(b))
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// result is the clock's reading, under a measure's name.
func (c *clock) result(name string) result {
	c.stop()
	r := result{Name: name, Count: c.count.Load(), Seconds: c.took.Seconds(), Bytes: c.bytes.Load()}
	if n := len(c.times); n > 0 {
		slices.Sort(c.times)
		r.P50, r.P99 = micros(c.times[n/2]), micros(c.times[n*99/100])
	}
	return r
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
