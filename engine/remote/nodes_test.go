package remote

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// nodes are several servers before one engine, of which one leads. It stands for a cluster whose state is always the same everywhere,
// so that what the tests find is the client's doing.
type nodes struct {
	t      *testing.T
	list   []*node
	leader atomic.Int32 // -1 is none
}

// node is one of them.
type node struct {
	*Server
	all   *nodes
	n     int
	addr  string
	conns conns
	calls atomic.Int64                                         // that came here
	cut   atomic.Pointer[func(method string, after bool) bool] // breaks a call's connection before or after it is made
	sent  func(method string) bool                             // cuts a stream's connection before a message
	seen  func(ctx context.Context, method string, req any)
}

// conns is a listener that knows its connections.
type conns struct {
	net.Listener
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func (c *conns) Accept() (net.Conn, error) {
	x, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.open[x] = struct{}{}
		c.mu.Unlock()
	}
	return x, err
}

// cut breaks all connections.
func (c *conns) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.open {
		if t, ok := x.(*net.TCPConn); ok {
			t.SetLinger(0)
		}
		x.Close()
		delete(c.open, x)
	}
}

func newNodes(t *testing.T, n int, e engine.Engine) *nodes {
	t.Helper()
	ns := &nodes{t: t}
	for i := range n {
		x := &node{all: ns, n: i, conns: conns{Listener: listen(t, "tcp", "127.0.0.1:0"), open: map[net.Conn]struct{}{}}}
		x.addr = x.conns.Addr().String()
		ns.list = append(ns.list, x)
		x.Server = NewServer(ServerOptions{GRPC: []grpc.ServerOption{grpc.ChainUnaryInterceptor(x.unary), grpc.ChainStreamInterceptor(x.stream)}})
		Register(x, e)
	}
	for _, x := range ns.list {
		go x.Serve(&x.conns)
		t.Cleanup(x.Stop)
	}
	return ns
}

func (ns *nodes) addrs(which ...int) string {
	s := ""
	for _, i := range which {
		s += ns.list[i].addr + ","
	}
	return s
}

// anywhere are the calls that every node answers.
var anywhere = map[string]bool{pb.Changes_Watch_FullMethodName: true, "/grpc.health.v1.Health/Check": true}

func (x *node) refuse(method string) error {
	if anywhere[method] {
		return nil
	}
	x.calls.Add(1)
	l := int(x.all.leader.Load())
	switch l {
	case x.n:
		return nil
	case -1:
		return Status(&engine.NotLeader{})
	}
	return Status(&engine.NotLeader{Leader: x.all.list[l].addr})
}

// cutting has calls' connections broken as f says; with nil, none.
func (x *node) cutting(f func(method string, after bool) bool) {
	if f == nil {
		x.cut.Store(nil)
		return
	}
	x.cut.Store(&f)
}

func (x *node) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if x.seen != nil {
		x.seen(ctx, info.FullMethod, req)
	}
	if err := x.refuse(info.FullMethod); err != nil {
		return nil, err
	}
	if cut := x.cut.Load(); cut != nil && (*cut)(info.FullMethod, false) {
		x.conns.cutAll()
		return nil, context.Canceled
	}
	resp, err := handler(context.WithoutCancel(ctx), req) // as one that was under way when the connection broke
	if cut := x.cut.Load(); cut != nil && (*cut)(info.FullMethod, true) {
		x.conns.cutAll()
	}
	return resp, err
}

type cutStream struct {
	grpc.ServerStream
	x      *node
	method string
}

func (s *cutStream) SendMsg(m any) error {
	if s.x.sent != nil && s.x.sent(s.method) {
		s.x.conns.cutAll()
	}
	return s.ServerStream.SendMsg(m)
}

func (x *node) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if x.seen != nil {
		x.seen(ss.Context(), info.FullMethod, nil)
	}
	if err := x.refuse(info.FullMethod); err != nil {
		return err
	}
	return handler(srv, &cutStream{ss, x, info.FullMethod})
}

func serveNode(t *testing.T, x *node, e engine.Engine) *Server {
	s := NewServer(ServerOptions{GRPC: []grpc.ServerOption{grpc.ChainUnaryInterceptor(x.unary), grpc.ChainStreamInterceptor(x.stream)}})
	Register(s, e)
	go s.Serve(&x.conns)
	t.Cleanup(s.Stop)
	return s
}

func putOptions(size int) object.PutOptions { return object.PutOptions{Size: int64(size)} }

func objectAt(address string, size int64) object.Object {
	return object.Object{Address: address, Type: graveler.AddressRelative, Size: size}
}
