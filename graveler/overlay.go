package graveler

import (
	"errors"
	"sort"
)

// Overlay merges layers, the newest first: at each path the newest layer's record counts. Tombstones are kept.
func Overlay(layers ...Cursor) Cursor {
	if len(layers) == 1 {
		return layers[0]
	}
	return &overlay{layers: layers, valid: make([]bool, len(layers)), at: -1}
}

type overlay struct {
	layers  []Cursor
	valid   []bool
	at      int // layer of the current record
	started bool
	err     error
}

func (o *overlay) Next() bool {
	if o.err != nil {
		return false
	}
	if !o.started {
		o.started = true
		for i, c := range o.layers {
			o.valid[i] = c.Next()
		}
	} else if o.at >= 0 {
		path := o.layers[o.at].Path()
		for i, c := range o.layers {
			if i != o.at && o.valid[i] && c.Path() == path {
				o.valid[i] = c.Next()
			}
		}
		o.valid[o.at] = o.layers[o.at].Next()
	}
	return o.pick()
}

func (o *overlay) SeekGE(path string) bool {
	if o.err != nil {
		return false
	}
	o.started = true
	for i, c := range o.layers {
		o.valid[i] = c.SeekGE(path)
	}
	return o.pick()
}

func (o *overlay) pick() bool {
	o.at = -1
	for i, c := range o.layers {
		if !o.valid[i] {
			if err := c.Err(); err != nil {
				o.err, o.at = err, -1
				return false
			}
			continue
		}
		if o.at < 0 || c.Path() < o.layers[o.at].Path() {
			o.at = i
		}
	}
	return o.at >= 0
}

func (o *overlay) Path() string             { return o.layers[o.at].Path() }
func (o *overlay) Change() (*Change, error) { return o.layers[o.at].Change() }
func (o *overlay) Encoded() (entry []byte, pending ContentID, remove, ok bool, err error) {
	if e, is := o.layers[o.at].(Encoded); is {
		return e.Encoded()
	}
	return nil, "", false, false, nil
}
func (o *overlay) Err() error { return o.err }
func (o *overlay) Close() error {
	var errs []error
	for _, c := range o.layers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Visible drops the tombstones of a cursor.
func Visible(c Cursor) Cursor { return &visible{Cursor: c} }

type visible struct {
	Cursor
	err error
}

func (v *visible) skip(ok bool) bool {
	for ok {
		_, _, remove, known, err := v.Encoded()
		if err == nil && !known {
			var ch *Change
			if ch, err = v.Cursor.Change(); err == nil {
				remove = ch.Remove
			}
		}
		if err != nil {
			v.err = err
			return false
		}
		if !remove {
			return true
		}
		ok = v.Cursor.Next()
	}
	return false
}

func (v *visible) Encoded() (entry []byte, pending ContentID, remove, ok bool, err error) {
	if e, is := v.Cursor.(Encoded); is {
		return e.Encoded()
	}
	return nil, "", false, false, nil
}

func (v *visible) Next() bool              { return v.err == nil && v.skip(v.Cursor.Next()) }
func (v *visible) SeekGE(path string) bool { return v.err == nil && v.skip(v.Cursor.SeekGE(path)) }
func (v *visible) Err() error {
	if v.err != nil {
		return v.err
	}
	return v.Cursor.Err()
}

// SliceCursor walks changes that are sorted by path already.
func SliceCursor(changes []Change) Cursor { return &sliceCursor{changes: changes, i: -1} }

type sliceCursor struct {
	changes []Change
	i       int
}

func (s *sliceCursor) Next() bool {
	if s.i < len(s.changes) {
		s.i++
	}
	return s.i < len(s.changes)
}

func (s *sliceCursor) SeekGE(path string) bool {
	s.i = sort.Search(len(s.changes), func(i int) bool { return s.changes[i].Path >= path })
	return s.i < len(s.changes)
}

func (s *sliceCursor) Path() string             { return s.changes[s.i].Path }
func (s *sliceCursor) Change() (*Change, error) { return &s.changes[s.i], nil }
func (s *sliceCursor) Err() error               { return nil }
func (s *sliceCursor) Close() error             { return nil }
