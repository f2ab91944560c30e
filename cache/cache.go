package cache

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

const (
	// chunkBytes is the unit of fetching and keeping: one S3 GET costs about 30 ms, and a chunk about 10 ms more.
	chunkBytes = 1 << 20
	// wholeBytes is the size up to which objects are fetched whole to be verified.
	wholeBytes = 8 << 20
	// diskWriters bounds what waits to be written to disk, to that many objects of 8 MiB.
	diskWriters = 8
)

// Options of a Cache. Zero values stand for the defaults.
type Options struct {
	MemoryBytes int64  // bound of the memory tier; default 256 MiB. With less than 8 MiB it has little use without a disk tier
	Dir         string // of the disk tier, for this process alone; "" is none
	DiskBytes   int64  // bound of the disk tier, of what its files occupy; 0 is none
	ReadAhead   int64  // how far a sequential reader is run ahead of, at most; default 16 MiB, negative is none
	Concurrency int    // fetches at a time; default 32
	// FetchTimeout bounds one fetch from a store that has no bound itself; default 5 min.
	FetchTimeout time.Duration
	Logger       *slog.Logger // default: none
}

func (opt *Options) setDefaults() error {
	if opt.MemoryBytes < 0 || opt.DiskBytes < 0 || opt.Concurrency < 0 || opt.FetchTimeout < 0 {
		return fmt.Errorf("cache: sizes, concurrency and timeout can't be negative: %w", graveler.Invalid)
	}
	if opt.MemoryBytes == 0 {
		opt.MemoryBytes = 256 << 20
	}
	if opt.ReadAhead == 0 {
		opt.ReadAhead = 16 << 20
	}
	// A reader must not push out what was just fetched ahead for it.
	opt.ReadAhead = min(opt.ReadAhead, opt.MemoryBytes/windowShare/2)
	if opt.ReadAhead < chunkBytes {
		opt.ReadAhead = -1
	}
	if opt.Concurrency == 0 {
		opt.Concurrency = 32
	}
	if opt.FetchTimeout == 0 {
		opt.FetchTimeout = 5 * time.Minute
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Cache is the memory and the disk that stores share. Its methods may be called from many goroutines.
type Cache struct {
	opt     Options
	mem     *memory
	disk    *disk // nil if there is none
	slots   chan struct{}
	ahead   chan struct{} // slots of fetches ahead
	writers chan struct{} // slots of writes to disk that nobody waits for
	tables  flights[key, any]
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu  sync.Mutex        // guards the fields below
	ids map[string]uint32 // namespace URL → the number that stands for it in keys
	n   uint32            // the last such number

	memHits, diskHits, fetches, fetchedBytes, prefetches, corrupt atomic.Int64
}

// NewCache makes a cache. A disk tier that can't be used is left out, with a word in the log: it is no error.
func NewCache(opt Options) (*Cache, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	mem, err := newMemory(opt.MemoryBytes)
	if err != nil {
		return nil, err
	}
	c := &Cache{
		opt: opt, mem: mem, ids: map[string]uint32{},
		slots: make(chan struct{}, opt.Concurrency), ahead: make(chan struct{}, max(1, opt.Concurrency/2)),
		writers: make(chan struct{}, diskWriters),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if opt.Dir != "" && opt.DiskBytes > 0 {
		c.disk, err = openDisk(opt.Dir, opt.DiskBytes, opt.Logger)
		if err != nil {
			opt.Logger.Warn("cache directory can't be used; going on without", "dir", opt.Dir, "err", err)
		}
	}
	return c, nil
}

// Close ends what the cache has under way and waits for it. Stores made with New are closed before.
func (c *Cache) Close() error {
	c.cancel()
	c.wg.Wait()
	c.mem.close()
	if c.disk != nil {
		return c.disk.close()
	}
	return nil
}

// Stats are counts since the start, and what is kept now.
type Stats struct {
	MemoryHits   int64 // chunks and tables found in memory
	DiskHits     int64 // chunks found on disk
	Fetches      int64 // reads from a store, of a chunk or a whole object
	FetchedBytes int64
	Prefetches   int64 // fetches ahead of a reader; those from a store count in Fetches too
	Corrupt      int64 // objects that differed from their checksum, local files among them
	MemoryBytes  int64 // kept in memory
	DiskBytes    int64 // occupied on disk
	DiskFiles    int64
	DiskDropped  int64 // files of the disk tier that were found damaged
}

// Stats returns the present figures.
func (c *Cache) Stats() Stats {
	s := Stats{
		MemoryHits: c.memHits.Load(), DiskHits: c.diskHits.Load(), Fetches: c.fetches.Load(), FetchedBytes: c.fetchedBytes.Load(),
		Prefetches: c.prefetches.Load(), Corrupt: c.corrupt.Load(), MemoryBytes: c.mem.bytes(),
	}
	if c.disk != nil {
		s.DiskBytes, s.DiskFiles, s.DiskDropped = c.disk.stats()
	}
	return s
}

// id returns the number of a namespace in keys. Stores without a URL each have their own.
func (c *Cache) id(url string) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.ids[url]; ok && url != "" {
		return id
	}
	c.n++
	if url != "" {
		c.ids[url] = c.n
	}
	return c.n
}
