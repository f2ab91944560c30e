package remote

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// sentMark tells whether a call has gone onto a connection: one that hasn't was certainly not served.
type sentMark struct{ atomic.Bool }

type sentKey struct{}

// sentHandler sets the mark of a call's context.
type sentHandler struct{}

func (sentHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (sentHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		if m, ok := ctx.Value(sentKey{}).(*sentMark); ok {
			m.Store(true)
		}
	}
}

func (sentHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (sentHandler) HandleConn(context.Context, stats.ConnStats) {}
