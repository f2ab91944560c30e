package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// A node that begins with a snapshot has what is in it before anybody has sent it anything, and the rest by the log, or, if that is cut, by
// the state itself. It votes then, and is a node like the others.
func TestJoinFromSnapshot(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	for i := range 20 {
		c.stage(fmt.Sprint("early", i))
	}
	st, _ := fileStore(t)
	var info engine.SnapshotInfo
	c.onLeader(func(l *member) (err error) {
		info, err = l.Snapshots(st, "url", "v1").Take(t.Context())
		return err
	})
	for _, m := range c.all {
		if m != c.leader() {
			var not *engine.NotLeader
			if _, err := m.Snapshots(st, "url", "v1").Take(t.Context()); !errors.As(err, &not) {
				t.Fatalf("a follower: %v", err)
			}
		}
	}
	for i := range 5 {
		c.stage(fmt.Sprint("late", i))
	}
	seeded := func(name string) *member {
		got, err := Seed(t.Context(), st, "url", filepath.Join(c.dir, name))
		if err != nil || got.Index != info.Index {
			t.Fatalf("%+v, %v", got, err)
		}
		m := c.add(name, nil)
		if at := m.fsm.at.Load(); at != info.Index {
			t.Fatalf("it begins at %d, and the snapshot is of %d", at, info.Index)
		}
		if m.Joined() {
			t.Fatal("it takes itself for a member")
		}
		return m
	}
	join := func(m *member) {
		ms, err := m.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range ms {
			if x.Self {
				c.onLeader(func(l *member) error { return l.AddMember(t.Context(), x) })
			}
		}
	}
	m := seeded("by-log")
	join(m)
	c.same()
	if first, err := m.log.FirstIndex(); err != nil || first > info.Index+1 || first == 0 {
		t.Fatalf("it came by the log: the first entry is %d, the snapshot is of %d, %v", first, info.Index, err)
	}
	c.await("it votes", func() bool {
		ms, err := c.leader().Members(t.Context())
		for _, x := range ms {
			if err == nil && x.ID == string(m.node.id) && x.Voter {
				return true
			}
		}
		return false
	})
	if !m.Joined() {
		t.Fatal("it votes, and doesn't take itself for a member")
	}
	c.stopNode(m)
	c.start(m)
	c.stage("after its restart")
	c.same()

	for _, m := range c.all { // the log is cut
		if err := m.node.await(t.Context(), m.node.raft.Snapshot()); err != nil {
			t.Fatal(err)
		}
		if err := m.log.DeleteRange(1, m.node.marks.last.Index-1); err != nil {
			t.Fatal(err)
		}
	}
	join(seeded("by-state"))
	c.same()

	if _, err := Seed(t.Context(), st, "url", m.dir); !errors.Is(err, graveler.NotEmpty) {
		t.Fatal(err)
	}
	empty, _ := fileStore(t)
	if _, err := Seed(t.Context(), empty, "url", filepath.Join(c.dir, "none")); !errors.Is(err, graveler.NotFound) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "none")); err == nil {
		t.Fatal("a directory was made of nothing")
	}
}

// A cluster that was lost is restored from a snapshot, at the address of one of its nodes, and grows again. The nodes that were there before
// come back to life, all of them, at their addresses: they can't take part, nor take the new cluster over, nor be taken over.
func TestRestoredClusterAndOldNodes(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	c.stage("before")
	st, _ := fileStore(t)
	c.onLeader(func(l *member) error {
		_, err := l.Snapshots(st, "url", "v1").Take(t.Context())
		return err
	})
	c.stage("lost")
	for _, m := range c.all {
		c.stopNode(m)
	}
	old := c.all
	c.all = nil
	meta := filepath.Join(c.dir, "restored")
	res, err := Restore(t.Context(), st, "url", meta, "")
	if err != nil {
		t.Fatal(err)
	}
	n := c.add("restored", func(cfg *Config) {
		cfg.Cluster.Listen = old[0].addr // where the others look for one of theirs
		cfg.Cluster.Bootstrap = true
	})
	n.addr = old[0].addr
	c.join(c.add("second", nil), true)
	c.join(c.add("third", nil), true)
	c.stage("new")
	c.same()
	ms, err := c.leader().Members(t.Context())
	if err != nil || len(ms) != 3 {
		t.Fatalf("%+v, %v", ms, err)
	}
	before := c.leader()
	term := before.node.raft.CurrentTerm()

	// Two of three of the old ones: a majority, which elects a leader and goes on.
	they := &cluster{t: t, f: c.f, dir: c.dir, all: old[1:]}
	for _, m := range they.all {
		they.start(m)
	}
	defer func() {
		for _, m := range they.all {
			they.stopNode(m)
		}
	}()
	they.stage("theirs")
	for range 10 { // heartbeats of theirs go to the address of the restored node all the time
		time.Sleep(testHeartbeat)
		they.stage("theirs")
		c.stage("new")
	}
	if l := c.leader(); l.node.raft.CurrentTerm() != term {
		t.Logf("the lead moved from term %d to %d", term, l.node.raft.CurrentTerm())
	}
	c.same()
	they.same()
	for name, cl := range map[string]*cluster{"new": c, "theirs": they} {
		r := cl.leader().Replica
		v, err := r.View()
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []string{"new", "theirs"} {
			if _, ok, err := v.Staged("t0", other); err != nil || ok != (other == name) {
				t.Errorf("the cluster %q has %q: %v, %v", name, other, ok, err)
			}
		}
		id, _, err := v.Cluster()
		if err != nil || (id == res.Cluster) != (name == "new") {
			t.Errorf("the cluster %q is called %s", name, id)
		}
		v.Close()
	}
	if v, err := n.View(); err == nil {
		if _, ok, _ := v.Staged("t0", "lost"); ok {
			t.Error("what came after the snapshot is there")
		}
		v.Close()
	}
	// Nor can one of theirs be added by hand.
	if err := c.leader().AddMember(t.Context(), engine.Member{ID: string(old[1].node.id), Peer: old[1].addr}); err == nil {
		time.Sleep(5 * testHeartbeat)
		they.stage("theirs")
		they.same()
		c.stage("new")
		if err := c.leader().RemoveMember(t.Context(), string(old[1].node.id)); err != nil {
			t.Error(err)
		}
	}
	c.same()
}

// The log stays bounded, of few large changes as of many small ones; but not so that a node which takes in a state finds that what it needs
// next is gone.
func TestLogIsBounded(t *testing.T) {
	c := newCluster(t, 1)
	c.makeRepo()
	l := c.leader()
	const bytes, segments = 8 << 20, 32 << 20 // the log is dropped in whole files of 16 MiB
	big := func(r *Replica, n int) {
		t.Helper()
		for i := range n {
			ch := put(fmt.Sprint(i%4), "x")
			ch.Entry.Metadata = map[string]string{"pad": string(make([]byte, 2<<20))}
			if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{ch}); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(what string, r *Replica) {
		t.Helper()
		if err := r.cut(cutEntries, bytes); err != nil {
			t.Fatal(err)
		}
		if n := r.log.Size(); n > 2*bytes+segments {
			t.Fatalf("%s: the log has %d MiB", what, n>>20)
		}
	}
	for range 5 {
		big(l.Replica, 10)
		check("a node", l.Replica)
	}
	_, state, err := l.node.marks.Open(l.node.marks.last.ID)
	if err != nil {
		t.Fatal(err)
	}
	at := l.fsm.at.Load()
	for range 3 {
		big(l.Replica, 20)
		if err := l.cut(cutEntries, bytes); err != nil {
			t.Fatal(err)
		}
	}
	if first, err := l.log.FirstIndex(); err != nil || first > at+1 {
		t.Fatalf("a state of entry %d is being sent, and the log begins at %d: %v", at, first, err)
	}
	if err := errors.Join(state.Close(), state.Close()); err == nil {
		t.Fatal("it was closed twice") // the file says so
	}
	if !l.node.feeds() {
		t.Fatal("the other node had no time to ask for the rest")
	}
	l.node.feed.mu.Lock()
	l.node.feed.last = time.Now().Add(-2 * feedTime)
	l.node.feed.mu.Unlock()
	check("after that", l.Replica)

	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	for range 5 {
		big(r, 10)
		check("alone", r)
	}
}
