package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// Random reads of many goroutines through a cache that is too small over a store that fails, lies and cuts short: what is
// returned is what was written (I2), and the bounds hold at any moment (I1).
func TestRandomReads(t *testing.T) {
	const memory, diskBytes = 4 << 20, 6 << 20
	dir := t.TempDir()
	base := remote(t, t.TempDir())
	type pair struct {
		o object.Object
		b []byte
	}
	var model []pair
	for i, n := range []int{1, 100, 4096, 70_000, 1 << 20, 1<<20 + 1, 3 << 20, 8 << 20, 8<<20 + 1, 12 << 20} {
		b := objecttest.Bytes(uint64(i), n)
		o := objecttest.Put(t, base, fmt.Sprintf("data/p/%d", i), b)
		model = append(model, pair{o, b})
	}
	table := objecttest.Bytes(50, 5<<20)
	to := objecttest.Put(t, base, fmt.Sprintf("_lakefs/%064d", 1), table)
	to.Size, to.MD5 = -1, ""

	faults := objecttest.Faults{FailOneIn: 20, TruncateOneIn: 20}
	faulty := objecttest.NewFaulty(base, 7, faults)
	c := newCache(t, Options{MemoryBytes: memory, Dir: dir, DiskBytes: diskBytes, Concurrency: 4, ReadAhead: 2 << 20})
	st := New(faulty, c)

	stop := make(chan struct{})
	var watcher, readers sync.WaitGroup
	watcher.Go(func() {
		for {
			if n := c.mem.bytes(); n > memory {
				t.Errorf("%d bytes in memory, over the bound", n)
				return
			}
			if n := c.Stats().DiskBytes; n > diskBytes {
				t.Errorf("%d bytes on disk, over the bound", n)
				return
			}
			c.disk.mu.Lock() // what is counted can't change, so no file comes in the place of one just seen
			n, _ := usage(t, dir)
			c.disk.mu.Unlock()
			if n > diskBytes {
				t.Errorf("files of %d bytes on disk, over the bound", n)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	run := func(from int, objects []pair) {
		for w := range 8 {
			readers.Go(func() {
				r := rand.New(rand.NewPCG(uint64(from), uint64(w)))
				for range 60 {
					p := objects[r.IntN(len(objects))]
					off := r.IntN(len(p.b) + 10)
					n := 1 + r.IntN(1<<r.IntN(21))
					randomRead(t, st, p.o, p.b, off, n)
				}
			})
		}
		readers.Wait()
	}
	run(1, model)
	run(2, append(model, pair{to, table}))
	faulty.Set(objecttest.Faults{FailOneIn: 20, WrongOneIn: 4, TruncateOneIn: 20})
	run(3, model[:8]) // those that are verified
	close(stop)
	watcher.Wait()
	if faulty.Injected() < 20 {
		t.Errorf("only %d faults", faulty.Injected())
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func randomRead(t *testing.T, st object.Store, o object.Object, b []byte, off, n int) {
	p := make([]byte, n)
	got, err := st.ReadAt(context.Background(), o, p, int64(off))
	rest := b[min(off, len(b)):]
	if got > len(rest) || !bytes.Equal(p[:got], rest[:got]) {
		t.Errorf("ReadAt(%s, %d bytes at %d of %d): wrong bytes", o.Address, n, off, len(b))
		return
	}
	if err != nil && err != io.EOF {
		if k := graveler.KindOf(err); k != graveler.Unavailable && k != graveler.Corrupt {
			t.Errorf("ReadAt(%s): %v", o.Address, err)
		}
		return
	}
	// A table's length isn't known, so that one that is cut short can only be seen by who parses it.
	if want := min(n, len(rest)); got != want && o.Size >= 0 || err == nil && got < n {
		t.Errorf("ReadAt(%s, %d bytes at %d of %d) = %d, %v, want %d", o.Address, n, off, len(b), got, err, want)
	}
}
