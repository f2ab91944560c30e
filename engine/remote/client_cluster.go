package remote

import (
	"context"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
)

// Changes of the members can be asked for again: they then change nothing, or say so.
var (
	mOpenSession  = method{pb.Sessions_OpenSession_FullMethodName, reads, short}
	mMembers      = method{pb.Cluster_Members_FullMethodName, reads, short}
	mAddMember    = method{pb.Cluster_AddMember_FullMethodName, reads, short}
	mPromote      = method{pb.Cluster_Promote_FullMethodName, reads, short}
	mRemoveMember = method{pb.Cluster_RemoveMember_FullMethodName, once, short}
	mTransfer     = method{pb.Cluster_TransferLeadership_FullMethodName, once, short}
	mSnapshot     = method{pb.Cluster_Snapshot_FullMethodName, reads, days}
)

// OpenSession is engine.Engine's. The client opens sessions for its own changes by itself.
func (c *Client) OpenSession(ctx context.Context) (engine.SessionID, error) {
	p, err := unary[pb.OpenSessionResponse](ctx, c, mOpenSession, &pb.OpenSessionRequest{})
	return engine.SessionID(p.GetSession()), err
}

// Members is engine.Cluster's: as a node near by sees it.
func (c *Client) Members(ctx context.Context) ([]engine.Member, error) {
	p, err := anyNode[pb.MembersResponse](ctx, c, mMembers, &pb.MembersRequest{})
	if err != nil {
		return nil, err
	}
	return convert(p.GetMembers(), memberOf), nil
}

// AddMember is engine.Cluster's.
func (c *Client) AddMember(ctx context.Context, m engine.Member) error {
	_, err := unary[pb.AddMemberResponse](ctx, c, mAddMember, &pb.AddMemberRequest{Member: memberPB(m)})
	return err
}

// Promote is engine.Cluster's.
func (c *Client) Promote(ctx context.Context, id string) error {
	_, err := unary[pb.PromoteResponse](ctx, c, mPromote, &pb.PromoteRequest{Id: name(id)})
	return err
}

// RemoveMember is engine.Cluster's.
func (c *Client) RemoveMember(ctx context.Context, id string) error {
	_, err := unary[pb.RemoveMemberResponse](ctx, c, mRemoveMember, &pb.RemoveMemberRequest{Id: name(id)})
	return err
}

// TransferLeadership is engine.Cluster's.
func (c *Client) TransferLeadership(ctx context.Context, id string) error {
	_, err := unary[pb.TransferLeadershipResponse](ctx, c, mTransfer, &pb.TransferLeadershipRequest{Id: name(id)})
	return err
}

// Snapshot is engine.Cluster's.
func (c *Client) Snapshot(ctx context.Context) (engine.SnapshotInfo, error) {
	p, err := unary[pb.SnapshotResponse](ctx, c, mSnapshot, &pb.SnapshotRequest{})
	return engine.SnapshotInfo{
		URL: p.GetUrl(), Index: p.GetIndex(), Taken: timeOf(p.GetTaken()), Tables: int(p.GetTables()), Uploaded: p.GetUploaded(), Bytes: p.GetBytes(),
	}, err
}
