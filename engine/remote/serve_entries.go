package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

type entries struct {
	pb.UnimplementedEntriesServer
	*server
}

func (s entries) Stat(ctx context.Context, r *pb.StatRequest) (*pb.StatResponse, error) {
	var c checker
	repo, ref := repoID(&c, r.GetRepo()), refOf(&c, r.GetRef())
	if c.err != nil {
		return nil, Status(c.err)
	}
	e, err := s.eng.Stat(ctx, repo, ref, string(r.GetPath()))
	if err != nil {
		return nil, Status(err)
	}
	return &pb.StatResponse{Entry: sentEntryPB(&e)}, s.done(ctx, nil)
}

func (s entries) Lookup(ctx context.Context, r *pb.LookupRequest) (*pb.LookupResponse, error) {
	var c checker
	repo, ref := repoID(&c, r.GetRepo()), refOf(&c, r.GetRef())
	if c.err != nil {
		return nil, Status(c.err)
	}
	f, err := s.eng.Lookup(ctx, repo, ref, string(r.GetPath()))
	if err != nil {
		return nil, Status(err)
	}
	p := &pb.LookupResponse{HasPrefix: f.HasPrefix}
	if f.HasObject {
		p.Object = sentEntryPB(&f.Object)
	}
	if f.HasMarker {
		p.Marker = sentEntryPB(&f.Marker)
	}
	return p, s.done(ctx, nil)
}

func (s entries) Cuts(ctx context.Context, r *pb.CutsRequest) (*pb.CutsResponse, error) {
	var c checker
	repo, commit := repoID(&c, r.GetRepo()), graveler.CommitID(c.name("commit", r.GetCommit()))
	if c.err != nil {
		return nil, Status(c.err)
	}
	cuts, err := s.eng.Cuts(ctx, repo, commit)
	if err != nil {
		return nil, Status(err)
	}
	p := &pb.CutsResponse{Paths: make([][]byte, len(cuts))}
	for i, path := range cuts {
		p.Paths[i] = []byte(path)
	}
	return p, nil
}

func foundOf(p *pb.LookupResponse) graveler.Found {
	return graveler.Found{
		HasObject: p.GetObject() != nil, Object: entryOf(p.GetObject()), HasPrefix: p.GetHasPrefix(), HasMarker: p.GetMarker() != nil, Marker: entryOf(p.GetMarker()),
	}
}

func listQueryOf(c *checker, r *pb.ListRequest) engine.ListQuery {
	q := engine.ListQuery{
		Prefix: c.path("prefix", r.GetPrefix()), After: c.path("path to list after", r.GetAfter()), Delimiter: r.GetDelimiter(), Limit: c.limit(r.GetLimit()),
	}
	if q.Delimiter != "" && q.Delimiter != "/" {
		c.bad("delimiter %q: it is empty or a slash", q.Delimiter)
	}
	return q
}

func (s entries) List(r *pb.ListRequest, out grpc.ServerStreamingServer[pb.ListResponse]) error {
	var c checker
	repo, ref, q := repoID(&c, r.GetRepo()), refOf(&c, r.GetRef()), listQueryOf(&c, r)
	if c.err != nil {
		return Status(c.err)
	}
	err := parts(s.eng.List(out.Context(), repo, ref, q), listedPB, func(items []*pb.Listed) error { return out.Send(&pb.ListResponse{Items: items}) })
	return s.done(out.Context(), err)
}

func (s entries) Stage(ctx context.Context, r *pb.StageRequest) (*pb.StageResponse, error) {
	var c checker
	repo, branch, changes, ctx := repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), c.changes(r.GetChanges()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.StageResponse{}, s.done(ctx, s.eng.Stage(ctx, repo, branch, changes))
}

// maxStaged bounds what one StageMany holds in memory until it is whole.
const maxStaged = 1 << 30

func (s entries) StageMany(in grpc.ClientStreamingServer[pb.StageManyRequest, pb.StageResponse]) error {
	var c checker
	ctx := in.Context()
	var repo graveler.RepositoryID
	var branch graveler.BranchID
	var changes []graveler.Change
	bytes := 0
	for first := true; ; first = false {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return Status(fmt.Errorf("the changes to stage end without a last part: %w", graveler.Invalid))
		}
		if err != nil {
			return err
		}
		if first {
			repo, branch, ctx = repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), made(ctx, &c, r.GetInfo())
		}
		more := c.changes(r.GetChanges())
		for i := range more {
			bytes += len(more[i].Path) + weight(&more[i].Entry) + 64
		}
		if c.err == nil && bytes > maxStaged {
			c.err = fmt.Errorf("more than %d bytes of changes to stage at once: %w", maxStaged, graveler.TooLarge)
		}
		if c.err != nil {
			return Status(c.err)
		}
		changes = append(changes, more...)
		if r.GetLast() {
			break
		}
	}
	if err := s.done(ctx, s.eng.Stage(ctx, repo, branch, changes)); err != nil {
		return err
	}
	return in.SendAndClose(&pb.StageResponse{})
}

func (s entries) Move(ctx context.Context, r *pb.MoveRequest) (*pb.MoveResponse, error) {
	var c checker
	repo, branch, ctx := repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.MoveResponse{}, s.done(ctx, s.eng.Move(ctx, repo, branch, string(r.GetFrom()), string(r.GetTo())))
}

func (s entries) Exchange(ctx context.Context, r *pb.ExchangeRequest) (*pb.ExchangeResponse, error) {
	var c checker
	repo, branch, ctx := repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.ExchangeResponse{}, s.done(ctx, s.eng.Exchange(ctx, repo, branch, string(r.GetA()), string(r.GetB())))
}

func (s entries) Reset(ctx context.Context, r *pb.ResetRequest) (*pb.ResetResponse, error) {
	var c checker
	repo, branch, ctx := repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.ResetResponse{}, s.done(ctx, s.eng.Reset(ctx, repo, branch, string(r.GetPath())))
}
