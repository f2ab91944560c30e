package cache

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// store is an object.Store that reads through a Cache.
type store struct {
	object.Store
	c      *Cache
	id     uint32 // of the namespace, in keys
	url    string // of the namespace; "" keeps its chunks off the disk, where another process couldn't know them
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	chunks flights[key, *item]
	wholes flights[key, *whole]
	ahead  streams
}

var _ object.Named = (*store)(nil)

// New returns a store that reads st through c. It is an object.Local if st is one. Closing it closes st.
func New(st object.Store, c *Cache) object.Store {
	s := &store{Store: st, c: c, url: urlOf(st)}
	s.id = c.id(s.url)
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	if local, ok := st.(object.Local); ok {
		return &localStore{store: s, local: local}
	}
	return s
}

func urlOf(st object.Store) string {
	if n, ok := st.(object.Named); ok {
		return n.URL()
	}
	return ""
}

// URL names the namespace.
func (s *store) URL() string { return s.url }

// tables is where tables lie in a namespace, along with other things.
const tables = "_lakefs/"

// isTable reports whether an address is that of a range or metarange.
func isTable(address string) bool {
	id, ok := strings.CutPrefix(address, tables)
	if !ok || len(id) != 64 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isURL reports whether an object's address is a URL.
func isURL(o object.Object) bool {
	return o.Type == graveler.AddressFull || o.Type == graveler.AddressByPrefix && strings.Contains(o.Address, "://")
}

// cacheable reports whether o's bytes never change and how long it is can be known.
func cacheable(o object.Object, full bool) bool {
	switch {
	case o.Fresh:
		return false
	case !full && strings.HasPrefix(o.Address, tables):
		return isTable(o.Address)
	}
	return o.Size >= 0
}

// isWhole reports whether an object is fetched as a whole. Tables are, since all of one is always needed.
func isWhole(o object.Object, full bool) bool {
	if !full && isTable(o.Address) {
		return true
	}
	return o.MD5 != "" && o.Size <= wholeBytes
}

// maxSize keeps the index of a chunk in 31 bits.
const maxSize = int64(chunkBytes) << 30

func (s *store) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	full := isURL(o)
	if off < 0 || o.Size > maxSize || !cacheable(o, full) {
		return s.Store.ReadAt(ctx, o, p, off)
	}
	var end error
	if o.Size >= 0 && int64(len(p)) > o.Size-off {
		end = io.EOF
		p = p[:max(0, o.Size-off)]
	}
	if len(p) == 0 {
		return 0, end
	}
	k := key{store: s.id, full: full, address: o.Address, md5: o.MD5}
	if o.Part && !s.has(k, off) {
		return s.Store.ReadAt(ctx, o, p, off)
	}
	var n int
	var err error
	if isWhole(o, full) {
		n, err = s.readWhole(ctx, o, k, p, off)
	} else {
		s.readAhead(o, k, off, int64(len(p)))
		n, err = s.read(ctx, o, k, p, off)
	}
	if err != nil && err != io.EOF {
		return n, fmt.Errorf("read %s through the cache: %w", o.Address, kinded(err))
	}
	if err == nil {
		err = end
	}
	return n, err
}

// has reports whether the chunk at an offset is kept.
func (s *store) has(k key, off int64) bool {
	k.index = int32(off / chunkBytes)
	return s.c.mem.get(k) != nil || s.onDisk(k)
}

// kinded gives the errors of contexts, the only ones that come without, their Kind.
func kinded(err error) error {
	if k := graveler.KindOf(err); k == graveler.Canceled || k == graveler.Timeout {
		return fmt.Errorf("%v: %w", err, k)
	}
	return err
}

// read fills p from chunks. All that are not in memory are on their way before the first is waited for.
func (s *store) read(ctx context.Context, o object.Object, k key, p []byte, off int64) (int, error) {
	first, final := off/chunkBytes, (off+int64(len(p))-1)/chunkBytes
	var coming map[int64]*flight[*item]
	if final > first {
		coming = s.startMissing(o, k, first, final)
		defer func() {
			for i, f := range coming { // those not waited for, after an error
				k.index = int32(i)
				s.chunks.leave(k, f)
			}
		}()
	}
	n := 0
	for i := first; i <= final; i++ {
		k.index = int32(i)
		it, err := s.chunk(ctx, o, k, coming)
		if err != nil {
			return n, err
		}
		n += it.copyTo(p[n:], off+int64(n))
	}
	return n, nil
}

// startMissing starts the fetches of the chunks from first to final that are not in memory.
func (s *store) startMissing(o object.Object, k key, first, final int64) map[int64]*flight[*item] {
	coming := map[int64]*flight[*item]{}
	for i := first; i <= final; i++ {
		k.index = int32(i)
		if s.c.mem.get(k) == nil {
			coming[i] = s.join(o, k)
		}
	}
	return coming
}

// chunk returns a chunk from memory, or from the flight that brings it.
func (s *store) chunk(ctx context.Context, o object.Object, k key, coming map[int64]*flight[*item]) (*item, error) {
	f := coming[int64(k.index)]
	if f == nil {
		if it := s.fromMemory(o, k); it != nil {
			return it, nil
		}
		f = s.join(o, k)
	}
	delete(coming, int64(k.index))
	return s.chunks.wait(ctx, k, f)
}

// readWhole fills p from chunks as long as they are kept, and then from the whole object.
func (s *store) readWhole(ctx context.Context, o object.Object, k key, p []byte, off int64) (int, error) {
	for n := 0; ; {
		k.index = int32((off + int64(n)) / chunkBytes)
		it := s.fromMemory(o, k)
		if it == nil {
			var w *whole
			var err error
			if it, w, err = s.bringWhole(ctx, o, k, off+int64(len(p))); err != nil {
				return n, err
			}
			if w != nil {
				n += copy(p[n:], w.data[min(off+int64(n), int64(len(w.data))):])
				if n < len(p) {
					return n, io.EOF
				}
				return n, nil
			}
			if it == nil {
				continue
			}
		}
		n += it.copyTo(p[n:], off+int64(n))
		switch {
		case n == len(p):
			return n, nil
		case it.last:
			return n, io.EOF
		}
	}
}

// bringWhole returns a chunk from the disk, or the whole object from the store, or neither if another reader has brought it
// into memory meanwhile. Of a table, whose size isn't known, want bytes are asked for at once.
func (s *store) bringWhole(ctx context.Context, o object.Object, k key, want int64) (*item, *whole, error) {
	if s.onDisk(k) {
		f := s.chunks.join(s.ctx, &s.wg, k, func(context.Context) (*item, error) { return s.fromDisk(o, k), nil })
		if it, err := s.chunks.wait(ctx, k, f); it != nil || err != nil {
			return it, nil, err
		}
	}
	wk := k
	wk.index = wholeIndex
	f := s.wholes.join(s.ctx, &s.wg, wk, func(ctx context.Context) (*whole, error) {
		if it := s.c.mem.get(k); it != nil && fits(o, it) {
			return nil, nil
		}
		return s.fetchWhole(ctx, o, wk, want)
	})
	w, err := s.wholes.wait(ctx, wk, f)
	return nil, w, err
}

// copyTo copies what the chunk has from the object's offset off on.
func (it *item) copyTo(p []byte, off int64) int {
	off -= int64(it.key.index) * chunkBytes
	if off >= int64(len(it.data)) {
		return 0
	}
	return copy(p, it.data[off:])
}

func (s *store) fromMemory(o object.Object, k key) *item {
	it := s.c.mem.get(k)
	if it == nil || !fits(o, it) {
		return nil
	}
	s.c.memHits.Add(1)
	return it
}

// fits reports whether a chunk has the length that o's size makes it have. Of tables the size isn't known.
func fits(o object.Object, it *item) bool {
	if o.Size < 0 {
		return true
	}
	return int64(len(it.data)) == chunkLen(o, it.key.index)
}

func chunkLen(o object.Object, index int32) int64 {
	return max(0, min(chunkBytes, o.Size-int64(index)*chunkBytes))
}

// Put writes through to the store, and keeps what is small enough to be kept whole.
func (s *store) Put(ctx context.Context, address string, r io.Reader, opt object.PutOptions) (object.Info, error) {
	if opt.Size < 0 || opt.Size > wholeBytes || strings.HasPrefix(address, tables) && !isTable(address) {
		return s.Store.Put(ctx, address, r, opt)
	}
	w := &whole{data: make([]byte, 0, opt.Size)}
	i, err := s.Store.Put(ctx, address, w.keep(r), opt)
	if err != nil || int64(len(w.data)) != i.Size {
		return i, err
	}
	k := key{store: s.id, address: address}
	if !isTable(address) {
		k.md5 = i.MD5
	}
	s.keepWhole(k, w.data)
	return i, nil
}

// keep returns r so that what is read is written to w. If r can be read again, so can it, and w then begins anew.
func (w *whole) keep(r io.Reader) io.Reader {
	tee := io.TeeReader(r, w)
	if s, ok := r.(io.Seeker); ok {
		return &rewinding{tee, s, w}
	}
	return tee
}

type rewinding struct {
	io.Reader
	s io.Seeker
	w *whole
}

// Seek moves, to the start only.
func (r *rewinding) Seek(off int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		r.w.data = r.w.data[:0]
	}
	return r.s.Seek(off, whence)
}

// Close ends what is under way and closes the store.
func (s *store) Close() error {
	s.cancel()
	s.wg.Wait()
	return s.Store.Close()
}
