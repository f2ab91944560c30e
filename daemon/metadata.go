package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/edge"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/engine/remote"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// Where the metadata is decides what the mounts and the command line of this machine ask:
//
//	alone            the local engine
//	a node           an edge before a client of all nodes: this node leads only sometimes
//	a client         an edge before a client of the servers that engine.address names
type metadata struct {
	own   *local.Engine                                          // that this daemon keeps; nil for a client
	front engine.Engine                                          // that is asked
	spill *spill.Store                                           // where front's pending bytes are
	peers engine.Cluster                                         // the nodes, where front is before them
	far   bool                                                   // others change branches through other machines
	keep  func(ctx context.Context, id graveler.ContentID) error // see vfs.Config
	close []func() error
}

// opener opens the object store of a namespace.
type opener func(ctx context.Context, namespace string) (object.Store, error)

func (d *Daemon) openMetadata(ctx context.Context, objects opener) error {
	if d.cfg.Engine.Address == "" {
		if err := d.openOwn(ctx, objects); err != nil {
			return err
		}
	}
	if d.cfg.Engine.Address == "" && d.cfg.Cluster.Listen == "" {
		d.meta.front = d.meta.own
		return nil
	}
	return d.openEdge(objects)
}

// openOwn opens the metadata that this daemon keeps.
func (d *Daemon) openOwn(ctx context.Context, objects opener) (err error) {
	cfg := &d.cfg
	m := &d.meta
	m.spill, err = spill.Open(filepath.Join(cfg.Data, "spill"), spill.Options{Ahead: 16, Logger: d.log, OpenBase: objects})
	if err != nil {
		return err
	}
	m.close = append(m.close, closes(m.spill))
	namespace := cfg.Namespace
	if namespace == "" {
		namespace = "file://" + filepath.Join(cfg.Data, "objects")
	}
	c := local.Config{
		OnFull: d.ballast.drop,
		Dir:    metadataDir(cfg.Data), Objects: objects, Spill: m.spill, DefaultNamespace: namespace, SyncEvery: cfg.Sync.Every, Logger: d.log,
		Tables: func(ns string) committed.TableCache { return d.cache.Tables(ns) },
	}
	if cfg.Cluster.Listen != "" {
		c.Cluster = d.clusterConfig()
	}
	if cfg.Cluster.Snapshots != "" {
		st, err := object.Open(ctx, cfg.Cluster.Snapshots, object.Options{Timeout: cfg.Store.Timeout, RetryFor: max(cfg.Store.Retry, 1)})
		if err != nil {
			return fmt.Errorf("cluster.snapshots: %w", err)
		}
		m.close = append(m.close, st.Close)
		c.Snapshots, c.SnapshotEvery, c.Version = st, cfg.Cluster.SnapshotEvery, Version
	}
	if m.own, err = local.Open(ctx, c); err != nil {
		return err
	}
	m.close = append(m.close, m.own.Close)
	if cfg.Cluster.Listen == "" {
		return nil
	}
	return bootstrapped(cfg.Data)
}

// clusterConfig is this node's part of a cluster.
func (d *Daemon) clusterConfig() *local.ClusterConfig {
	cfg := &d.cfg.Cluster
	c := &local.ClusterConfig{
		Listen: cfg.Listen, Advertise: cfg.Advertise, Serve: d.cfg.Serve.address(), Version: Version,
		Bootstrap: cfg.Bootstrap || mayBootstrap(d.cfg.Data), Heartbeat: cfg.Heartbeat, RemoveDead: cfg.RemoveDead,
		Insecure: d.cfg.TLS.Insecure,
	}
	if d.cfg.TLS.Cert != "" {
		c.TLS = &local.TLSFiles{Cert: d.cfg.TLS.Cert, Key: d.cfg.TLS.Key, CA: d.cfg.TLS.CA}
	}
	return c
}

// openEdge opens what holds the bytes of this machine's mounts, and asks the servers.
func (d *Daemon) openEdge(objects opener) error {
	m := &d.meta
	addr := d.cfg.Engine.Address
	if addr == "" {
		addr = d.cfg.Serve.address() // and those that it tells of
	}
	name, lock, err := holder(d.cfg.Data)
	if err != nil {
		return err
	}
	m.close = append(m.close, lock.Close)
	opt, err := d.cfg.DialOptions()
	if err != nil {
		return err
	}
	client, err := remote.Dial(addr, opt)
	if err != nil {
		return err
	}
	held, err := spill.Open(filepath.Join(d.cfg.Data, "held"), spill.Options{Ahead: 16, Prefix: string(name) + "-", Logger: d.log, OpenBase: objects})
	if err != nil {
		client.Close()
		return err
	}
	m.close = append(m.close, closes(held))
	e, err := edge.New(edge.Config{
		Engine: client, Holder: name, Spill: held, Objects: d.reach(objects), Logger: d.log,
		Tables: func(ns string) committed.TableCache { return d.cache.Tables(ns) },
	})
	if err != nil {
		client.Close()
		return err
	}
	m.close = append(m.close, e.Close)
	m.front, m.spill, m.peers, m.far = e, held, client, true
	if d.cfg.Sync.Upload {
		m.keep = e.Keep
	}
	return nil
}

func closes(s *spill.Store) func() error {
	return func() error { s.Close(); return nil }
}

// reach opens a namespace from a machine without metadata, as engine.objects says.
func (d *Daemon) reach(objects opener) func(ctx context.Context, ns string, through object.Store) (object.Store, error) {
	return func(ctx context.Context, ns string, through object.Store) (object.Store, error) {
		direct := d.cfg.Engine.Objects == "direct"
		if d.cfg.Engine.Objects == "auto" {
			direct = !strings.HasPrefix(ns, "file://") && !strings.HasPrefix(ns, "mem://") || d.meta.own != nil
		}
		if direct {
			return objects(ctx, ns)
		}
		return cache.New(through, d.cache), nil
	}
}

// join has a member of the cluster add this node, until it is one or ctx ends.
func (d *Daemon) join(ctx context.Context) {
	at := d.cfg.Cluster.Join
	opt, err := d.cfg.DialOptions()
	if err != nil {
		d.log.Error("join the cluster", "at", at, "err", err)
		return
	}
	client, err := remote.Dial(at, opt)
	if err != nil {
		d.log.Error("join the cluster", "at", at, "err", err)
		return
	}
	defer client.Close()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		var self engine.Member
		members, err := d.meta.own.Members(ctx)
		for _, m := range members {
			if m.Self {
				self = m
			}
		}
		if d.meta.own.Joined() {
			d.log.Info("this node is a member of the cluster", "node", self.ID)
			return
		}
		if err == nil {
			err = client.AddMember(ctx, self)
		}
		if err == nil {
			wait = 100 * time.Millisecond // until the leader has told this node
		}
		if ctx.Err() != nil {
			return
		}
		level := d.log.Warn
		if err == nil {
			level = d.log.Debug
		}
		if errors.Is(err, graveler.Invalid) || errors.Is(err, graveler.Denied) || errors.Is(err, graveler.Conflict) {
			level = d.log.Error
		}
		level("this node asks to join the cluster", "at", at, "err", fmt.Sprint(err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// replica tells how this daemon's own metadata stands; nothing of a client's.
func (m *metadata) replica() local.ReplicaStatus {
	if m.own == nil {
		return local.ReplicaStatus{}
	}
	return m.own.Replica()
}
