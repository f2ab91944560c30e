package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

type changes struct {
	pb.UnimplementedChangesServer
	*server
}

func (s changes) Sync(ctx context.Context, _ *pb.SyncRequest) (*pb.SyncResponse, error) {
	return &pb.SyncResponse{}, Status(s.eng.Sync(ctx))
}

// A watch's queue holds this much; a watcher further behind has lost events.
const (
	maxQueued      = 8192
	maxQueuedBytes = 8 << 20
)

// queue is what a watcher has not taken yet. It takes events at once: the engine waits for its watchers before it answers callers, and
// must not wait for a client that is slow.
type queue struct {
	mu     sync.Mutex
	events []engine.Event
	bytes  int
	lost   bool
	ended  bool
	err    error
	there  chan struct{} // has an item when there is something to take
}

func (q *queue) put(e engine.Event) {
	q.mu.Lock()
	n := 64
	for _, p := range e.Paths {
		n += len(p) + 4
	}
	if len(q.events) >= maxQueued || q.bytes+n > maxQueuedBytes {
		q.lost = true
		// The watcher goes on after the newest that it is told of, so what is dropped is what it has not been told.
		q.events, q.bytes = nil, 0
	}
	e.Lost = e.Lost || q.lost
	q.lost = false
	q.events, q.bytes = append(q.events, e), q.bytes+n
	q.mu.Unlock()
	q.wake()
}

func (q *queue) end(err error) {
	q.mu.Lock()
	q.ended, q.err = true, err
	q.mu.Unlock()
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.there <- struct{}{}:
	default:
	}
}

func (q *queue) take() (events []engine.Event, ended bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, q.events, q.bytes = q.events, nil, 0
	return events, q.ended, q.err
}

func (s changes) Watch(r *pb.WatchRequest, out grpc.ServerStreamingServer[pb.WatchResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	events := s.eng.Watch(ctx, r.GetAfter())
	if err := out.Send(&pb.WatchResponse{}); err != nil {
		return err
	}
	q := &queue{there: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range events {
			if err != nil {
				q.end(err)
				return
			}
			q.put(e)
		}
		q.end(nil)
	}()
	defer func() { cancel(); <-done }()
	for {
		select {
		case <-ctx.Done():
			return Status(ctx.Err())
		case <-q.there:
		}
		es, ended, err := q.take()
		for len(es) > 0 {
			p, size := &pb.WatchResponse{}, 0
			for len(es) > 0 && size < maxPart {
				e := eventPB(es[0])
				for _, s := range e.Paths {
					size += len(s) + 4
				}
				size += 64
				p.Events, es = append(p.Events, e), es[1:]
			}
			if err := out.Send(p); err != nil {
				return err
			}
		}
		if err != nil {
			return Status(err)
		}
		if ended {
			if ctx.Err() == nil {
				return Status(fmt.Errorf("the watch has ended: %w", graveler.Unavailable))
			}
			return Status(ctx.Err())
		}
	}
}

type holders struct {
	pb.UnimplementedHoldersServer
	*server
}

func (s holders) Named(ctx context.Context, r *pb.NamedRequest) (*pb.NamedResponse, error) {
	var c checker
	ids := c.contents(r.GetContents())
	if c.err != nil {
		return nil, Status(c.err)
	}
	repos, err := s.eng.Named(ctx, ids)
	p := &pb.NamedResponse{Repos: make([]string, len(ids))}
	for i, id := range ids {
		p.Repos[i] = name(repos[id])
	}
	return p, s.done(ctx, err)
}

func (s holders) Settle(ctx context.Context, r *pb.SettleRequest) (*pb.SettleResponse, error) {
	var c checker
	list, ctx := c.settled(r.GetSettled()), made(ctx, &c, r.GetInfo())
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.SettleResponse{}, s.done(ctx, s.eng.Settle(ctx, list))
}

func (s holders) Secure(ctx context.Context, r *pb.SecureRequest) (*pb.SecureResponse, error) {
	var c checker
	ids := c.contents(r.GetContents())
	if c.err != nil {
		return nil, Status(c.err)
	}
	list, err := s.eng.Secure(ctx, ids)
	p := &pb.SecureResponse{}
	for _, x := range list {
		p.Settled = append(p.Settled, settledPB(x))
	}
	return p, s.done(ctx, err)
}

// asks are the questions to a holder that have no answer yet.
type asks struct {
	out  grpc.BidiStreamingServer[pb.HoldRequest, pb.HoldResponse]
	send sync.Mutex
	mu   sync.Mutex
	last uint64
	open map[uint64]*ask
}

type ask struct {
	contents int // that were asked for
	settled  []engine.Settled
	done     chan error // has one item at the end
}

const contentsPerPart = 4096

// put asks, and waits for the answer.
func (a *asks) put(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error) {
	q := &ask{contents: len(contents), done: make(chan error, 1)}
	a.mu.Lock()
	a.last++
	n := a.last
	a.open[n] = q
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.open, n)
		a.mu.Unlock()
	}()
	ids := contentsPB(contents)
	if err := func() error {
		a.send.Lock()
		defer a.send.Unlock()
		for {
			k := min(len(ids), contentsPerPart)
			if err := a.out.Send(&pb.HoldResponse{Ask: n, Contents: ids[:k], More: k < len(ids)}); err != nil {
				return err
			}
			if ids = ids[k:]; len(ids) == 0 {
				return nil
			}
		}
	}(); err != nil {
		return nil, fmt.Errorf("the holder's line broke: %w", graveler.Unavailable)
	}
	select {
	case err := <-q.done:
		return q.settled, err
	case <-a.out.Context().Done():
		return nil, fmt.Errorf("the holder's line broke: %w", graveler.Unavailable)
	case <-ctx.Done():
		a.send.Lock()
		defer a.send.Unlock()
		a.out.Send(&pb.HoldResponse{Ask: n, Cancel: true})
		return nil, ctx.Err()
	}
}

// answer takes a part of an answer.
func (a *asks) answer(r *pb.HoldRequest) error {
	var c checker
	list := c.settled(r.GetSettled())
	if c.err != nil {
		return c.err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.open[r.GetAsk()]
	if q == nil {
		return nil // nobody waits any more
	}
	if len(q.settled)+len(list) > q.contents {
		return fmt.Errorf("the holder answers %d contents where %d were asked for: %w", len(q.settled)+len(list), q.contents, graveler.Invalid)
	}
	q.settled = append(q.settled, list...)
	if r.GetMore() && r.GetFailure() == nil {
		return nil
	}
	delete(a.open, r.GetAsk())
	if f := r.GetFailure(); f != nil {
		q.done <- errorOf(f)
	} else {
		q.done <- nil
	}
	return nil
}

// holderGreeting bounds how long a holder may take to say who it is.
const holderGreeting = 10 * time.Second

func (s holders) Hold(line grpc.BidiStreamingServer[pb.HoldRequest, pb.HoldResponse]) error {
	ctx, cancel := context.WithCancelCause(line.Context())
	defer cancel(nil)
	type part struct {
		r   *pb.HoldRequest
		err error
	}
	in := make(chan part)
	go func() {
		for {
			r, err := line.Recv()
			select {
			case in <- part{r, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	var holder engine.HolderID
	select {
	case p := <-in:
		if p.err != nil {
			return p.err
		}
		var c checker
		holder = engine.HolderID(c.name("holder", p.r.GetHolder()))
		if !validHolder(holder) {
			c.bad("holder %q: a name is of lower-case letters and digits", holder)
		}
		if c.err != nil {
			return Status(c.err)
		}
	case <-time.After(holderGreeting):
		return Status(fmt.Errorf("the holder doesn't say who it is: %w", graveler.Timeout))
	case <-ctx.Done():
		return Status(ctx.Err())
	}
	a := &asks{out: line, open: map[uint64]*ask{}}
	if err := line.Send(&pb.HoldResponse{}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.eng.Hold(ctx, holder, a.put) }()
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = fmt.Errorf("the line of holder %s has ended: %w", holder, graveler.Unavailable)
			}
			return Status(err)
		case p := <-in:
			err := p.err
			if err == nil {
				err = a.answer(p.r)
			}
			if err != nil {
				cancel(err)
				<-ended
				return Status(err)
			}
		}
	}
}

func validHolder(h engine.HolderID) bool {
	for _, b := range []byte(h) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			return false
		}
	}
	return h != ""
}
