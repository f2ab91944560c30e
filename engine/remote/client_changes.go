package remote

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

var (
	mWatch = method{pb.Changes_Watch_FullMethodName, reads, long}
	mSync  = method{pb.Changes_Sync_FullMethodName, reads, short}
)

// Sync is engine.Engine's.
func (c *Client) Sync(ctx context.Context) error {
	_, err := unary[pb.SyncResponse](ctx, c, mSync, &pb.SyncRequest{})
	return err
}

// watch is one watch, with the streams that it has had.
type watch struct {
	t      *tries
	index  uint64 // of the change that was told of last, or the one to go on after
	whole  bool   // no event of index is to come a second time: it was told by another watch
	told   int    // events of it that were told
	again  int    // events of index that come a second time
	missed bool   // a stream broke before anything was told: what came after it is not known
}

// Watch is engine.Engine's. What changes after it returned is told, if a server answered it; it returns all the same if none did, and
// then the first event says that others are lost. A watch whose stream breaks goes on after the last change, on any node.
func (c *Client) Watch(ctx context.Context, after uint64) iter.Seq2[engine.Event, error] {
	w := &watch{t: c.tries(ctx, mWatch), index: after, whole: true}
	// The stream is begun now, and handed to whoever reads: what changes in between is in it.
	begun := make(chan struct{})
	events := make(chan []engine.Event)
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(events)
		first := true
		for {
			err := w.t.attempt(func(actx context.Context, cc *grpc.ClientConn) error {
				actx, stop := context.WithCancel(actx)
				defer stop()
				in, err := pb.NewChangesClient(cc).Watch(actx, &pb.WatchRequest{After: w.after()})
				if err != nil {
					return err
				}
				for {
					p, err := in.Recv()
					if err != nil {
						return err
					}
					w.t.progress()
					if first {
						first = false
						close(begun)
					}
					if es := w.take(p); len(es) > 0 {
						select {
						case events <- es:
						case <-ctx.Done():
							return ctx.Err()
						}
					}
				}
			})
			if ctx.Err() != nil {
				break
			}
			// A stream has a deadline as any call has, and is begun again after it.
			if k := graveler.KindOf(errorFrom(err)); first || k != graveler.Timeout && k != graveler.Canceled {
				if err := w.t.next(err); err != nil {
					failed <- err
					break
				}
			}
			w.again, w.told = max(w.again, w.told), 0 // a stream may break before it has told all again
			w.missed = w.missed || !first && w.index == 0
		}
		if first {
			close(begun)
		}
	}()
	select {
	case <-begun:
	case <-ctx.Done():
	}
	return func(yield func(engine.Event, error) bool) {
		defer cancel()
		for {
			select {
			case <-ctx.Done():
				return
			case es, ok := <-events:
				if !ok {
					select {
					case err := <-failed:
						if ctx.Err() == nil {
							yield(engine.Event{}, err)
						}
					default:
					}
					return
				}
				for _, e := range es {
					if !yield(e, nil) {
						return
					}
				}
			}
		}
	}
}

// after is where the next stream begins: before the change that was told of last, since a change may have several events.
func (w *watch) after() uint64 {
	if w.whole || w.index == 0 {
		return w.index
	}
	return w.index - 1
}

// take gives the events of a message that were not told before.
func (w *watch) take(p *pb.WatchResponse) []engine.Event {
	var out []engine.Event
	if w.missed && len(p.GetEvents()) == 0 {
		w.missed = false
		out = append(out, engine.Event{Lost: true})
	}
	for _, x := range p.GetEvents() {
		e := eventOf(x)
		if e.Index != w.index {
			w.index, w.whole, w.told, w.again = e.Index, false, 0, 0
		}
		w.told++
		if w.told <= w.again && !e.Lost {
			continue // told before the stream broke
		}
		out = append(out, e)
	}
	return out
}
