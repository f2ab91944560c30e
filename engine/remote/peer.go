package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// peer is one server as a client sees it.
type peer struct {
	addr string
	unix bool
	opts []grpc.DialOption

	mu     sync.Mutex
	cc     *grpc.ClientConn
	closed bool
	calls  map[*inflight]struct{}
	dog    bool // the watchdog runs
}

// inflight is one call under way.
type inflight struct {
	cancel context.CancelCauseFunc
	began  time.Time
}

// A peer that a call has waited for this long is asked whether it lives, and has this long to say so. gRPC's own keepalive takes ten
// seconds at least.
const (
	suspectAfter = 750 * time.Millisecond
	lifeSign     = 2 * time.Second
)

var errDead = errors.New("the server doesn't answer any more")

func newPeer(addr string, o *DialOptions) (*peer, error) {
	p := &peer{addr: addr, calls: map[*inflight]struct{}{}}
	network, target := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		if path == "" {
			return nil, badAddress(addr)
		}
		p.unix, network, target = true, "unix", path
	} else if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" || strings.Contains(addr, "/") {
		return nil, badAddress(addr)
	}
	creds, err := o.credentials(p)
	if err != nil {
		return nil, err
	}
	p.opts = append(creds,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if o.dial != nil {
				return o.dial(ctx, network, target)
			}
			d := net.Dialer{Timeout: dialTimeout}
			return d.DialContext(ctx, network, target)
		}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithStatsHandler(sentHandler{}), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes+1<<20), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}, MinConnectTimeout: dialTimeout}),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
	)
	if !p.unix {
		p.opts = append(p.opts, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}))
	}
	return p, nil
}

// dialTimeout bounds how long a connection may take to be made.
const dialTimeout = 3 * time.Second

func badAddress(addr string) error {
	return fmt.Errorf("server %q: a server's address is HOST:PORT, or unix:// and the socket's path: %w", addr, graveler.Invalid)
}

func (p *peer) conn() (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("the client is closed: %w", graveler.Invalid)
	}
	if p.cc == nil {
		cc, err := grpc.NewClient("passthrough:///lakefsfs", p.opts...)
		if err != nil {
			return nil, fmt.Errorf("server %s: %w: %w", p.addr, err, graveler.Invalid)
		}
		p.cc = cc
	}
	return p.cc, nil
}

// drop closes the connection: the next call makes another.
func (p *peer) drop(cc *grpc.ClientConn) {
	p.mu.Lock()
	if p.cc == cc {
		p.cc = nil
	}
	p.mu.Unlock()
	cc.Close()
}

func (p *peer) close() {
	p.mu.Lock()
	cc := p.cc
	p.cc, p.closed = nil, true
	p.mu.Unlock()
	if cc != nil {
		cc.Close()
	}
}

// enter notes a call to a server of another machine, which ends with errDead when the server is found dead. On the same machine the
// system says so.
func (p *peer) enter(cancel context.CancelCauseFunc) *inflight {
	if p.unix {
		return nil
	}
	f := &inflight{cancel: cancel, began: time.Now()}
	p.mu.Lock()
	p.calls[f] = struct{}{}
	start := !p.dog
	p.dog = true
	p.mu.Unlock()
	if start {
		go p.watch()
	}
	return f
}

func (p *peer) leave(f *inflight) {
	if f == nil {
		return
	}
	p.mu.Lock()
	delete(p.calls, f)
	p.mu.Unlock()
}

// watch asks for signs of life while calls wait for long. It ends when there are no calls for a while.
func (p *peer) watch() {
	tick := time.NewTicker(suspectAfter / 3)
	defer tick.Stop()
	idle, asked := 0, time.Now()
	for range tick.C {
		p.mu.Lock()
		if len(p.calls) == 0 || p.closed {
			if idle++; idle > 40 || p.closed {
				p.dog = false
				p.mu.Unlock()
				return
			}
			p.mu.Unlock()
			continue
		}
		idle = 0
		var waits bool
		for f := range p.calls {
			waits = waits || time.Since(f.began) > suspectAfter
		}
		cc := p.cc
		p.mu.Unlock()
		if !waits || cc == nil || time.Since(asked) < suspectAfter {
			continue
		}
		asked = time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), lifeSign)
		_, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		late := ctx.Err() != nil
		cancel()
		if err == nil || !late {
			continue // any answer is a sign of life; a broken connection has ended the calls already
		}
		p.mu.Lock()
		for f := range p.calls {
			if f.began.Before(asked) {
				f.cancel(errDead)
			}
		}
		p.mu.Unlock()
		p.drop(cc)
	}
}
