package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// fabric is the network between nodes: who can reach whom. A connection whose ends can't reach each other breaks.
type fabric struct {
	stall func(from, to string) error // of long writes
	mu    sync.Mutex
	names map[string]string         // address → node
	cut   map[[2]string]bool        // from, to
	conns map[*fabricConn][2]string // of those that dialled, with from and to
}

type fabricConn struct {
	net.Conn
	f *fabric
}

// Write stalls, while the fabric says so, once much was written: a node that is stopped amid a long message.
func (c *fabricConn) Write(p []byte) (int, error) {
	c.f.mu.Lock()
	stall := c.f.stall
	ends := c.f.conns[c]
	c.f.mu.Unlock()
	if stall == nil || len(p) <= 16<<10 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:len(p)/2])
	if err == nil {
		err = stall(ends[0], ends[1])
	}
	if err != nil {
		return n, err
	}
	m, err := c.Conn.Write(p[n:])
	return n + m, err
}

func (c *fabricConn) Close() error {
	c.f.mu.Lock()
	delete(c.f.conns, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}

func newFabric() *fabric {
	return &fabric{names: map[string]string{}, cut: map[[2]string]bool{}, conns: map[*fabricConn][2]string{}}
}

// dialer is how a node dials.
func (f *fabric) dialer(from string) func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		f.mu.Lock()
		to := f.names[addr]
		off := f.cut[[2]string{from, to}] || f.cut[[2]string{to, from}]
		f.mu.Unlock()
		if off {
			return nil, errors.New("no way there")
		}
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		fc := &fabricConn{c, f}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.cut[[2]string{from, to}] || f.cut[[2]string{to, from}] {
			c.Close()
			return nil, errors.New("no way there")
		}
		f.conns[fc] = [2]string{from, to}
		return fc, nil
	}
}

// isolate cuts a node off from all others.
func (f *fabric) isolate(name string) {
	f.mu.Lock()
	var broken []*fabricConn
	for _, other := range f.names {
		if other != name {
			f.cut[[2]string{name, other}] = true
		}
	}
	for c, ends := range f.conns {
		if ends[0] == name || ends[1] == name {
			broken = append(broken, c)
		}
	}
	f.mu.Unlock()
	for _, c := range broken {
		c.Close()
	}
}

func (f *fabric) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = map[[2]string]bool{}
}

// member is a node of a test's cluster.
type member struct {
	*Replica
	name, dir, addr string
	cfg             Config
}

// cluster is several nodes in this process.
type cluster struct {
	t   testing.TB
	f   *fabric
	dir string
	all []*member
}

const testHeartbeat = 150 * time.Millisecond

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newCluster starts n voters.
func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{t: t, f: newFabric(), dir: t.TempDir()}
	t.Cleanup(func() {
		for _, m := range c.all {
			if m.Replica != nil {
				m.Replica.Close()
			}
		}
	})
	first := c.add("n0", func(cfg *Config) { cfg.Cluster.Bootstrap = true })
	for i := 1; i < n; i++ {
		c.join(c.add(fmt.Sprintf("n%d", i), nil), true)
	}
	_ = first
	c.await("all vote", func() bool {
		for _, m := range c.all {
			ms, err := m.Members(t.Context())
			if err != nil || len(ms) != n {
				return false
			}
			for _, x := range ms {
				if !x.Voter {
					return false
				}
			}
		}
		return true
	})
	return c
}

// add makes a member, and starts it.
func (c *cluster) add(name string, with func(*Config)) *member {
	c.t.Helper()
	m := &member{name: name, dir: filepath.Join(c.dir, name), addr: freeAddr(c.t)}
	m.cfg = Config{Dir: m.dir, Cluster: &ClusterConfig{
		Listen: m.addr, Serve: "serve-" + name + ":1", Version: "test", Heartbeat: testHeartbeat, Insecure: true, Dial: c.f.dialer(name),
	}}
	if os.Getenv("REPLICA_TEST_LOG") != "" {
		m.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", name)
	}
	if with != nil {
		with(&m.cfg)
	}
	c.all = append(c.all, m)
	c.start(m)
	return m
}

func (c *cluster) start(m *member) {
	c.t.Helper()
	c.f.mu.Lock()
	c.f.names[m.addr] = m.name
	c.f.mu.Unlock()
	r, err := Open(m.cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	m.Replica = r
}

// stopNode closes a member's replica.
func (c *cluster) stopNode(m *member) {
	c.t.Helper()
	if err := m.Replica.Close(); err != nil {
		c.t.Fatal(err)
	}
	m.Replica = nil
}

// join adds a running member to the cluster.
func (c *cluster) join(m *member, vote bool) {
	c.t.Helper()
	ms, err := m.Members(c.t.Context())
	if err != nil || len(ms) != 1 || !ms[0].Self {
		c.t.Fatal(ms, err)
	}
	ms[0].Voter = vote
	c.onLeader(func(l *member) error { return l.AddMember(c.t.Context(), ms[0]) })
}

// await waits until a condition holds.
func (c *cluster) await(what string, ok func() bool) {
	c.t.Helper()
	await(c.t, what, ok)
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it doesn't happen that %s", what)
		}
	}
}

// leader waits for a node that serves as the leader.
func (c *cluster) leader() (l *member) {
	c.t.Helper()
	c.await("there is a leader", func() bool {
		for _, m := range c.all {
			if m.Replica != nil && m.node.leading() != nil && m.node.leading().check.verify(c.t.Context()) == nil {
				l = m
				return true
			}
		}
		return false
	})
	return l
}

// onLeader runs something on the leader, again where the lead changes meanwhile.
func (c *cluster) onLeader(f func(l *member) error) {
	c.t.Helper()
	var err error
	c.await("the leader answers", func() bool {
		err = f(c.leader())
		return !errors.Is(err, graveler.Unavailable)
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// same waits until the nodes have applied the same, and compares their states.
func (c *cluster) same() {
	c.t.Helper()
	c.await("all have applied the same", func() bool {
		at := uint64(0)
		for _, m := range c.all {
			if m.Replica == nil {
				continue
			}
			got := m.fsm.at.Load()
			if at == 0 {
				at = got
			}
			if got != at {
				return false
			}
		}
		return true
	})
	// An election may add entries between two looks: states of the same entry are compared.
	var names []string
	var states []map[string]string
	c.await("all are looked at with the same applied", func() bool {
		names, states = nil, nil
		for _, m := range c.all {
			if m.Replica != nil {
				names, states = append(names, m.name), append(states, dump(c.t, m.Replica))
			}
		}
		for _, st := range states {
			if st[string(appliedKey)] != states[0][string(appliedKey)] {
				return false
			}
		}
		return true
	})
	for i, got := range states {
		for k, v := range states[0] {
			if got[k] != v {
				c.t.Errorf("%s: %q is %q, not %q", names[i], k, got[k], v)
			}
		}
		if len(got) != len(states[0]) {
			c.t.Errorf("%s has %d records, not %d", names[i], len(got), len(states[0]))
		}
	}
}

func dump(t testing.TB, r *Replica) map[string]string {
	t.Helper()
	v, err := r.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	out := map[string]string{}
	it, err := v.r.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		b, err := it.ValueAndErr()
		if err != nil {
			t.Fatal(err)
		}
		out[string(it.Key())] = string(b)
	}
	return out
}

func stageCommand(term uint64, path string) *pb.Command {
	cs, err := changesPB([]graveler.Change{put(path, "x")})
	if err != nil {
		panic(err)
	}
	return &pb.Command{Term: term, Op: &pb.Command_Stage{Stage: &pb.Stage{Repository: "repo", Branch: "main", Changes: cs}}}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func ids(all ...string) (out []raft.ServerID) {
	for _, s := range all {
		out = append(out, raft.ServerID(s))
	}
	return out
}
