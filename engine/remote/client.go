// Package remote carries the engine contract between processes: Register serves an engine over gRPC, Dial returns one that asks servers.
// The messages are those of api/lakefsfs/v1.
//
// A client knows one server or several of a cluster. It asks the one that leads, follows the lead, and asks again when a server is
// gone or doesn't answer. Each change is made once all the same: it has a number in a session, see engine.Request. Of a daemon that
// runs alone on the same machine it needs no session: a change whose answer was lost is reported as such.
//
// The files: peer.go has connections, pool.go which server to ask, retry.go when to ask again, session.go the numbers; client_*.go
// are the contract's groups, serve_*.go the same on the server's side, convert.go the words of both.
package remote

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
)

// Client is an engine behind one or several servers.
type Client struct {
	opt DialOptions
	pool
	numbers numbers
}

var (
	_ engine.Engine  = (*Client)(nil)
	_ engine.Cluster = (*Client)(nil)
)

// Dial returns the engine at addresses, separated by commas: HOST:PORT of servers of one cluster, or unix:// and a socket's path. It
// doesn't connect yet.
func Dial(addrs string, opt DialOptions) (*Client, error) {
	c := &Client{opt: opt}
	return c, c.pool.init(addrs, &c.opt)
}

// Close closes the connections.
func (c *Client) Close() error {
	c.pool.close()
	return nil
}

// message is a pointer to a generated message.
type message[T any] interface {
	*T
	proto.Message
}

// Call asks a service that is registered beside the engine, on the one server that the client knows. It isn't repeated.
func Call[Resp any, P message[Resp]](ctx context.Context, c *Client, name string, req proto.Message) (*Resp, error) {
	return unary[Resp, P](ctx, c, method{name: name, mode: once, limit: short}, req)
}

func (c *Client) tries(ctx context.Context, m method) *tries { return &tries{c: c, ctx: ctx, m: m} }

// unary makes a call with one answer that needs no number.
func unary[Resp any, P message[Resp]](ctx context.Context, c *Client, m method, req proto.Message) (*Resp, error) {
	return unaryOf[Resp, P](c.tries(ctx, m), req)
}

// anyNode is unary for what every node of a cluster knows.
func anyNode[Resp any, P message[Resp]](ctx context.Context, c *Client, m method, req proto.Message) (*Resp, error) {
	t := c.tries(ctx, m)
	t.any = true
	return unaryOf[Resp, P](t, req)
}

func unaryOf[Resp any, P message[Resp]](t *tries, req proto.Message) (*Resp, error) {
	for {
		resp := new(Resp)
		err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
			return cc.Invoke(ctx, t.m.name, req, P(resp), grpc.StaticMethod())
		})
		if err == nil {
			return resp, nil
		}
		if err := t.next(err); err != nil {
			if t.doubt && t.m.mode == once {
				err = doubtful(err)
			}
			return nil, err
		}
	}
}

// changed makes a change with one answer.
func changed[Resp any, P message[Resp]](ctx context.Context, c *Client, m method, req proto.Message, set func(*pb.RequestInfo)) (resp *Resp, err error) {
	err = c.numbered(ctx, m, func(t *tries, i *pb.RequestInfo) error {
		set(i)
		resp, err = unaryOf[Resp, P](t, req)
		return err
	})
	return resp, err
}
