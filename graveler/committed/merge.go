package committed

import (
	"context"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Merge writes the three-way merge of source into dest over their common base, and returns its metarange. A path that only
// source changed is taken from it; one that both changed to the same is left; one that they changed differently is a
// conflict, unless the strategy decides. On conflicts nothing is written, and the error is a *graveler.MergeConflict. The cost
// follows the changes of both sides. NothingToDo if dest has all of it already.
func (s *Store) Merge(ctx context.Context, base, source, dest graveler.MetaRangeID, strategy graveler.MergeStrategy) (graveler.MetaRangeID, error) {
	switch {
	case source == dest || source == base:
		return dest, graveler.NothingToDo
	case dest == base:
		return source, nil
	}
	if strategy == graveler.MergeDefault {
		if err := s.conflicts(ctx, base, source, dest); err != nil {
			return "", err
		}
	}
	c, err := s.mergeCursor(ctx, base, source, dest, strategy)
	if err != nil {
		return "", err
	}
	id, _, err := s.Apply(ctx, dest, c)
	return id, err
}

// conflicts walks both sides before anything is written.
func (s *Store) conflicts(ctx context.Context, base, source, dest graveler.MetaRangeID) error {
	c, err := s.mergeCursor(ctx, base, source, dest, graveler.MergeDefault)
	if err != nil {
		return err
	}
	var found graveler.MergeConflict
	c.conflict = func(path string) bool {
		if len(found.Paths) == graveler.MaxConflicts {
			found.More = true
			return false
		}
		found.Paths = append(found.Paths, path)
		return true
	}
	for c.Next() && !found.More {
	}
	if c.Err() != nil {
		return c.Err()
	}
	if len(found.Paths) > 0 {
		return &found
	}
	return nil
}

// mergeCursor walks the changes that a merge makes to dest.
type mergeCursor struct {
	src, dst   *DiffCursor
	haveDst    bool
	sourceWins bool
	conflict   func(path string) bool
	change     graveler.Change
}

func (s *Store) mergeCursor(ctx context.Context, base, source, dest graveler.MetaRangeID, strategy graveler.MergeStrategy) (*mergeCursor, error) {
	src, err := s.Diff(ctx, base, source)
	if err != nil {
		return nil, err
	}
	dst, err := s.Diff(ctx, base, dest)
	if err != nil {
		return nil, err
	}
	return &mergeCursor{src: src, dst: dst, sourceWins: strategy == graveler.SourceWins}, nil
}

func (m *mergeCursor) Next() bool {
	ok := m.src.Next()
	if ok && !m.dst.started {
		m.haveDst = m.dst.Next()
	}
	return m.find(ok)
}

func (m *mergeCursor) SeekGE(path string) bool {
	ok := m.src.SeekGE(path)
	m.haveDst = m.dst.SeekGE(path)
	return m.find(ok)
}

// find passes over source's changes that dest has too, or that dest's change wins over.
func (m *mergeCursor) find(ok bool) bool {
	for ; ok; ok = m.src.Next() {
		path := m.src.Path()
		for m.haveDst && m.dst.Path() < path {
			m.haveDst = m.dst.Next()
		}
		if m.Err() != nil {
			return false
		}
		if !m.haveDst || m.dst.Path() > path {
			return true
		}
		if m.src.after() == m.dst.after() {
			continue
		}
		if m.sourceWins {
			return true
		}
		if m.conflict != nil && !m.conflict(path) {
			return false
		}
	}
	return false
}

func (m *mergeCursor) Path() string { return m.src.Path() }

func (m *mergeCursor) Change() (*graveler.Change, error) {
	m.change = graveler.Change{Path: m.src.Path(), Remove: m.src.Type() == graveler.Removed}
	if !m.change.Remove {
		e, err := m.src.r.entry()
		if err != nil {
			return nil, err
		}
		m.change.Entry = e
	}
	return &m.change, nil
}

func (m *mergeCursor) Err() error {
	if err := m.src.Err(); err != nil {
		return err
	}
	return m.dst.Err()
}

func (m *mergeCursor) Close() error { return nil }
