package remote

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/enginetest"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// openLocal returns a real engine.
func openLocal(t *testing.T) *local.Engine {
	t.Helper()
	d := t.TempDir()
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	sp, err := spill.Open(d+"/spill", spill.Options{OpenBase: objects})
	if err != nil {
		t.Fatal(err)
	}
	e, err := local.Open(t.Context(), local.Config{Dir: d + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + d + "/data", Committed: committed.Options{Raggedness: 7}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// serve serves an engine at a listener until the test ends.
func serve(t *testing.T, l net.Listener, e engine.Engine, o ServerOptions) *Server {
	t.Helper()
	s := NewServer(o)
	Register(s, e)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return s
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, addrs string, o DialOptions) *Client {
	t.Helper()
	c, err := Dial(addrs, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func socket(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

// The contract holds through a socket, and through a port.
func TestContract(t *testing.T) {
	t.Run("Socket", func(t *testing.T) {
		enginetest.Run(t, func(t *testing.T) engine.Engine {
			path := socket(t)
			serve(t, listen(t, "unix", path), openLocal(t), ServerOptions{})
			return dial(t, "unix://"+path, DialOptions{})
		})
	})
	t.Run("Port", func(t *testing.T) {
		enginetest.Run(t, func(t *testing.T) engine.Engine {
			l := listen(t, "tcp", "127.0.0.1:0")
			serve(t, l, openLocal(t), ServerOptions{})
			return dial(t, l.Addr().String(), DialOptions{Insecure: true})
		})
	})
}

// Each kind crosses as it is, has a code, and each code has a kind.
func TestEveryKindCrosses(t *testing.T) {
	for _, k := range graveler.Kinds() {
		st := Status(errors.Join(errors.New("words"), k))
		err := errorFrom(st)
		if graveler.KindOf(err) != k || !strings.Contains(err.Error(), "words") {
			t.Errorf("%v came as %v", k, err)
		}
		s, _ := statusOf(st)
		if s.Code() != codeOf(k) || s.Code() == codes.OK || s.Code() == codes.Unknown || (k != graveler.Internal) != (s.Code() != codes.Internal) {
			t.Errorf("%v has code %v", k, s.Code())
		}
	}
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		internal := c == codes.OK || c == codes.Unknown || c == codes.Internal
		if (kindOf(c) == graveler.Internal) != internal {
			t.Errorf("%v is of kind %v", c, kindOf(c))
		}
	}
}

// What an error says besides its kind crosses too, and no status is larger than any client takes.
func TestFailuresCross(t *testing.T) {
	many := &graveler.MergeConflict{Paths: []string{strings.Repeat("\xff", 900), strings.Repeat("b", 900)}}
	for _, err := range []error{many, &engine.NotLeader{Leader: "h:1"}, &engine.NotLeader{}, &engine.SessionEnded{Session: 5}, errors.New(strings.Repeat("\xff", 100_000)), busyError{"x"}} {
		st := Status(err)
		s, _ := statusOf(st)
		size := len(s.Message())
		for _, d := range s.Proto().GetDetails() {
			size += len(d.GetValue())*4/3 + len(d.GetTypeUrl())
		}
		if size > 7<<10 {
			t.Errorf("%.40v: %d bytes", err, size)
		}
		got := errorFrom(st)
		if graveler.KindOf(got) != graveler.KindOf(err) {
			t.Errorf("%.40v came as %.40v", err, got)
		}
		if len(err.Error()) <= maxText && got.Error() != err.Error() {
			t.Errorf("%q came as %q", err, got)
		}
		switch {
		case err == error(many):
			var mc *graveler.MergeConflict
			if !errors.As(got, &mc) || len(mc.Paths) != 1 || mc.Paths[0] != many.Paths[0] || !mc.More {
				t.Errorf("%.100v", got)
			}
		case graveler.KindOf(err) == graveler.Stale:
			if _, ok := errors.AsType[*engine.SessionEnded](got); !ok {
				t.Errorf("%v", got)
			}
		}
		want, ok := errors.AsType[*engine.NotLeader](err)
		if nl, is := errors.AsType[*engine.NotLeader](got); is != ok || is && nl.Leader != want.Leader {
			t.Errorf("%v came as %v", err, got)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	c := dial(t, "unix://"+filepath.Join(t.TempDir(), "none"), DialOptions{})
	if _, err := c.ListRepositories(t.Context()); !errors.Is(err, graveler.Unavailable) || !strings.Contains(err.Error(), "lakefsfs up") {
		t.Error(err)
	}
	for _, addr := range []string{"", "tcp://x", "unix://", "host", "host:", ":80", "http://h:1", ",,"} {
		if _, err := Dial(addr, DialOptions{}); !errors.Is(err, graveler.Invalid) {
			t.Errorf("%q: %v", addr, err)
		}
	}
	if _, err := Dial("example.com:1", DialOptions{Insecure: true}); !errors.Is(err, graveler.Invalid) {
		t.Error(err)
	}
}

// Every method that is served has a role of its own.
func TestEveryMethodHasARole(t *testing.T) {
	s := NewServer(ServerOptions{})
	Register(s, openLocal(t))
	served := map[string]bool{}
	for name, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + name + "/" + m.Name
			served[full] = true
			if _, ok := need[full]; !ok {
				t.Errorf("%s has no role", full)
			}
		}
	}
	for m := range need {
		if !served[m] {
			t.Errorf("%s has a role and isn't served", m)
		}
	}
}

var _ grpc.ServiceRegistrar = (*Server)(nil)
