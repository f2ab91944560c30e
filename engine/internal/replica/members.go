package replica

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// self is what the cluster should know of this node.
func (n *node) self() *pb.Node {
	rec := &pb.Node{
		Id: string(n.id), Peer: n.cfg.Advertise, Serve: n.cfg.Serve, Version: n.cfg.Version, Command: n.r.cfg.newest(), Vote: true,
	}
	if v, err := n.r.Peek(); err == nil {
		defer v.Close()
		if had, err := v.Node(rec.Id); err == nil && had != nil {
			rec.Vote = had.Vote
		}
	}
	return rec
}

// Members lists the nodes of the cluster, this one always.
func (r *Replica) Members(ctx context.Context) ([]engine.Member, error) {
	if r.node == nil {
		index, _ := r.alone.at()
		return []engine.Member{{ID: nodeID, Command: r.cfg.newest(), Voter: true, Leader: true, Self: true, Applied: index}}, nil
	}
	return r.node.members()
}

func (n *node) members() ([]engine.Member, error) {
	v, err := n.r.Peek()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	_, leader := n.raft.LeaderWithID()
	leads := n.leading() != nil
	var out []engine.Member
	met := false
	for _, s := range n.servers() {
		m := engine.Member{ID: string(s.ID), Peer: string(s.Address), Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader, Contact: -1}
		rec, err := v.Node(m.ID)
		if err != nil {
			return nil, err
		}
		if rec != nil {
			m.Serve, m.Version, m.Command = rec.Serve, rec.Version, rec.Command
		}
		if s.ID == n.id {
			n.describeSelf(&m)
			met = true
		} else if g := n.sighted(s.ID); leads && g.at != (time.Time{}) {
			m.Applied, m.Contact = g.applied, time.Since(g.at)
		}
		out = append(out, m)
	}
	if !met {
		m := engine.Member{ID: string(n.id), Voter: true}
		n.describeSelf(&m)
		out = append(out, m)
	}
	return out, nil
}

func (n *node) describeSelf(m *engine.Member) {
	m.Peer, m.Serve, m.Version, m.Command = n.cfg.Advertise, n.cfg.Serve, n.cfg.Version, n.r.cfg.newest()
	m.Self, m.Applied, m.Contact = true, n.r.fsm.at.Load(), 0
}

var errNoCluster = fmt.Errorf("this daemon is no node of a cluster: %w", graveler.Invalid)

// change runs a change of the members on the leader.
func (r *Replica) change(ctx context.Context, f func(ctx context.Context, n *node) error) error {
	if r.node == nil {
		return errNoCluster
	}
	ctx, end, err := r.Begin(ctx, false)
	if err != nil {
		return err
	}
	defer end()
	return f(ctx, r.node)
}

// checkRecord looks at what a node says of itself.
func checkRecord(m *pb.Node) error {
	for what, s := range map[string]string{"id": m.Id, "peer address": m.Peer, "serve address": m.Serve, "version": m.Version} {
		if len(s) > 256 || !graveler.ValidUTF8(s) || strings.ContainsAny(s, "\x00\n") {
			return fmt.Errorf("the node's %s %q: %w", what, s, graveler.Invalid)
		}
	}
	if m.Id == "" {
		return fmt.Errorf("a node needs an id: %w", graveler.Invalid)
	}
	if _, _, err := net.SplitHostPort(m.Peer); err != nil {
		return fmt.Errorf("the node's address %q: write HOST:PORT: %w", m.Peer, graveler.Invalid)
	}
	return nil
}

// AddMember adds a node as a non-voter, to be made a voter when it has caught up if m.Voter says so; or tells the addresses of a member.
func (r *Replica) AddMember(ctx context.Context, m engine.Member) error {
	rec := &pb.Node{Id: m.ID, Peer: m.Peer, Serve: m.Serve, Version: m.Version, Command: m.Command, Vote: m.Voter}
	if err := checkRecord(rec); err != nil {
		return err
	}
	return r.change(ctx, func(ctx context.Context, n *node) error {
		v, err := r.Peek()
		if err != nil {
			return err
		}
		used, err := v.Version()
		v.Close()
		if err != nil {
			return err
		}
		if m.Command < used {
			return fmt.Errorf("node %s runs lakefsfs %s, which can't apply what the cluster uses (commands of version %d); upgrade it first: %w",
				m.ID, orWord(m.Version, "of an unknown version"), used, graveler.Invalid)
		}
		suffrage := raft.Nonvoter
		for _, s := range n.servers() {
			if string(s.ID) == m.ID {
				suffrage = s.Suffrage
			} else if string(s.Address) == m.Peer {
				return fmt.Errorf("node %s is at %s; remove it first if it is gone: %w", s.ID, m.Peer, graveler.Exists)
			}
		}
		rec.Vote = rec.Vote || suffrage == raft.Voter
		// The record first: who promotes looks at it.
		if err := n.record(ctx, rec); err != nil {
			return err
		}
		return n.place(ctx, raft.ServerID(m.ID), raft.ServerAddress(m.Peer), suffrage)
	})
}

// record stores a node's record, if it is another.
func (n *node) record(ctx context.Context, rec *pb.Node) error {
	v, err := n.r.Peek()
	if err != nil {
		return err
	}
	had, err := v.Node(rec.Id)
	v.Close()
	if err != nil {
		return err
	}
	if had != nil && proto.Equal(had, rec) {
		return nil
	}
	_, err = n.propose(ctx, &pb.Command{Op: &pb.Command_SetNode{SetNode: rec}})
	return err
}

// place puts a node into the configuration, if it isn't there like that.
func (n *node) place(ctx context.Context, id raft.ServerID, addr raft.ServerAddress, suffrage raft.ServerSuffrage) error {
	for _, s := range n.servers() {
		if s.ID == id && s.Address == addr && s.Suffrage == suffrage {
			return nil
		}
	}
	if suffrage == raft.Voter {
		return n.await(ctx, n.raft.AddVoter(id, addr, 0, changeTime))
	}
	return n.await(ctx, n.raft.AddNonvoter(id, addr, 0, changeTime))
}

// changeTime is how long a change of the configuration may wait for the one before.
const changeTime = 5 * time.Second

func (n *node) server(id string) (raft.Server, error) {
	for _, s := range n.servers() {
		if string(s.ID) == id {
			return s, nil
		}
	}
	return raft.Server{}, fmt.Errorf("node %q is no member of the cluster: %w", id, graveler.NotFound)
}

// Promote makes a non-voter that has caught up a voter.
func (r *Replica) Promote(ctx context.Context, id string) error {
	return r.change(ctx, func(ctx context.Context, n *node) error {
		s, err := n.server(id)
		if err != nil {
			return err
		}
		if s.Suffrage != raft.Voter && !n.caughtUp(s.ID) {
			return fmt.Errorf("node %s has not caught up yet; try again: %w", id, graveler.Conflict)
		}
		v, err := r.Peek()
		if err != nil {
			return err
		}
		rec, err := v.Node(id)
		v.Close()
		if err != nil {
			return err
		}
		if rec != nil && !rec.Vote {
			rec.Vote = true
			if err := n.record(ctx, rec); err != nil {
				return err
			}
		}
		return n.place(ctx, s.ID, s.Address, raft.Voter)
	})
}

// RemoveMember removes a node. Invalid if what remains could not go on without it.
func (r *Replica) RemoveMember(ctx context.Context, id string) error {
	return r.change(ctx, func(ctx context.Context, n *node) error {
		s, err := n.server(id)
		if err != nil {
			return err
		}
		if err := n.canLose(ctx, s.ID); err != nil {
			return err
		}
		return n.remove(ctx, s.ID)
	})
}

func (n *node) remove(ctx context.Context, id raft.ServerID) error {
	// The record first: it can't be done any more by a leader that removes itself.
	if _, err := n.propose(ctx, &pb.Command{Op: &pb.Command_ForgetNode{ForgetNode: string(id)}}); err != nil {
		return err
	}
	return n.await(ctx, n.raft.RemoveServer(id, 0, changeTime))
}

// canLose refuses a removal after which the voters that are alive, as they are asked now, would be no majority.
func (n *node) canLose(ctx context.Context, id raft.ServerID) error {
	ctx, cancel := context.WithTimeout(ctx, 4*n.cfg.Heartbeat)
	defer cancel()
	voters := 0
	var alive atomic.Int64
	var all sync.WaitGroup
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter || s.ID == id {
			continue
		}
		voters++
		if s.ID == n.id {
			alive.Add(1)
			continue
		}
		all.Go(func() {
			c := &peerConn{n: n, id: s.ID}
			defer c.close()
			if _, err := c.call(ctx, &pb.PeerRequest{Ask: &pb.PeerRequest_Status{Status: true}}); err == nil {
				alive.Add(1)
			}
		})
	}
	all.Wait()
	if int(alive.Load()) < voters/2+1 {
		return fmt.Errorf("without node %s there would be %d voters, of which %d answer: the cluster could not go on: %w", id, voters, alive.Load(), graveler.Invalid)
	}
	return nil
}

// TransferLeadership hands the lead to a voter, or with "" to the one that is furthest.
func (r *Replica) TransferLeadership(ctx context.Context, id string) error {
	return r.change(ctx, func(ctx context.Context, n *node) error {
		if id == "" {
			others := false
			for _, s := range n.servers() {
				others = others || s.ID != n.id && s.Suffrage == raft.Voter
			}
			if !others {
				return fmt.Errorf("there is no other voter that could lead: %w", graveler.Invalid)
			}
			return n.handOver(ctx, n.raft.LeadershipTransfer())
		}
		s, err := n.server(id)
		if err != nil {
			return err
		}
		switch {
		case s.ID == n.id:
			return nil
		case s.Suffrage != raft.Voter:
			return fmt.Errorf("node %s is no voter: %w", id, graveler.Invalid)
		case !n.alive(s.ID, 4*n.cfg.Heartbeat):
			return fmt.Errorf("node %s doesn't answer: %w", id, graveler.Unavailable)
		}
		return n.handOver(ctx, n.raft.LeadershipTransferToServer(s.ID, s.Address))
	})
}

// handOver waits until the lead is another's.
func (n *node) handOver(ctx context.Context, f raft.Future) error {
	ch := make(chan error, 1)
	go func() { ch <- f.Error() }()
	select {
	case err := <-ch:
		if err != nil {
			return fmt.Errorf("hand the lead over: %v: %w", err, graveler.Unavailable)
		}
		return nil
	case <-ctx.Done():
		if context.Cause(ctx) == errLeadMoved {
			return nil
		}
		return ctx.Err()
	}
}
