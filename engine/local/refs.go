package local

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// refStore shows one repository of a view to graveler's algorithms.
type refStore struct {
	v    *replica.View
	repo graveler.RepositoryID
}

func (s refStore) BranchByID(id graveler.BranchID) (graveler.Branch, error) {
	return s.v.Branch(s.repo, id)
}
func (s refStore) TagByID(id graveler.TagID) (graveler.Tag, error) { return s.v.Tag(s.repo, id) }
func (s refStore) CommitByID(id graveler.CommitID) (graveler.Commit, error) {
	return s.v.Commit(s.repo, id)
}
func (s refStore) CommitByPrefix(p string) (graveler.CommitID, error) {
	return s.v.CommitByPrefix(s.repo, p)
}
func (s refStore) HeadAt(b graveler.BranchID, t time.Time) (graveler.CommitID, error) {
	return s.v.HeadAt(s.repo, b, t)
}

// resolve tells what a ref means in a view. It says so if the repository is what is missing.
func resolve(v *replica.View, repo graveler.RepositoryID, ref graveler.Ref) (graveler.Resolved, error) {
	r, err := graveler.Resolve(refStore{v, repo}, ref)
	if err != nil {
		if _, rerr := v.Repository(repo); rerr != nil {
			return r, rerr
		}
		return r, fmt.Errorf("%s: %w", repo, err)
	}
	return r, nil
}

// resolve tells what a ref means now.
func (e *Engine) resolve(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (graveler.Resolved, error) {
	v, err := e.rep.View()
	if err != nil {
		return graveler.Resolved{}, err
	}
	defer v.Close()
	m, err := e.meaning(ctx, v, repo, ref)
	if err != nil {
		return graveler.Resolved{}, err
	}
	return m.resolved, nil
}

// listBranches lists branches.
func (e *Engine) listBranches(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Branch, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if _, err := v.Repository(repo); err != nil {
		return nil, err
	}
	var out []graveler.Branch
	err = v.Branches(repo, max(q.Prefix, q.After), func(b graveler.Branch) bool {
		name := string(b.ID)
		if !strings.HasPrefix(name, q.Prefix) {
			return name < q.Prefix
		}
		if name > q.After && (!b.Hidden || q.Hidden) {
			out = append(out, b)
		}
		return q.Limit == 0 || len(out) < q.Limit
	})
	return out, err
}

// createBranch makes a branch.
func (e *Engine) createBranch(ctx context.Context, r engine.CreateBranch) (graveler.Branch, error) {
	if err := graveler.ValidateBranchID(r.ID); err != nil {
		return graveler.Branch{}, err
	}
	v, err := e.rep.View()
	if err != nil {
		return graveler.Branch{}, err
	}
	defer v.Close()
	if r.Source == "" {
		repo, err := v.Repository(r.Repo)
		if err != nil {
			return graveler.Branch{}, err
		}
		r.Source = graveler.Ref(repo.DefaultBranch)
	}
	res, err := resolve(v, r.Repo, r.Source)
	if err != nil {
		return graveler.Branch{}, err
	}
	if res.View == graveler.StagedOnly {
		return graveler.Branch{}, fmt.Errorf("branch from %q: staged changes are no commit: %w", r.Source, graveler.Invalid)
	}
	b := graveler.Branch{ID: r.ID, Commit: res.Commit.ID, Token: newToken(), Hidden: r.Hidden}
	return b, e.rep.CreateBranch(returning(ctx, b), r.Repo, b)
}

// deleteBranch removes a branch.
func (e *Engine) deleteBranch(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, force bool) error {
	mu := e.committing(repo, id)
	mu.Lock()
	defer mu.Unlock()
	res, err := e.rep.DeleteBranch(ctx, repo, id, force)
	e.spill.Drop(res.Orphans...)
	return err
}

// renameBranch renames a branch.
func (e *Engine) renameBranch(ctx context.Context, repo graveler.RepositoryID, from, to graveler.BranchID) error {
	if err := graveler.ValidateBranchID(to); err != nil {
		return err
	}
	mu := e.committing(repo, from)
	mu.Lock()
	defer mu.Unlock()
	return e.rep.RenameBranch(ctx, repo, from, to)
}

// setHead moves a branch.
func (e *Engine) setHead(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, ref graveler.Ref, drop bool) (graveler.Branch, error) {
	mu := e.committing(repo, id)
	mu.Lock()
	defer mu.Unlock()
	target, err := e.resolve(ctx, repo, ref)
	if err != nil {
		return graveler.Branch{}, err
	}
	if target.View == graveler.StagedOnly {
		return graveler.Branch{}, fmt.Errorf("reset to %q: staged changes are no commit: %w", ref, graveler.Invalid)
	}
	st := e.staging(repo, id)
	st.Lock()
	res, err := e.rep.SetHead(returning(ctx, graveler.Branch{ID: id, Commit: target.Commit.ID}), repo, id, target.Commit.ID, drop, newToken())
	st.Unlock()
	if err != nil {
		return graveler.Branch{}, err
	}
	e.spill.Drop(res.Orphans...)
	v, err := e.rep.View()
	if err != nil {
		return graveler.Branch{}, err
	}
	defer v.Close()
	return v.Branch(repo, id)
}

// listTags lists tags.
func (e *Engine) listTags(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Tag, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if _, err := v.Repository(repo); err != nil {
		return nil, err
	}
	var out []graveler.Tag
	err = v.Tags(repo, max(q.Prefix, q.After), func(t graveler.Tag) bool {
		name := string(t.ID)
		if !strings.HasPrefix(name, q.Prefix) {
			return name < q.Prefix
		}
		if name > q.After {
			out = append(out, t)
		}
		return q.Limit == 0 || len(out) < q.Limit
	})
	return out, err
}

// createTag makes a tag.
func (e *Engine) createTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID, ref graveler.Ref) (graveler.Tag, error) {
	if err := graveler.ValidateTagID(id); err != nil {
		return graveler.Tag{}, err
	}
	res, err := e.resolve(ctx, repo, ref)
	if err != nil {
		return graveler.Tag{}, err
	}
	if res.View == graveler.StagedOnly {
		return graveler.Tag{}, fmt.Errorf("tag %q: staged changes are no commit: %w", ref, graveler.Invalid)
	}
	t := graveler.Tag{ID: id, Commit: res.Commit.ID}
	return t, e.rep.CreateTag(returning(ctx, t), repo, t)
}

// deleteTag removes a tag.
func (e *Engine) deleteTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID) error {
	return e.rep.DeleteTag(ctx, repo, id)
}

// rules lists the branch protection rules.
func (e *Engine) rules(ctx context.Context, repo graveler.RepositoryID) ([]graveler.Rule, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if _, err := v.Repository(repo); err != nil {
		return nil, err
	}
	return v.Rules(repo)
}

// setRules replaces the branch protection rules.
func (e *Engine) setRules(ctx context.Context, repo graveler.RepositoryID, rules []graveler.Rule) error {
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			return err
		}
	}
	return e.rep.SetRules(ctx, repo, rules)
}
