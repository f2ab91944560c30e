package remote

import (
	"context"
	"iter"
	"time"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// The files of the server are named as the groups of the contract are: serve_refs.go and so on.

// maxMessage bounds a message in either direction; maxPart is what a part of a stream or of a split call is filled to.
const (
	maxMessageBytes = 16 << 20
	maxPart         = 1 << 20
	maxItems        = 1024
)

// server serves an engine's methods.
type server struct {
	eng      engine.Engine
	caughtUp func(context.Context) // waits until the mounts of this process know what a call did
}

// Register serves an engine on a gRPC server. An engine with watchers that must know of a change before its caller hears of it has a
// method CaughtUp. An engine that is an engine.Cluster has that served too.
func Register(g grpc.ServiceRegistrar, e engine.Engine) {
	s := &server{eng: e, caughtUp: func(context.Context) {}}
	if c, ok := e.(interface{ CaughtUp(context.Context) }); ok {
		s.caughtUp = c.CaughtUp
	}
	pb.RegisterRepositoriesServer(g, repositories{server: s})
	pb.RegisterRefsServer(g, refs{server: s})
	pb.RegisterEntriesServer(g, entries{server: s})
	pb.RegisterVersionsServer(g, versions{server: s})
	pb.RegisterHoldersServer(g, holders{server: s})
	pb.RegisterSessionsServer(g, sessions{server: s})
	pb.RegisterChangesServer(g, changes{server: s})
	pb.RegisterObjectsServer(g, objects{server: s})
	pb.RegisterClusterServer(g, cluster{server: s})
}

// done ends a call: with err as a status, or when all who must know of what it did do.
func (s *server) done(ctx context.Context, err error) error {
	if err != nil {
		return Status(err)
	}
	s.caughtUp(ctx)
	return nil
}

// made is the context of a change.
func made(ctx context.Context, c *checker, i *pb.RequestInfo) context.Context {
	if i == nil {
		return ctx
	}
	if i.Session != 0 && (i.Seq == 0 || i.Done >= i.Seq) {
		c.bad("request %d of a session, of which all up to %d are done", i.Seq, i.Done)
	}
	if i.Session != 0 {
		ctx = engine.WithRequest(ctx, engine.Request{Session: engine.SessionID(i.Session), Seq: i.Seq, Done: i.Done})
	}
	if i.Origin != 0 {
		ctx = engine.WithOrigin(ctx, i.Origin)
	}
	return ctx
}

// parts sends items in messages: the first few soon, then as many in each as are at hand or fit.
func parts[T, P any](seq iter.Seq2[T, error], conv func(T) (P, int), send func([]P) error) error {
	var items []P
	bytes, limit, last := 0, 16, time.Now()
	flush := func() error {
		if len(items) == 0 {
			return nil
		}
		err := send(items)
		limit = min(limit*2, maxItems)
		items, bytes, last = make([]P, 0, limit), 0, time.Now()
		return err
	}
	for it, err := range seq {
		if err != nil {
			if ferr := flush(); ferr != nil {
				return ferr
			}
			return Status(err)
		}
		p, n := conv(it)
		if bytes+n > maxPart {
			if err := flush(); err != nil {
				return err
			}
		}
		items, bytes = append(items, p), bytes+n
		if len(items) >= limit || time.Since(last) > 20*time.Millisecond {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// all is a list as a stream has it.
func all[T any](list []T, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err != nil {
			var zero T
			yield(zero, err)
			return
		}
		for _, it := range list {
			if !yield(it, nil) {
				return
			}
		}
	}
}

func repoID(c *checker, s string) graveler.RepositoryID {
	return graveler.RepositoryID(c.name("repository name", s))
}

func refOf(c *checker, s string) graveler.Ref { return graveler.Ref(c.name("ref", s)) }

func branchID(c *checker, s string) graveler.BranchID {
	return graveler.BranchID(c.name("branch name", s))
}
