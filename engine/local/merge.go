package local

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/engine/internal/settle"
	"github.com/lakefsfs/lakefsfs/graveler"
)

var strategyNames = map[graveler.MergeStrategy]string{
	graveler.MergeDefault: "default", graveler.DestWins: "dest-wins", graveler.SourceWins: "source-wins",
}

// onto is a branch that is about to get a commit that isn't one of its staging.
type onto struct {
	v    *replica.View
	sp   *space
	head graveler.Commit
	drop []graveler.StagingToken // layers whose records change nothing now, and must not come to change the new commit
	keep []replica.Keep
}

// begin opens a branch for a merge or a pick. Called with its committing lock held. Close the view.
func (e *Engine) begin(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID) (*onto, error) {
	if err := e.rep.Seal(ctx, repo, id, newToken()); err != nil {
		return nil, err
	}
	for d, err := range e.Status(ctx, repo, id, engine.DiffQuery{Limit: 1}) {
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s/@%s has staged changes (%s %s); commit or reset them first: %w", repo, id, d.Type.Letter(), d.Path, graveler.NotEmpty)
	}
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	o := &onto{v: v}
	b, err := v.Branch(repo, id)
	if err == nil {
		o.drop = b.Sealed
		o.head, err = v.Commit(repo, b.Commit)
	}
	if err == nil {
		o.sp, err = e.spaceOf(ctx, v, repo)
	}
	if err == nil {
		_, o.keep, err = e.settleLayers(ctx, b.Sealed)
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return o, nil
}

// finish adds the commit.
func (e *Engine) finish(ctx context.Context, o *onto, repo graveler.RepositoryID, id graveler.BranchID, c graveler.Commit) (graveler.Commit, error) {
	if err := settle.SyncObjects(ctx, o.sp.objects); err != nil {
		return graveler.Commit{}, err
	}
	return c, e.advance(returning(ctx, c), replica.Advance{Repo: repo, Branch: id, Expect: o.head.ID, Commit: c, Merge: true, Drop: o.drop, Keep: o.keep})
}

// merge merges a ref into a branch.
func (e *Engine) merge(ctx context.Context, r engine.MergeRequest) (graveler.Commit, error) {
	name, ok := strategyNames[r.Strategy]
	if !ok {
		return graveler.Commit{}, fmt.Errorf("merge strategy %d: %w", r.Strategy, graveler.Invalid)
	}
	if r.Message == "" {
		r.Message = fmt.Sprintf("Merge '%s' into '%s'", r.Source, r.Dest)
	}
	if err := checkMessage(r.Message, r.Metadata); err != nil {
		return graveler.Commit{}, err
	}
	mu := e.committing(r.Repo, r.Dest)
	mu.Lock()
	defer mu.Unlock()
	o, err := e.begin(ctx, r.Repo, r.Dest)
	if err != nil {
		return graveler.Commit{}, err
	}
	defer o.v.Close()
	src, err := resolve(o.v, r.Repo, r.Source)
	if err != nil {
		return graveler.Commit{}, err
	}
	if src.View == graveler.StagedOnly {
		return graveler.Commit{}, fmt.Errorf("merge of %q: staged changes are no commit: %w", r.Source, graveler.Invalid)
	}
	base, err := graveler.MergeBase(refStore{o.v, r.Repo}, src.Commit.ID, o.head.ID)
	if err != nil {
		return graveler.Commit{}, err
	}
	if base.ID == src.Commit.ID && !r.AllowEmpty {
		return graveler.Commit{}, fmt.Errorf("%s/@%s has all of %q already: %w", r.Repo, r.Dest, r.Source, graveler.NothingToDo)
	}
	mr, err := o.sp.tables.Merge(ctx, base.MetaRange, src.Commit.MetaRange, o.head.MetaRange, r.Strategy)
	if errors.Is(err, graveler.NothingToDo) {
		mr, err = o.head.MetaRange, nil // the histories join all the same
	}
	if err != nil {
		return graveler.Commit{}, fmt.Errorf("merge %q into %s/@%s: %w", r.Source, r.Repo, r.Dest, err)
	}
	meta := map[string]string{graveler.MetaMergeKey: name}
	maps.Copy(meta, r.Metadata)
	return e.finish(ctx, o, r.Repo, r.Dest, newCommit(committer(r.Committer), r.Message, meta, mr, o.head, src.Commit))
}

// pick applies the change from one commit to another onto a branch.
func (e *Engine) pick(ctx context.Context, r engine.PickRequest, what string, fields func(c graveler.Commit, parent graveler.MetaRangeID) (base, source graveler.MetaRangeID, message string, meta map[string]string)) (graveler.Commit, error) {
	mu := e.committing(r.Repo, r.Branch)
	mu.Lock()
	defer mu.Unlock()
	o, err := e.begin(ctx, r.Repo, r.Branch)
	if err != nil {
		return graveler.Commit{}, err
	}
	defer o.v.Close()
	ref, err := resolve(o.v, r.Repo, r.Ref)
	if err != nil {
		return graveler.Commit{}, err
	}
	c := ref.Commit
	switch {
	case ref.View == graveler.StagedOnly || len(c.Parents) == 0:
		return graveler.Commit{}, fmt.Errorf("%s %q: it is no commit with a parent: %w", what, r.Ref, graveler.Invalid)
	case r.Parent == 0 && len(c.Parents) > 1:
		return graveler.Commit{}, fmt.Errorf("%s %q: it is a merge; say against which of its %d parents: %w", what, r.Ref, len(c.Parents), graveler.Invalid)
	case r.Parent < 0 || r.Parent > len(c.Parents):
		return graveler.Commit{}, fmt.Errorf("%s %q: it has %d parents, and no number %d: %w", what, r.Ref, len(c.Parents), r.Parent, graveler.Invalid)
	}
	parent, err := o.v.Commit(r.Repo, c.Parents[max(r.Parent, 1)-1])
	if err != nil {
		return graveler.Commit{}, err
	}
	base, source, message, meta := fields(c, parent.MetaRange)
	if r.Message != "" {
		message = r.Message
	}
	maps.Copy(meta, r.Metadata)
	if err := checkMessage(message, meta); err != nil {
		return graveler.Commit{}, err
	}
	mr, err := o.sp.tables.Merge(ctx, base, source, o.head.MetaRange, graveler.MergeDefault)
	if err != nil {
		return graveler.Commit{}, fmt.Errorf("%s %q on %s/@%s: %w", what, r.Ref, r.Repo, r.Branch, err)
	}
	return e.finish(ctx, o, r.Repo, r.Branch, newCommit(committer(r.Committer), message, meta, mr, o.head))
}

// revert commits the inverse of a commit.
func (e *Engine) revert(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	return e.pick(ctx, r, "revert", func(c graveler.Commit, parent graveler.MetaRangeID) (base, source graveler.MetaRangeID, message string, meta map[string]string) {
		return c.MetaRange, parent, fmt.Sprintf("Revert %q\n\nThis reverts commit %s.", c.Message, c.ID), map[string]string{}
	})
}

// cherryPick commits the change that a commit made elsewhere.
func (e *Engine) cherryPick(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	return e.pick(ctx, r, "cherry-pick", func(c graveler.Commit, parent graveler.MetaRangeID) (base, source graveler.MetaRangeID, message string, meta map[string]string) {
		meta = maps.Clone(c.Metadata)
		if meta == nil {
			meta = map[string]string{}
		}
		meta["cherry-pick-commit"] = string(c.ID)
		return parent, c.MetaRange, c.Message, meta
	})
}
