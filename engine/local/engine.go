// Package local is the engine that keeps versions in this process: metadata in a replica, committed data and objects on an
// object store, bytes that are not yet objects in spill files.
//
// The files: engine.go opens and closes; repos.go, refs.go, entries.go, move.go and versions.go are the contract's groups;
// settle.go and holders.go turn spilled bytes into objects, those of this process and of other machines; merge.go has merges, reverts and picks; maintain.go has imports, garbage and checks.
package local

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
	// Snapshots is where snapshots of the metadata go, nil for nowhere. It is not closed.
	Snapshots     object.Store
	SnapshotEvery time.Duration // 0 is ten minutes, negative only when Snapshot is called
	Version       string        // of the program, noted in snapshots
}

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

var _ engine.Engine = (*Engine)(nil)

// Open opens the engine. What was not settled when it was last closed or killed is taken up again.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tables == nil {
		cfg.Tables = func(string) committed.TableCache { return nil }
	}
	e := &Engine{cfg: cfg, log: cfg.Logger, spill: cfg.Spill, spaces: map[string]*space{}}
	var err error
	e.rep, err = replica.Open(replica.Config{Dir: cfg.Dir, SyncEvery: cfg.SyncEvery, OnFull: cfg.OnFull, Logger: cfg.Logger, OnEvent: e.events.send})
	if err != nil {
		return nil, err
	}
	e.names = &names{e: e}
	e.settler = settle.New(e.names, e.spill, e.log)
	if err := e.recover(ctx); err != nil {
		e.settler.Close(ctx)
		return nil, errors.Join(err, e.rep.Close())
	}
	e.settler.Start()
	cfg.Spill.SetReady(e.settler.Add)
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
	bulks, err := v.Bulks()
	if err != nil {
		return err
	}
	for _, t := range bulks {
		if _, err := e.rep.DropToken(ctx, t); err != nil {
			return err
		}
	}
	if err := e.rep.ForgetSettled(ctx); err != nil {
		return err
	}
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
		} else {
			// Made, but its entry was never acknowledged; or settled, and not yet removed.
			e.spill.Drop(id)
		}
	}
	for id := range named {
		if engine.HolderOf(id) != "" {
			continue
		}
		e.log.Error("the bytes of a staged file are missing from the spill directory; reads of it will fail", "content", id)
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

// Objects returns the data store of a repository, which also reads pending entries' bytes.
func (e *Engine) Objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	s, err := e.spaceOf(ctx, v, repo)
	if err != nil {
		return nil, err
	}
	if l, ok := s.objects.(object.Local); ok {
		return &localWithSpill{Local: l, e: e}, nil
	}
	return &withSpill{Store: s.objects, e: e}, nil
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

// hub hands events to watchers.
type hub struct {
	mu     sync.Mutex
	subs   map[*watcher]struct{}
	closed bool
}

type watcher struct {
	ch         chan engine.Event
	lost       bool
	sent, seen int           // events
	moved      chan struct{} // closed when seen moves on
}

// CaughtUp waits until every watcher has dealt with the events of what returned so far, or for a second: then what a caller was
// told is done, others see. Don't call it where a watcher may be waiting for the caller.
func (e *Engine) CaughtUp(ctx context.Context) {
	h := &e.events
	timeout := time.NewTimer(time.Second)
	defer timeout.Stop()
	h.mu.Lock()
	goal := map[*watcher]int{}
	for w := range h.subs {
		goal[w] = w.sent
	}
	for w, sent := range goal {
		for w.seen < sent {
			if _, ok := h.subs[w]; !ok {
				break
			}
			if w.moved == nil {
				w.moved = make(chan struct{})
			}
			moved := w.moved
			h.mu.Unlock()
			select {
			case <-moved:
			case <-ctx.Done():
				return
			case <-timeout.C:
				return
			}
			h.mu.Lock()
		}
	}
	h.mu.Unlock()
}

// dealt notes that a watcher has dealt with an event, or is gone. Hold mu.
func (w *watcher) dealt() {
	w.seen++
	if w.moved != nil {
		close(w.moved)
		w.moved = nil
	}
}

const watchBuffer = 4096

func (h *hub) send(ev engine.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.subs {
		ev := ev
		ev.Lost = ev.Lost || w.lost
		select {
		case w.ch <- ev:
			w.lost = false
			w.sent++
		default:
			w.lost = true
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.subs {
		close(w.ch)
	}
	h.subs = nil
}

// Watch yields events until ctx ends or the engine closes.
func (e *Engine) watch(ctx context.Context) iter.Seq2[engine.Event, error] {
	h := &e.events
	w := &watcher{ch: make(chan engine.Event, watchBuffer)}
	h.mu.Lock()
	if h.subs == nil {
		h.subs = map[*watcher]struct{}{}
	}
	if h.closed {
		close(w.ch)
	} else {
		h.subs[w] = struct{}{}
	}
	h.mu.Unlock()
	return func(yield func(engine.Event, error) bool) {
		defer func() {
			h.mu.Lock()
			delete(h.subs, w)
			w.dealt()
			h.mu.Unlock()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case ev, ok := <-w.ch:
				if !ok {
					yield(engine.Event{}, fmt.Errorf("the engine is closed: %w", graveler.Unavailable))
					return
				}
				if !yield(ev, nil) {
					return
				}
				h.mu.Lock()
				w.dealt()
				h.mu.Unlock()
			}
		}
	}
}
