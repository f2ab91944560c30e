package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// ServerOptions bound what a server does, and for whom. The zero value serves anyone who can connect: a socket's owner.
type ServerOptions struct {
	Tokens  *Tokens                        // who may call; nil is anyone
	Serving func(ctx context.Context) bool // this node can serve; nil is always
	Calls   int                            // at a time, besides watches and holders; 0 is 4,096
	Watches int                            // and holders, at a time; 0 is 16,384
	Bytes   int64                          // of requests under way; 0 is 512 MiB

	GRPC []grpc.ServerOption // credentials and the like
}

// maxStreams bounds the calls of one connection; a client's others wait on its side.
const maxStreams = 1024

// Server is a gRPC server with limits, health and reflection. Register the engine on it.
type Server struct {
	*grpc.Server
	gate *gate
}

// NewServer returns a server that serves nothing yet.
func NewServer(o ServerOptions) *Server {
	if o.Calls == 0 {
		o.Calls = 4096
	}
	if o.Watches == 0 {
		o.Watches = 16384
	}
	if o.Bytes == 0 {
		o.Bytes = 512 << 20
	}
	g := &gate{o: o, stopping: make(chan struct{})}
	s := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes + 1<<20), grpc.MaxConcurrentStreams(maxStreams),
		grpc.InitialWindowSize(1 << 20), grpc.InitialConnWindowSize(4 << 20), grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream), grpc.WaitForHandlers(true),
	}, o.GRPC...)...)
	grpc_health_v1.RegisterHealthServer(s, &health{serving: o.Serving})
	reflection.Register(s)
	return &Server{s, g}
}

// Shutdown ends watches and holders' lines, lets the other calls under way end for a while, and then ends them too. It is called once.
func (s *Server) Shutdown(wait time.Duration) {
	close(s.gate.stopping)
	t := time.AfterFunc(wait, s.Stop)
	defer t.Stop()
	s.GracefulStop()
}

// gate lets in what may be and what there is room for.
type gate struct {
	o        ServerOptions
	stopping chan struct{} // closed when the server stops

	mu             sync.Mutex
	calls, watches int
	bytes          int64
}

// lasts are the calls that are open for as long as their client is there.
var lasts = map[string]bool{pb.Changes_Watch_FullMethodName: true, pb.Holders_Hold_FullMethodName: true}

func (g *gate) enter(method string, bytes int64) (leave func(), err error) {
	if needOf(method) == Nobody {
		return func() {}, nil // signs of life are given under any load
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n, most, what := &g.calls, g.o.Calls, "as many calls under way as it takes"
	if lasts[method] {
		n, most, what = &g.watches, g.o.Watches, "as many watchers and holders as it takes"
	}
	if *n >= most {
		return nil, busyError{what}
	}
	if g.bytes > 0 && g.bytes+bytes > g.o.Bytes {
		return nil, busyError{"as many bytes of requests under way as it takes"}
	}
	*n++
	g.bytes += bytes
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		*n--
		g.bytes -= bytes
	}, nil
}

// more counts further bytes of a stream's requests.
func (g *gate) more(bytes int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bytes+bytes > g.o.Bytes {
		return busyError{"as many bytes of requests under way as it takes"}
	}
	g.bytes += bytes
	return nil
}

func (g *gate) less(bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes -= bytes
}

// maxCall bounds a call whose client gave it no deadline.
const maxCall = 24 * time.Hour

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if g.o.Tokens != nil {
		var err error
		if ctx, err = g.o.Tokens.admit(ctx, info.FullMethod); err != nil {
			return nil, Status(err)
		}
	}
	var size int64
	if m, ok := req.(proto.Message); ok {
		size = int64(proto.Size(m))
	}
	leave, err := g.enter(info.FullMethod, size)
	if err != nil {
		return nil, Status(err)
	}
	defer leave()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxCall)
		defer cancel()
	}
	return handler(ctx, req)
}

func (g *gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	if g.o.Tokens != nil {
		var err error
		if ctx, err = g.o.Tokens.admit(ctx, info.FullMethod); err != nil {
			return Status(err)
		}
	}
	leave, err := g.enter(info.FullMethod, 0)
	if err != nil {
		return Status(err)
	}
	defer leave()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxCall)
		defer cancel()
	}
	if lasts[info.FullMethod] {
		c, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		ctx = c
		go func() {
			select {
			case <-g.stopping:
				cancel(errStopping)
			case <-c.Done():
			}
		}()
	}
	s := &gatedStream{ServerStream: ss, ctx: ctx, g: g, keeps: info.FullMethod == pb.Entries_StageMany_FullMethodName}
	defer func() { g.less(s.held) }()
	if err := handler(srv, s); context.Cause(ctx) != errStopping {
		return err
	}
	return Status(errStopping)
}

var errStopping = fmt.Errorf("the server is stopping: %w", graveler.Unavailable)

// gatedStream has the context of a stream that was let in, and counts the bytes of requests that are kept until the end.
type gatedStream struct {
	grpc.ServerStream
	ctx   context.Context
	g     *gate
	keeps bool
	held  int64
}

func (s *gatedStream) Context() context.Context { return s.ctx }

func (s *gatedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil || !s.keeps {
		return err
	}
	if m, ok := m.(proto.Message); ok {
		n := int64(proto.Size(m))
		if err := s.g.more(n); err != nil {
			return Status(err)
		}
		s.held += n
	}
	return nil
}

// health tells whether this node can serve.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	serving func(context.Context) bool
}

func (h *health) status(ctx context.Context) *grpc_health_v1.HealthCheckResponse {
	if h.serving == nil || h.serving(ctx) {
		return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_NOT_SERVING}
}

func (h *health) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return h.status(ctx), nil
}

func (h *health) Watch(_ *grpc_health_v1.HealthCheckRequest, out grpc_health_v1.Health_WatchServer) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		if s := h.status(out.Context()); s.Status != last {
			last = s.Status
			if err := out.Send(s); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-out.Context().Done():
			return Status(out.Context().Err())
		}
	}
}
