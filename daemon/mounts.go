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

// Status tells how a daemon stands.
type Status struct {
	Data    string              `json:"data"`
	PID     int                 `json:"pid"`
	Version string              `json:"version"`
	Replica local.ReplicaStatus `json:"replica"`
	Mounts  []MountInfo         `json:"mounts"`
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
	remote.Handle(mux, "mounts/Status", func(ctx context.Context, _ nothing) (Status, error) { return d.Status(), nil })
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

// Status tells how the daemon stands.
func (c Client) Status(ctx context.Context) (Status, error) {
	return remote.Call[Status](ctx, c.Client, "mounts/Status", nothing{})
}
