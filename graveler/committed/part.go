package committed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/objstorage"
	"github.com/cockroachdb/pebble/sstable"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// part is a range of which only the blocks that are asked for are read. The blocks' checksums are checked, and that its
// properties are those that the metarange has of the range; its id is not, which takes all of its records.
type part struct {
	id string
	r  *sstable.Reader
	// spent is what was read so far, in records. From a share of the range on, reading it whole is the better bargain.
	spent atomic.Int64
	limit int64
	look  int64 // what a look spends at least
	cost  int64 // in memory, in bytes
	far   bool  // it is on an object store, where a request costs as much as a megabyte
}

const (
	// partCost is what a part takes in memory besides its tail, in bytes: properties, and the reader.
	partCost = 8 << 10
	// seekSpends is what finding a record costs, in records read: about those of the blocks that are read for it.
	seekSpends = 16
	// partShare is the share of a range, one in so many, that is read in parts before it is read whole.
	partShare = 8
	// minPart is how many records a range has at least to be read in parts.
	minPart = 1000
	// firstWindow and lastWindow are how many records are read at a time, doubling as a reader goes on.
	firstWindow = 8
	lastWindow  = 1024
	// farPart is how large a range on an object store is at least, in bytes, to be read in parts, farRead is how much of it is read at a
	// time, and farWindow how many records are taken from that.
	farPart   = 1 << 20
	farRead   = 64 << 10
	farWindow = 256
	// manyRanges is how many ranges, of 50,000 entries, a commit on an object store has at least to be read in parts: of fewer each is read
	// once, whole, by whom looks at all directories and then in each.
	manyRanges = 64
)

// span is an object's bytes for the SSTable reader. Its tail is kept: the index is there.
type span struct {
	st   object.Store
	o    object.Object
	size int64
	tail []byte
	far  bool

	// What was read last of a far one: the reader asks for blocks of 4 KiB.
	mu  sync.Mutex
	at  int64
	buf []byte
}

// tailOf is how much of a table's end is read at once and kept: most have their index, properties and footer in it.
func tailOf(size int64) int64 { return min(size, max(16<<10, min(size/128, 256<<10))) }

func newSpan(ctx context.Context, st object.Store, o object.Object, size int64) (*span, error) {
	s := &span{st: st, o: o, size: size}
	tail := make([]byte, tailOf(size))
	if err := s.ReadAt(ctx, tail, size-int64(len(tail))); err != nil {
		return nil, err
	}
	s.tail = tail
	return s, nil
}

func (s *span) ReadAt(ctx context.Context, p []byte, off int64) error {
	if at := off - (s.size - int64(len(s.tail))); at >= 0 && at+int64(len(p)) <= int64(len(s.tail)) {
		copy(p, s.tail[at:])
		return nil
	}
	if s.far {
		return s.readFar(ctx, p, off)
	}
	return s.read(ctx, p, off)
}

func (s *span) readFar(ctx context.Context, p []byte, off int64) error {
	s.mu.Lock()
	at, buf := s.at, s.buf
	s.mu.Unlock()
	if off < at || off+int64(len(p)) > at+int64(len(buf)) {
		at, buf = off, make([]byte, max(int64(len(p)), min(farRead, s.size-off)))
		if err := s.read(ctx, buf, off); err != nil {
			return err
		}
		s.mu.Lock()
		s.at, s.buf = at, buf
		s.mu.Unlock()
	}
	copy(p, buf[off-at:])
	return nil
}

func (s *span) read(ctx context.Context, p []byte, off int64) error {
	n, err := s.st.ReadAt(ctx, s.o, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%s ends at byte %d: %w", s.o.Address, off+int64(n), graveler.Corrupt)
	}
	return err
}

func (s *span) Size() int64  { return s.size }
func (s *span) Close() error { return nil }

func (s *span) NewReadHandle(context.Context) objstorage.ReadHandle {
	h := objstorage.MakeNoopReadHandle(s)
	return &h
}

// inParts reports whether a range is better read in parts while it is only looked into: of local files, where a block costs little; of
// an object store if it is so large that some requests cost less than its bytes.
func (s *Store) inParts(r *RangeInfo) bool {
	return s.opt.Tables != nil && r.Count >= minPart && (s.near() || r.EstimatedSize >= farPart)
}

// looksInto reports whether a commit's ranges may be read in parts.
func (s *Store) looksInto(rs []RangeInfo) bool { return s.near() || len(rs) >= s.manyRanges }

// near reports whether the store is on this machine.
func (s *Store) near() bool {
	_, local := s.objects.(object.Local)
	return local
}

// openSpan opens a range's object. Of a far one the end is read at once by what the metarange tells of its size: what comes after that.
func (s *Store) openSpan(ctx context.Context, r *RangeInfo) (*span, error) {
	o := object.Object{Address: tablePrefix + string(r.ID), Type: graveler.AddressRelative, Size: -1, Part: true}
	if !s.near() && r.EstimatedSize < maxTable {
		from := max(0, int64(r.EstimatedSize-r.EstimatedSize/128)-8<<10) // the estimate counts some of the index
		tail := make([]byte, from/32+64<<10)
		n, err := s.objects.ReadAt(ctx, o, tail, from)
		if err == io.EOF && n > 0 && n < len(tail) {
			return &span{st: s.objects, o: o, size: from + int64(n), tail: bytes.Clone(tail[:n]), far: true}, nil
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
	i, err := s.objects.Stat(ctx, o.Address)
	if err != nil {
		return nil, err
	}
	sp, err := newSpan(ctx, s.objects, o, i.Size)
	if err == nil {
		sp.far = !s.near()
	}
	return sp, err
}

// openPart returns a range for reading in parts.
func (s *Store) openPart(ctx context.Context, r *RangeInfo) (*part, error) {
	v, err := s.opt.Tables.Get(ctx, "part:"+string(r.ID), func(ctx context.Context) (any, int64, error) {
		p, err := s.newPart(ctx, r)
		if err != nil {
			return nil, 0, err
		}
		return p, p.cost, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*part), nil
}

func (s *Store) newPart(ctx context.Context, r *RangeInfo) (p *part, err error) {
	defer recovered(string(r.ID), &err)
	sp, err := s.openSpan(ctx, r)
	if err != nil {
		return nil, partError(string(r.ID), err)
	}
	rd, err := sstable.NewReader(sp, sstable.ReaderOptions{})
	if err != nil {
		return nil, partError(string(r.ID), err)
	}
	p = &part{id: string(r.ID), r: rd, cost: partCost + int64(len(sp.tail)), limit: r.Count / partShare, far: sp.far}
	if p.far {
		// As many looks as it has megabytes cost as much as the whole.
		p.look = p.limit / max(2, int64(r.EstimatedSize>>20))
		p.cost += farRead
	}
	runtime.AddCleanup(p, func(r *sstable.Reader) { r.Close() }, rd)
	props := rd.Properties.UserProperties
	if props[propType] != typeRanges || props[propMin] != r.MinKey || props[propMax] != r.MaxKey || props[propCount] != strconv.FormatInt(r.Count, 10) {
		return nil, fmt.Errorf("range %.12s doesn't hold what its metarange says: %w", r.ID, graveler.Corrupt)
	}
	return p, nil
}

// recovered makes an error of a panic: the SSTable reader trusts the contents of blocks whose checksums are right.
func recovered(id string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("table %.12s: %v: %w", id, r, graveler.Corrupt)
	}
}

// partError gives the SSTable reader's own errors their kind.
func partError(id string, err error) error {
	if graveler.KindOf(err) != graveler.Internal {
		return fmt.Errorf("read table %.12s: %w", id, err)
	}
	return fmt.Errorf("table %.12s: %v: %w", id, err, graveler.Corrupt)
}

// worn reports whether so much was read in parts that reading the whole is due.
func (p *part) worn() bool { return p.spent.Load() > p.limit }

// window reads n records, or up to the range's end, from key on.
func (p *part) window(ctx context.Context, key string, n int) (t *table, err error) {
	defer recovered(p.id, &err)
	p.spent.Add(max(int64(seekSpends+n), p.look))
	it, err := p.r.NewIterWithBlockPropertyFiltersAndContextEtc(ctx, nil, nil, nil, false, false, nil, sstable.TrivialReaderProvider{Reader: p.r})
	if err != nil {
		return nil, partError(p.id, err)
	}
	defer it.Close()
	t = &table{offs: make([]uint32, 0, 2*n+1)}
	var data strings.Builder
	k, lv := it.SeekGE(bytesOf(key), 0)
	for ; k != nil && t.len() < n; k, lv = it.Next() {
		v, _, err := lv.Value(nil)
		if err != nil {
			return nil, partError(p.id, err)
		}
		t.offs = append(t.offs, uint32(data.Len()))
		data.Write(k.UserKey)
		t.offs = append(t.offs, uint32(data.Len()))
		data.Write(v)
	}
	if err := it.Error(); err != nil {
		return nil, partError(p.id, err)
	}
	t.offs = append(t.offs, uint32(data.Len()))
	t.data = data.String()
	runtime.KeepAlive(p)
	return t, nil
}

// view is what was read of a range: all of it, or a window of records that follow each other.
type view struct {
	*table
	part *part // of a window
	next int   // how many records the window after it has
}

// look reads a range from key on, n records of it if that is cheaper than all. A part that can't be read makes the range be read
// whole: that tells for certain what is wrong with it.
func (s *Store) look(ctx context.Context, r *RangeInfo, key string, n int) (view, error) {
	if s.inParts(r) && !s.opt.Tables.Has(string(r.ID)) {
		p, err := s.openPart(ctx, r)
		if err == nil && !p.worn() {
			var t *table
			if p.far {
				n = max(n, farWindow)
			}
			if t, err = p.window(ctx, key, n); err == nil {
				return view{table: t, part: p, next: min(2*n, lastWindow)}, nil
			}
		}
		if err != nil && graveler.KindOf(err) != graveler.Corrupt && graveler.KindOf(err) != graveler.NotFound {
			return view{}, err
		}
	}
	return s.lookWhole(ctx, r)
}

func (s *Store) lookWhole(ctx context.Context, r *RangeInfo) (view, error) {
	t, err := s.loadRange(ctx, r)
	if err != nil {
		return view{}, err
	}
	if t.len() == 0 || t.key(0) != r.MinKey || t.key(t.len()-1) != r.MaxKey {
		return view{}, corruptRange(r)
	}
	return view{table: t}, nil
}

func corruptRange(r *RangeInfo) error {
	return fmt.Errorf("range %.12s doesn't lie where its metarange says: %w", r.ID, graveler.Corrupt)
}

// covers reports whether the first record at or after key is in the view.
func (v *view) covers(key string) bool {
	return v.part == nil || v.len() > 0 && v.key(0) <= key && key <= v.key(v.len()-1)
}
