package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func (c *cluster) makeRepo() {
	c.t.Helper()
	repo := graveler.Repository{ID: "repo", StorageNamespace: "mem://x", DefaultBranch: "main", Created: time.Unix(1000, 0)}
	c.onLeader(func(l *member) error {
		return l.CreateRepository(c.t.Context(), repo, []graveler.Commit{first}, []graveler.Branch{{ID: "main", Commit: first.ID, Token: "t0"}}, nil)
	})
}

func (c *cluster) stage(path string) {
	c.t.Helper()
	c.onLeader(func(l *member) error {
		_, err := l.Stage(c.t.Context(), "repo", "main", []graveler.Change{put(path, "x")})
		return err
	})
}

// Three nodes take changes, the others refuse and say who leads; a leader that stops is replaced, and comes back.
func TestCluster(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	n := 0
	for round := range 3 {
		for range 20 {
			c.stage(fmt.Sprint(n))
			n++
		}
		l := c.leader()
		for _, m := range c.all {
			if m == l {
				continue
			}
			var nl *engine.NotLeader
			c.await("it says who leads", func() bool {
				_, err := m.Stage(t.Context(), "repo", "main", []graveler.Change{put("no", "x")})
				if !errors.As(err, &nl) || !errors.Is(err, graveler.Unavailable) {
					t.Fatalf("%s, which doesn't lead: %v", m.name, err)
				}
				return nl.Leader == l.cfg.Cluster.Serve
			})
			if _, _, err := m.Begin(t.Context(), true); !errors.As(err, &nl) {
				t.Fatalf("%s, which doesn't lead: %v", m.name, err)
			}
		}
		c.same()
		if round < 2 {
			c.stopNode(l)
			c.stage(fmt.Sprint(n))
			n++
			c.start(l)
		}
	}
	for _, m := range c.all {
		if got := staged(t, m.Replica, "t0"); len(got) != n {
			t.Errorf("%s has %d records, not %d", m.name, len(got), n)
		}
	}
}

// All nodes stop and start again: nothing is lost, also what Pebble had not written.
func TestClusterRestart(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	for round := range 3 {
		for i := range 10 {
			c.stage(fmt.Sprintf("%d/%d", round, i))
		}
		for _, m := range c.all {
			if round == 1 {
				if err := m.node.cut(0, 0); err != nil {
					t.Fatal(err)
				}
			}
			c.stopNode(m)
		}
		for _, m := range c.all {
			c.start(m)
		}
		c.stage(fmt.Sprintf("%d/after", round))
		c.same()
	}
	if got := staged(t, c.leader().Replica, "t0"); len(got) != 33 {
		t.Errorf("%d records", len(got))
	}
}

// A leader that is cut off answers no read and acknowledges no change; what it had proposed is gone or kept, the same everywhere, when it
// comes back. An operation that it had begun can't be finished by it later, even if it leads again.
func TestIsolatedLeader(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	c.stage("before")
	old := c.leader()
	began, end, err := old.Begin(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	c.f.isolate(old.name)
	// At once, while it still takes itself for the leader.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := old.Begin(ctx, true); !errors.Is(err, graveler.Unavailable) {
		t.Fatalf("a leader that is cut off answers a read: %v", err)
	}
	if _, err := old.Stage(ctx, "repo", "main", []graveler.Change{put("lost", "x")}); !errors.Is(err, graveler.Unavailable) {
		t.Fatalf("a leader that is cut off takes a change: %v", err)
	}
	c.await("another one leads", func() bool { l := c.leader(); return l != old })
	c.stage("meanwhile")
	c.await("the operation ends with the lead", func() bool { return began.Err() != nil })
	if _, err := old.Stage(began, "repo", "main", []graveler.Change{put("late", "x")}); !errors.Is(err, graveler.Unavailable) {
		t.Fatalf("an operation of an earlier lead: %v", err)
	}
	c.f.heal()
	c.same()
	c.onLeader(func(l *member) error {
		if l == old {
			return nil
		}
		return l.TransferLeadership(t.Context(), string(old.node.id))
	})
	c.await("the first one leads again", func() bool { return c.leader() == old })
	if _, err := old.Stage(began, "repo", "main", []graveler.Change{put("late", "x")}); !errors.Is(err, graveler.Unavailable) {
		t.Fatalf("an operation of an earlier lead, of one that leads again: %v", err)
	}
	// Past the check of the node: the entry itself is refused, by its term.
	f := old.node.raft.Apply(mustMarshal(stageCommand(leadOf(began).term, "late")), 0)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	if err := f.Response().(Result).Err; !errors.Is(err, graveler.Unavailable) {
		t.Fatalf("an entry of an earlier lead: %v", err)
	}
	c.stage("after")
	c.same()
	got := staged(t, old.Replica, "t0")
	if got["before"] == "" || got["meanwhile"] == "" || got["after"] == "" || got["late"] != "" {
		t.Error(got)
	}
}

// Nodes are added, as non-voters first, and removed; what would leave no majority is refused.
func TestMembers(t *testing.T) {
	c := newCluster(t, 1)
	c.makeRepo()
	for i := range 30 {
		c.stage(fmt.Sprint(i))
	}
	b := c.add("b", nil)
	c.join(b, false)
	c.same()
	for range 3 {
		if ms, _ := c.leader().Members(t.Context()); len(ms) != 2 || ms[1].Voter || !ms[0].Voter || !ms[0].Leader {
			t.Fatalf("%+v", ms)
		}
	}
	c.await("it is promoted", func() bool {
		err := c.leader().Promote(t.Context(), string(b.node.id))
		if err != nil && !errors.Is(err, graveler.Conflict) {
			t.Fatal(err)
		}
		return err == nil
	})
	d := c.add("d", nil)
	c.join(d, true)
	c.await("it becomes a voter by itself", func() bool {
		ms, _ := d.Members(t.Context())
		return len(ms) == 3 && ms[2].Voter
	})
	if err := c.leader().RemoveMember(t.Context(), "nobody"); !errors.Is(err, graveler.NotFound) {
		t.Errorf("%v", err)
	}
	gone := string(d.node.id)
	c.stopNode(d)
	l := c.leader()
	other := c.all[0]
	if l == other {
		other = b
	}
	if err := l.RemoveMember(t.Context(), string(other.node.id)); !errors.Is(err, graveler.Invalid) {
		t.Errorf("the removal of one of two that are alive of three: %v", err)
	}
	c.await("the dead one is removed", func() bool {
		ms, err := c.leader().Members(t.Context())
		if err != nil {
			return false
		}
		for _, m := range ms {
			if m.ID == gone {
				return c.leader().RemoveMember(t.Context(), gone) == nil
			}
		}
		return true
	})
	c.stage("with two")
	// The leader removes itself.
	l = c.leader()
	id := string(l.node.id)
	c.onLeader(func(l *member) error {
		err := l.RemoveMember(t.Context(), id)
		if errors.Is(err, graveler.NotFound) {
			return nil
		}
		return err
	})
	c.await("the other one leads alone", func() bool {
		l2 := c.leader()
		ms, _ := l2.Members(t.Context())
		return l2 != l && len(ms) == 1
	})
	c.stage("alone")
	if err := c.leader().RemoveMember(t.Context(), string(c.leader().node.id)); !errors.Is(err, graveler.Invalid) {
		t.Errorf("the removal of the last one: %v", err)
	}
}

// A dead node is removed after the time that is set, not below what can go on.
func TestRemoveDead(t *testing.T) {
	c := newCluster(t, 3)
	for _, m := range c.all {
		m.cfg.Cluster.RemoveDead = 12 * testHeartbeat
		c.stopNode(m)
	}
	for _, m := range c.all {
		c.start(m)
	}
	c.makeRepo()
	dead := c.all[0]
	if c.leader() == dead {
		dead = c.all[1]
	}
	c.stopNode(dead)
	c.await("the dead one is removed", func() bool {
		ms, err := c.leader().Members(t.Context())
		return err == nil && len(ms) == 2
	})
	c.stage("with two")
}

// A node starts again at another address: it is found there, and keeps its id.
func TestNewAddress(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	for range 2 {
		for _, leads := range []bool{false, true} {
			m := c.leader()
			if !leads {
				for _, o := range c.all {
					if o != m {
						m = o
						break
					}
				}
			}
			id := m.node.id
			c.stopNode(m)
			m.addr = freeAddr(t)
			m.cfg.Cluster.Listen, m.cfg.Cluster.Serve = m.addr, "moved-"+m.addr
			c.start(m)
			if m.node.id != id {
				t.Fatal("it has another id")
			}
			c.await("all know the address", func() bool {
				for _, o := range c.all {
					ms, err := o.Members(t.Context())
					if err != nil {
						return false
					}
					for _, x := range ms {
						if x.ID == string(id) && (x.Peer != m.addr || x.Serve != m.cfg.Cluster.Serve) {
							return false
						}
					}
				}
				return true
			})
			c.stage(m.addr)
			c.same()
		}
	}
}

// The metadata of a replica alone become those of a cluster's first node.
func TestConvert(t *testing.T) {
	c := &cluster{t: t, f: newFabric(), dir: t.TempDir()}
	dir := c.dir + "/n0"
	r := open(t, dir)
	makeRepo(t, r)
	for i := range 100 {
		if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put(fmt.Sprint(i), "x")}); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	addr := freeAddr(t)
	cl := &ClusterConfig{Listen: addr, Heartbeat: testHeartbeat, Insecure: true}
	if _, err := Open(Config{Dir: dir, Cluster: cl}); !errors.Is(err, graveler.Invalid) || !strings.Contains(err.Error(), "bootstrap") {
		t.Fatalf("without a word: %v", err)
	}
	r = open(t, dir) // it is as it was
	if got := staged(t, r, "t0"); len(got) != 100 {
		t.Fatalf("%d records", len(got))
	}
	r.Close()
	m := c.add("n0", func(cfg *Config) { cfg.Cluster.Bootstrap = true })
	t.Cleanup(func() {
		for _, m := range c.all {
			if m.Replica != nil {
				m.Close()
			}
		}
	})
	c.stage("as a cluster")
	c.stopNode(m)
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, graveler.Invalid) {
		t.Errorf("a node's directory is opened alone: %v", err)
	}
	c.start(m)
	for i := range 2 {
		c.join(c.add(fmt.Sprintf("j%d", i), nil), true)
	}
	c.await("all vote", func() bool {
		ms, _ := m.Members(t.Context())
		n := 0
		for _, x := range ms {
			if x.Voter {
				n++
			}
		}
		return n == 3
	})
	c.stage("with three")
	c.same()
	if got := staged(t, m.Replica, "t0"); len(got) != 102 {
		t.Errorf("%d records", len(got))
	}
}

// A node that is far behind, or new, is given the state as it is.
func TestInstall(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	far := c.all[0]
	if c.leader() == far {
		far = c.all[1]
	}
	c.stage("0")
	c.same()
	c.f.isolate(far.name)
	l := c.leader()
	for i := range logTrailing / maxBatch * 2 {
		var changes []graveler.Change
		for k := range 200 {
			changes = append(changes, put(fmt.Sprintf("%d/%d", i, k), "x"))
		}
		if _, err := l.Stage(t.Context(), "repo", "main", changes); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.all {
		if m == far {
			continue
		}
		// As if the log had been cut since.
		if err := m.node.await(t.Context(), m.node.raft.Snapshot()); err != nil {
			t.Fatal(err)
		}
		if err := m.log.DeleteRange(1, m.node.marks.last.Index-5); err != nil {
			t.Fatal(err)
		}
	}
	v, err := far.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	c.f.heal()
	c.same()
	if n, err := v.Empty("t0"); err != nil || n {
		t.Error("a view from before the state arrived: ", n, err)
	}
	c.stage("after")
	c.same()
	c.stopNode(far)
	c.start(far)
	c.stage("after its restart")
	c.same()
	c.join(c.add("new", nil), true)
	c.same()
}

// A leader stops amid the state that it sends: who receives it comes back to vote, and gets the state from the next one.
func TestInstallStalls(t *testing.T) {
	if testing.Short() {
		t.Skip("an election has a minute, which is not enough everywhere under the race detector")
	}
	c := newCluster(t, 3)
	c.makeRepo()
	l := c.leader()
	far := c.all[0]
	if far == l {
		far = c.all[1]
	}
	c.f.isolate(far.name)
	for i := range 20 {
		var changes []graveler.Change
		for k := range 500 {
			changes = append(changes, put(fmt.Sprintf("%d/%d/%x", i, k, rand.Uint64()), fmt.Sprintf("%x", rand.Uint64())))
		}
		c.onLeader(func(l *member) error {
			_, err := l.Stage(t.Context(), "repo", "main", changes)
			return err
		})
	}
	l = c.leader()
	for _, m := range c.all {
		if m == far {
			continue
		}
		if err := m.node.await(t.Context(), m.node.raft.Snapshot()); err != nil {
			t.Fatal(err)
		}
		if err := m.log.DeleteRange(1, m.node.marks.last.Index-5); err != nil {
			t.Fatal(err)
		}
	}
	stalled, goOn := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	t.Cleanup(func() { end.Do(func() { close(goOn) }) })
	c.f.mu.Lock()
	c.f.stall = func(from, to string) error {
		if from != l.name || to != far.name {
			return nil
		}
		once.Do(func() { close(stalled) })
		<-goOn
		return errors.New("broken")
	}
	c.f.mu.Unlock()
	c.f.heal()
	select {
	case <-stalled:
	case <-time.After(50 * time.Second):
		t.Fatal("no state is sent")
	}
	c.await("its bytes arrive at all", func() bool { return far.node.receiving.Load() > 0 || far.fsm.at.Load() > 0 })
	// The leader is gone, and the two others are to elect one.
	c.f.isolate(l.name)
	end.Do(func() { close(goOn) })
	c.f.mu.Lock()
	c.f.stall = nil
	c.f.mu.Unlock()
	c.await("another one leads", func() bool { return c.leader() != l })
	c.stage("after")
	c.f.heal()
	c.same()
}

// A cluster doesn't use what a member can't apply, a member that can't apply what is used isn't taken, and one that meets it stops.
func TestCommandVersions(t *testing.T) {
	two := uint32(2)
	c := &cluster{t: t, f: newFabric(), dir: t.TempDir()}
	t.Cleanup(func() {
		for _, m := range c.all {
			if m.Replica != nil {
				m.Close()
			}
		}
	})
	a := c.add("a", func(cfg *Config) { cfg.Cluster.Bootstrap, cfg.Cluster.Command = true, &two })
	c.makeRepo()
	old := c.add("old", func(cfg *Config) { cfg.Cluster.Version = "0.1" })
	c.join(old, false)
	c.same()
	newer := func() error {
		cmd := stageCommand(0, "new")
		cmd.Version = 2
		_, err := a.propose(t.Context(), cmd)
		return err
	}
	c.leader()
	if err := newer(); !errors.Is(err, graveler.Unavailable) || !strings.Contains(err.Error(), string(old.node.id)) || !strings.Contains(err.Error(), "0.1") {
		t.Fatalf("a command that a member can't apply: %v", err)
	}
	if err := a.RemoveMember(t.Context(), string(old.node.id)); err != nil {
		t.Fatal(err)
	}
	if err := newer(); err != nil {
		t.Fatal(err)
	}
	ms, err := old.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Self {
			if err := a.AddMember(t.Context(), m); !errors.Is(err, graveler.Invalid) || !strings.Contains(err.Error(), "upgrade") {
				t.Fatalf("a member that can't apply what is used: %v", err)
			}
			// As if it had got in all the same.
			if err := a.node.place(t.Context(), raft.ServerID(m.ID), raft.ServerAddress(m.Peer), raft.Nonvoter); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.await("the old one stops", func() bool { return old.failed.Load() != nil })
	if err := *old.failed.Load(); !strings.Contains(err.Error(), "upgrade") {
		t.Error(err)
	}
	if got := staged(t, old.Replica, "t0"); got["new"] != "" {
		t.Error("it has applied what it doesn't know")
	}
	c.stage("on")
}
