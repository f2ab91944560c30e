// Package chaos proves that a cluster keeps its promises while everything fails: clients of real processes record what they asked for and
// were told, while processes are killed and stopped, links are cut and disks fail; then it is judged whether a single machine that never
// fails could have answered so.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/remote"
	"github.com/lakefsfs/lakefsfs/graveler"
	harness "github.com/lakefsfs/lakefsfs/internal/chaos"
)

const repo = "chaos"

// built is where the programs are.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		panic(err)
	}
	built = dir
	code := 1
	if err := errors.Join(build("lakefsfs", "../../cmd/lakefsfs"), build("faultfs", "../../internal/chaos/faultfs")); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func build(name, pkg string) error {
	cmd := exec.Command("go", "build", "-o", filepath.Join(built, name), pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

// long is how long to run, as LAKEFSFS_TEST_CHAOS says; usual if it isn't set.
func long(t *testing.T, usual time.Duration) time.Duration {
	s := os.Getenv("LAKEFSFS_TEST_CHAOS")
	if s == "" {
		return usual
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("LAKEFSFS_TEST_CHAOS: %v", err)
	}
	return d
}

// number is what an environment variable says.
func number(t *testing.T, env string, usual uint64) uint64 {
	s := os.Getenv(env)
	if s == "" {
		return usual
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}

// newCluster starts a cluster and waits until all its nodes vote.
func newCluster(t *testing.T, o harness.Options) *harness.Cluster {
	t.Helper()
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "ch")
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	if o.Bin == "" {
		o.Bin = filepath.Join(built, "lakefsfs")
	}
	o.Env = append(o.Env, "LAKEFSFS_NAMESPACE=file://"+dir+"/objects", "LAKEFSFS_CLUSTER_SNAPSHOTS=file://"+dir+"/snapshots", "LAKEFSFS_LOG_FORMAT=text")
	c, err := harness.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("%s said at the end:\n%s", n.Name, tail(n.Log, 3000))
			}
		}
		c.Close()
		if keep := os.Getenv("LAKEFSFS_TEST_KEEP"); keep != "" && t.Failed() {
			t.Logf("kept: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i, n := range c.Nodes {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		if err := harness.Wait(ctx, func() bool {
			voters := 0
			for _, m := range members(ctx, c.Nodes[0]) {
				if m.Voter {
					voters++
				}
			}
			return voters == i+1
		}); err != nil {
			t.Fatalf("%s doesn't become a voter: %v; %+v\n%s", n.Name, err, members(t.Context(), c.Nodes[0]), tail(n.Log, 2000))
		}
	}
	return c
}

// direct are connections to the nodes behind the network, which see what one node sees; a client would go to the leader.
var direct sync.Map // HOST:PORT -> *grpc.ClientConn

// members asks a node, on its own machine, for all it knows; nil if it doesn't answer.
func members(ctx context.Context, n *harness.Node) []*pb.Member {
	cc, ok := direct.Load(n.Direct)
	if !ok {
		c, err := grpc.NewClient(n.Direct, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: time.Second,
		}))
		if err != nil {
			return nil
		}
		cc, _ = direct.LoadOrStore(n.Direct, c)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := pb.NewClusterClient(cc.(*grpc.ClientConn)).Members(ctx, &pb.MembersRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil
	}
	return r.Members
}

// leader is the name of the node that says that it leads.
func leader(ctx context.Context, c *harness.Cluster) string {
	var all sync.WaitGroup
	says := make([]bool, len(c.Nodes))
	for i, n := range c.Nodes {
		if n.Running() {
			all.Go(func() {
				says[i] = slices.ContainsFunc(members(ctx, n), func(m *pb.Member) bool { return m.Self && m.Leader })
			})
		}
	}
	all.Wait()
	if i := slices.Index(says, true); i >= 0 {
		return c.Nodes[i].Name
	}
	return ""
}

// client is a client of all nodes, or some.
func client(t *testing.T, addrs ...string) *remote.Client {
	t.Helper()
	c, err := remote.Dial(strings.Join(addrs, ","), remote.DialOptions{Insecure: true, RetryFor: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// handOver asks for another leader: the node of that name, or any.
func handOver(ctx context.Context, c *harness.Cluster, r *remote.Client, to string) error {
	id := ""
	if to != "" {
		for _, n := range c.Nodes {
			for _, m := range members(ctx, n) {
				if m.Peer == c.Node(to).Peer {
					id = m.Id
				}
			}
		}
		if id == "" {
			return fmt.Errorf("%s has no id", to)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return r.TransferLeadership(ctx, id)
}

// removeNode takes a node that doesn't run out of the cluster, whatever it was called.
func removeNode(ctx context.Context, c *harness.Cluster, r *remote.Client, node *harness.Node) error {
	return insist(ctx, func(ctx context.Context) error {
		lead := c.Node(leader(ctx, c))
		if lead == nil {
			return fmt.Errorf("nobody leads: %w", graveler.Unavailable)
		}
		for _, m := range members(ctx, lead) {
			if m.Peer == node.Peer {
				if err := r.RemoveMember(ctx, m.Id); err != nil && graveler.KindOf(err) != graveler.NotFound {
					return err
				}
			}
		}
		return nil
	})
}

// TestChaos is two minutes of it; make chaos runs it for longer. LAKEFSFS_TEST_SEED repeats the choices of a run, though not its timing.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes two minutes")
	}
	t.Parallel() // each waits most of the time
	seed := number(t, "LAKEFSFS_TEST_SEED", rand.Uint64())
	during := long(t, 2*time.Minute)
	nodes := int(number(t, "LAKEFSFS_TEST_NODES", 3))
	t.Logf("seed %d, %d nodes, %s", seed, nodes, during)
	say := func(format string, args ...any) {
		if os.Getenv("LAKEFSFS_TEST_CHAOS") != "" {
			fmt.Printf(time.Now().Format("15:04:05.000 ")+format+"\n", args...)
		}
	}
	o := harness.Options{Nodes: nodes, Network: true, Seed: seed, Env: []string{"LAKEFSFS_CLUSTER_SNAPSHOT_EVERY=5s"}}
	if os.Getuid() == 0 {
		o.FaultFS, o.Disk = filepath.Join(built, "faultfs"), 512<<20
	} else {
		t.Log("disks don't fail and power isn't cut, as that takes root")
	}
	clocks := os.Getenv("LAKEFSFS_TEST_CHAOS") != "" // building it takes minutes
	if clocks {
		o.Bin = filepath.Join(built, "movable")
		if err := harness.BuildMovable(o.Bin, "../../cmd/lakefsfs"); err != nil {
			t.Fatal(err)
		}
	}
	c := newCluster(t, o)
	var l ledger
	w := newWatchers(&l, nodes)
	var clients []engine.Engine
	for i := range 4 {
		addrs := c.Serve()
		clients = append(clients, client(t, append(addrs[i%nodes:], addrs[:i%nodes]...)...))
	}
	if _, err := clients[0].CreateRepository(t.Context(), engine.CreateRepository{ID: repo}); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	watching, unwatch := context.WithCancel(t.Context())
	defer unwatch()
	var beside, watches sync.WaitGroup
	for _, n := range c.Nodes {
		one := client(t, n.Serve)
		watches.Go(func() { w.watch(watching, n.Name, one) })
	}
	hand := client(t, c.Serve()...)
	n := &nemesis{
		c: c, l: &l, r: rand.New(rand.NewPCG(seed, 1)), clocks: clocks, say: say, counts: map[string]int{}, hurt: map[string]bool{},
		leader: func(ctx context.Context) string { return leader(ctx, c) },
		hand:   func(ctx context.Context) error { return handOver(ctx, c, hand, "") },
		remove: func(ctx context.Context, node *harness.Node) error { return removeNode(ctx, c, hand, node) },
	}
	beside.Go(func() { n.run(ctx) })

	// The work. What it takes longer than that to end an epoch, everything having been put right, is a hang.
	hang := 5 * time.Minute
	var ends []*end
	for i := 1; ctx.Err() == nil; i++ {
		e, err := newEpoch(ctx, clients[i%len(clients)], &l, fmt.Sprint("e", i), repo)
		if err != nil {
			if ctx.Err() == nil {
				l.violation("%v", err)
			}
			break
		}
		one, stop := context.WithTimeout(ctx, 15*time.Second)
		e.work(one, clients, 8, seed+uint64(i))
		stop()
		last, cancel := context.WithTimeout(t.Context(), hang)
		en, err := e.look(last, clients[i%len(clients)])
		if err == nil {
			err = e.judge(last, clients[i%len(clients)])
		}
		cancel()
		if err != nil {
			l.violation("epoch %d doesn't end: %v", i, err)
			break
		}
		ends = append(ends, en)
		say("epoch %d: %d steps so far, %d open, %d violations", i, l.steps.Load(), l.open.Load(), len(l.wrong))
		if len(l.wrong) > 20 {
			break
		}
	}
	cancel()
	beside.Wait()

	// All is well now: every node in turn leads, and has all of it.
	last, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	for _, node := range c.Nodes {
		if err := insist(last, func(ctx context.Context) error {
			if leader(ctx, c) == node.Name {
				return nil
			}
			if err := handOver(ctx, c, hand, node.Name); err != nil {
				return fmt.Errorf("%w: %w", err, graveler.Unavailable)
			}
			return fmt.Errorf("%s doesn't lead yet: %w", node.Name, graveler.Unavailable)
		}); err != nil {
			l.violation("%s can't be made the leader: %v", node.Name, err)
			continue
		}
		for _, e := range ends {
			if err := e.again(last, clients[0]); err != nil {
				l.violation("the last look, led by %s: %v", node.Name, err)
				break
			}
		}
	}
	unwatch()
	watches.Wait()
	w.end()
	n.logs()

	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d nodes, %s\nfaults:\n%ssteps:\n", seed, nodes, during, n.report())
	kinds := map[string]int64{}
	l.kinds.Range(func(k, v any) bool {
		kinds[k.(string)] = v.(*atomic.Int64).Load()
		return true
	})
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(&b, "%6d  %s\n", kinds[k], k)
	}
	fmt.Fprintf(&b, "checked: %d steps on %d objects, %d of them never answered; %d objects undecided; %d changes told by watches, %d times some lost\nviolations: %d\n",
		l.steps.Load(), l.objects.Load(), l.open.Load(), l.undecided.Load(), w.events, w.lost, len(l.wrong))
	t.Log("\n" + b.String())
	say("\n%s", b.String())
	for i, v := range l.wrong {
		if i == 20 {
			t.Errorf("and %d more", len(l.wrong)-i)
			break
		}
		t.Error(v)
	}
	if l.steps.Load() == 0 || len(n.counts) == 0 {
		t.Error("nothing was done")
	}
}
