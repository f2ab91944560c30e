package local

import (
	"context"
	"iter"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// The contract's methods, as they are called. In a cluster a change is the leader's, and so is a read of what may change: see gate.go.

// CreateRepository makes a repository.
func (e *Engine) CreateRepository(ctx context.Context, r engine.CreateRepository) (graveler.Repository, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Repository, error) { return e.createRepository(ctx, r) })
}

// AttachRepository takes in a namespace that was dumped.
func (e *Engine) AttachRepository(ctx context.Context, r engine.AttachRepository) (graveler.Repository, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Repository, error) { return e.attachRepository(ctx, r) })
}

// Repository returns a repository.
func (e *Engine) Repository(ctx context.Context, id graveler.RepositoryID) (graveler.Repository, error) {
	ctx, err := e.read(ctx)
	if err != nil {
		return graveler.Repository{}, err
	}
	return e.repository(ctx, id)
}

// ListRepositories lists all repositories.
func (e *Engine) ListRepositories(ctx context.Context) ([]graveler.Repository, error) {
	ctx, err := e.read(ctx)
	if err != nil {
		return nil, err
	}
	return e.listRepositories(ctx)
}

// DeleteRepository forgets a repository.
func (e *Engine) DeleteRepository(ctx context.Context, id graveler.RepositoryID) error {
	return do(ctx, e, func(ctx context.Context) error { return e.deleteRepository(ctx, id) })
}

// DumpRefs writes a refs dump.
func (e *Engine) DumpRefs(ctx context.Context, id graveler.RepositoryID) (graveler.RefsManifest, error) {
	ctx, err := e.read(ctx)
	if err != nil {
		return graveler.RefsManifest{}, err
	}
	return e.dumpRefs(ctx, id)
}

// Resolve tells what a ref means now.
func (e *Engine) Resolve(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (graveler.Resolved, error) {
	ctx, err := e.readOf(ctx, repo, ref)
	if err != nil {
		return graveler.Resolved{}, err
	}
	return e.resolve(ctx, repo, ref)
}

// ListBranches lists branches.
func (e *Engine) ListBranches(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Branch, error) {
	ctx, err := e.read(ctx)
	if err != nil {
		return nil, err
	}
	return e.listBranches(ctx, repo, q)
}

// CreateBranch makes a branch.
func (e *Engine) CreateBranch(ctx context.Context, r engine.CreateBranch) (graveler.Branch, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Branch, error) { return e.createBranch(ctx, r) })
}

// DeleteBranch removes a branch.
func (e *Engine) DeleteBranch(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, force bool) error {
	return do(ctx, e, func(ctx context.Context) error { return e.deleteBranch(ctx, repo, id, force) })
}

// RenameBranch renames a branch.
func (e *Engine) RenameBranch(ctx context.Context, repo graveler.RepositoryID, from, to graveler.BranchID) error {
	return do(ctx, e, func(ctx context.Context) error { return e.renameBranch(ctx, repo, from, to) })
}

// SetHead moves a branch.
func (e *Engine) SetHead(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, ref graveler.Ref, drop bool) (graveler.Branch, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Branch, error) { return e.setHead(ctx, repo, id, ref, drop) })
}

// ListTags lists tags.
func (e *Engine) ListTags(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Tag, error) {
	ctx, err := e.read(ctx)
	if err != nil {
		return nil, err
	}
	return e.listTags(ctx, repo, q)
}

// CreateTag makes a tag.
func (e *Engine) CreateTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID, ref graveler.Ref) (graveler.Tag, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Tag, error) { return e.createTag(ctx, repo, id, ref) })
}

// DeleteTag removes a tag.
func (e *Engine) DeleteTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID) error {
	return do(ctx, e, func(ctx context.Context) error { return e.deleteTag(ctx, repo, id) })
}

// Rules lists the branch protection rules.
func (e *Engine) Rules(ctx context.Context, repo graveler.RepositoryID) ([]graveler.Rule, error) {
	ctx, err := e.read(ctx)
	if err != nil {
		return nil, err
	}
	return e.rules(ctx, repo)
}

// SetRules replaces the branch protection rules.
func (e *Engine) SetRules(ctx context.Context, repo graveler.RepositoryID, rules []graveler.Rule) error {
	return do(ctx, e, func(ctx context.Context) error { return e.setRules(ctx, repo, rules) })
}

// Stat returns the entry at exactly a path.
func (e *Engine) Stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Entry, error) {
	ctx, err := e.readOf(ctx, repo, ref)
	if err != nil {
		return graveler.Entry{}, err
	}
	return e.stat(ctx, repo, ref, path)
}

// Cuts tells where a commit's entries are cut into parts.
func (e *Engine) Cuts(ctx context.Context, repo graveler.RepositoryID, commit graveler.CommitID) ([]string, error) {
	ctx, err := e.readOf(ctx, repo, graveler.Ref(commit))
	if err != nil {
		return nil, err
	}
	return e.cuts(ctx, repo, commit)
}

// Lookup tells what a path is.
func (e *Engine) Lookup(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Found, error) {
	ctx, err := e.readOf(ctx, repo, ref)
	if err != nil {
		return graveler.Found{}, err
	}
	return e.lookup(ctx, repo, ref, path)
}

// List yields entries.
func (e *Engine) List(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.ListQuery) iter.Seq2[graveler.Listed, error] {
	return func(yield func(graveler.Listed, error) bool) {
		ctx, err := e.readOf(ctx, repo, ref)
		if err == nil {
			err = e.list(ctx, repo, ref, q, yield)
		}
		if err != nil {
			yield(graveler.Listed{}, err)
		}
	}
}

// Stage applies changes to a branch's staging.
func (e *Engine) Stage(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, changes []graveler.Change) error {
	if e.plain(ctx) {
		return e.stage(ctx, repo, branch, changes)
	}
	_, err := changeBy(ctx, e, len(changes) > oneCommand, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, e.stage(ctx, repo, branch, changes)
	})
	return err
}

// oneCommand is how many changes surely go into one command.
const oneCommand = 64

// Move renames all entries under a prefix.
func (e *Engine) Move(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, from, to string) error {
	return do(ctx, e, func(ctx context.Context) error { return e.move(ctx, repo, branch, from, to) })
}

// Exchange makes two paths change places.
func (e *Engine) Exchange(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, a, b string) error {
	return do(ctx, e, func(ctx context.Context) error { return e.exchange(ctx, repo, branch, a, b) })
}

// Reset drops what is staged.
func (e *Engine) Reset(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, path string) error {
	return do(ctx, e, func(ctx context.Context) error { return e.reset(ctx, repo, branch, path) })
}

// Commit makes what is staged on a branch a commit.
func (e *Engine) Commit(ctx context.Context, r engine.CommitRequest) (graveler.Commit, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Commit, error) { return e.commit(ctx, r) })
}

// Log yields commits.
func (e *Engine) Log(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.LogQuery) iter.Seq2[graveler.Commit, error] {
	return func(yield func(graveler.Commit, error) bool) {
		ctx, err := e.readOf(ctx, repo, ref)
		if err == nil {
			err = e.history(ctx, repo, ref, q, yield)
		}
		if err != nil {
			yield(graveler.Commit{}, err)
		}
	}
}

// Diff yields what differs between two refs.
func (e *Engine) Diff(ctx context.Context, repo graveler.RepositoryID, left, right graveler.Ref, q engine.DiffQuery) iter.Seq2[graveler.Diff, error] {
	return func(yield func(graveler.Diff, error) bool) {
		ctx, err := e.readOf(ctx, repo, left, right)
		if err == nil {
			err = e.diff(ctx, repo, left, right, q, yield)
		}
		if err != nil {
			yield(graveler.Diff{}, err)
		}
	}
}

// Status yields what is staged against the head.
func (e *Engine) Status(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, q engine.DiffQuery) iter.Seq2[graveler.Diff, error] {
	return e.Diff(ctx, repo, graveler.Ref(branch)+"@", graveler.Ref(branch), q)
}

// MergeBase returns the best common ancestor.
func (e *Engine) MergeBase(ctx context.Context, repo graveler.RepositoryID, a, b graveler.Ref) (graveler.Commit, error) {
	ctx, err := e.readOf(ctx, repo, a, b)
	if err != nil {
		return graveler.Commit{}, err
	}
	return e.mergeBase(ctx, repo, a, b)
}

// Merge merges a ref into a branch.
func (e *Engine) Merge(ctx context.Context, r engine.MergeRequest) (graveler.Commit, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Commit, error) { return e.merge(ctx, r) })
}

// Revert commits the inverse of a commit.
func (e *Engine) Revert(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Commit, error) { return e.revert(ctx, r) })
}

// CherryPick commits the change that a commit made elsewhere.
func (e *Engine) CherryPick(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	return change(ctx, e, func(ctx context.Context) (graveler.Commit, error) { return e.cherryPick(ctx, r) })
}

// Import stages entries that point at objects under a URL.
func (e *Engine) Import(ctx context.Context, r engine.ImportRequest, progress func(objects int64)) (int64, error) {
	return change(ctx, e, func(ctx context.Context) (int64, error) { return e.importAll(ctx, r, progress) })
}

// CollectGarbage deletes what nothing names.
func (e *Engine) CollectGarbage(ctx context.Context, r engine.GCRequest) (engine.GCReport, error) {
	return change(ctx, e, func(ctx context.Context) (engine.GCReport, error) { return e.collectGarbage(ctx, r) })
}

// Check verifies a repository.
func (e *Engine) Check(ctx context.Context, r engine.CheckRequest) iter.Seq2[engine.Problem, error] {
	return func(yield func(engine.Problem, error) bool) {
		ctx, err := e.read(ctx)
		if err != nil {
			yield(engine.Problem{}, err)
			return
		}
		e.check(ctx, r)(yield)
	}
}

// Named tells which contents some entry names.
func (e *Engine) Named(ctx context.Context, contents []graveler.ContentID) (map[graveler.ContentID]graveler.RepositoryID, error) {
	ctx, err := e.read(ctx)
	if err != nil {
		return nil, err
	}
	return e.named(ctx, contents)
}

// Settle names the objects that contents became.
func (e *Engine) Settle(ctx context.Context, settled []engine.Settled) error {
	return do(ctx, e, func(ctx context.Context) error { return e.settle(ctx, settled) })
}

// Secure makes the bytes of contents objects.
func (e *Engine) Secure(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error) {
	return change(ctx, e, func(ctx context.Context) ([]engine.Settled, error) { return e.secure(ctx, contents) })
}

// Hold serves a holder's contents until ctx ends, or this node's lead.
func (e *Engine) Hold(ctx context.Context, holder engine.HolderID, serve func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error)) error {
	ctx, end, err := e.rep.Begin(ctx, false)
	if err != nil {
		return err
	}
	defer end()
	return e.hold(ctx, holder, serve)
}

// OpenSession begins a session.
func (e *Engine) OpenSession(ctx context.Context) (engine.SessionID, error) {
	ctx, end, err := e.rep.Begin(ctx, false)
	if err != nil {
		return 0, err
	}
	defer end()
	return e.rep.OpenSession(ctx)
}

// Members lists the nodes of the cluster.
func (e *Engine) Members(ctx context.Context) ([]engine.Member, error) { return e.rep.Members(ctx) }

// AddMember adds a node.
func (e *Engine) AddMember(ctx context.Context, m engine.Member) error {
	return e.rep.AddMember(ctx, m)
}

// Promote makes a node a voter.
func (e *Engine) Promote(ctx context.Context, id string) error { return e.rep.Promote(ctx, id) }

// RemoveMember removes a node.
func (e *Engine) RemoveMember(ctx context.Context, id string) error {
	return e.rep.RemoveMember(ctx, id)
}

// TransferLeadership hands the lead over.
func (e *Engine) TransferLeadership(ctx context.Context, id string) error {
	return e.rep.TransferLeadership(ctx, id)
}
