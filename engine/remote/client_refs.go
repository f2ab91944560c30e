package remote

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

var (
	mResolve      = method{pb.Refs_Resolve_FullMethodName, reads, short}
	mListBranches = method{pb.Refs_ListBranches_FullMethodName, reads, long}
	mCreateBranch = method{pb.Refs_CreateBranch_FullMethodName, change, short}
	mDeleteBranch = method{pb.Refs_DeleteBranch_FullMethodName, change, short}
	mRenameBranch = method{pb.Refs_RenameBranch_FullMethodName, change, short}
	mSetHead      = method{pb.Refs_SetHead_FullMethodName, change, long}
	mListTags     = method{pb.Refs_ListTags_FullMethodName, reads, long}
	mCreateTag    = method{pb.Refs_CreateTag_FullMethodName, change, short}
	mDeleteTag    = method{pb.Refs_DeleteTag_FullMethodName, change, short}
	mRules        = method{pb.Refs_Rules_FullMethodName, reads, short}
	mSetRules     = method{pb.Refs_SetRules_FullMethodName, change, short}
)

// read is unary for what reads one version.
func read[Resp any, P message[Resp]](ctx context.Context, c *Client, m method, ref graveler.Ref, req proto.Message) (*Resp, error) {
	if frozen(ref) {
		return anyNode[Resp, P](ctx, c, m, req)
	}
	return unary[Resp, P](ctx, c, m, req)
}

// Resolve is engine.Engine's.
func (c *Client) Resolve(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (graveler.Resolved, error) {
	p, err := read[pb.ResolveResponse](ctx, c, mResolve, ref, &pb.ResolveRequest{Repo: name(repo), Ref: name(ref)})
	if err != nil {
		return graveler.Resolved{}, err
	}
	return resolvedOf(p), nil
}

// ListBranches is engine.Engine's.
func (c *Client) ListBranches(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Branch, error) {
	r := &pb.ListBranchesRequest{Repo: name(repo), Query: refQueryPB(q)}
	return collect(stream(ctx, c, source[pb.ListBranchesResponse, graveler.Branch]{
		m: mListBranches,
		open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.ListBranchesResponse], error) {
			return pb.NewRefsClient(cc).ListBranches(ctx, r)
		},
		items: func(p *pb.ListBranchesResponse) []graveler.Branch { return convert(p.GetBranches(), branchOf) },
		resume: func(last graveler.Branch, n int) bool {
			r.Query.After = name(last.ID)
			return rest(&r.Query.Limit, q.Limit, n)
		},
	}))
}

// rest makes a limit what is left of it after n items. A stream that gave all it was asked for and breaks before its end has nothing
// left; it is asked for one more, which is cut off.
func rest(limit *int64, all, n int) bool {
	if all > 0 {
		*limit = int64(max(all-n, 1))
	}
	return true
}

// CreateBranch is engine.Engine's.
func (c *Client) CreateBranch(ctx context.Context, r engine.CreateBranch) (graveler.Branch, error) {
	q := &pb.CreateBranchRequest{Repo: name(r.Repo), Id: name(r.ID), Source: name(r.Source), Hidden: r.Hidden}
	p, err := changed[pb.CreateBranchResponse](ctx, c, mCreateBranch, q, func(i *pb.RequestInfo) { q.Info = i })
	return branchOf(p.GetBranch()), err
}

// DeleteBranch is engine.Engine's.
func (c *Client) DeleteBranch(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, force bool) error {
	q := &pb.DeleteBranchRequest{Repo: name(repo), Branch: name(id), Force: force}
	_, err := changed[pb.DeleteBranchResponse](ctx, c, mDeleteBranch, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}

// RenameBranch is engine.Engine's.
func (c *Client) RenameBranch(ctx context.Context, repo graveler.RepositoryID, from, to graveler.BranchID) error {
	q := &pb.RenameBranchRequest{Repo: name(repo), From: name(from), To: name(to)}
	_, err := changed[pb.RenameBranchResponse](ctx, c, mRenameBranch, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}

// SetHead is engine.Engine's.
func (c *Client) SetHead(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, ref graveler.Ref, drop bool) (graveler.Branch, error) {
	q := &pb.SetHeadRequest{Repo: name(repo), Branch: name(id), Ref: name(ref), Drop: drop}
	p, err := changed[pb.SetHeadResponse](ctx, c, mSetHead, q, func(i *pb.RequestInfo) { q.Info = i })
	return branchOf(p.GetBranch()), err
}

// ListTags is engine.Engine's.
func (c *Client) ListTags(ctx context.Context, repo graveler.RepositoryID, q engine.RefQuery) ([]graveler.Tag, error) {
	r := &pb.ListTagsRequest{Repo: name(repo), Query: refQueryPB(q)}
	return collect(stream(ctx, c, source[pb.ListTagsResponse, graveler.Tag]{
		m: mListTags,
		open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.ListTagsResponse], error) {
			return pb.NewRefsClient(cc).ListTags(ctx, r)
		},
		items: func(p *pb.ListTagsResponse) []graveler.Tag { return convert(p.GetTags(), tagOf) },
		resume: func(last graveler.Tag, n int) bool {
			r.Query.After = name(last.ID)
			return rest(&r.Query.Limit, q.Limit, n)
		},
	}))
}

// CreateTag is engine.Engine's.
func (c *Client) CreateTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID, ref graveler.Ref) (graveler.Tag, error) {
	q := &pb.CreateTagRequest{Repo: name(repo), Tag: name(id), Ref: name(ref)}
	p, err := changed[pb.CreateTagResponse](ctx, c, mCreateTag, q, func(i *pb.RequestInfo) { q.Info = i })
	return tagOf(p.GetTag()), err
}

// DeleteTag is engine.Engine's.
func (c *Client) DeleteTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID) error {
	q := &pb.DeleteTagRequest{Repo: name(repo), Tag: name(id)}
	_, err := changed[pb.DeleteTagResponse](ctx, c, mDeleteTag, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}

// Rules is engine.Engine's.
func (c *Client) Rules(ctx context.Context, repo graveler.RepositoryID) ([]graveler.Rule, error) {
	p, err := unary[pb.RulesResponse](ctx, c, mRules, &pb.RulesRequest{Repo: name(repo)})
	return rulesOf(p.GetRules()), err
}

// SetRules is engine.Engine's.
func (c *Client) SetRules(ctx context.Context, repo graveler.RepositoryID, rules []graveler.Rule) error {
	q := &pb.SetRulesRequest{Repo: name(repo), Rules: rulesPB(rules)}
	_, err := changed[pb.SetRulesResponse](ctx, c, mSetRules, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}
