package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/enginetest"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// clusterNodes are the nodes of a real cluster, each with a server for clients, in this process.
type clusterNodes struct {
	t     *testing.T
	dir   string
	peers []string
	serve []string
	eng   []*local.Engine
	spill []*spill.Store
	srv   []*Server
}

func newCluster(t *testing.T, n int) *clusterNodes {
	t.Helper()
	c := &clusterNodes{t: t, dir: t.TempDir(), eng: make([]*local.Engine, n), spill: make([]*spill.Store, n), srv: make([]*Server, n)}
	for range 2 * n {
		l := listen(t, "tcp", "127.0.0.1:0")
		if a := l.Addr().String(); len(c.peers) < n {
			c.peers = append(c.peers, a)
		} else {
			c.serve = append(c.serve, a)
		}
		defer l.Close()
	}
	return c
}

func (c *clusterNodes) start(i int) {
	c.t.Helper()
	dir := filepath.Join(c.dir, fmt.Sprint(i))
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	var err error
	if c.spill[i], err = spill.Open(dir+"/spill", spill.Options{OpenBase: objects}); err != nil {
		c.t.Fatal(err)
	}
	c.eng[i], err = local.Open(context.Background(), local.Config{
		Dir: dir + "/meta", Spill: c.spill[i], Objects: objects, DefaultNamespace: "file://" + c.dir + "/data", Committed: committed.Options{Raggedness: 7},
		Cluster: &local.ClusterConfig{Listen: c.peers[i], Serve: c.serve[i], Bootstrap: i == 0, Heartbeat: 300 * time.Millisecond, Insecure: true},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	var l net.Listener
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if l, err = net.Listen("tcp", c.serve[i]); err == nil || time.Now().After(late) {
			break
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.srv[i] = NewServer(ServerOptions{})
	Register(c.srv[i], c.eng[i])
	go c.srv[i].Serve(l)
}

// self is a node as it knows itself.
func (c *clusterNodes) self(i int) engine.Member {
	c.t.Helper()
	ms, err := c.eng[i].Members(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range ms {
		if m.Self {
			return m
		}
	}
	c.t.Fatalf("node %d isn't one of %+v", i, ms)
	return engine.Member{}
}

// stop ends a node, at once as it is for its clients.
func (c *clusterNodes) stop(i int) {
	c.t.Helper()
	if c.eng[i] == nil {
		return
	}
	c.srv[i].Stop()
	if err := c.eng[i].Close(); err != nil {
		c.t.Error(err)
	}
	c.spill[i].Close()
	c.eng[i] = nil
}

func (c *clusterNodes) client(which ...int) *Client {
	var addrs []string
	for _, i := range which {
		addrs = append(addrs, c.serve[i])
	}
	return dial(c.t, strings.Join(addrs, ","), DialOptions{Insecure: true, RetryFor: time.Minute})
}

// three starts a cluster of three that vote.
func three(t *testing.T) *clusterNodes {
	t.Helper()
	c := newCluster(t, 3)
	t.Cleanup(func() {
		for i := range 3 {
			c.stop(i)
		}
	})
	for i := range 3 {
		c.start(i)
		if i > 0 {
			self := c.self(i)
			self.Voter = true
			for late := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				err := c.client(0).AddMember(t.Context(), self)
				if err == nil {
					break
				}
				if time.Now().After(late) {
					t.Fatal(err)
				}
			}
		}
	}
	some := c.client(0, 1, 2)
	for late := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		ms, err := some.Members(t.Context())
		if err == nil && len(ms) == 3 && !slices.ContainsFunc(ms, func(m engine.Member) bool { return !m.Voter }) {
			return c
		}
		if time.Now().After(late) {
			t.Fatalf("%+v %v", ms, err)
		}
	}
}

// fresh gives each repository a namespace that nothing was in.
type fresh struct {
	*Client
	t *testing.T
}

func (f fresh) CreateRepository(ctx context.Context, r engine.CreateRepository) (graveler.Repository, error) {
	if r.StorageNamespace == "" {
		r.StorageNamespace = "file://" + f.t.TempDir()
	}
	return f.Client.CreateRepository(ctx, r)
}

// The contract holds through any node of a cluster.
func TestClusterContract(t *testing.T) {
	if testing.Short() {
		t.Skip("the contract over a cluster is long")
	}
	c := three(t)
	enginetest.Run(t, func(t *testing.T) engine.Engine {
		x := fresh{dial(t, c.serve[1]+","+c.serve[2], DialOptions{Insecure: true}), t}
		rs, err := x.ListRepositories(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if err := x.DeleteRepository(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
		}
		return x
	})
}

// The lead goes round and nodes stop and come back: each change is made once, and whoever changed something sees it.
func TestClusterMadeOnce(t *testing.T) {
	c := three(t)
	x := c.client(0, 1, 2)
	create(t, x)
	stop := make(chan struct{})
	var mu sync.Mutex
	var made []string
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			mine := c.client(w % 3)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("%d-%04d", w, i)
				err := mine.Stage(t.Context(), repo, "main", []graveler.Change{{Path: name}})
				if err == nil {
					_, err = mine.Stat(t.Context(), repo, "main", name)
				}
				if err == nil {
					err = commit(t.Context(), mine, name)
				}
				if err != nil {
					t.Error(name, err)
					return
				}
				mu.Lock()
				made = append(made, name)
				mu.Unlock()
			}
		}()
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(made)
	}
	goesOn := func() {
		t.Helper()
		before := count()
		for late := time.Now().Add(time.Minute); count() <= before && !t.Failed(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(late) {
				t.Fatal("it doesn't go on")
			}
		}
	}
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		for i := range 3 {
			goesOn()
			if err := x.TransferLeadership(t.Context(), c.self((round+i)%3).ID); err != nil && !errors.Is(err, graveler.Unavailable) {
				t.Error(err)
			}
			goesOn()
			c.stop((round + i) % 3)
			goesOn()
			c.start((round + i) % 3)
		}
	}
	goesOn()
	close(stop)
	wg.Wait()
	got := commits(t, x)
	slices.Sort(got)
	slices.Sort(made)
	if !slices.Equal(got, made) {
		t.Errorf("%d commits, want %d", len(got), len(made))
	}
	t.Logf("%d commits", len(made))
}
