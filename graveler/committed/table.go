package committed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cockroachdb/pebble/sstable"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// User properties of a table.
const (
	propType    = "type"
	propMin     = "min_key"
	propMax     = "max_key"
	propCount   = "count"
	propSize    = "estimated_size_bytes"
	typeRanges  = "ranges"
	typeMetas   = "metaranges"
	tablePrefix = "_lakefs/"
)

// maxTable bounds a table's bytes, so that a wrong object can't fill the memory. lakeFS's ranges end at 20 MiB.
const maxTable = 1 << 30

// table is a whole table in memory: verified once against its id, then searched without a copy. It never changes.
type table struct {
	data  string   // key, value, key, value, …
	offs  []uint32 // where each key and each value starts, and the end
	props map[string]string

	ranges atomic.Pointer[[]RangeInfo] // of a metarange, once decoded
}

func (t *table) len() int           { return len(t.offs) / 2 }
func (t *table) key(i int) string   { return t.data[t.offs[2*i]:t.offs[2*i+1]] }
func (t *table) value(i int) string { return t.data[t.offs[2*i+1]:t.offs[2*i+2]] }

// cost is what a table takes in memory: of a metarange, its decoded ranges too.
func (t *table) cost() int64 {
	n := int64(len(t.data)) + 4*int64(len(t.offs)) + 512
	if t.props[propType] == typeMetas {
		n += int64(len(t.data)) + int64(t.len())*int64(unsafe.Sizeof(RangeInfo{}))
	}
	return n
}

// search returns the first record at or after key.
func (t *table) search(key string) int {
	return sort.Search(t.len(), func(i int) bool { return t.key(i) >= key })
}

// idHash computes a table's id record by record.
type idHash struct {
	h   hash.Hash
	buf []byte
}

// hashBuffer is how many bytes are hashed at a time, or a record more.
const hashBuffer = 4 << 10

func newIDHash() *idHash { return &idHash{h: sha256.New()} }

func (d *idHash) add(key, value []byte) {
	d.buf = strconv.AppendInt(d.buf, int64(len(key)), 10)
	d.buf = append(append(d.buf, key...), '|')
	d.buf = strconv.AppendInt(d.buf, int64(len(value)), 10)
	d.buf = append(append(d.buf, value...), '|')
	if len(d.buf) >= hashBuffer {
		d.h.Write(d.buf)
		d.buf = d.buf[:0]
	}
}

func (d *idHash) sum(props map[string]string) string {
	d.h.Write(d.buf)
	d.buf = nil
	m := maps.Clone(props)
	maps.DeleteFunc(m, func(k, _ string) bool {
		return k == propMin || k == propMax || k == propCount || k == propSize || strings.HasPrefix(k, "rocksdb.")
	})
	return hex.EncodeToString(graveler.NewIdentOver(d.h).Map(m).Sum())
}

// parseTable reads a table's bytes whole and verifies them against its id.
func parseTable(id string, b []byte) (t *table, err error) {
	defer func() {
		// The SSTable reader trusts block contents that passed their checksums; a forged one can make it panic.
		if r := recover(); r != nil {
			t, err = nil, fmt.Errorf("table %.12s: %v: %w", id, r, graveler.Corrupt)
		}
	}()
	corrupt := func(err error) (*table, error) {
		return nil, fmt.Errorf("table %.12s: %v: %w", id, err, graveler.Corrupt)
	}
	r, err := sstable.NewMemReader(b, sstable.ReaderOptions{})
	if err != nil {
		return corrupt(err)
	}
	defer r.Close()
	it, err := r.NewIter(nil, nil)
	if err != nil {
		return corrupt(err)
	}
	defer it.Close()
	t = &table{props: maps.Clone(r.Properties.UserProperties)}
	t.offs = make([]uint32, 0, 2*min(r.Properties.NumEntries, uint64(len(b)))+1)
	var data strings.Builder
	data.Grow(int(min(r.Properties.RawKeySize+r.Properties.RawValueSize, 16*uint64(len(b)))))
	h := newIDHash()
	for k, lv := it.First(); k != nil; k, lv = it.Next() {
		v, _, err := lv.Value(nil)
		if err != nil {
			return corrupt(err)
		}
		if data.Len()+len(k.UserKey)+len(v) > math.MaxUint32 {
			return corrupt(errors.New("over 4 GiB"))
		}
		h.add(k.UserKey, v)
		t.offs = append(t.offs, uint32(data.Len()))
		data.Write(k.UserKey)
		t.offs = append(t.offs, uint32(data.Len()))
		data.Write(v)
	}
	if err := it.Error(); err != nil {
		return corrupt(err)
	}
	t.offs = append(t.offs, uint32(data.Len()))
	t.data = data.String()
	if got := h.sum(t.props); got != id {
		return corrupt(fmt.Errorf("its content has the id %.12s", got))
	}
	for i := range t.len() {
		if i > 0 && t.key(i-1) >= t.key(i) {
			return corrupt(errors.New("keys out of order"))
		}
		if _, _, err := splitValue(t.value(i)); err != nil {
			return nil, fmt.Errorf("table %.12s: %w", id, err)
		}
	}
	return t, nil
}

// TableCache keeps tables in memory by id. Get returns the cached value, or calls load once for all who wait for it. Cost is
// in bytes.
type TableCache interface {
	Get(ctx context.Context, id string, load func(context.Context) (value any, cost int64, err error)) (any, error)
	// Put keeps a value that was not loaded but made.
	Put(id string, value any, cost int64)
	// Has reports whether the value is there now.
	Has(id string) bool
}

// load returns a table, from the cache if it is there.
func (s *Store) load(ctx context.Context, id string) (*table, error) { return s.loadSized(ctx, id, 0) }

// loadRange is load of a range, about whose size its metarange tells.
func (s *Store) loadRange(ctx context.Context, r *RangeInfo) (*table, error) {
	return s.loadSized(ctx, string(r.ID), sizeOf(r))
}

// sizeOf is how large a range is at most, most likely: what its writer estimated leaves out what comes at its end.
func sizeOf(r *RangeInfo) int {
	return int(min(r.EstimatedSize, maxTable)*9/8) + 64<<10
}

// loadSized is load of a table of some size, at most, most likely.
func (s *Store) loadSized(ctx context.Context, id string, size int) (*table, error) {
	if !validID(id) {
		return nil, fmt.Errorf("%q is no table id: %w", id, graveler.Invalid)
	}
	if s.opt.Tables == nil {
		return s.fetch(ctx, id, size, false)
	}
	v, err := s.opt.Tables.Get(ctx, id, func(ctx context.Context) (any, int64, error) {
		t, err := s.fetch(ctx, id, size, false)
		if err != nil {
			return nil, 0, err
		}
		return t, t.cost(), nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*table), nil
}

// fetch reads a table, with one request if it is no larger than size or firstRead; fresh, past any cache of its bytes.
func (s *Store) fetch(ctx context.Context, id string, size int, fresh bool) (*table, error) {
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	if len(*buf) < size {
		*buf = make([]byte, size)
	}
	b, err := readAll(ctx, s.objects, object.Object{Address: tablePrefix + id, Fresh: fresh}, buf)
	if errors.Is(err, graveler.NotFound) {
		// Not NotFound: that would read as a path that isn't there.
		return nil, fmt.Errorf("table %.12s is missing from the object store (%v): %w", id, err, graveler.Corrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("read table %.12s: %w", id, err)
	}
	return parseTable(id, b)
}

// firstRead is the size of the first request for a table whose length isn't known: most fit, so most cost one request.
const firstRead = 4 << 20

// readBuffers holds tables between the request and the parse, which copies.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, firstRead); return &b }}

// readAll reads an object of the namespace whole into buf, which it makes larger if need be.
func readAll(ctx context.Context, st object.Store, o object.Object, buf *[]byte) ([]byte, error) {
	o.Type, o.Size = graveler.AddressRelative, -1
	for n := 0; ; {
		m, err := st.ReadAt(ctx, o, (*buf)[n:], int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			return (*buf)[:n], nil
		}
		if err != nil {
			return nil, err
		}
		if n >= maxTable {
			return nil, fmt.Errorf("%s is larger than any table: %w", o.Address, graveler.Corrupt)
		}
		*buf = append(*buf, make([]byte, 3*len(*buf))...)
	}
}

// VerifyTable reads a table from the object store, not from a cache, and checks it against its id.
func (s *Store) VerifyTable(ctx context.Context, id string) error {
	_, err := s.fetch(ctx, id, 0, true)
	return err
}
