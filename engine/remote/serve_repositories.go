package remote

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

type repositories struct {
	pb.UnimplementedRepositoriesServer
	*server
}

func createRepositoryOf(c *checker, r *pb.CreateRepositoryRequest) engine.CreateRepository {
	return engine.CreateRepository{
		ID: repoID(c, r.GetId()), StorageNamespace: c.name("storage namespace", r.GetStorageNamespace()),
		DefaultBranch: branchID(c, r.GetDefaultBranch()), Committer: c.name("committer", r.GetCommitter()),
	}
}

func (s repositories) CreateRepository(ctx context.Context, r *pb.CreateRepositoryRequest) (*pb.CreateRepositoryResponse, error) {
	var c checker
	q, ctx := createRepositoryOf(&c, r), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	v, err := s.eng.CreateRepository(ctx, q)
	return &pb.CreateRepositoryResponse{Repository: repositoryPB(v)}, s.done(ctx, err)
}

func attachRepositoryOf(c *checker, r *pb.AttachRepositoryRequest) engine.AttachRepository {
	q := engine.AttachRepository{
		ID: repoID(c, r.GetId()), StorageNamespace: c.name("storage namespace", r.GetStorageNamespace()), DefaultBranch: branchID(c, r.GetDefaultBranch()),
	}
	if r.Manifest != nil {
		m := manifestOf(r.Manifest)
		c.name("metarange id", r.Manifest.GetCommits()+r.Manifest.GetBranches()+r.Manifest.GetTags())
		q.Manifest = &m
	}
	return q
}

func (s repositories) AttachRepository(ctx context.Context, r *pb.AttachRepositoryRequest) (*pb.AttachRepositoryResponse, error) {
	var c checker
	q, ctx := attachRepositoryOf(&c, r), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	v, err := s.eng.AttachRepository(ctx, q)
	return &pb.AttachRepositoryResponse{Repository: repositoryPB(v)}, s.done(ctx, err)
}

func (s repositories) GetRepository(ctx context.Context, r *pb.GetRepositoryRequest) (*pb.GetRepositoryResponse, error) {
	v, err := s.eng.Repository(ctx, graveler.RepositoryID(r.GetRepo()))
	return &pb.GetRepositoryResponse{Repository: repositoryPB(v)}, s.done(ctx, err)
}

func (s repositories) ListRepositories(_ *pb.ListRepositoriesRequest, out grpc.ServerStreamingServer[pb.ListRepositoriesResponse]) error {
	list, err := s.eng.ListRepositories(out.Context())
	err = parts(all(list, err), func(r graveler.Repository) (*pb.Repository, int) {
		return repositoryPB(r), 64 + len(r.StorageNamespace)
	}, func(items []*pb.Repository) error { return out.Send(&pb.ListRepositoriesResponse{Repositories: items}) })
	return s.done(out.Context(), err)
}

func (s repositories) DeleteRepository(ctx context.Context, r *pb.DeleteRepositoryRequest) (*pb.DeleteRepositoryResponse, error) {
	var c checker
	ctx = made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.DeleteRepositoryResponse{}, s.done(ctx, s.eng.DeleteRepository(ctx, graveler.RepositoryID(r.GetRepo())))
}

func (s repositories) DumpRefs(ctx context.Context, r *pb.DumpRefsRequest) (*pb.DumpRefsResponse, error) {
	m, err := s.eng.DumpRefs(ctx, graveler.RepositoryID(r.GetRepo()))
	return &pb.DumpRefsResponse{Manifest: manifestPB(m)}, s.done(ctx, err)
}
