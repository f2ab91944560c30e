// Package local is the engine that keeps versions in this process: metadata in a replica, committed data and objects on an
// object store, bytes that are not yet objects in spill files.
//
// The files: engine.go opens and closes; repos.go, refs.go, entries.go, move.go and versions.go are the contract's groups;
// settle.go and holders.go turn spilled bytes into objects, those of this process and of other machines; merge.go has merges, reverts and picks; maintain.go has imports, garbage and checks.
package local

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/rs/xid"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/engine/internal/settle"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// Config of an Engine.
type Config struct {
	Dir string // of the metadata
	// Objects opens the object store of a storage namespace, for data and for tables.
	Objects func(ctx context.Context, namespace string) (object.Store, error)
	// Tables is the cache of a namespace's ranges and metaranges; nil for none.
	Tables func(namespace string) committed.TableCache
	Spill  *spill.Store
	// DefaultNamespace is the URL under which a repository made without a namespace gets its own; "" for none.
	DefaultNamespace string
	Committed        committed.Options
	SyncEvery        time.Duration // see replica.Config
	OnFull           func()        // see replica.Config
	Logger           *slog.Logger
	// Cluster makes the engine a node of a cluster; nil is one alone. Its OnLead is the engine's own.
	Cluster *ClusterConfig
	// Snapshots is where snapshots of the metadata go, nil for nowhere. It is not closed.
	Snapshots     object.Store
	SnapshotEvery time.Duration // 0 is ten minutes, negative only when Snapshot is called
	Version       string        // of the program, noted in snapshots
}

// ClusterConfig tells a node of a cluster how it is one.
type ClusterConfig = replica.ClusterConfig

// TLSFiles are the files that nodes of a cluster speak TLS with.
type TLSFiles = replica.TLSFiles

// Engine implements engine.Engine.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	rep     *replica.Replica
	spill   *spill.Store
	events  hub
	names   *names
	settler *settle.Settler
	holders holders
	opened  chan struct{} // closed when Open has ended
	leads   int           // how often this node has led; of OnLead
	snaps   snapshots

	mu     sync.Mutex
	spaces map[string]*space

	meant    sync.RWMutex
	meanings map[refKey]*meaning

	empties  sync.Map // repository → the object of no bytes is there
	branches sync.Map // branchID → *sync.RWMutex: held for writing by what rewrites a branch's staging, for reading by Stage
	commits  sync.Map // branchID → *sync.Mutex: one commit, merge or reset of a branch at a time
}

type branchID struct {
	repo   graveler.RepositoryID
	branch graveler.BranchID
}

// space is an opened storage namespace.
type space struct {
	url     string
	objects object.Store
	tables  *committed.Store
	settle  settle.Store
}

// TEMPvar _ engine.Engine = (*Engine)(nil)

// Open opens the engine. What was not settled when it was last closed or killed is taken up again.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tables == nil {
		cfg.Tables = func(string) committed.TableCache { return nil }
	}
	e := &Engine{cfg: cfg, log: cfg.Logger, spill: cfg.Spill, spaces: map[string]*space{}, opened: make(chan struct{})}
	rc := replica.Config{Dir: cfg.Dir, SyncEvery: cfg.SyncEvery, OnFull: cfg.OnFull, Logger: cfg.Logger, OnEvent: e.events.send}
	if err := seed(ctx, &cfg); err != nil {
		return nil, err
	}
	if cfg.Cluster != nil {
		c := *cfg.Cluster
		c.OnLead = e.onLead
		rc.Cluster = &c
	}
	var err error
	e.rep, err = replica.Open(rc)
	if err != nil {
		return nil, err
	}
	e.events.start(e.rep.Applied())
	e.names = &names{e: e}
	e.settler = settle.New(e.names, e.spill, e.log)
	if cfg.Cluster == nil {
		if err := e.recover(ctx); err != nil {
			e.settler.Close(ctx)
			return nil, errors.Join(err, e.rep.Close())
		}
	}
	e.settler.Start()
	cfg.Spill.SetReady(e.settler.Add)
	close(e.opened)
	e.startSnapshots()
	return e, nil
}

// recover brings spill files and staging together after a stop or a kill.
func (e *Engine) recover(ctx context.Context) error {
	v, err := e.rep.View()
	if err != nil {
		return err
	}
	defer v.Close()
	if err := e.dropBulks(ctx, v); err != nil {
		return err
	}
	if err := e.rep.ForgetSettled(ctx); err != nil {
		return err
	}
	return e.takeUp(v, true)
}

// dropBulks removes what was staged for operations that were not finished.
func (e *Engine) dropBulks(ctx context.Context, v *replica.View) error {
	bulks, err := v.Bulks()
	if err != nil {
		return err
	}
	for _, t := range bulks {
		if _, err := e.rep.DropToken(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// takeUp queues the contents that are to be settled. If nobody can be making any yet, those that no entry names go.
func (e *Engine) takeUp(v *replica.View, first bool) error {
	pending, err := v.PendingContents()
	if err != nil {
		return err
	}
	named := make(map[graveler.ContentID]bool, len(pending))
	for _, id := range pending {
		named[id] = true
	}
	ids, err := e.spill.IDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if named[id] {
			delete(named, id)
			e.settler.Add(id)
		} else if first {
			// Made, but its entry was never acknowledged; or settled, and not yet removed.
			e.spill.Drop(id)
		}
	}
	for id := range named {
		if engine.HolderOf(id) == "" {
			e.log.Error("the bytes of a staged file are missing from the spill directory; reads of it will fail", "content", id)
		}
	}
	return nil
}

// Close settles what it can within ctx's time, which may be none, and closes. What is not settled stays in its spill file.
func (e *Engine) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e.endSnapshots()
	e.spill.SetReady(nil)
	e.settler.Close(ctx)
	e.events.close()
	err := e.Sync(context.Background())
	err = errors.Join(err, e.rep.Close())
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.spaces {
		err = errors.Join(err, s.objects.Close())
	}
	return err
}

// Sync makes all that returned so far survive a power cut.
func (e *Engine) Sync(ctx context.Context) error {
	return e.rep.Sync(ctx)
}

// space opens a storage namespace once.
func (e *Engine) space(ctx context.Context, url string) (*space, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.spaces[url]; s != nil {
		return s, nil
	}
	st, err := e.cfg.Objects(context.WithoutCancel(ctx), url)
	if err != nil {
		return nil, err
	}
	opt := e.cfg.Committed
	opt.Tables = e.cfg.Tables(url)
	s := &space{url: url, objects: st, tables: committed.New(st, opt), settle: settle.Store{URL: url, Objects: st}}
	e.spaces[url] = s
	return s, nil
}

func (e *Engine) spaceOf(ctx context.Context, v *replica.View, repo graveler.RepositoryID) (*space, error) {
	r, err := v.Repository(repo)
	if err != nil {
		return nil, err
	}
	return e.space(ctx, r.StorageNamespace)
}

// Objects returns the data store of a repository, which also reads pending entries' bytes. Any node that knows the repository does.
func (e *Engine) Objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error) {
	st, err := e.objects(ctx, repo)
	if errors.Is(err, graveler.NotFound) && !e.rep.Alone() {
		if ctx, err = e.read(ctx); err == nil {
			return e.objects(ctx, repo)
		}
	}
	return st, err
}

func (e *Engine) objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	s, err := e.spaceOf(ctx, v, repo)
	if err != nil {
		return nil, err
	}
	return settle.WithPending(s.objects, &settle.Pending{Spill: e.spill, Secure: e.secure}), nil
}

func newToken() graveler.StagingToken { return graveler.StagingToken(xid.New().String()) }

func (e *Engine) staging(repo graveler.RepositoryID, b graveler.BranchID) *sync.RWMutex {
	m, _ := e.branches.LoadOrStore(branchID{repo, b}, new(sync.RWMutex))
	return m.(*sync.RWMutex)
}

// committing serializes what moves a branch's head.
func (e *Engine) committing(repo graveler.RepositoryID, b graveler.BranchID) *sync.Mutex {
	m, _ := e.commits.LoadOrStore(branchID{repo, b}, new(sync.Mutex))
	return m.(*sync.Mutex)
}

// Replica tells how the metadata replica stands.
func (e *Engine) Replica() ReplicaStatus { return e.rep.Status() }

// ReplicaStatus tells how a metadata replica stands.
type ReplicaStatus = replica.Status
