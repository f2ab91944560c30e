package committed

import (
	"context"
	"sort"
	"strings"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// walker steps through the records of a metarange, and knows where ranges start: standing at a range's first record it has
// not read the range yet. Of a range that it only looks into it reads no more than it needs, if the store has that cheaply.
type walker struct {
	s      *Store
	ctx    context.Context
	ranges []RangeInfo
	i      int  // range
	at     view // of range i, without a table while only its first key was needed
	j      int  // record of the view
	whole  bool // the range before was walked to its end, so this one is likely to be
	opened int  // ranges before it were run ahead of
	looks  bool // it may look into ranges without reading them whole
	ahead  *ahead
	err    error
}

func (s *Store) walk(ctx context.Context, id graveler.MetaRangeID) (*walker, error) {
	rs, err := s.Ranges(ctx, id)
	return &walker{s: s, ctx: ctx, ranges: rs, looks: s.near()}, err
}

func (w *walker) valid() bool   { return w.err == nil && w.i < len(w.ranges) }
func (w *walker) atStart() bool { return w.at.table == nil }
func (w *walker) key() string {
	if w.atStart() {
		return w.ranges[w.i].MinKey
	}
	return w.at.key(w.j)
}

// enter reads the range if it wasn't read yet.
func (w *walker) enter() bool {
	if !w.atStart() || w.err != nil {
		return w.err == nil
	}
	r := &w.ranges[w.i]
	if !w.whole {
		w.read(r.MinKey, firstWindow)
		return w.err == nil
	}
	w.j = 0
	w.at, w.err = w.readAhead(r)
	if next := w.i + 1; w.err == nil && next < len(w.ranges) && w.s.opt.Tables != nil {
		w.prefetch(&w.ranges[next])
	}
	return w.err == nil
}

// read reads the range from key on.
func (w *walker) read(key string, n int) {
	r := &w.ranges[w.i]
	if w.looks {
		w.at, w.err = w.s.look(w.ctx, r, key, n)
	} else {
		w.at, w.err = w.s.lookWhole(w.ctx, r)
	}
	if w.err != nil {
		return
	}
	if w.j = w.at.search(key); w.j == w.at.len() {
		w.err = corruptRange(r) // its last key is at or after key
	}
}

// ahead is a range that is being read before the walk comes to it. The walk holds it itself: a small cache may not keep it.
type ahead struct {
	r    *RangeInfo
	done chan struct{} // closed when v and err are there
	v    view
	err  error
}

// prefetch reads the range that a sequential walk needs next.
func (w *walker) prefetch(r *RangeInfo) {
	a := &ahead{r: r, done: make(chan struct{})}
	w.ahead = a
	s, ctx := w.s, context.WithoutCancel(w.ctx)
	go func() {
		defer close(a.done)
		a.v, a.err = s.lookWhole(ctx, r)
	}()
}

// readAhead returns a range whole, from the prefetch if that was for it.
func (w *walker) readAhead(r *RangeInfo) (view, error) {
	a := w.ahead
	w.ahead = nil
	if a != nil && a.r == r {
		select {
		case <-a.done:
			if a.err == nil {
				return a.v, nil
			}
		case <-w.ctx.Done():
			return view{}, w.ctx.Err()
		}
	}
	return w.s.lookWhole(w.ctx, r)
}

const (
	aheadParts = 8  // ranges that a walk by seeks is run ahead of
	aheadSeeks = 64 // seeks of it in a range that are foreseen
)

// prefetchParts reads what a walk by seeks is about to read of the next ranges, so that the disk has it ready: one that lists a
// directory passes over each of its sub-directories, seeking beyond its last name as key does.
func (w *walker) prefetchParts(from int, key string) {
	if !w.looks {
		return
	}
	s, ctx, ranges, level := w.s, context.WithoutCancel(w.ctx), w.ranges, strings.Count(key, "/")
	for i := max(from, w.opened); i < min(from+aheadParts, len(ranges)); i++ {
		w.opened = i + 1
		if s.inParts(&ranges[i]) {
			go s.foresee(ctx, &ranges[i], level) // an error shows again when the walk gets there
		}
	}
}

// foresee looks at the first record of each directory of a level in a range.
func (s *Store) foresee(ctx context.Context, r *RangeInfo, level int) {
	for key, n := r.MinKey, 0; n < aheadSeeks && key <= r.MaxKey; n++ {
		v, err := s.look(ctx, r, key, 1)
		if err != nil || v.part == nil || v.len() == 0 {
			return
		}
		at, end := v.key(0), 0
		for range level + 1 {
			i := strings.IndexByte(at[end:], '/')
			if i < 0 {
				return
			}
			end += i + 1
		}
		key = at[:end-1] + "0"
	}
}

func (w *walker) value() (string, bool) {
	if !w.enter() {
		return "", false
	}
	return w.at.value(w.j), true
}

func (w *walker) next() {
	if !w.valid() || !w.enter() {
		return
	}
	key := w.at.key(w.j)
	if w.j++; w.j < w.at.len() {
		return
	}
	if key < w.ranges[w.i].MaxKey {
		if p := w.at.part; p != nil && p.far {
			p.spent.Store(p.limit + 1) // who goes on there wants it all
		}
		w.read(key+"\x00", w.at.next)
		return
	}
	whole := w.at.part == nil
	w.skipRange()
	w.whole = whole
}

func (w *walker) skipRange() { w.i, w.at, w.j, w.whole = w.i+1, view{}, 0, false }

func (w *walker) seek(key string) {
	if w.err != nil {
		return
	}
	i := sort.Search(len(w.ranges), func(i int) bool { return w.ranges[i].MaxKey >= key })
	if i != w.i {
		if i == w.i+1 {
			w.prefetchParts(i+1, key)
		}
		w.i, w.at, w.j, w.whole = i, view{}, 0, false
	}
	if i == len(w.ranges) {
		return
	}
	switch in := !w.atStart() && w.at.covers(key); {
	case in:
		w.j = w.at.search(key)
	case key <= w.ranges[i].MinKey:
		w.at, w.j = view{}, 0
	default:
		w.read(key, firstWindow)
	}
}

// Cursor walks the entries of a metarange. It reads the metarange at once, and a range when it gets there.
func (s *Store) Cursor(ctx context.Context, id graveler.MetaRangeID) (graveler.Cursor, error) {
	w, err := s.walk(ctx, id)
	if err != nil {
		return nil, err
	}
	w.looks = s.looksInto(w.ranges)
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
	e, err := entryAt(c.at.table, c.j)
	if err != nil {
		return nil, err
	}
	c.change = graveler.Change{Path: c.at.key(c.j), Entry: e}
	return &c.change, nil
}

// Encoded implements graveler.Encoded.
func (c *cursor) Encoded() (entry []byte, pending graveler.ContentID, remove, ok bool, err error) {
	if !c.enter() {
		return nil, "", false, false, c.err
	}
	_, data, err := splitValue(c.at.value(c.j))
	return bytesOf(data), "", false, err == nil, err
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
