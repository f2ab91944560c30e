package objecttest

import (
	"context"
	"io"
	"iter"
	"sync/atomic"

	"github.com/lakefsfs/lakefsfs/object"
)

// Counting is a store that counts what reaches the one under it. It is never an object.Local, so that every byte is counted.
type Counting struct {
	st                               object.Store
	reads, puts, stats, dels, lists  atomic.Int64
	bytesRead, bytesPut, outstanding atomic.Int64
	most                             atomic.Int64
}

var _ object.Named = (*Counting)(nil)

// Counts are the requests and bytes so far.
type Counts struct {
	Reads, Puts, Stats, Deletes, Lists int64
	BytesRead, BytesPut                int64
	MostReads                          int64 // reads that were under way at one time
}

// NewCounting returns a store over st that counts.
func NewCounting(st object.Store) *Counting { return &Counting{st: st} }

// Counts returns the counts since the start or the last Reset.
func (c *Counting) Counts() Counts {
	return Counts{
		Reads: c.reads.Load(), Puts: c.puts.Load(), Stats: c.stats.Load(), Deletes: c.dels.Load(), Lists: c.lists.Load(),
		BytesRead: c.bytesRead.Load(), BytesPut: c.bytesPut.Load(), MostReads: c.most.Load(),
	}
}

// Reset sets the counts to zero.
func (c *Counting) Reset() {
	for _, n := range []*atomic.Int64{&c.reads, &c.puts, &c.stats, &c.dels, &c.lists, &c.bytesRead, &c.bytesPut, &c.most} {
		n.Store(0)
	}
}

// URL names the namespace of the store under it.
func (c *Counting) URL() string { return urlOf(c.st) }

// ReadAt counts a read and its bytes.
func (c *Counting) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	c.reads.Add(1)
	for now := c.outstanding.Add(1); ; {
		most := c.most.Load()
		if now <= most || c.most.CompareAndSwap(most, now) {
			break
		}
	}
	defer c.outstanding.Add(-1)
	n, err := c.st.ReadAt(ctx, o, p, off)
	c.bytesRead.Add(int64(n))
	return n, err
}

// Put counts an object and its bytes.
func (c *Counting) Put(ctx context.Context, address string, r io.Reader, opt object.PutOptions) (object.Info, error) {
	c.puts.Add(1)
	i, err := c.st.Put(ctx, address, r, opt)
	c.bytesPut.Add(i.Size)
	return i, err
}

// Stat counts a request.
func (c *Counting) Stat(ctx context.Context, address string) (object.Info, error) {
	c.stats.Add(1)
	return c.st.Stat(ctx, address)
}

// Delete counts a request.
func (c *Counting) Delete(ctx context.Context, address string) error {
	c.dels.Add(1)
	return c.st.Delete(ctx, address)
}

// List counts a request.
func (c *Counting) List(ctx context.Context, prefix string) iter.Seq2[object.Info, error] {
	c.lists.Add(1)
	return c.st.List(ctx, prefix)
}

// Close closes the store under it.
func (c *Counting) Close() error { return c.st.Close() }

// urlOf is the URL of a store, "" if it has none.
func urlOf(st object.Store) string {
	if n, ok := st.(object.Named); ok {
		return n.URL()
	}
	return ""
}
