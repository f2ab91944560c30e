package committed

import (
	"context"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// DiffCursor walks the paths that differ between two metaranges, in key order. Ranges that both have are skipped whole.
type DiffCursor struct {
	l, r    *walker
	typ     graveler.DiffType
	key     string
	started bool
	err     error
}

// Diff returns a cursor over what differs from left to right.
func (s *Store) Diff(ctx context.Context, left, right graveler.MetaRangeID) (*DiffCursor, error) {
	if left == right {
		left, right = "", ""
	}
	l, err := s.walk(ctx, left)
	if err != nil {
		return nil, err
	}
	r, err := s.walk(ctx, right)
	if err != nil {
		return nil, err
	}
	return &DiffCursor{l: l, r: r}, nil
}

// Next moves to the next difference. False at the end or on an error.
func (d *DiffCursor) Next() bool {
	if d.started {
		switch d.typ {
		case graveler.Added:
			d.r.next()
		case graveler.Removed:
			d.l.next()
		case graveler.Modified:
			d.l.next()
			d.r.next()
		}
	}
	return d.find()
}

// SeekGE moves to the first difference at or after path.
func (d *DiffCursor) SeekGE(path string) bool {
	d.l.seek(path)
	d.r.seek(path)
	return d.find()
}

func (d *DiffCursor) find() bool {
	d.started = true
	d.typ = 0
	for d.err == nil {
		l, r := d.l.valid(), d.r.valid()
		switch {
		case d.l.err != nil:
			d.err = d.l.err
		case d.r.err != nil:
			d.err = d.r.err
		case !l && !r:
			return false
		case !r, l && d.l.key() < d.r.key():
			d.typ, d.key = graveler.Removed, d.l.key()
			return true
		case !l, d.l.key() > d.r.key():
			d.typ, d.key = graveler.Added, d.r.key()
			return true
		case d.l.atStart() && d.r.atStart() && d.l.ranges[d.l.i].ID == d.r.ranges[d.r.i].ID:
			d.l.skipRange()
			d.r.skipRange()
		default:
			li, lok := d.l.identity()
			ri, rok := d.r.identity()
			if !lok || !rok {
				continue // the walker's error ends the loop
			}
			if li != ri {
				d.typ, d.key = graveler.Modified, d.l.key()
				return true
			}
			d.l.next()
			d.r.next()
		}
	}
	return false
}

func (w *walker) identity() (string, bool) {
	v, ok := w.value()
	if !ok {
		return "", false
	}
	id, _, err := splitValue(v)
	if err != nil {
		w.err = err
	}
	return id, err == nil
}

func (w *walker) entry() (graveler.Entry, error) {
	if !w.enter() {
		return graveler.Entry{}, w.err
	}
	return entryAt(w.at.table, w.j)
}

// Path is the current difference's path, Type its type.
func (d *DiffCursor) Path() string            { return d.key }
func (d *DiffCursor) Type() graveler.DiffType { return d.typ }

// Diff returns the current difference with its entries.
func (d *DiffCursor) Diff() (graveler.Diff, error) {
	out := graveler.Diff{Type: d.typ, Path: d.key}
	var err error
	if d.typ != graveler.Added {
		out.Left, err = d.l.entry()
	}
	if err == nil && d.typ != graveler.Removed {
		out.Right, err = d.r.entry()
	}
	return out, err
}

// after is the identity that the path has on the right, "" if it is removed there.
func (d *DiffCursor) after() string {
	if d.typ == graveler.Removed {
		return ""
	}
	id, _ := d.r.identity()
	return id
}

// Err is the error that ended the walk.
func (d *DiffCursor) Err() error {
	if d.err == nil && d.l.err != nil {
		return d.l.err
	}
	if d.err == nil {
		return d.r.err
	}
	return d.err
}
