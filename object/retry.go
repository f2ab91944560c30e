package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Pauses between tries grow from the first to the last of these.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// retry runs do, which must be idempotent, until it succeeds, fails for good, or opt's time is over. Each try has its own
// deadline, so that a store that doesn't answer can't hold it.
func retry(ctx context.Context, opt Options, do func(context.Context) error) error {
	return again(ctx, opt, func() error { return attempt(ctx, opt.Timeout, do) })
}

// again is retry of what has deadlines of its own.
func again(ctx context.Context, opt Options, do func() error) error {
	until := time.Now().Add(opt.RetryFor)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := do()
		if err == nil || err == io.EOF || ctx.Err() != nil {
			return err
		}
		if k := kindOf(err); k != graveler.Unavailable && k != graveler.Timeout || time.Now().Add(pause).After(until) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func attempt(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(tctx)
	if err != nil && ctx.Err() == nil && errors.Is(tctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the store did not answer within %v: %w", limit, graveler.Timeout)
	}
	return err
}

// stallFactor is how many times Options.Timeout an upload may stand still: the last bytes taken may be tens of megabytes
// that still go over a slow line.
const stallFactor = 5

// watch ends the context when nothing has been read through the reader for a while.
type watch struct {
	r       io.Reader
	ctx     context.Context
	timer   *time.Timer
	limit   time.Duration
	stalled atomic.Bool
}

func newWatch(ctx context.Context, cancel context.CancelFunc, r io.Reader, limit time.Duration) *watch {
	w := &watch{r: r, ctx: ctx, limit: limit}
	w.timer = time.AfterFunc(limit, func() { w.stalled.Store(true); cancel() })
	return w
}

func (w *watch) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	w.timer.Reset(w.limit)
	return w.r.Read(p)
}

// end stops the watch and says it if the watch ended the upload.
func (w *watch) end(err error) error {
	w.timer.Stop()
	if err != nil && w.stalled.Load() {
		return fmt.Errorf("the store took no bytes for %v: %w", w.limit, graveler.Timeout)
	}
	return err
}
