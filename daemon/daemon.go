// Package daemon turns the key: it joins object stores, cache, spill files, engine, trees, mounts and exports into one running service,
// by one configuration, and takes it down in the reverse order.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/remote"
	"github.com/lakefsfs/lakefsfs/fs"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// Daemon is a running service.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	cache   *cache.Cache
	meta    metadata
	rpc     *remote.Server  // on the socket
	tcp     *remote.Server  // for other machines; nil if they aren't let in
	ctx     context.Context // ends when the daemon closes
	stop    context.CancelFunc
	work    sync.WaitGroup
	http    *http.Server
	lis     net.Listener
	locks   *vfs.Locks
	ballast *ballast
	nfs     *nfs.Server
	nfsAddr string
	closed  bool

	mu     sync.Mutex
	mounts map[string]*mount
}

type mount struct {
	info MountInfo
	m    *fs.Mount
}

// New starts a daemon. Everything that it began is taken down again if a step fails.
func New(ctx context.Context, cfg Config, log *slog.Logger) (_ *Daemon, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Daemon{cfg: cfg, log: log, locks: new(vfs.Locks), mounts: map[string]*mount{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		st, err := object.Open(ctx, ns, object.Options{LocalRoot: cfg.LocalRoot, Timeout: cfg.Store.Timeout, RetryFor: max(cfg.Store.Retry, 1)})
		if err != nil {
			return nil, err
		}
		return cache.New(st, d.cache), nil
	}
	// The replica's lock on the metadata directory comes first in what can tell that the data directory is in use; the cache
	// would only do without its disk then.
	if err := d.checkFree(); err != nil {
		return nil, err
	}
	copt := cache.Options{MemoryBytes: cfg.Cache.Memory, DiskBytes: cfg.Cache.Disk, ReadAhead: cfg.Cache.ReadAhead, Logger: log}
	if cfg.Cache.Disk > 0 {
		if copt.Dir = cfg.Cache.Dir; copt.Dir == "" {
			copt.Dir = filepath.Join(cfg.Data, "cache")
		}
	}
	if d.cache, err = cache.NewCache(copt); err != nil {
		return nil, err
	}
	d.ballast = newBallast(cfg.Data, log)
	if err := d.openMetadata(ctx, objects); err != nil {
		return nil, err
	}
	if err := d.serve(); err != nil {
		return nil, err
	}
	d.boundMemory()
	if err := d.listen(); err != nil {
		return nil, err
	}
	if cfg.Cluster.Join != "" {
		d.work.Go(func() { d.join(d.ctx) })
	}
	for _, m := range cfg.Mounts {
		if _, err := d.Mount(ctx, MountRequest(m)); err != nil {
			return nil, err
		}
	}
	if err := d.serveNFS(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// checkFree says in words that another daemon has the data directory.
func (d *Daemon) checkFree() error {
	path := strings.TrimPrefix(d.cfg.Socket(), "unix://")
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return nil
	}
	c.Close()
	return fmt.Errorf("a lakefsfs daemon with the data directory %s is running already; use it, or choose another directory with --data: %w", d.cfg.Data, graveler.Unavailable)
}

func (d *Daemon) listen() error {
	path := strings.TrimPrefix(d.cfg.Socket(), "unix://")
	// The metadata is locked by this process, so a socket that is there is a dead one's.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("old socket: %w", err)
	}
	var err error
	if d.lis, err = net.Listen("unix", path); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	rpc, plain := split(d.lis)
	d.rpc = remote.NewServer(remote.ServerOptions{})
	if d.meta.peers != nil {
		remote.Register(d.rpc, struct {
			engine.Engine
			engine.Cluster
		}{d.meta.front, d.meta.peers})
	} else {
		remote.Register(d.rpc, d.meta.front)
	}
	d.registerMounts(d.rpc)
	go d.rpc.Serve(rpc)
	// Where the time and the memory go, for curl --unix-socket and go tool pprof.
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	d.http = &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)}
	go d.http.Serve(plain)
	return nil
}

// Mount mounts a place.
func (d *Daemon) Mount(ctx context.Context, r MountRequest) (MountInfo, error) {
	var place graveler.Place
	var err error
	if r.Place != "" {
		if place, err = graveler.ParsePlace(r.Place); err != nil {
			return MountInfo{}, err
		}
	}
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return MountInfo{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return MountInfo{}, fmt.Errorf("the daemon is stopping: %w", graveler.Unavailable)
	}
	tree, err := vfs.New(ctx, vfs.Config{
		Engine: d.meta.front, Spill: d.meta.spill, Elsewhere: d.meta.far, Keep: d.meta.keep,
		Control: control.New(d.meta.front), Locks: d.locks, Place: place, ReadOnly: r.ReadOnly, SyncOnClose: r.SyncOnClose,
		ReadAhead: min(d.cfg.Cache.ReadAhead, d.cfg.Cache.Memory/8), NodeMemory: d.cfg.Cache.Nodes,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Logger: d.log,
	})
	if err != nil {
		return MountInfo{}, err
	}
	source := "lakefsfs"
	if r.Place != "" {
		source = r.Place
	}
	m, err := fs.New(tree, fs.Options{Dir: dir, ReadOnly: r.ReadOnly, AllowOther: r.AllowOther, Data: d.cfg.Data, Source: source, Logger: d.log})
	if err != nil {
		return MountInfo{}, err
	}
	info := MountInfo{Place: r.Place, Dir: m.Dir(), ReadOnly: r.ReadOnly}
	d.mounts[m.Dir()] = &mount{info, m}
	d.boundMemory()
	d.log.Info("mounted", "place", info.Place, "dir", info.Dir)
	go func() {
		<-m.Done()
		d.mu.Lock()
		if have := d.mounts[m.Dir()]; have != nil && have.m == m {
			delete(d.mounts, m.Dir())
		}
		d.boundMemory()
		d.mu.Unlock()
	}()
	return info, nil
}

// Unmount unmounts a directory.
func (d *Daemon) Unmount(dir string) error {
	d.mu.Lock()
	m := d.mounts[dir]
	delete(d.mounts, dir)
	d.mu.Unlock()
	if m == nil {
		return fmt.Errorf("nothing of this daemon is mounted at %s: %w", dir, graveler.NotFound)
	}
	return m.m.Unmount()
}

// Mounts lists what is mounted.
func (d *Daemon) Mounts() []MountInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []MountInfo
	for _, m := range d.mounts {
		out = append(out, m.info)
	}
	return out
}

// Close takes the daemon down: mounts and exports first, so that all that is open is closed, then the engine, which keeps what it can't
// upload in time for the next start. Nothing that was acknowledged is lost.
func (d *Daemon) Close() error {
	var errs []error
	d.mu.Lock()
	d.closed = true
	mounts := d.mounts
	d.mounts = map[string]*mount{}
	d.mu.Unlock()
	for _, m := range mounts {
		if err := m.m.Unmount(); err != nil {
			d.log.Warn("unmount", "err", err)
		}
	}
	if d.nfs != nil {
		errs = append(errs, d.nfs.Close())
	}
	d.stop()
	d.work.Wait()
	if d.rpc != nil {
		d.rpc.Shutdown(10 * time.Second)
		d.http.Close()
	}
	if d.tcp != nil {
		d.tcp.Shutdown(10 * time.Second)
	}
	for _, end := range slices.Backward(d.meta.close) {
		errs = append(errs, end())
	}
	if d.ballast != nil {
		d.ballast.close()
	}
	if d.cache != nil {
		errs = append(errs, d.cache.Close())
	}
	return errors.Join(errs...)
}
