package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

type versions struct {
	pb.UnimplementedVersionsServer
	*server
}

func commitRequestOf(c *checker, r *pb.CommitRequest) engine.CommitRequest {
	return engine.CommitRequest{
		Repo: repoID(c, r.GetRepo()), Branch: branchID(c, r.GetBranch()), Message: r.GetMessage(), Committer: c.name("committer", r.GetCommitter()),
		Metadata: r.GetMetadata(), AllowEmpty: r.GetAllowEmpty(),
	}
}

func (s versions) Commit(ctx context.Context, r *pb.CommitRequest) (*pb.CommitResponse, error) {
	var c checker
	q, ctx := commitRequestOf(&c, r), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	v, err := s.eng.Commit(ctx, q)
	return &pb.CommitResponse{Commit: commitPB(v)}, s.done(ctx, err)
}

func commitItem(v graveler.Commit) (*pb.Commit, int) {
	n := 300 + len(v.Message) + len(v.Committer)
	for k, v := range v.Metadata {
		n += len(k) + len(v) + 8
	}
	return commitPB(v), n
}

func logQueryOf(c *checker, r *pb.LogRequest) engine.LogQuery {
	return engine.LogQuery{Path: c.path("path", r.GetPath()), FirstParent: r.GetFirstParent(), Limit: c.limit(r.GetLimit())}
}

// Log begins at a commit that it tells, so that a client whose stream breaks can go on in the same log.
func (s versions) Log(r *pb.LogRequest, out grpc.ServerStreamingServer[pb.LogResponse]) error {
	var c checker
	repo, ref, q, skip := repoID(&c, r.GetRepo()), refOf(&c, r.GetRef()), logQueryOf(&c, r), c.count("skip", r.GetSkip())
	if c.err != nil {
		return Status(c.err)
	}
	at, err := s.eng.Resolve(out.Context(), repo, ref)
	if err != nil {
		return Status(err)
	}
	from := name(at.Commit.ID)
	if err := out.Send(&pb.LogResponse{From: from}); err != nil {
		return err
	}
	log := func(yield func(graveler.Commit, error) bool) {
		n := 0
		for c, err := range s.eng.Log(out.Context(), repo, graveler.Ref(at.Commit.ID), q) {
			if n++; (err != nil || n > skip) && !yield(c, err) {
				return
			}
		}
	}
	err = parts(log, commitItem, func(items []*pb.Commit) error {
		return out.Send(&pb.LogResponse{Commits: items})
	})
	return s.done(out.Context(), err)
}

func diffQueryPB(q engine.DiffQuery) *pb.DiffQuery {
	return &pb.DiffQuery{Prefix: []byte(q.Prefix), After: []byte(q.After), Limit: int64(q.Limit), MergeBase: q.MergeBase}
}

func (c *checker) diffQuery(q *pb.DiffQuery) engine.DiffQuery {
	return engine.DiffQuery{
		Prefix: c.path("prefix", q.GetPrefix()), After: c.path("path to go on after", q.GetAfter()), Limit: c.limit(q.GetLimit()), MergeBase: q.GetMergeBase(),
	}
}

func (s versions) Diff(r *pb.DiffRequest, out grpc.ServerStreamingServer[pb.DiffResponse]) error {
	var c checker
	repo, left, right, q := repoID(&c, r.GetRepo()), refOf(&c, r.GetLeft()), refOf(&c, r.GetRight()), c.diffQuery(r.GetQuery())
	if c.err != nil {
		return Status(c.err)
	}
	err := parts(s.eng.Diff(out.Context(), repo, left, right, q), diffPB, func(items []*pb.Diff) error { return out.Send(&pb.DiffResponse{Diffs: items}) })
	return s.done(out.Context(), err)
}

func (s versions) Status(r *pb.StatusRequest, out grpc.ServerStreamingServer[pb.StatusResponse]) error {
	var c checker
	repo, branch, q := repoID(&c, r.GetRepo()), branchID(&c, r.GetBranch()), c.diffQuery(r.GetQuery())
	if c.err != nil {
		return Status(c.err)
	}
	err := parts(s.eng.Status(out.Context(), repo, branch, q), diffPB, func(items []*pb.Diff) error { return out.Send(&pb.StatusResponse{Diffs: items}) })
	return s.done(out.Context(), err)
}

func (s versions) MergeBase(ctx context.Context, r *pb.MergeBaseRequest) (*pb.MergeBaseResponse, error) {
	var c checker
	repo, a, b := repoID(&c, r.GetRepo()), refOf(&c, r.GetA()), refOf(&c, r.GetB())
	if c.err != nil {
		return nil, Status(c.err)
	}
	v, err := s.eng.MergeBase(ctx, repo, a, b)
	return &pb.MergeBaseResponse{Commit: commitPB(v)}, s.done(ctx, err)
}

// conflicts sends the paths of a merge's conflicts, if that is what err is, and returns err.
func conflicts(err error, send func(*pb.Conflict) error) error {
	mc, ok := errors.AsType[*graveler.MergeConflict](err)
	if !ok {
		return err
	}
	paths := func(yield func(string, error) bool) {
		for _, p := range mc.Paths {
			if !yield(p, nil) {
				return
			}
		}
	}
	if err := parts(paths, func(p string) ([]byte, int) { return []byte(p), len(p) + 4 }, func(ps [][]byte) error {
		return send(&pb.Conflict{Paths: ps, More: mc.More})
	}); err != nil {
		return err
	}
	return err
}

func mergeRequestOf(c *checker, r *pb.MergeRequest) engine.MergeRequest {
	if r.GetStrategy() < 0 || r.GetStrategy() > pb.MergeStrategy_MERGE_STRATEGY_SOURCE_WINS {
		c.bad("merge strategy %d", r.GetStrategy())
	}
	return engine.MergeRequest{
		Repo: repoID(c, r.GetRepo()), Source: refOf(c, r.GetSource()), Dest: branchID(c, r.GetDest()), Message: r.GetMessage(),
		Committer: c.name("committer", r.GetCommitter()), Metadata: r.GetMetadata(), Strategy: graveler.MergeStrategy(r.GetStrategy()), AllowEmpty: r.GetAllowEmpty(),
	}
}

func (s versions) Merge(r *pb.MergeRequest, out grpc.ServerStreamingServer[pb.MergeResponse]) error {
	var c checker
	q, ctx := mergeRequestOf(&c, r), made(out.Context(), &c, r.GetInfo())
	if c.err != nil {
		return Status(c.err)
	}
	v, err := s.eng.Merge(ctx, q)
	err = conflicts(err, func(p *pb.Conflict) error { return out.Send(&pb.MergeResponse{Conflict: p}) })
	if err := s.done(ctx, err); err != nil {
		return err
	}
	return out.Send(&pb.MergeResponse{Commit: commitPB(v)})
}

func pickOf(c *checker, p *pb.Pick) engine.PickRequest {
	return engine.PickRequest{
		Repo: repoID(c, p.GetRepo()), Branch: branchID(c, p.GetBranch()), Ref: refOf(c, p.GetRef()), Parent: c.count("parent", int64(p.GetParent())),
		Message: p.GetMessage(), Committer: c.name("committer", p.GetCommitter()), Metadata: p.GetMetadata(),
	}
}

func (s versions) Revert(r *pb.RevertRequest, out grpc.ServerStreamingServer[pb.RevertResponse]) error {
	var c checker
	q, ctx := pickOf(&c, r.GetPick()), made(out.Context(), &c, r.GetInfo())
	if c.err != nil {
		return Status(c.err)
	}
	v, err := s.eng.Revert(ctx, q)
	err = conflicts(err, func(p *pb.Conflict) error { return out.Send(&pb.RevertResponse{Conflict: p}) })
	if err := s.done(ctx, err); err != nil {
		return err
	}
	return out.Send(&pb.RevertResponse{Commit: commitPB(v)})
}

func (s versions) CherryPick(r *pb.CherryPickRequest, out grpc.ServerStreamingServer[pb.CherryPickResponse]) error {
	var c checker
	q, ctx := pickOf(&c, r.GetPick()), made(out.Context(), &c, r.GetInfo())
	if c.err != nil {
		return Status(c.err)
	}
	v, err := s.eng.CherryPick(ctx, q)
	err = conflicts(err, func(p *pb.Conflict) error { return out.Send(&pb.CherryPickResponse{Conflict: p}) })
	if err := s.done(ctx, err); err != nil {
		return err
	}
	return out.Send(&pb.CherryPickResponse{Commit: commitPB(v)})
}

func importRequestOf(c *checker, r *pb.ImportRequest) engine.ImportRequest {
	return engine.ImportRequest{Repo: repoID(c, r.GetRepo()), Branch: branchID(c, r.GetBranch()), Source: r.GetSource(), Dest: c.path("destination", r.GetDest())}
}

func (s versions) Import(r *pb.ImportRequest, out grpc.ServerStreamingServer[pb.ImportResponse]) error {
	var c checker
	q, ctx := importRequestOf(&c, r), made(out.Context(), &c, r.GetInfo())
	if c.err != nil {
		return Status(c.err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var last time.Time
	n, err := s.eng.Import(ctx, q, func(n int64) {
		if time.Since(last) < 50*time.Millisecond {
			return
		}
		last = time.Now()
		if err := out.Send(&pb.ImportResponse{Objects: n}); err != nil {
			cancel(fmt.Errorf("nobody listens any more: %w", graveler.Canceled))
		}
	})
	if err := s.done(ctx, err); err != nil {
		return err
	}
	return out.Send(&pb.ImportResponse{Objects: n, Done: true})
}

func gcRequestOf(c *checker, r *pb.CollectGarbageRequest) engine.GCRequest {
	q := engine.GCRequest{Repo: repoID(c, r.GetRepo()), DryRun: r.GetDryRun()}
	if r.Grace != nil {
		if r.Grace.CheckValid() != nil || r.Grace.AsDuration() < 0 {
			c.bad("grace of %d seconds", r.Grace.GetSeconds())
		}
		q.Grace = r.Grace.AsDuration()
	}
	return q
}

func (s versions) CollectGarbage(ctx context.Context, r *pb.CollectGarbageRequest) (*pb.CollectGarbageResponse, error) {
	var c checker
	q := gcRequestOf(&c, r)
	if c.err != nil {
		return nil, Status(c.err)
	}
	rep, err := s.eng.CollectGarbage(ctx, q)
	p := &pb.CollectGarbageResponse{Live: rep.Live, Kept: rep.Kept, Deleted: rep.Deleted, Bytes: rep.Bytes}
	for _, a := range rep.Addresses {
		p.Addresses = append(p.Addresses, []byte(a))
	}
	return p, s.done(ctx, err)
}

func (s versions) Check(r *pb.CheckRequest, out grpc.ServerStreamingServer[pb.CheckResponse]) error {
	var c checker
	q := engine.CheckRequest{Repo: repoID(&c, r.GetRepo()), Ref: refOf(&c, r.GetRef()), Data: r.GetData()}
	if c.err != nil {
		return Status(c.err)
	}
	err := parts(s.eng.Check(out.Context(), q), func(p engine.Problem) (*pb.Problem, int) {
		return &pb.Problem{Level: name(p.Level), Place: []byte(p.Place), Text: []byte(p.Text)}, len(p.Place) + len(p.Text) + 16
	}, func(items []*pb.Problem) error { return out.Send(&pb.CheckResponse{Problems: items}) })
	return s.done(out.Context(), err)
}
