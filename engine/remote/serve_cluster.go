package remote

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

type sessions struct {
	pb.UnimplementedSessionsServer
	*server
}

func (s sessions) OpenSession(ctx context.Context, r *pb.OpenSessionRequest) (*pb.OpenSessionResponse, error) {
	if r.GetUnlessAlone() {
		c, ok := s.eng.(engine.Cluster)
		if !ok {
			return &pb.OpenSessionResponse{}, nil
		}
		ms, err := c.Members(ctx)
		if err != nil {
			return nil, Status(err)
		}
		if len(ms) < 2 {
			return &pb.OpenSessionResponse{}, nil
		}
	}
	id, err := s.eng.OpenSession(ctx)
	if err == nil && id == 0 {
		err = fmt.Errorf("the engine opened session 0: %w", graveler.Internal)
	}
	return &pb.OpenSessionResponse{Session: uint64(id)}, Status(err)
}

type cluster struct {
	pb.UnimplementedClusterServer
	*server
}

func (s cluster) engine() (engine.Cluster, error) {
	if c, ok := s.eng.(engine.Cluster); ok {
		return c, nil
	}
	return nil, Status(fmt.Errorf("this server is of no cluster: %w", graveler.Invalid))
}

func memberPB(m engine.Member) *pb.Member {
	p := &pb.Member{
		Id: name(m.ID), Peer: name(m.Peer), Serve: name(m.Serve), Version: name(m.Version), Command: m.Command, Voter: m.Voter, Leader: m.Leader, Self: m.Self,
		Applied: m.Applied,
	}
	if m.Contact >= 0 {
		p.Contact = durationpb.New(m.Contact)
	}
	return p
}

func memberOf(p *pb.Member) engine.Member {
	m := engine.Member{
		ID: p.GetId(), Peer: p.GetPeer(), Serve: p.GetServe(), Version: p.GetVersion(), Command: p.GetCommand(), Voter: p.GetVoter(), Leader: p.GetLeader(),
		Self: p.GetSelf(), Applied: p.GetApplied(), Contact: -time.Nanosecond,
	}
	if p.GetContact() != nil {
		m.Contact = max(p.GetContact().AsDuration(), 0)
	}
	return m
}

func (s cluster) Members(ctx context.Context, _ *pb.MembersRequest) (*pb.MembersResponse, error) {
	e, err := s.engine()
	if err != nil {
		return nil, err
	}
	ms, err := e.Members(ctx)
	p := &pb.MembersResponse{}
	for _, m := range ms {
		p.Members = append(p.Members, memberPB(m))
	}
	return p, Status(err)
}

func (s cluster) AddMember(ctx context.Context, r *pb.AddMemberRequest) (*pb.AddMemberResponse, error) {
	e, err := s.engine()
	if err != nil {
		return nil, err
	}
	var c checker
	m := memberOf(r.GetMember())
	for what, s := range map[string]string{"id": m.ID, "peer address": m.Peer, "serve address": m.Serve, "version": m.Version} {
		c.name(what, s)
	}
	if m.ID == "" || m.Peer == "" {
		c.bad("a member has an id and an address for its peers")
	}
	if c.err != nil {
		return nil, Status(c.err)
	}
	return &pb.AddMemberResponse{}, Status(e.AddMember(ctx, m))
}

func (s cluster) Promote(ctx context.Context, r *pb.PromoteRequest) (*pb.PromoteResponse, error) {
	e, err := s.engine()
	if err != nil {
		return nil, err
	}
	return &pb.PromoteResponse{}, Status(e.Promote(ctx, r.GetId()))
}

func (s cluster) RemoveMember(ctx context.Context, r *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	e, err := s.engine()
	if err != nil {
		return nil, err
	}
	return &pb.RemoveMemberResponse{}, Status(e.RemoveMember(ctx, r.GetId()))
}

func (s cluster) TransferLeadership(ctx context.Context, r *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	e, err := s.engine()
	if err != nil {
		return nil, err
	}
	return &pb.TransferLeadershipResponse{}, Status(e.TransferLeadership(ctx, r.GetId()))
}

func (s cluster) Snapshot(ctx context.Context, _ *pb.SnapshotRequest) (*pb.SnapshotResponse, error) {
	e, err := s.engine()
	if err != nil {
		return nil, err
	}
	i, err := e.Snapshot(ctx)
	return &pb.SnapshotResponse{Url: name(i.URL), Index: i.Index, Taken: timePB(i.Taken), Tables: int64(i.Tables), Uploaded: i.Uploaded, Bytes: i.Bytes}, Status(err)
}
