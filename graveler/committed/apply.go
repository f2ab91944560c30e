package committed

import (
	"context"
	"fmt"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Summary counts what an Apply did.
type Summary struct {
	Added, Modified, Removed    int64
	RangesWritten, RangesReused int
	BytesWritten                int64
}

// Changes reports whether anything differs from the base.
func (s Summary) Changes() bool { return s.Added+s.Modified+s.Removed > 0 }

// Apply writes the metarange that base becomes by changes, and returns its id. A range that no change touches is taken by
// reference; from the first touched key on, records are rewritten until the next break or untouched range, so the cost
// follows the changes. A change that makes no difference (equal identity, removal of what is not there) touches nothing.
// NothingToDo if no change makes a difference, with base's id.
func (s *Store) Apply(ctx context.Context, base graveler.MetaRangeID, changes graveler.Cursor) (graveler.MetaRangeID, Summary, error) {
	ranges, err := s.Ranges(ctx, base)
	if err != nil {
		return "", Summary{}, err
	}
	a := &applier{s: s, ctx: ctx, w: s.newWriter(ctx, nil), changes: changes}
	if err := a.run(ranges); err != nil {
		a.w.abort()
		return "", Summary{}, err
	}
	if !a.w.sum.Changes() {
		a.w.abort()
		return base, Summary{}, graveler.NothingToDo
	}
	id, err := a.w.finish()
	return id, a.w.sum, err
}

type applier struct {
	s       *Store
	ctx     context.Context
	w       *writer
	changes graveler.Cursor
	have    bool

	data, value []byte // of the record being written, used again for the next
}

func (a *applier) next() { a.have = a.changes.Next() }

func (a *applier) run(ranges []RangeInfo) error {
	a.next()
	for i := range ranges {
		r := &ranges[i]
		for a.have && a.changes.Path() < r.MinKey {
			if err := a.addNew(); err != nil {
				return err
			}
		}
		touched, err := a.touches(r)
		if err != nil {
			return err
		}
		if touched {
			err = a.rewrite(r)
		} else {
			err = a.w.reuse(*r)
		}
		if err != nil {
			return err
		}
	}
	for a.have {
		if err := a.addNew(); err != nil {
			return err
		}
	}
	return a.changes.Err()
}

// touches tells whether a change within r makes a difference. If none does they are passed over; if one does, the cursor
// is where it was.
func (a *applier) touches(r *RangeInfo) (bool, error) {
	if !a.have || a.changes.Path() > r.MaxKey {
		return false, a.changes.Err()
	}
	t, err := a.s.loadRange(a.ctx, r)
	if err != nil {
		return false, err
	}
	for first := a.changes.Path(); a.have && a.changes.Path() <= r.MaxKey; a.next() {
		c, err := a.changes.Change()
		if err != nil {
			return false, err
		}
		i := t.search(c.Path)
		exists := i < t.len() && t.key(i) == c.Path
		same := c.Remove && !exists
		if exists && !c.Remove {
			if same, err = sameEntry(t.value(i), &c.Entry); err != nil {
				return false, err
			}
		}
		if !same {
			a.have = a.changes.SeekGE(first)
			return true, a.changes.Err()
		}
	}
	return false, a.changes.Err()
}

// addNew writes the current change where base has no record.
func (a *applier) addNew() error {
	c, err := a.changes.Change()
	if err != nil {
		return err
	}
	if !c.Remove {
		if err := a.put(c); err != nil {
			return err
		}
		a.w.sum.Added++
	}
	a.next()
	return nil
}

func (a *applier) put(c *graveler.Change) error {
	if c.Entry.Pending != "" {
		return fmt.Errorf("entry %q is not settled: %w", c.Path, graveler.Internal)
	}
	var err error
	if a.data, err = appendEntry(a.data[:0], &c.Entry); err != nil {
		return fmt.Errorf("%q: %w", c.Path, err)
	}
	a.value = appendValue(a.value[:0], c.Entry.Identity(), a.data)
	return a.w.add(c.Path, a.value)
}

// sameEntry reports whether an entry is no change to a record's value.
func sameEntry(value string, e *graveler.Entry) (bool, error) {
	id, data, err := splitValue(value)
	if err != nil || id != string(e.Identity()) || e.Inode == 0 {
		return err == nil && id == string(e.Identity()), err
	}
	base, err := DecodeEntry(bytesOf(data))
	return err == nil && !e.Another(&base), err
}

// rewrite merges r's records with the changes within it.
func (a *applier) rewrite(r *RangeInfo) error {
	t, err := a.s.loadRange(a.ctx, r)
	if err != nil {
		return err
	}
	if a.s.opt.Tables != nil {
		a.w.base = t
	}
	for i := 0; i < t.len(); i++ {
		key := t.key(i)
		for a.have && a.changes.Path() < key {
			if err := a.addNew(); err != nil {
				return err
			}
		}
		if !a.have || a.changes.Path() > key {
			if err := a.w.add(key, bytesOf(t.value(i))); err != nil {
				return err
			}
			continue
		}
		c, err := a.changes.Change()
		if err != nil {
			return err
		}
		same := false
		if !c.Remove {
			if same, err = sameEntry(t.value(i), &c.Entry); err != nil {
				return err
			}
		}
		switch {
		case c.Remove:
			a.w.sum.Removed++
		case same:
			err = a.w.add(key, bytesOf(t.value(i)))
		default:
			a.w.sum.Modified++
			put := *c
			if id, _, _ := splitValue(t.value(i)); id == string(c.Entry.Identity()) {
				put.Entry.SetApart() // so that a diff tells of it too
			}
			err = a.put(&put)
		}
		if err != nil {
			return err
		}
		a.next()
	}
	return a.changes.Err()
}
