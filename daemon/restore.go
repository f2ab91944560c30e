package daemon

import (
	"context"

	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/object"
)

// Restored tells what Restore made.
type Restored = local.Restored

// StoredSnapshot is a snapshot of a cluster's metadata on an object store.
type StoredSnapshot = local.StoredSnapshot

// Snapshots lists the snapshots at a storage URL.
func Snapshots(ctx context.Context, url string) ([]StoredSnapshot, error) {
	st, err := object.Open(ctx, url, object.Options{})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	return local.ListSnapshots(ctx, st)
}

// Restore makes a data directory for the first node of a new cluster from a snapshot at a storage URL: the one with the given id, or
// with "" the newest.
func Restore(ctx context.Context, url, id, data string) (Restored, error) {
	st, err := object.Open(ctx, url, object.Options{})
	if err != nil {
		return Restored{}, err
	}
	defer st.Close()
	r, err := local.Restore(ctx, st, metadataDir(data), local.RestoreOptions{Snapshot: id})
	if err != nil {
		return r, err
	}
	return r, AllowBootstrap(data)
}
