package remote

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/http"
	"strings"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Client is an engine behind a daemon's socket.
type Client struct {
	addr string
	http *http.Client
}

var _ engine.Engine = (*Client)(nil)

// Dial returns the engine at unix:///path/of/the/socket. It doesn't connect yet.
func Dial(addr string) (*Client, error) {
	path, ok := strings.CutPrefix(addr, "unix://")
	if !ok || path == "" {
		return nil, fmt.Errorf("server %q: %w: %w", addr, errUnix, graveler.Invalid)
	}
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableCompression: true, MaxIdleConnsPerHost: 16,
	}
	return &Client{addr: addr, http: &http.Client{Transport: tr}}, nil
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Call asks a service that is registered beside the engine.
func Call[Resp any](ctx context.Context, c *Client, name string, req any) (Resp, error) {
	return call[Resp](ctx, c, name, req)
}

// Handle serves a call of a service beside the engine.
func Handle[Req, Resp any](mux *http.ServeMux, name string, fn func(ctx context.Context, r Req) (Resp, error)) {
	unary(&server{ServeMux: mux, caughtUp: func(context.Context) {}}, name, fn)
}

func do(ctx context.Context, c *Client, name string, req any) error {
	_, err := call[none](ctx, c, name, req)
	return err
}

// CreateRepository is engine.Engine's.
func (c *Client) CreateRepository(ctx context.Context, r engine.CreateRepository) (graveler.Repository, error) {
	return call[graveler.Repository](ctx, c, "CreateRepository", r)
}

// AttachRepository is engine.Engine's.
func (c *Client) AttachRepository(ctx context.Context, r engine.AttachRepository) (graveler.Repository, error) {
	return call[graveler.Repository](ctx, c, "AttachRepository", r)
}

// Repository is engine.Engine's.
func (c *Client) Repository(ctx context.Context, id graveler.RepositoryID) (graveler.Repository, error) {
	return call[graveler.Repository](ctx, c, "Repository", repoReq{id})
}

// ListRepositories is engine.Engine's.
func (c *Client) ListRepositories(ctx context.Context) ([]graveler.Repository, error) {
	return call[[]graveler.Repository](ctx, c, "ListRepositories", none{})
}

// DeleteRepository is engine.Engine's.
func (c *Client) DeleteRepository(ctx context.Context, id graveler.RepositoryID) error {
	return do(ctx, c, "DeleteRepository", repoReq{id})
}

// DumpRefs is engine.Engine's.
func (c *Client) DumpRefs(ctx context.Context, id graveler.RepositoryID) (graveler.RefsManifest, error) {
	return call[graveler.RefsManifest](ctx, c, "DumpRefs", repoReq{id})
}

// Resolve is engine.Engine's.
func (c *Client) Resolve(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (graveler.Resolved, error) {
	return call[graveler.Resolved](ctx, c, "Resolve", refReq{Repo: repo, Ref: ref})
}

// ListBranches is engine.Engine's.
func (c *Client) ListBranches(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Branch, error) {
	return call[[]graveler.Branch](ctx, c, "ListBranches", refsReq{repo, q})
}

// CreateBranch is engine.Engine's.
func (c *Client) CreateBranch(ctx context.Context, r engine.CreateBranch) (graveler.Branch, error) {
	return call[graveler.Branch](ctx, c, "CreateBranch", r)
}

// DeleteBranch is engine.Engine's.
func (c *Client) DeleteBranch(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, force bool) error {
	return do(ctx, c, "DeleteBranch", branchReq{Repo: repo, Branch: id, Force: force})
}

// RenameBranch is engine.Engine's.
func (c *Client) RenameBranch(ctx context.Context, repo graveler.RepositoryID, from, to graveler.BranchID) error {
	return do(ctx, c, "RenameBranch", branchReq{Repo: repo, Branch: from, To: to})
}

// SetHead is engine.Engine's.
func (c *Client) SetHead(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, ref graveler.Ref, drop bool) (graveler.Branch, error) {
	return call[graveler.Branch](ctx, c, "SetHead", branchReq{Repo: repo, Branch: id, Ref: ref, Force: drop})
}

// ListTags is engine.Engine's.
func (c *Client) ListTags(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Tag, error) {
	return call[[]graveler.Tag](ctx, c, "ListTags", refsReq{repo, q})
}

// CreateTag is engine.Engine's.
func (c *Client) CreateTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID, ref graveler.Ref) (graveler.Tag, error) {
	return call[graveler.Tag](ctx, c, "CreateTag", tagReq{repo, id, ref})
}

// DeleteTag is engine.Engine's.
func (c *Client) DeleteTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID) error {
	return do(ctx, c, "DeleteTag", tagReq{Repo: repo, Tag: id})
}

// Rules is engine.Engine's.
func (c *Client) Rules(ctx context.Context, repo graveler.RepositoryID) ([]graveler.Rule, error) {
	return call[[]graveler.Rule](ctx, c, "Rules", repoReq{repo})
}

// SetRules is engine.Engine's.
func (c *Client) SetRules(ctx context.Context, repo graveler.RepositoryID, rules []graveler.Rule) error {
	return do(ctx, c, "SetRules", rulesReq{repo, rules})
}

// Stat is engine.Engine's.
func (c *Client) Stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Entry, error) {
	return call[graveler.Entry](ctx, c, "Stat", refReq{repo, ref, path})
}

// Cuts is engine.Engine's.
func (c *Client) Cuts(ctx context.Context, repo graveler.RepositoryID, commit graveler.CommitID) ([]string, error) {
	return call[[]string](ctx, c, "Cuts", refReq{Repo: repo, Ref: graveler.Ref(commit)})
}

// Lookup is engine.Engine's.
func (c *Client) Lookup(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Found, error) {
	return call[graveler.Found](ctx, c, "Lookup", refReq{repo, ref, path})
}

// List is engine.Engine's.
func (c *Client) List(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.ListQuery) iter.Seq2[graveler.Listed, error] {
	return items[graveler.Listed](ctx, c, "List", listReq{repo, ref, q})
}

// Stage is engine.Engine's.
func (c *Client) Stage(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, changes []graveler.Change) error {
	return do(ctx, c, "Stage", stageReq{repo, branch, changes})
}

// Move is engine.Engine's.
func (c *Client) Move(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, from, to string) error {
	return do(ctx, c, "Move", moveReq{repo, branch, from, to})
}

// Exchange is engine.Engine's.
func (c *Client) Exchange(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, x, y string) error {
	return do(ctx, c, "Exchange", moveReq{repo, branch, x, y})
}

// Reset is engine.Engine's.
func (c *Client) Reset(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, path string) error {
	return do(ctx, c, "Reset", refReq{repo, graveler.Ref(branch), path})
}

// Commit is engine.Engine's.
func (c *Client) Commit(ctx context.Context, r engine.CommitRequest) (graveler.Commit, error) {
	return call[graveler.Commit](ctx, c, "Commit", r)
}

// Log is engine.Engine's.
func (c *Client) Log(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.LogQuery) iter.Seq2[graveler.Commit, error] {
	return items[graveler.Commit](ctx, c, "Log", logReq{repo, ref, q})
}

// Diff is engine.Engine's.
func (c *Client) Diff(ctx context.Context, repo graveler.RepositoryID, left, right graveler.Ref, q engine.DiffQuery) iter.Seq2[graveler.Diff, error] {
	return items[graveler.Diff](ctx, c, "Diff", diffReq{repo, left, right, q})
}

// Status is engine.Engine's.
func (c *Client) Status(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, q engine.DiffQuery) iter.Seq2[graveler.Diff, error] {
	return items[graveler.Diff](ctx, c, "Status", diffReq{Repo: repo, Left: graveler.Ref(branch), Query: q})
}

// MergeBase is engine.Engine's.
func (c *Client) MergeBase(ctx context.Context, repo graveler.RepositoryID, a, b graveler.Ref) (graveler.Commit, error) {
	return call[graveler.Commit](ctx, c, "MergeBase", diffReq{Repo: repo, Left: a, Right: b})
}

// Merge is engine.Engine's.
func (c *Client) Merge(ctx context.Context, r engine.MergeRequest) (graveler.Commit, error) {
	return call[graveler.Commit](ctx, c, "Merge", r)
}

// Revert is engine.Engine's.
func (c *Client) Revert(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	return call[graveler.Commit](ctx, c, "Revert", r)
}

// CherryPick is engine.Engine's.
func (c *Client) CherryPick(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	return call[graveler.Commit](ctx, c, "CherryPick", r)
}

// Import is engine.Engine's.
func (c *Client) Import(ctx context.Context, r engine.ImportRequest, progress func(int64)) (int64, error) {
	for it, err := range items[importItem](ctx, c, "Import", r) {
		if err != nil || it.Done {
			return it.Count, err
		}
		if progress != nil {
			progress(it.Count)
		}
	}
	return 0, lost(fmt.Errorf("no result"))
}

// CollectGarbage is engine.Engine's.
func (c *Client) CollectGarbage(ctx context.Context, r engine.GCRequest) (engine.GCReport, error) {
	return call[engine.GCReport](ctx, c, "CollectGarbage", r)
}

// Check is engine.Engine's.
func (c *Client) Check(ctx context.Context, r engine.CheckRequest) iter.Seq2[engine.Problem, error] {
	return items[engine.Problem](ctx, c, "Check", r)
}

// Watch is engine.Engine's.
func (c *Client) Watch(ctx context.Context) iter.Seq2[engine.Event, error] {
	return items[engine.Event](ctx, c, "Watch", none{})
}

// Sync is engine.Engine's.
func (c *Client) Sync(ctx context.Context) error { return do(ctx, c, "Sync", none{}) }

// Objects is engine.Engine's.
func (c *Client) Objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error) {
	if _, err := c.Repository(ctx, repo); err != nil {
		return nil, err
	}
	return &store{c, repo}, nil
}
