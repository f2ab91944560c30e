package remote

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

var (
	mCommit         = method{pb.Versions_Commit_FullMethodName, change, long}
	mLog            = method{pb.Versions_Log_FullMethodName, reads, days}
	mDiff           = method{pb.Versions_Diff_FullMethodName, reads, days}
	mStatus         = method{pb.Versions_Status_FullMethodName, reads, days}
	mMergeBase      = method{pb.Versions_MergeBase_FullMethodName, reads, short}
	mMerge          = method{pb.Versions_Merge_FullMethodName, change, long}
	mRevert         = method{pb.Versions_Revert_FullMethodName, change, long}
	mCherryPick     = method{pb.Versions_CherryPick_FullMethodName, change, long}
	mImport         = method{pb.Versions_Import_FullMethodName, change, days}
	mCollectGarbage = method{pb.Versions_CollectGarbage_FullMethodName, once, days}
	mCheck          = method{pb.Versions_Check_FullMethodName, reads, days}
)

// Commit is engine.Engine's.
func (c *Client) Commit(ctx context.Context, r engine.CommitRequest) (graveler.Commit, error) {
	var t texts
	q := &pb.CommitRequest{
		Repo: name(r.Repo), Branch: name(r.Branch), Message: t.text("message", r.Message), Committer: t.text("committer", r.Committer),
		Metadata: t.pairs("metadata", r.Metadata), AllowEmpty: r.AllowEmpty,
	}
	if t.err != nil {
		return graveler.Commit{}, t.err
	}
	p, err := changed[pb.CommitResponse](ctx, c, mCommit, q, func(i *pb.RequestInfo) { q.Info = i })
	return commitOf(p.GetCommit()), err
}

// Log is engine.Engine's. A log whose stream breaks goes on in the log of the commit that it began at.
func (c *Client) Log(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.LogQuery) iter.Seq2[graveler.Commit, error] {
	return func(yield func(graveler.Commit, error) bool) {
		r := &pb.LogRequest{Repo: name(repo), Ref: name(ref), Path: []byte(q.Path), FirstParent: q.FirstParent, Limit: int64(q.Limit)}
		stream(ctx, c, source[pb.LogResponse, graveler.Commit]{
			m: mLog, any: frozen(ref),
			open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.LogResponse], error) {
				return pb.NewVersionsClient(cc).Log(ctx, r)
			},
			items: func(p *pb.LogResponse) []graveler.Commit {
				if p.GetFrom() != "" {
					r.Ref = p.GetFrom()
				}
				return convert(p.GetCommits(), commitOf)
			},
			resume: func(_ graveler.Commit, n int) bool { r.Skip = int64(n); return true },
		})(yield)
	}
}

// Diff is engine.Engine's. A diff whose stream breaks goes on after the last path, between what the refs show then.
func (c *Client) Diff(ctx context.Context, repo graveler.RepositoryID, left, right graveler.Ref, q engine.DiffQuery) iter.Seq2[graveler.Diff, error] {
	return func(yield func(graveler.Diff, error) bool) {
		r := &pb.DiffRequest{Repo: name(repo), Left: name(left), Right: name(right), Query: diffQueryPB(q)}
		limited(q.Limit, stream(ctx, c, source[pb.DiffResponse, graveler.Diff]{
			m: mDiff, any: frozen(left) && frozen(right),
			open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.DiffResponse], error) {
				return pb.NewVersionsClient(cc).Diff(ctx, r)
			},
			items: func(p *pb.DiffResponse) []graveler.Diff { return convert(p.GetDiffs(), diffOf) },
			resume: func(last graveler.Diff, n int) bool {
				r.Query.After = []byte(last.Path)
				return rest(&r.Query.Limit, q.Limit, n)
			},
		}))(yield)
	}
}

// Status is engine.Engine's, and goes on as Diff does.
func (c *Client) Status(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, q engine.DiffQuery) iter.Seq2[graveler.Diff, error] {
	return func(yield func(graveler.Diff, error) bool) {
		r := &pb.StatusRequest{Repo: name(repo), Branch: name(branch), Query: diffQueryPB(q)}
		limited(q.Limit, stream(ctx, c, source[pb.StatusResponse, graveler.Diff]{
			m: mStatus,
			open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.StatusResponse], error) {
				return pb.NewVersionsClient(cc).Status(ctx, r)
			},
			items: func(p *pb.StatusResponse) []graveler.Diff { return convert(p.GetDiffs(), diffOf) },
			resume: func(last graveler.Diff, n int) bool {
				r.Query.After = []byte(last.Path)
				return rest(&r.Query.Limit, q.Limit, n)
			},
		}))(yield)
	}
}

// MergeBase is engine.Engine's.
func (c *Client) MergeBase(ctx context.Context, repo graveler.RepositoryID, a, b graveler.Ref) (graveler.Commit, error) {
	p, err := unary[pb.MergeBaseResponse](ctx, c, mMergeBase, &pb.MergeBaseRequest{Repo: name(repo), A: name(a), B: name(b)})
	return commitOf(p.GetCommit()), err
}

// merged is what the answers of a merge, revert or cherry-pick have.
type merged interface {
	GetCommit() *pb.Commit
	GetConflict() *pb.Conflict
}

// merge makes a change that answers with a commit or with conflicts.
func merge[M any, P interface {
	*M
	merged
}](ctx context.Context, c *Client, m method, open func(ctx context.Context, cc grpc.ClientConnInterface, i *pb.RequestInfo) (grpc.ServerStreamingClient[M], error)) (commit graveler.Commit, err error) {
	err = c.numbered(ctx, m, func(t *tries, i *pb.RequestInfo) error {
		for {
			var mc *graveler.MergeConflict
			done := false
			err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				in, err := open(ctx, cc, i)
				if err != nil {
					return err
				}
				for {
					p, err := in.Recv()
					if errors.Is(err, io.EOF) && done {
						return nil
					}
					if err != nil {
						return err
					}
					if x := P(p).GetCommit(); x != nil {
						commit, done = commitOf(x), true
					}
					if x := P(p).GetConflict(); x != nil {
						if mc == nil {
							mc = new(graveler.MergeConflict)
						}
						part := conflictOf(x)
						mc.Paths, mc.More = append(mc.Paths, part.Paths...), mc.More || part.More
					}
				}
			})
			if err == nil || done {
				return nil
			}
			if e, ok := answered(err); ok && mc != nil {
				if _, ok := errors.AsType[*graveler.MergeConflict](e); ok {
					return &remoteError{text: e.text, err: mc}
				}
			}
			if err := t.next(err); err != nil {
				return err
			}
		}
	})
	if err != nil {
		commit = graveler.Commit{}
	}
	return commit, err
}

// Merge is engine.Engine's.
func (c *Client) Merge(ctx context.Context, r engine.MergeRequest) (graveler.Commit, error) {
	var t texts
	q := &pb.MergeRequest{
		Repo: name(r.Repo), Source: name(r.Source), Dest: name(r.Dest), Message: t.text("message", r.Message), Committer: t.text("committer", r.Committer),
		Metadata: t.pairs("metadata", r.Metadata), Strategy: pb.MergeStrategy(r.Strategy), AllowEmpty: r.AllowEmpty,
	}
	if t.err != nil {
		return graveler.Commit{}, t.err
	}
	return merge(ctx, c, mMerge, func(ctx context.Context, cc grpc.ClientConnInterface, i *pb.RequestInfo) (grpc.ServerStreamingClient[pb.MergeResponse], error) {
		q.Info = i
		return pb.NewVersionsClient(cc).Merge(ctx, q)
	})
}

func (t *texts) pick(r engine.PickRequest) *pb.Pick {
	return &pb.Pick{
		Repo: name(r.Repo), Branch: name(r.Branch), Ref: name(r.Ref), Parent: int32(r.Parent), Message: t.text("message", r.Message),
		Committer: t.text("committer", r.Committer), Metadata: t.pairs("metadata", r.Metadata),
	}
}

// Revert is engine.Engine's.
func (c *Client) Revert(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	var t texts
	q := &pb.RevertRequest{Pick: t.pick(r)}
	if t.err != nil {
		return graveler.Commit{}, t.err
	}
	return merge(ctx, c, mRevert, func(ctx context.Context, cc grpc.ClientConnInterface, i *pb.RequestInfo) (grpc.ServerStreamingClient[pb.RevertResponse], error) {
		q.Info = i
		return pb.NewVersionsClient(cc).Revert(ctx, q)
	})
}

// CherryPick is engine.Engine's.
func (c *Client) CherryPick(ctx context.Context, r engine.PickRequest) (graveler.Commit, error) {
	var t texts
	q := &pb.CherryPickRequest{Pick: t.pick(r)}
	if t.err != nil {
		return graveler.Commit{}, t.err
	}
	return merge(ctx, c, mCherryPick, func(ctx context.Context, cc grpc.ClientConnInterface, i *pb.RequestInfo) (grpc.ServerStreamingClient[pb.CherryPickResponse], error) {
		q.Info = i
		return pb.NewVersionsClient(cc).CherryPick(ctx, q)
	})
}

// Import is engine.Engine's.
func (c *Client) Import(ctx context.Context, r engine.ImportRequest, progress func(int64)) (n int64, err error) {
	var x texts
	q := &pb.ImportRequest{Repo: name(r.Repo), Branch: name(r.Branch), Source: x.text("source", r.Source), Dest: []byte(r.Dest)}
	if x.err != nil {
		return 0, x.err
	}
	err = c.numbered(ctx, mImport, func(t *tries, i *pb.RequestInfo) error {
		q.Info = i
		for {
			done := false
			err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				in, err := pb.NewVersionsClient(cc).Import(ctx, q)
				if err != nil {
					return err
				}
				for {
					p, err := in.Recv()
					if errors.Is(err, io.EOF) && done {
						return nil
					}
					if err != nil {
						return err
					}
					if p.GetDone() {
						n, done = p.GetObjects(), true
					} else if progress != nil {
						progress(p.GetObjects())
					}
				}
			})
			if err == nil || done {
				return nil
			}
			if err := t.next(err); err != nil {
				return err
			}
		}
	})
	return n, err
}

// CollectGarbage is engine.Engine's.
func (c *Client) CollectGarbage(ctx context.Context, r engine.GCRequest) (engine.GCReport, error) {
	q := &pb.CollectGarbageRequest{Repo: name(r.Repo), DryRun: r.DryRun}
	if r.Grace != 0 {
		q.Grace = durationpb.New(r.Grace)
	}
	p, err := unary[pb.CollectGarbageResponse](ctx, c, mCollectGarbage, q)
	rep := engine.GCReport{Live: p.GetLive(), Kept: p.GetKept(), Deleted: p.GetDeleted(), Bytes: p.GetBytes()}
	for _, a := range p.GetAddresses() {
		rep.Addresses = append(rep.Addresses, string(a))
	}
	return rep, err
}

// Check is engine.Engine's.
func (c *Client) Check(ctx context.Context, r engine.CheckRequest) iter.Seq2[engine.Problem, error] {
	q := &pb.CheckRequest{Repo: name(r.Repo), Ref: name(r.Ref), Data: r.Data}
	return stream(ctx, c, source[pb.CheckResponse, engine.Problem]{
		m: mCheck,
		open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.CheckResponse], error) {
			return pb.NewVersionsClient(cc).Check(ctx, q)
		},
		items: func(p *pb.CheckResponse) []engine.Problem {
			return convert(p.GetProblems(), func(p *pb.Problem) engine.Problem {
				return engine.Problem{Level: p.GetLevel(), Place: string(p.GetPlace()), Text: string(p.GetText())}
			})
		},
	})
}
