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
}

// New returns a Store over a namespace's objects.
func New(objects object.Store, opt Options) *Store {
	if opt.MaxRangeBytes == 0 {
		opt.MaxRangeBytes = DefaultMaxRangeBytes
	}
	if opt.Raggedness == 0 {
		opt.Raggedness = DefaultRaggedness
	}
	return &Store{objects: objects, opt: opt}
}

// Ranges lists the ranges of a metarange, by key.
func (s *Store) Ranges(ctx context.Context, id graveler.MetaRangeID) ([]RangeInfo, error) {
	if id == "" {
		return nil, nil
	}
	t, err := s.load(ctx, string(id))
	if err != nil {
		return nil, err
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
	return rs, nil
}

// Get returns the entry at a path; NotFound if there is none.
func (s *Store) Get(ctx context.Context, id graveler.MetaRangeID, path string) (graveler.Entry, error) {
	notFound := func() (graveler.Entry, error) {
		return graveler.Entry{}, fmt.Errorf("%q: %w", path, graveler.NotFound)
	}
	if id == "" {
		return notFound()
	}
	meta, err := s.load(ctx, string(id))
	if err != nil {
		return graveler.Entry{}, err
	}
	i := meta.search(path)
	if i == meta.len() {
		return notFound()
	}
	r, err := decodeRange(meta.key(i), meta.value(i))
	if err != nil {
		return graveler.Entry{}, fmt.Errorf("metarange %.12s: %w", id, err)
	}
	if path < r.MinKey {
		return notFound()
	}
	t, err := s.load(ctx, string(r.ID))
	if err != nil {
		return graveler.Entry{}, err
	}
	if i = t.search(path); i == t.len() || t.key(i) != path {
		return notFound()
	}
	return entryAt(t, i)
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

// walker steps through the records of a metarange, and knows where ranges start: standing at a range's first record it has
// not read the range yet.
type walker struct {
	s      *Store
	ctx    context.Context
	ranges []RangeInfo
	i      int    // range
	t      *table // of range i, nil while only its first key was needed
	j      int    // record
	err    error
}

func (s *Store) walk(ctx context.Context, id graveler.MetaRangeID) (*walker, error) {
	rs, err := s.Ranges(ctx, id)
	return &walker{s: s, ctx: ctx, ranges: rs}, err
}

func (w *walker) valid() bool   { return w.err == nil && w.i < len(w.ranges) }
func (w *walker) atStart() bool { return w.t == nil }
func (w *walker) key() string {
	if w.t == nil {
		return w.ranges[w.i].MinKey
	}
	return w.t.key(w.j)
}

func (w *walker) enter() bool {
	if w.t == nil {
		w.t, w.err = w.s.load(w.ctx, string(w.ranges[w.i].ID))
		w.j = 0
		if r := &w.ranges[w.i]; w.err == nil && (w.t.len() == 0 || w.t.key(0) != r.MinKey || w.t.key(w.t.len()-1) != r.MaxKey) {
			w.err = fmt.Errorf("range %.12s doesn't lie where its metarange says: %w", r.ID, graveler.Corrupt)
		}
		if next := w.i + 1; w.err == nil && next < len(w.ranges) && w.s.opt.Tables != nil {
			w.prefetch(string(w.ranges[next].ID))
		}
	}
	return w.err == nil
}

// prefetch reads the range that a sequential walk needs next into the cache.
func (w *walker) prefetch(id string) {
	s, ctx := w.s, context.WithoutCancel(w.ctx)
	go func() { _, _ = s.load(ctx, id) }() // an error shows again when the walk gets there
}

func (w *walker) value() (string, bool) {
	if !w.enter() {
		return "", false
	}
	return w.t.value(w.j), true
}

func (w *walker) next() {
	if !w.valid() || !w.enter() {
		return
	}
	if w.j++; w.j == w.t.len() {
		w.skipRange()
	}
}

func (w *walker) skipRange() { w.i, w.t, w.j = w.i+1, nil, 0 }

func (w *walker) seek(key string) {
	if w.err != nil {
		return
	}
	i := sort.Search(len(w.ranges), func(i int) bool { return w.ranges[i].MaxKey >= key })
	if i != w.i {
		w.i, w.t, w.j = i, nil, 0
	}
	if i == len(w.ranges) {
		return
	}
	if key <= w.ranges[i].MinKey {
		if w.t != nil {
			w.j = 0
		}
		return
	}
	if w.enter() {
		w.j = w.t.search(key)
	}
}

// Cursor walks the entries of a metarange. It reads the metarange at once, and a range when it gets there.
func (s *Store) Cursor(ctx context.Context, id graveler.MetaRangeID) (graveler.Cursor, error) {
	w, err := s.walk(ctx, id)
	if err != nil {
		return nil, err
	}
	return &cursor{walker: w}, nil
}

type cursor struct {
	*walker
	started bool
	change  graveler.Change
}

func (c *cursor) Next() bool {
	if c.started {
		c.next()
	}
	c.started = true
	return c.valid()
}

func (c *cursor) SeekGE(path string) bool {
	c.started = true
	c.seek(path)
	return c.valid()
}

func (c *cursor) Path() string { return c.key() }

func (c *cursor) Change() (*graveler.Change, error) {
	if !c.enter() {
		return nil, c.err
	}
	e, err := entryAt(c.t, c.j)
	if err != nil {
		return nil, err
	}
	c.change = graveler.Change{Path: c.t.key(c.j), Entry: e}
	return &c.change, nil
}

func (c *cursor) Err() error   { return c.err }
func (c *cursor) Close() error { return nil }

// RangeEntries calls each for every entry of a range, in key order, until it fails.
func (s *Store) RangeEntries(ctx context.Context, id graveler.RangeID, each func(path string, e *graveler.Entry) error) error {
	t, err := s.load(ctx, string(id))
	if err != nil {
		return err
	}
	for i := range t.len() {
		e, err := entryAt(t, i)
		if err != nil {
			return err
		}
		if err := each(t.key(i), &e); err != nil {
			return err
		}
	}
	return nil
}
