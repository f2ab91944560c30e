package engine

import (
	"context"
	"time"
)

// Cluster is the part of an engine that runs on several machines about those machines. Changes are made by the leader.
type Cluster interface {
	// Members lists all nodes, as the node that is asked sees them. An engine without peers has one member, itself.
	Members(ctx context.Context) ([]Member, error)
	// AddMember adds a node as a non-voter, or tells the address of one that is there already.
	AddMember(ctx context.Context, m Member) error
	// Promote makes a non-voter that has caught up a voter. Conflict if it has not: try again.
	Promote(ctx context.Context, id string) error
	// RemoveMember removes a node, dead or alive. Invalid if what remains could not go on without it.
	RemoveMember(ctx context.Context, id string) error
	// TransferLeadership hands the lead to a voter, or with "" to the one that is furthest.
	TransferLeadership(ctx context.Context, id string) error
	// Snapshot stores the state on the object store that snapshots go to, now.
	Snapshot(ctx context.Context) (SnapshotInfo, error)
}

// Member is one node of a cluster.
type Member struct {
	ID      string // of the node, the same as long as its data directory lives
	Peer    string // HOST:PORT that other nodes reach it at
	Serve   string // HOST:PORT that clients reach it at
	Version string // of the program
	Command uint32 // newest version of commands that it can apply
	Voter   bool
	Leader  bool
	Self    bool          // the node that is asked
	Applied uint64        // index of the last change that it has applied; 0 if not known
	Contact time.Duration // since the leader last heard of it; negative if never, or not known by who is asked
}

// SnapshotInfo tells of a snapshot on the object store.
type SnapshotInfo struct {
	URL      string
	Index    uint64 // of the last change in it
	Taken    time.Time
	Tables   int   // files that it consists of
	Uploaded int64 // bytes that were not there already
	Bytes    int64 // of all its files
}
