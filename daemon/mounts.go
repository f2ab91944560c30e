package daemon

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/engine/remote"
)

// MountRequest asks for a mount.
type MountRequest MountConfig

// MountInfo is one mount.
type MountInfo struct {
	Place    string `json:"place"`
	Dir      string `json:"dir"`
	ReadOnly bool   `json:"read_only"`
}

// State tells how a daemon stands.
type State struct {
	Data    string              `json:"data"`
	PID     int                 `json:"pid"`
	Version string              `json:"version"`
	Replica local.ReplicaStatus `json:"replica"`
	Mounts  []MountInfo         `json:"mounts"`
	Exports []ExportInfo        `json:"exports"`
}

func mountPB(m MountInfo) *pb.MountInfo {
	return &pb.MountInfo{Place: []byte(m.Place), Dir: []byte(m.Dir), ReadOnly: m.ReadOnly}
}

func mountOf(m *pb.MountInfo) MountInfo {
	return MountInfo{Place: string(m.GetPlace()), Dir: string(m.GetDir()), ReadOnly: m.GetReadOnly()}
}

// mounts serves what a daemon shows on its machine.
type mounts struct {
	pb.UnimplementedMountsServer
	d *Daemon
}

func (s mounts) Mount(ctx context.Context, r *pb.MountRequest) (*pb.MountResponse, error) {
	// A mount outlives the request that asked for it.
	m, err := s.d.Mount(context.WithoutCancel(ctx), MountRequest{
		Place: string(r.GetPlace()), Dir: string(r.GetDir()), ReadOnly: r.GetReadOnly(), AllowOther: r.GetAllowOther(), SyncOnClose: r.GetSyncOnClose(),
	})
	return &pb.MountResponse{Mount: mountPB(m)}, remote.Status(err)
}

func (s mounts) Unmount(_ context.Context, r *pb.UnmountRequest) (*pb.UnmountResponse, error) {
	return &pb.UnmountResponse{}, remote.Status(s.d.Unmount(string(r.GetDir())))
}

func (s mounts) State(context.Context, *pb.StateRequest) (*pb.StateResponse, error) {
	st := s.d.State()
	p := &pb.StateResponse{Data: []byte(st.Data), Pid: int64(st.PID), Version: st.Version, Replica: &pb.ReplicaState{
		Node: st.Replica.Node, Leader: st.Replica.Leader, State: st.Replica.State, Applied: st.Replica.Applied, LastLog: st.Replica.LastLog, Term: st.Replica.Term,
	}}
	for _, m := range st.Mounts {
		p.Mounts = append(p.Mounts, mountPB(m))
	}
	for _, e := range st.Exports {
		p.Exports = append(p.Exports, &pb.ExportInfo{Path: []byte(e.Path), ReadOnly: e.ReadOnly, Address: e.Address})
	}
	return p, nil
}

func (d *Daemon) registerMounts(g grpc.ServiceRegistrar) { pb.RegisterMountsServer(g, mounts{d: d}) }

// Client asks a daemon about its mounts.
type Client struct{ *remote.Client }

// Mount mounts a place.
func (c Client) Mount(ctx context.Context, r MountRequest) (MountInfo, error) {
	p, err := remote.Call[pb.MountResponse](ctx, c.Client, pb.Mounts_Mount_FullMethodName, &pb.MountRequest{
		Place: []byte(r.Place), Dir: []byte(r.Dir), ReadOnly: r.ReadOnly, AllowOther: r.AllowOther, SyncOnClose: r.SyncOnClose,
	})
	return mountOf(p.GetMount()), err
}

// Unmount unmounts a directory.
func (c Client) Unmount(ctx context.Context, dir string) error {
	_, err := remote.Call[pb.UnmountResponse](ctx, c.Client, pb.Mounts_Unmount_FullMethodName, &pb.UnmountRequest{Dir: []byte(dir)})
	return err
}

// State tells how the daemon stands.
func (c Client) State(ctx context.Context) (State, error) {
	p, err := remote.Call[pb.StateResponse](ctx, c.Client, pb.Mounts_State_FullMethodName, &pb.StateRequest{})
	if err != nil {
		return State{}, err
	}
	r := p.GetReplica()
	s := State{Data: string(p.GetData()), PID: int(p.GetPid()), Version: p.GetVersion(), Replica: local.ReplicaStatus{
		Node: r.GetNode(), Leader: r.GetLeader(), State: r.GetState(), Applied: r.GetApplied(), LastLog: r.GetLastLog(), Term: r.GetTerm(),
	}}
	for _, m := range p.GetMounts() {
		s.Mounts = append(s.Mounts, mountOf(m))
	}
	s.Exports = []ExportInfo{}
	for _, e := range p.GetExports() {
		s.Exports = append(s.Exports, ExportInfo{Path: string(e.GetPath()), ReadOnly: e.GetReadOnly(), Address: e.GetAddress()})
	}
	return s, nil
}
