package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// snapshotEvery is how often a snapshot is taken if nothing else is said.
const snapshotEvery = 10 * time.Minute

// snapshots takes snapshots of the metadata.
type snapshots struct {
	to   *replica.Snapshots // nil without a place for them
	stop func()             // nil if none are taken by themselves
}

// Snapshot stores the metadata on the object store that snapshots go to, now. In a cluster only the leader does.
func (e *Engine) Snapshot(ctx context.Context) (engine.SnapshotInfo, error) {
	if e.snaps.to == nil {
		return engine.SnapshotInfo{}, fmt.Errorf("no place for snapshots is known; set cluster.snapshots to the URL of one: %w", graveler.Invalid)
	}
	return e.snaps.to.Take(ctx)
}

// startSnapshots begins to take snapshots as it is configured.
func (e *Engine) startSnapshots() {
	st := e.cfg.Snapshots
	if st == nil {
		return
	}
	e.snaps.to = e.rep.Snapshots(st, storeURL(st), e.cfg.Version)
	every := e.cfg.SnapshotEvery
	if every == 0 {
		every = snapshotEvery
	}
	if every < 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	e.snaps.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			info, err := e.Snapshot(ctx)
			var other *engine.NotLeader
			switch {
			case ctx.Err() != nil, errors.As(err, &other):
			case err != nil:
				e.log.Error("no snapshot of the metadata", "err", err)
			case info.Uploaded > 0:
				e.log.Info("snapshot of the metadata", "url", info.URL, "uploaded", info.Uploaded, "bytes", info.Bytes)
			}
		}
	}()
}

func (e *Engine) endSnapshots() {
	if e.snaps.stop != nil {
		e.snaps.stop()
	}
}

func storeURL(st object.Store) string {
	if n, ok := st.(object.Named); ok {
		return n.URL()
	}
	return "the object store"
}

// StoredSnapshot is a snapshot on an object store.
type StoredSnapshot = replica.Stored

// ListSnapshots lists the snapshots of metadata on a store: those of one cluster together, oldest first.
func ListSnapshots(ctx context.Context, st object.Store) ([]StoredSnapshot, error) {
	return replica.ListSnapshots(ctx, st)
}

// Restored tells what Restore made.
type Restored struct {
	Snapshot engine.SnapshotInfo
	ID       string // of the snapshot, see RestoreOptions
	Cluster  string // name of the new cluster
	Of       string // name of the cluster whose metadata it is
	Version  string // of the program that took the snapshot
	// Pending are the files whose bytes were on the disk of one machine only. Machines that are alive store them when they come back.
	Pending []LostContent
}

// LostContent is a content whose bytes one machine has, and where it is staged.
type LostContent = replica.LostContent

// Missing says in one line what a restored cluster could lack.
func (r *Restored) Missing() string {
	s := fmt.Sprintf("everything after %s (change %d) is missing", r.Snapshot.Taken.UTC().Format("2006-01-02 15:04:05 UTC"), r.Snapshot.Index)
	if len(r.Pending) == 0 {
		return s + "; the bytes of all files that were staged then are on the object store"
	}
	of := map[string]int{}
	for _, p := range r.Pending {
		name := string(p.Holder)
		if name == "" {
			name = "the machine that led"
		}
		of[name]++
	}
	var names []string
	for n := range of {
		names = append(names, fmt.Sprintf("%s (%d)", n, of[n]))
	}
	slices.Sort(names)
	return fmt.Sprintf("%s; the bytes of %d staged files were on these machines' disks only, and come when they do: %s", s, len(r.Pending), strings.Join(names, ", "))
}

// RestoreOptions of Restore.
type RestoreOptions struct {
	Snapshot string // id of the one to take, as ListSnapshots gives it; "" is the newest
}

// Restore makes the metadata directory dir, which must be empty or not there, of a snapshot on a store. It is that of a daemon alone, whose
// cluster has a name of its own, so that nodes of the one that was lost can't take part in it; it can become the first node of a new one.
// NotFound or Corrupt, naming it, if something of the snapshot is not as it was stored: then nothing is made. Another snapshot is taken
// only when it is asked for.
func Restore(ctx context.Context, st object.Store, dir string, opt RestoreOptions) (Restored, error) {
	r, err := replica.Restore(ctx, st, storeURL(st), dir, opt.Snapshot)
	return Restored{Snapshot: r.Snapshot, ID: r.ID, Cluster: r.Cluster, Of: r.Of, Version: r.Program, Pending: r.Pending}, err
}

// Joined reports whether this engine is a member of its cluster, as far as it knows; without a cluster it is.
func (e *Engine) Joined() bool { return e.rep.Joined() }

// seed makes an empty directory of a node that is to join a cluster begin with the newest snapshot. Without one it begins with nothing.
func seed(ctx context.Context, cfg *Config) error {
	if cfg.Cluster == nil || cfg.Cluster.Bootstrap || cfg.Snapshots == nil {
		return nil
	}
	info, err := replica.Seed(ctx, cfg.Snapshots, storeURL(cfg.Snapshots), cfg.Dir)
	switch {
	case err == nil:
		cfg.Logger.Info("this node begins with a snapshot of the cluster's metadata", "url", info.URL, "change", info.Index, "taken", info.Taken)
	case errors.Is(err, graveler.NotEmpty):
	case ctx.Err() != nil:
		return err
	case errors.Is(err, graveler.NotFound):
		cfg.Logger.Info("this node begins without a snapshot; the leader sends it all", "why", err)
	default:
		cfg.Logger.Warn("this node begins without a snapshot; the leader sends it all", "err", err)
	}
	return nil
}
