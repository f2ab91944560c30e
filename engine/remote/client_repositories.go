package remote

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

var (
	mCreateRepository = method{pb.Repositories_CreateRepository_FullMethodName, change, long}
	mAttachRepository = method{pb.Repositories_AttachRepository_FullMethodName, change, long}
	mGetRepository    = method{pb.Repositories_GetRepository_FullMethodName, reads, short}
	mListRepositories = method{pb.Repositories_ListRepositories_FullMethodName, reads, long}
	mDeleteRepository = method{pb.Repositories_DeleteRepository_FullMethodName, change, short}
	mDumpRefs         = method{pb.Repositories_DumpRefs_FullMethodName, reads, long} // writes the same again
)

// CreateRepository is engine.Engine's.
func (c *Client) CreateRepository(ctx context.Context, r engine.CreateRepository) (graveler.Repository, error) {
	q := &pb.CreateRepositoryRequest{Id: name(r.ID), StorageNamespace: name(r.StorageNamespace), DefaultBranch: name(r.DefaultBranch)}
	var t texts
	if q.Committer = t.text("committer", r.Committer); t.err != nil {
		return graveler.Repository{}, t.err
	}
	p, err := changed[pb.CreateRepositoryResponse](ctx, c, mCreateRepository, q, func(i *pb.RequestInfo) { q.Info = i })
	return repositoryOf(p.GetRepository()), err
}

// AttachRepository is engine.Engine's.
func (c *Client) AttachRepository(ctx context.Context, r engine.AttachRepository) (graveler.Repository, error) {
	q := &pb.AttachRepositoryRequest{Id: name(r.ID), StorageNamespace: name(r.StorageNamespace), DefaultBranch: name(r.DefaultBranch)}
	if r.Manifest != nil {
		q.Manifest = manifestPB(*r.Manifest)
	}
	p, err := changed[pb.AttachRepositoryResponse](ctx, c, mAttachRepository, q, func(i *pb.RequestInfo) { q.Info = i })
	return repositoryOf(p.GetRepository()), err
}

// Repository is engine.Engine's.
func (c *Client) Repository(ctx context.Context, id graveler.RepositoryID) (graveler.Repository, error) {
	p, err := unary[pb.GetRepositoryResponse](ctx, c, mGetRepository, &pb.GetRepositoryRequest{Repo: name(id)})
	return repositoryOf(p.GetRepository()), err
}

// ListRepositories is engine.Engine's.
func (c *Client) ListRepositories(ctx context.Context) ([]graveler.Repository, error) {
	var after graveler.RepositoryID // what was told before the stream broke
	var out []graveler.Repository
	for r, err := range stream(ctx, c, source[pb.ListRepositoriesResponse, graveler.Repository]{
		m: mListRepositories,
		open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.ListRepositoriesResponse], error) {
			return pb.NewRepositoriesClient(cc).ListRepositories(ctx, &pb.ListRepositoriesRequest{})
		},
		items: func(p *pb.ListRepositoriesResponse) []graveler.Repository {
			return convert(p.GetRepositories(), repositoryOf)
		},
		resume: func(last graveler.Repository, _ int) bool { after = max(after, last.ID); return true },
	}) {
		if err != nil {
			return nil, err
		}
		if r.ID > after {
			out = append(out, r)
		}
	}
	return out, nil
}

// DeleteRepository is engine.Engine's.
func (c *Client) DeleteRepository(ctx context.Context, id graveler.RepositoryID) error {
	q := &pb.DeleteRepositoryRequest{Repo: name(id)}
	_, err := changed[pb.DeleteRepositoryResponse](ctx, c, mDeleteRepository, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}

// DumpRefs is engine.Engine's.
func (c *Client) DumpRefs(ctx context.Context, id graveler.RepositoryID) (graveler.RefsManifest, error) {
	p, err := unary[pb.DumpRefsResponse](ctx, c, mDumpRefs, &pb.DumpRefsRequest{Repo: name(id)})
	return manifestOf(p.GetManifest()), err
}
