package remote

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

type refs struct {
	pb.UnimplementedRefsServer
	*server
}

func (s refs) Resolve(ctx context.Context, r *pb.ResolveRequest) (*pb.ResolveResponse, error) {
	var c checker
	repo, ref := repoID(&c, r.GetRepo()), refOf(&c, r.GetRef())
	if c.err != nil {
		return nil, Status(c.err)
	}
	v, err := s.eng.Resolve(ctx, repo, ref)
	return resolvedPB(v), s.done(ctx, err)
}

func resolvedPB(v graveler.Resolved) *pb.ResolveResponse {
	return &pb.ResolveResponse{View: pb.View(v.View), Branch: branchPB(v.Branch), Tag: name(v.Tag), Commit: commitPB(v.Commit)}
}

func resolvedOf(p *pb.ResolveResponse) graveler.Resolved {
	return graveler.Resolved{View: graveler.View(p.GetView()), Branch: branchOf(p.GetBranch()), Tag: graveler.TagID(p.GetTag()), Commit: commitOf(p.GetCommit())}
}

func refQueryPB(q engine.RefQuery) *pb.RefQuery {
	return &pb.RefQuery{Prefix: name(q.Prefix), After: name(q.After), Limit: int64(q.Limit), Hidden: q.Hidden}
}

func (c *checker) refQuery(q *pb.RefQuery) engine.RefQuery {
	return engine.RefQuery{
		Prefix: c.name("prefix", q.GetPrefix()), After: c.name("name to list after", q.GetAfter()), Limit: c.limit(q.GetLimit()), Hidden: q.GetHidden(),
	}
}

func (s refs) ListBranches(r *pb.ListBranchesRequest, out grpc.ServerStreamingServer[pb.ListBranchesResponse]) error {
	var c checker
	repo, q := repoID(&c, r.GetRepo()), c.refQuery(r.GetQuery())
	if c.err != nil {
		return Status(c.err)
	}
	list, err := s.eng.ListBranches(out.Context(), repo, q)
	err = parts(all(list, err), func(b graveler.Branch) (*pb.Branch, int) { return branchPB(b), 160 + len(b.ID) + 24*len(b.Sealed) },
		func(items []*pb.Branch) error { return out.Send(&pb.ListBranchesResponse{Branches: items}) })
	return s.done(out.Context(), err)
}

func createBranchOf(c *checker, r *pb.CreateBranchRequest) engine.CreateBranch {
	return engine.CreateBranch{Repo: repoID(c, r.GetRepo()), ID: branchID(c, r.GetId()), Source: refOf(c, r.GetSource()), Hidden: r.GetHidden()}
}

func (s refs) CreateBranch(ctx context.Context, r *pb.CreateBranchRequest) (*pb.CreateBranchResponse, error) {
	var c checker
	q, ctx := createBranchOf(&c, r), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	b, err := s.eng.CreateBranch(ctx, q)
	return &pb.CreateBranchResponse{Branch: branchPB(b)}, s.done(ctx, err)
}

func (s refs) DeleteBranch(ctx context.Context, r *pb.DeleteBranchRequest) (*pb.DeleteBranchResponse, error) {
	var c checker
	repo, id, ctx := repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.DeleteBranchResponse{}, s.done(ctx, s.eng.DeleteBranch(ctx, repo, id, r.GetForce()))
}

func (s refs) RenameBranch(ctx context.Context, r *pb.RenameBranchRequest) (*pb.RenameBranchResponse, error) {
	var c checker
	repo, from, to, ctx := repoID(&c, r.GetRepo()), branchID(&c, r.GetFrom()), branchID(&c, r.GetTo()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.RenameBranchResponse{}, s.done(ctx, s.eng.RenameBranch(ctx, repo, from, to))
}

func (s refs) SetHead(ctx context.Context, r *pb.SetHeadRequest) (*pb.SetHeadResponse, error) {
	var c checker
	repo, id, ref, ctx := repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), refOf(&c, r.GetRef()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	b, err := s.eng.SetHead(ctx, repo, id, ref, r.GetDrop())
	return &pb.SetHeadResponse{Branch: branchPB(b)}, s.done(ctx, err)
}

func (s refs) ListTags(r *pb.ListTagsRequest, out grpc.ServerStreamingServer[pb.ListTagsResponse]) error {
	var c checker
	repo, q := repoID(&c, r.GetRepo()), c.refQuery(r.GetQuery())
	if c.err != nil {
		return Status(c.err)
	}
	list, err := s.eng.ListTags(out.Context(), repo, q)
	err = parts(all(list, err), func(t graveler.Tag) (*pb.Tag, int) { return tagPB(t), 80 + len(t.ID) },
		func(items []*pb.Tag) error { return out.Send(&pb.ListTagsResponse{Tags: items}) })
	return s.done(out.Context(), err)
}

func (s refs) CreateTag(ctx context.Context, r *pb.CreateTagRequest) (*pb.CreateTagResponse, error) {
	var c checker
	repo, id, ref, ctx := repoID(&c, r.GetRepo()), graveler.TagID(c.name("tag name", r.GetTag())), refOf(&c, r.GetRef()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	t, err := s.eng.CreateTag(ctx, repo, id, ref)
	return &pb.CreateTagResponse{Tag: tagPB(t)}, s.done(ctx, err)
}

func (s refs) DeleteTag(ctx context.Context, r *pb.DeleteTagRequest) (*pb.DeleteTagResponse, error) {
	var c checker
	repo, id, ctx := repoID(&c, r.GetRepo()), graveler.TagID(c.name("tag name", r.GetTag())), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.DeleteTagResponse{}, s.done(ctx, s.eng.DeleteTag(ctx, repo, id))
}

func (s refs) Rules(ctx context.Context, r *pb.RulesRequest) (*pb.RulesResponse, error) {
	rs, err := s.eng.Rules(ctx, graveler.RepositoryID(r.GetRepo()))
	return &pb.RulesResponse{Rules: rulesPB(rs)}, s.done(ctx, err)
}

func (s refs) SetRules(ctx context.Context, r *pb.SetRulesRequest) (*pb.SetRulesResponse, error) {
	var c checker
	repo, ctx := repoID(&c, r.GetRepo()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.SetRulesResponse{}, s.done(ctx, s.eng.SetRules(ctx, repo, rulesOf(r.GetRules())))
}
