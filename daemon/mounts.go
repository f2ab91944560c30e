package daemon

import (
	"context"
	"net/http"

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

type nothing struct{ X bool }

type dirRequest struct{ Dir string }

func (d *Daemon) registerMounts(mux *http.ServeMux) {
	// A mount outlives the request that asked for it.
	remote.Handle(mux, "mounts/Mount", func(ctx context.Context, r MountRequest) (MountInfo, error) {
		return d.Mount(context.WithoutCancel(ctx), r)
	})
	remote.Handle(mux, "mounts/Unmount", func(ctx context.Context, r dirRequest) (nothing, error) {
		return nothing{}, d.Unmount(r.Dir)
	})
	remote.Handle(mux, "mounts/State", func(ctx context.Context, _ nothing) (State, error) { return d.State(), nil })
}

// Client asks a daemon about its mounts.
type Client struct{ *remote.Client }

// Mount mounts a place.
func (c Client) Mount(ctx context.Context, r MountRequest) (MountInfo, error) {
	return remote.Call[MountInfo](ctx, c.Client, "mounts/Mount", r)
}

// Unmount unmounts a directory.
func (c Client) Unmount(ctx context.Context, dir string) error {
	_, err := remote.Call[nothing](ctx, c.Client, "mounts/Unmount", dirRequest{dir})
	return err
}

// State tells how the daemon stands.
func (c Client) State(ctx context.Context) (State, error) {
	return remote.Call[State](ctx, c.Client, "mounts/State", nothing{})
}
