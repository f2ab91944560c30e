package committed

import (
	"context"
	"fmt"
	"sort"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// lakeFS's defaults of how ranges break.
const (
	DefaultMinRangeBytes = 0
	DefaultMaxRangeBytes = 20 << 20
	DefaultRaggedness    = 50_000
)

// uploads is how many tables are written to the object store at a time.
const uploads = 8

// Options of a Store. The zero value has lakeFS's defaults and no cache.
type Options struct {
	MinRangeBytes uint64     // a range doesn't end before this size
	MaxRangeBytes uint64     // a range ends at this size
	Raggedness    uint64     // a range ends, on average, after this many entries
	Tables        TableCache // nil: every use reads the object store
}

// Store reads and writes the committed data of one storage namespace.
type Store struct {
	objects object.Store
	opt     Options

	manyRanges int // from how many ranges on a commit of an object store is looked into in parts
}

// New returns a Store over a namespace's objects.
func New(objects object.Store, opt Options) *Store {
	if opt.MaxRangeBytes == 0 {
		opt.MaxRangeBytes = DefaultMaxRangeBytes
	}
	if opt.Raggedness == 0 {
		opt.Raggedness = DefaultRaggedness
	}
	return &Store{objects: objects, opt: opt, manyRanges: manyRanges}
}

// Ranges lists the ranges of a metarange, by key. The slice is shared: it must not change.
func (s *Store) Ranges(ctx context.Context, id graveler.MetaRangeID) ([]RangeInfo, error) {
	if id == "" {
		return nil, nil
	}
	t, err := s.load(ctx, string(id))
	if err != nil {
		return nil, err
	}
	if rs := t.ranges.Load(); rs != nil {
		return *rs, nil
	}
	rs := make([]RangeInfo, t.len())
	for i := range rs {
		if rs[i], err = decodeRange(t.key(i), t.value(i)); err != nil {
			return nil, fmt.Errorf("metarange %.12s: %w", id, err)
		}
		if i > 0 && rs[i].MinKey <= rs[i-1].MaxKey {
			return nil, fmt.Errorf("metarange %.12s: ranges overlap at %q: %w", id, rs[i].MinKey, graveler.Corrupt)
		}
	}
	t.ranges.Store(&rs)
	return rs, nil
}

// Get returns the entry at a path; NotFound if there is none.
func (s *Store) Get(ctx context.Context, id graveler.MetaRangeID, path string) (graveler.Entry, error) {
	notFound := func() (graveler.Entry, error) {
		return graveler.Entry{}, fmt.Errorf("%q: %w", path, graveler.NotFound)
	}
	rs, err := s.Ranges(ctx, id)
	if err != nil {
		return graveler.Entry{}, err
	}
	i := sort.Search(len(rs), func(i int) bool { return rs[i].MaxKey >= path })
	if i == len(rs) || path < rs[i].MinKey {
		return notFound()
	}
	var v view
	if s.looksInto(rs) {
		v, err = s.look(ctx, &rs[i], path, 1)
	} else {
		v, err = s.lookWhole(ctx, &rs[i])
	}
	if err != nil {
		return graveler.Entry{}, err
	}
	if i = v.search(path); i == v.len() || v.key(i) != path {
		return notFound()
	}
	return entryAt(v.table, i)
}

func entryAt(t *table, i int) (graveler.Entry, error) {
	_, data, err := splitValue(t.value(i))
	if err != nil {
		return graveler.Entry{}, err
	}
	e, err := DecodeEntry(bytesOf(data))
	if err != nil {
		return e, fmt.Errorf("entry %q: %w", t.key(i), err)
	}
	e.Pending = ""
	return e, nil
}
