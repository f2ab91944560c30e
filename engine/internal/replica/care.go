package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// sighting is what the leader knows of another node.
type sighting struct {
	at            time.Time // of its last answer; of the beginning of the lead before
	answered      bool
	applied, last uint64
	near          time.Time // since when it has been close behind; zero if it isn't
	asking        bool
	conn          *peerConn
}

const (
	// nearBy is how many entries a node may be behind to count as caught up.
	nearBy = 500
	// nearFor is for how many heartbeats it has to be, to be made a voter.
	nearFor = 6
)

// sighted is what is known of a node.
func (n *node) sighted(id raft.ServerID) sighting {
	n.mu.Lock()
	defer n.mu.Unlock()
	if g := n.seen[id]; g != nil && g.answered {
		return *g
	}
	return sighting{}
}

func (n *node) alive(id raft.ServerID, within time.Duration) bool {
	g := n.sighted(id)
	return g.answered && time.Since(g.at) <= within
}

func (n *node) caughtUp(id raft.ServerID) bool {
	g := n.sighted(id)
	return g.answered && !g.near.IsZero()
}

// care is what a leader does beside serving, until its lead ends: it looks after the others, makes voters of those that have caught up,
// and removes those that are dead for long.
func (n *node) care(l *lead) {
	var asking sync.WaitGroup
	begin := time.Now()
	n.mu.Lock()
	n.seen = map[raft.ServerID]*sighting{}
	n.mu.Unlock()
	defer func() {
		asking.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, g := range n.seen {
			g.conn.close()
		}
	}()
	ctx := context.WithValue(l.ctx, leadKey{}, l)
	t := time.NewTicker(n.cfg.Heartbeat)
	defer t.Stop()
	for {
		servers := n.servers()
		for _, s := range servers {
			if s.ID == n.id {
				continue
			}
			n.mu.Lock()
			g := n.seen[s.ID]
			if g == nil {
				g = &sighting{at: begin, conn: &peerConn{n: n, id: s.ID}}
				n.seen[s.ID] = g
			}
			if !g.asking {
				g.asking = true
				asking.Go(func() { n.look(l, g) })
			}
			n.mu.Unlock()
		}
		if err := n.tend(ctx, servers); err != nil && l.ctx.Err() == nil {
			n.r.cfg.Logger.Warn("the members of the cluster", "err", err)
		}
		select {
		case <-l.ctx.Done():
			return
		case <-t.C:
		}
	}
}

// look asks a node how far it is.
func (n *node) look(l *lead, g *sighting) {
	ctx, cancel := context.WithTimeout(l.ctx, 4*n.cfg.Heartbeat)
	defer cancel()
	a, err := g.conn.call(ctx, &pb.PeerRequest{Ask: &pb.PeerRequest_Status{Status: true}})
	n.mu.Lock()
	defer n.mu.Unlock()
	g.asking = false
	if err != nil {
		g.near = time.Time{}
		return
	}
	g.at, g.answered, g.applied, g.last = time.Now(), true, a.Applied, a.Last
	switch behind := a.Applied+nearBy < n.r.fsm.at.Load(); {
	case behind:
		g.near = time.Time{}
	case g.near.IsZero():
		g.near = g.at
	}
}

// tend makes at most one change of the members that is due.
func (n *node) tend(ctx context.Context, servers []raft.Server) error {
	v, err := n.r.Peek()
	if err != nil {
		return err
	}
	defer v.Close()
	for _, s := range servers {
		if s.ID == n.id {
			if string(s.Address) != n.cfg.Advertise {
				return n.place(ctx, s.ID, raft.ServerAddress(n.cfg.Advertise), s.Suffrage)
			}
			continue
		}
		g := n.sighted(s.ID)
		if s.Suffrage != raft.Voter && !g.near.IsZero() && time.Since(g.near) >= nearFor*n.cfg.Heartbeat {
			rec, err := v.Node(string(s.ID))
			if err != nil {
				return err
			}
			if rec.GetVote() {
				n.r.cfg.Logger.Info("a node has caught up and votes from now on", "node", s.ID)
				return n.place(ctx, s.ID, s.Address, raft.Voter)
			}
		}
	}
	if n.cfg.RemoveDead == 0 {
		return nil
	}
	for _, s := range servers {
		n.mu.Lock()
		g := n.seen[s.ID]
		dead := g != nil && time.Since(g.at) > n.cfg.RemoveDead
		n.mu.Unlock()
		if !dead || !n.majority(servers) || n.canLose(ctx, s.ID) != nil {
			continue
		}
		n.r.cfg.Logger.Warn("a node was not heard of for long, and is removed from the cluster", "node", s.ID, "after", n.cfg.RemoveDead)
		return n.remove(ctx, s.ID)
	}
	return nil
}

// majority reports whether the voters that are alive are most of a configuration as it is.
func (n *node) majority(servers []raft.Server) bool {
	voters, alive := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == n.id || n.alive(s.ID, 4*n.cfg.Heartbeat) {
			alive++
		}
	}
	return alive >= voters/2+1
}

// careLoop is what every node does beside raft: it tells the leader of itself, and breaks off states that don't arrive.
func (n *node) careLoop() {
	defer n.done.Done()
	t := time.NewTicker(n.cfg.Heartbeat)
	defer t.Stop()
	was := false
	for {
		select {
		case <-n.stopped:
			return
		case <-t.C:
		}
		if n.receiving.Load() > 0 && int64(time.Since(began))-n.came.Load() > int64(installIdle) {
			n.r.cfg.Logger.Warn("the leader sends its state no further")
			n.net.closeIdle(installIdle)
		}
		n.forgetMoves()
		member := false
		for _, s := range n.servers() {
			member = member || s.ID == n.id
		}
		if was && !member {
			n.r.cfg.Logger.Warn("this node is no member of the cluster any more")
		}
		was = member
		if member && n.raft.State() != raft.Leader && !n.known() {
			n.announce()
		}
	}
}

// forgetMoves drops what nodes said of their addresses once the configuration says it.
func (n *node) forgetMoves() {
	servers := n.servers()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range servers {
		if n.moves[s.ID] == s.Address {
			delete(n.moves, s.ID)
		}
	}
}

// known reports whether the cluster knows how this node is reached.
func (n *node) known() bool {
	self := n.self()
	for _, s := range n.servers() {
		if s.ID == n.id && string(s.Address) != self.Peer {
			return false
		}
	}
	v, err := n.r.Peek()
	if err != nil {
		return true
	}
	defer v.Close()
	rec, err := v.Node(self.Id)
	return err == nil && proto.Equal(rec, self)
}

// announce tells the leader of this node; if none is known, or reached, everybody. Those who vote for it must find it too.
func (n *node) announce() {
	ctx, cancel := context.WithTimeout(n.stop, 4*n.cfg.Heartbeat)
	defer cancel()
	ask := func(addr string) (leader string, err error) {
		c := &peerConn{n: n, addr: addr}
		defer c.close()
		a, err := c.call(ctx, &pb.PeerRequest{Ask: &pb.PeerRequest_Announce{Announce: n.self()}})
		return a.GetLeader(), err
	}
	if leader, _ := n.raft.LeaderWithID(); leader != "" {
		if _, err := ask(string(leader)); err == nil {
			return
		}
	}
	var all sync.WaitGroup
	for _, s := range n.servers() {
		if s.ID == n.id {
			continue
		}
		all.Go(func() {
			addr := n.addressOf(s.ID)
			if leader, err := ask(addr); err != nil && leader != "" && leader != addr {
				ask(leader)
			}
		})
	}
	all.Wait()
}

// announced takes what another node says of itself.
func (n *node) announced(rec *pb.Node) error {
	s, err := n.server(rec.GetId())
	if err != nil {
		return err
	}
	if err := checkRecord(rec); err != nil {
		return err
	}
	if string(s.Address) != rec.Peer {
		n.mu.Lock()
		n.moves[s.ID] = raft.ServerAddress(rec.Peer)
		n.mu.Unlock()
	}
	l := n.leading()
	if l == nil {
		return fmt.Errorf("node %s doesn't lead: %w", n.id, graveler.Unavailable)
	}
	ctx, cancel := context.WithTimeout(context.WithValue(l.ctx, leadKey{}, l), changeTime)
	defer cancel()
	v, err := n.r.Peek()
	if err != nil {
		return err
	}
	had, err := v.Node(rec.Id)
	v.Close()
	if err != nil {
		return err
	}
	if had != nil {
		rec.Vote = had.Vote
	}
	if err := n.record(ctx, rec); err != nil {
		return err
	}
	return n.place(ctx, s.ID, raft.ServerAddress(rec.Peer), s.Suffrage)
}
