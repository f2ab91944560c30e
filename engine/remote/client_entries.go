package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

var (
	mStat      = method{pb.Entries_Stat_FullMethodName, reads, short}
	mLookup    = method{pb.Entries_Lookup_FullMethodName, reads, short}
	mList      = method{pb.Entries_List_FullMethodName, reads, days}
	mStage     = method{pb.Entries_Stage_FullMethodName, change, short}
	mStageMany = method{pb.Entries_StageMany_FullMethodName, change, long}
	mMove      = method{pb.Entries_Move_FullMethodName, change, long}
	mExchange  = method{pb.Entries_Exchange_FullMethodName, change, long}
	mCuts      = method{pb.Entries_Cuts_FullMethodName, reads, short}
	mReset     = method{pb.Entries_Reset_FullMethodName, change, long}
)

// Stat is engine.Engine's.
func (c *Client) Stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Entry, error) {
	p, err := read[pb.StatResponse](ctx, c, mStat, ref, &pb.StatRequest{Repo: name(repo), Ref: name(ref), Path: []byte(path)})
	return entryOf(p.GetEntry()), err
}

// Lookup is engine.Engine's.
func (c *Client) Lookup(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Found, error) {
	p, err := read[pb.LookupResponse](ctx, c, mLookup, ref, &pb.LookupRequest{Repo: name(repo), Ref: name(ref), Path: []byte(path)})
	return foundOf(p), err
}

// Cuts is engine.Engine's.
func (c *Client) Cuts(ctx context.Context, repo graveler.RepositoryID, commit graveler.CommitID) ([]string, error) {
	p, err := read[pb.CutsResponse](ctx, c, mCuts, graveler.Ref(commit), &pb.CutsRequest{Repo: name(repo), Commit: name(commit)})
	cuts := make([]string, len(p.GetPaths()))
	for i, path := range p.GetPaths() {
		cuts[i] = string(path)
	}
	return cuts, err
}

// List is engine.Engine's. A list whose stream breaks goes on after the last path, in what the ref shows then.
func (c *Client) List(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.ListQuery) iter.Seq2[graveler.Listed, error] {
	return func(yield func(graveler.Listed, error) bool) {
		r := &pb.ListRequest{Repo: name(repo), Ref: name(ref), Prefix: []byte(q.Prefix), After: []byte(q.After), Delimiter: name(q.Delimiter), Limit: int64(q.Limit)}
		limited(q.Limit, stream(ctx, c, source[pb.ListResponse, graveler.Listed]{
			m: mList, any: frozen(ref),
			open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.ListResponse], error) {
				return pb.NewEntriesClient(cc).List(ctx, r)
			},
			items: func(p *pb.ListResponse) []graveler.Listed { return convert(p.GetItems(), listedOf) },
			resume: func(last graveler.Listed, n int) bool {
				r.After = []byte(last.Path)
				return rest(&r.Limit, q.Limit, n)
			},
		}))(yield)
	}
}

// limited cuts a stream off after limit items; 0 is none.
func limited[T any](limit int, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	if limit <= 0 {
		return seq
	}
	return func(yield func(T, error) bool) {
		n := 0
		for it, err := range seq {
			if n++; !yield(it, err) || err != nil || n == limit {
				return
			}
		}
	}
}

// Stage is engine.Engine's. More than a message holds travels in parts, and is staged in one step all the same.
func (c *Client) Stage(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, list []graveler.Change) error {
	var t texts
	q := &pb.StageRequest{Repo: name(repo), Branch: name(branch), Changes: t.changes(list)}
	if t.err != nil {
		return t.err
	}
	size := 0
	for i := range list {
		if len(list[i].Path) > graveler.MaxPath {
			return graveler.ValidatePath(list[i].Path)
		}
		size += len(list[i].Path) + weight(&list[i].Entry) + 64
	}
	if size > maxMessageBytes-maxPart {
		return c.stageMany(ctx, q, list)
	}
	_, err := changed[pb.StageResponse](ctx, c, mStage, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}

func (c *Client) stageMany(ctx context.Context, q *pb.StageRequest, list []graveler.Change) error {
	return c.numbered(ctx, mStageMany, func(t *tries, i *pb.RequestInfo) error {
		for {
			err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				out, err := pb.NewEntriesClient(cc).StageMany(ctx)
				if err != nil {
					return err
				}
				for at := 0; ; {
					size, end := 0, at
					for end < len(list) && size < maxPart {
						size += len(list[end].Path) + weight(&list[end].Entry) + 64
						end++
					}
					p := &pb.StageManyRequest{Changes: q.Changes[at:end], Last: end == len(list)}
					if at == 0 {
						p.Info, p.Repo, p.Branch = i, q.Repo, q.Branch
					}
					if at = end; out.Send(p) != nil || p.Last { // what is wrong, CloseAndRecv says
						break
					}
				}
				_, err = out.CloseAndRecv()
				if errors.Is(err, io.EOF) {
					err = fmt.Errorf("no answer: %w", graveler.Internal)
				}
				return err
			})
			if err == nil {
				return nil
			}
			if err := t.next(err); err != nil {
				return err
			}
		}
	})
}

// Move is engine.Engine's.
func (c *Client) Move(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, from, to string) error {
	q := &pb.MoveRequest{Repo: name(repo), Branch: name(branch), From: []byte(from), To: []byte(to)}
	_, err := changed[pb.MoveResponse](ctx, c, mMove, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}

// Exchange is engine.Engine's.
func (c *Client) Exchange(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, a, b string) error {
	q := &pb.ExchangeRequest{Repo: name(repo), Branch: name(branch), A: []byte(a), B: []byte(b)}
	_, err := changed[pb.ExchangeResponse](ctx, c, mExchange, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}

// Reset is engine.Engine's.
func (c *Client) Reset(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, path string) error {
	q := &pb.ResetRequest{Repo: name(repo), Branch: name(branch), Path: []byte(path)}
	_, err := changed[pb.ResetResponse](ctx, c, mReset, q, func(i *pb.RequestInfo) { q.Info = i })
	return err
}
