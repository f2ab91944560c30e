package edge

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/look"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

// A commit never changes, so what it holds is read here, from the object store and the caches, and the engine elsewhere is asked once
// for which tables it consists of. A reader of a commit then waits for nobody.

// frozen is a commit's tables.
type frozen struct {
	tables *committed.Store
	meta   graveler.MetaRangeID
}

type commitKey struct {
	repo graveler.RepositoryID
	ref  graveler.Ref
}

// maxFrozen bounds how many commits are remembered.
const maxFrozen = 4096

// isCommitID tells by its look whether a ref may be a commit's full id.
func isCommitID(ref graveler.Ref) bool {
	if len(ref) != 64 {
		return false
	}
	for _, c := range []byte(ref) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// frozen returns the tables of a ref that is a commit's full id, nil for any other.
func (e *Engine) frozen(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (*frozen, error) {
	if !isCommitID(ref) {
		return nil, nil
	}
	key := commitKey{repo, ref}
	e.mu.Lock()
	f, known := e.commits[key]
	e.mu.Unlock()
	if known {
		return f, nil
	}
	r, err := e.Engine.Resolve(ctx, repo, ref)
	if err != nil {
		return nil, err
	}
	if r.View != graveler.Committed || string(r.Commit.ID) != string(ref) {
		return nil, nil // a branch or a tag that looks like one
	}
	s, err := e.space(ctx, repo)
	if err != nil {
		return nil, err
	}
	f = &frozen{tables: s.tables, meta: r.Commit.MetaRange}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.commits) >= maxFrozen {
		clear(e.commits)
	}
	e.commits[key] = f
	return f, nil
}

func (f *frozen) stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Entry, error) {
	en, err := f.tables.Get(ctx, f.meta, path)
	if errors.Is(err, graveler.NotFound) {
		return en, fmt.Errorf("%s: %w", graveler.Place{Repo: repo, Ref: ref, Path: path}, graveler.NotFound)
	}
	return en, err
}

func (f *frozen) lookup(ctx context.Context, path string) (found graveler.Found, err error) {
	if path == "" {
		return graveler.Found{HasPrefix: true}, nil
	}
	en, err := f.tables.Get(ctx, f.meta, path)
	if err != nil && !errors.Is(err, graveler.NotFound) {
		return found, err
	}
	found.HasObject, found.Object = err == nil, en
	c, err := f.tables.Cursor(ctx, f.meta)
	if err != nil {
		return found, err
	}
	defer c.Close()
	return found, look.Below(c, path, &found)
}

// Cuts tells where a commit's entries are cut into parts.
func (e *Engine) Cuts(ctx context.Context, repo graveler.RepositoryID, commit graveler.CommitID) ([]string, error) {
	f, err := e.frozen(ctx, repo, graveler.Ref(commit))
	if err != nil {
		return nil, err
	}
	if f == nil {
		return e.Engine.Cuts(ctx, repo, commit)
	}
	ranges, err := f.tables.Ranges(ctx, f.meta)
	if err != nil {
		return nil, err
	}
	cuts := make([]string, len(ranges))
	for i := range ranges {
		cuts[i] = ranges[i].MaxKey
	}
	return cuts, nil
}

func (f *frozen) list(ctx context.Context, q engine.ListQuery) iter.Seq2[graveler.Listed, error] {
	return func(yield func(graveler.Listed, error) bool) {
		c, err := f.tables.Cursor(ctx, f.meta)
		if err != nil {
			yield(graveler.Listed{}, err)
			return
		}
		defer c.Close()
		if err := look.List(ctx, c, q, func(l graveler.Listed) (bool, bool) { return true, yield(l, nil) }); err != nil {
			yield(graveler.Listed{}, err)
		}
	}
}
