package objecttest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"sync"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Faults says how a Faulty store fails. Each OneIn is the mean number of calls between two such faults; 0 is never, 1 always.
type Faults struct {
	FailOneIn     int           // any call fails with Kind
	Kind          graveler.Kind // of failures; Internal, the zero value, stands for Unavailable
	HangOneIn     int           // any call hangs until its context ends
	WrongOneIn    int           // a read has one wrong byte
	TruncateOneIn int           // a read ends early with io.EOF, as if the object were shorter
	// Before is called ahead of each call, named ReadAt, Put, Stat, Delete, List, Adopt or Sync, and fails it if it returns
	// an error. It may block.
	Before func(ctx context.Context, call, address string) error
}

// Faulty is a store that fails as it is told, the same way for the same seed and calls.
type Faulty struct {
	st object.Store

	mu       sync.Mutex // guards the fields below
	faults   Faults
	rand     *rand.Rand
	injected int
}

var _ object.Named = (*Faulty)(nil)

// NewFaulty returns a store over st that fails.
func NewFaulty(st object.Store, seed uint64, f Faults) *Faulty {
	return &Faulty{st: st, faults: f, rand: rand.New(rand.NewPCG(seed, 0))}
}

// Set changes how the store fails from now on.
func (f *Faulty) Set(faults Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// Injected is how many faults there were.
func (f *Faulty) Injected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.injected
}

// URL names the namespace of the store under it.
func (f *Faulty) URL() string { return urlOf(f.st) }

// roll decides on one fault; f.mu is held.
func (f *Faulty) roll(oneIn int) bool {
	if oneIn <= 0 || f.rand.IntN(oneIn) != 0 {
		return false
	}
	f.injected++
	return true
}

func (f *Faulty) before(ctx context.Context, call, address string) error {
	f.mu.Lock()
	fail, hang := f.roll(f.faults.FailOneIn), f.roll(f.faults.HangOneIn)
	hook, kind := f.faults.Before, f.faults.Kind
	f.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, call, address); err != nil {
			return err
		}
	}
	if hang {
		<-ctx.Done()
		return fmt.Errorf("%s %s hung: %w", call, address, ctx.Err())
	}
	if fail {
		if kind == graveler.Internal {
			kind = graveler.Unavailable
		}
		return fmt.Errorf("%s %s, injected: %w", call, address, kind)
	}
	return nil
}

// ReadAt reads, or fails, hangs, lies or ends early.
func (f *Faulty) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	if err := f.before(ctx, "ReadAt", o.Address); err != nil {
		return 0, err
	}
	n, err := f.st.ReadAt(ctx, o, p, off)
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > 0 && f.roll(f.faults.WrongOneIn) {
		p[f.rand.IntN(n)] ^= byte(1 + f.rand.IntN(255))
	}
	if n > 0 && f.roll(f.faults.TruncateOneIn) {
		return f.rand.IntN(n), io.EOF
	}
	return n, err
}

// Put writes, fails or hangs; a failed Put may have written nothing or all.
func (f *Faulty) Put(ctx context.Context, address string, r io.Reader, opt object.PutOptions) (object.Info, error) {
	if err := f.before(ctx, "Put", address); err != nil {
		f.mu.Lock()
		written := f.rand.IntN(2) == 0
		f.mu.Unlock()
		if written && ctx.Err() == nil {
			_, _ = f.st.Put(ctx, address, r, opt)
		}
		return object.Info{}, err
	}
	return f.st.Put(ctx, address, r, opt)
}

// Stat asks, fails or hangs.
func (f *Faulty) Stat(ctx context.Context, address string) (object.Info, error) {
	if err := f.before(ctx, "Stat", address); err != nil {
		return object.Info{}, err
	}
	return f.st.Stat(ctx, address)
}

// Delete deletes, fails or hangs.
func (f *Faulty) Delete(ctx context.Context, address string) error {
	if err := f.before(ctx, "Delete", address); err != nil {
		return err
	}
	return f.st.Delete(ctx, address)
}

// List lists, fails or hangs at its start.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if err := f.before(ctx, "List", prefix); err != nil {
			yield(object.Info{}, err)
			return
		}
		f.st.List(ctx, prefix)(yield)
	}
}

// Close closes the store under it.
func (f *Faulty) Close() error { return f.st.Close() }

// FaultyLocal is a Faulty store of local files. What is read through Path has no faults.
type FaultyLocal struct {
	*Faulty
	local object.Local
}

var _ object.Local = (*FaultyLocal)(nil)

// NewFaultyLocal returns a store over st that fails.
func NewFaultyLocal(st object.Local, seed uint64, f Faults) *FaultyLocal {
	return &FaultyLocal{Faulty: NewFaulty(st, seed, f), local: st}
}

// Path is the file that holds o.
func (f *FaultyLocal) Path(o object.Object) string { return f.local.Path(o) }

// Adopt adopts, fails or hangs.
func (f *FaultyLocal) Adopt(ctx context.Context, address, path string) error {
	if err := f.before(ctx, "Adopt", address); err != nil {
		return err
	}
	return f.local.Adopt(ctx, address, path)
}

// Sync makes durable, fails or hangs.
func (f *FaultyLocal) Sync(ctx context.Context) error {
	if err := f.before(ctx, "Sync", ""); err != nil {
		return err
	}
	return f.local.Sync(ctx)
}
