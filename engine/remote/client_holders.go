package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

var (
	mNamed  = method{pb.Holders_Named_FullMethodName, reads, short}
	mSettle = method{pb.Holders_Settle_FullMethodName, reads, short} // again changes nothing
	mSecure = method{pb.Holders_Secure_FullMethodName, reads, long}
	mHold   = method{pb.Holders_Hold_FullMethodName, reads, days}
)

// Named is engine.Engine's.
func (c *Client) Named(ctx context.Context, contents []graveler.ContentID) (map[graveler.ContentID]graveler.RepositoryID, error) {
	out := map[graveler.ContentID]graveler.RepositoryID{}
	for part := range slices.Chunk(contents, contentsPerPart) {
		p, err := unary[pb.NamedResponse](ctx, c, mNamed, &pb.NamedRequest{Contents: contentsPB(part)})
		if err != nil {
			return nil, err
		}
		if len(p.GetRepos()) != len(part) {
			return nil, fmt.Errorf("the server told the repositories of %d contents of %d: %w", len(p.GetRepos()), len(part), graveler.Internal)
		}
		for i, repo := range p.GetRepos() {
			if repo != "" {
				out[part[i]] = graveler.RepositoryID(repo)
			}
		}
	}
	return out, nil
}

// Settle is engine.Engine's. Many contents travel in several calls; each content is settled by itself.
func (c *Client) Settle(ctx context.Context, settled []engine.Settled) error {
	for part := range slices.Chunk(settled, contentsPerPart) {
		q := &pb.SettleRequest{Info: &pb.RequestInfo{Origin: engine.OriginOf(ctx)}}
		for _, s := range part {
			q.Settled = append(q.Settled, settledPB(s))
		}
		if _, err := unary[pb.SettleResponse](ctx, c, mSettle, q); err != nil {
			return err
		}
	}
	return nil
}

// Secure is engine.Engine's.
func (c *Client) Secure(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error) {
	var out []engine.Settled
	for part := range slices.Chunk(contents, contentsPerPart) {
		p, err := unary[pb.SecureResponse](ctx, c, mSecure, &pb.SecureRequest{Contents: contentsPB(part)})
		if err != nil {
			return nil, err
		}
		var x checker
		list := x.settled(p.GetSettled())
		if x.err != nil {
			return nil, x.err
		}
		out = append(out, list...)
	}
	return out, nil
}

// Hold is engine.Engine's. It finds the server that leads; when the line to it breaks, it returns.
func (c *Client) Hold(ctx context.Context, holder engine.HolderID, serve func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error)) error {
	if !validHolder(holder) {
		return fmt.Errorf("holder %q: a name is of lower-case letters and digits: %w", holder, graveler.Invalid)
	}
	t := c.tries(ctx, mHold)
	for {
		held := false
		err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			line, err := pb.NewHoldersClient(cc).Hold(ctx)
			if err != nil {
				return err
			}
			if err := line.Send(&pb.HoldRequest{Holder: name(holder)}); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if _, err := line.Recv(); err != nil {
				return err
			}
			held = true
			return answerAll(ctx, line, serve)
		})
		if err == nil {
			err = fmt.Errorf("the line ended: %w", graveler.Unavailable)
		}
		e, answer := answered(err)
		moved := false
		if answer {
			_, moved = errors.AsType[*engine.NotLeader](e)
		}
		if held && !moved {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("the line to the server at %s: %w", t.at.addr, errorFrom(err))
		}
		if err := t.next(err); err != nil {
			return err
		}
	}
}

// maxAnswering bounds the questions that a holder answers at a time; others wait in the stream.
const maxAnswering = 16

// answerAll answers a server's questions until the line breaks.
func answerAll(ctx context.Context, line grpc.BidiStreamingClient[pb.HoldRequest, pb.HoldResponse], serve func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // of sending, and of under
	under := map[uint64]context.CancelFunc{}
	slots := make(chan struct{}, maxAnswering)
	parts := map[uint64][]graveler.ContentID{}
	for {
		p, err := line.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n := p.GetAsk()
		if p.GetCancel() {
			mu.Lock()
			if stop := under[n]; stop != nil {
				stop()
			}
			mu.Unlock()
			delete(parts, n)
			continue
		}
		var c checker
		parts[n] = append(parts[n], c.contents(p.GetContents())...)
		if c.err != nil {
			return c.err
		}
		if p.GetMore() {
			continue
		}
		contents := parts[n]
		delete(parts, n)
		actx, stop := context.WithCancel(ctx)
		mu.Lock()
		under[n] = stop
		mu.Unlock()
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer stop()
			var list []engine.Settled
			var err error
			select {
			case slots <- struct{}{}:
				list, err = serve(actx, contents)
				<-slots
			case <-actx.Done():
				err = actx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			delete(under, n)
			if err != nil {
				line.Send(&pb.HoldRequest{Ask: n, Failure: failureOf(err)}) // a broken line, Recv tells of
				return
			}
			for {
				k := min(len(list), contentsPerPart)
				q := &pb.HoldRequest{Ask: n, More: k < len(list)}
				for _, s := range list[:k] {
					q.Settled = append(q.Settled, settledPB(s))
				}
				if line.Send(q) != nil {
					return
				}
				if list = list[k:]; len(list) == 0 {
					return
				}
			}
		}()
	}
}
