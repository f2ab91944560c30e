package graveler

import (
	"errors"
	"fmt"
	"time"
)

// CommitGetter finds commits by id; NotFound if there is none.
type CommitGetter interface {
	CommitByID(CommitID) (Commit, error)
}

// RefStore is what Resolve needs of a repository. Its methods give NotFound for what is not there.
type RefStore interface {
	CommitGetter
	BranchByID(BranchID) (Branch, error)
	TagByID(TagID) (Tag, error)
	// CommitByPrefix finds the commit whose id starts with prefix; Invalid if several do.
	CommitByPrefix(prefix string) (CommitID, error)
	// HeadAt is where a branch stood at a time; NotFound if nothing that old is recorded.
	HeadAt(BranchID, time.Time) (CommitID, error)
}

// MinPrefix is the shortest commit-id prefix that Resolve takes.
const MinPrefix = 6

// Resolve tells what a ref expression means, in lakeFS's order: a full commit id, a branch, a tag, a unique prefix of a
// commit id.
func Resolve(s RefStore, ref Ref) (Resolved, error) {
	e, err := ParseRef(ref)
	if err != nil {
		return Resolved{}, err
	}
	r, isBranch, err := resolveBase(s, e.Base)
	if err != nil {
		return Resolved{}, fmt.Errorf("ref %q: %w", ref, err)
	}
	for _, m := range e.Mods {
		if (m.Type == ModHead || m.Type == ModStaged || m.Type == ModTime) && !isBranch {
			return Resolved{}, fmt.Errorf("ref %q: %q is no branch, and @, $ and @{time} want one: %w", ref, e.Base, Invalid)
		}
		if m.Type == ModStaged {
			r.View = StagedOnly
			continue
		}
		r.View, r.Tag = Committed, ""
		switch m.Type {
		case ModTime:
			r.Commit, err = headAt(s, r.Branch.ID, r.Commit, m.Time)
		case ModAncestor:
			r.Commit, err = ancestor(s, r.Commit, m.N)
		case ModParent:
			r.Commit, err = parent(s, r.Commit, m.N)
		}
		if err != nil {
			return Resolved{}, fmt.Errorf("ref %q: %w", ref, err)
		}
	}
	return r, nil
}

func resolveBase(s RefStore, base string) (r Resolved, isBranch bool, err error) {
	if isHex(base) && len(base) == 64 {
		if r.Commit, err = s.CommitByID(CommitID(base)); err == nil || !errors.Is(err, NotFound) {
			return r, false, err
		}
	}
	if r.Branch, err = s.BranchByID(BranchID(base)); err == nil {
		r.View = Overlaid
		r.Commit, err = s.CommitByID(r.Branch.Commit)
		return r, true, err
	} else if !errors.Is(err, NotFound) {
		return r, false, err
	}
	r.Branch = Branch{}
	if tag, err := s.TagByID(TagID(base)); err == nil {
		r.Tag = tag.ID
		r.Commit, err = s.CommitByID(tag.Commit)
		return r, false, err
	} else if !errors.Is(err, NotFound) {
		return r, false, err
	}
	if isHex(base) && len(base) >= MinPrefix && len(base) < 64 {
		id, err := s.CommitByPrefix(base)
		if err != nil {
			return r, false, err
		}
		r.Commit, err = s.CommitByID(id)
		return r, false, err
	}
	return r, false, fmt.Errorf("no branch, tag or commit has this name: %w", NotFound)
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

func ancestor(s CommitGetter, c Commit, n int) (Commit, error) {
	for range n {
		if len(c.Parents) == 0 {
			return Commit{}, fmt.Errorf("history does not go back that far: %w", NotFound)
		}
		var err error
		if c, err = s.CommitByID(c.Parents[0]); err != nil {
			return Commit{}, err
		}
	}
	return c, nil
}

func parent(s CommitGetter, c Commit, n int) (Commit, error) {
	if n == 0 {
		return c, nil
	}
	if n > len(c.Parents) {
		return Commit{}, fmt.Errorf("commit %.12s has %d parents: %w", c.ID, len(c.Parents), NotFound)
	}
	return s.CommitByID(c.Parents[n-1])
}

func headAt(s RefStore, b BranchID, head Commit, t time.Time) (Commit, error) {
	id, err := s.HeadAt(b, t)
	if err == nil {
		return s.CommitByID(id)
	}
	if !errors.Is(err, NotFound) {
		return Commit{}, err
	}
	// Before the first record (an attached repository): the first-parent history tells.
	for c := head; ; {
		if !c.Created.After(t) {
			return c, nil
		}
		if c, err = ancestor(s, c, 1); err != nil {
			return Commit{}, fmt.Errorf("the branch is younger than %s: %w", t.Format(time.RFC3339), NotFound)
		}
	}
}
