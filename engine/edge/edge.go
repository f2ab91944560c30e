// Package edge is the engine of a machine that keeps no metadata: it asks an engine elsewhere, and holds the bytes of what is written
// here until they are objects. It is a holder as package engine has them: what it writes is staged under content ids that begin with
// its name, and whoever wants the bytes meanwhile has it put them on the object store.
//
// The files: edge.go opens and closes; entries.go shows what is pending here and elsewhere, frozen.go what is in commits; settle.go
// brings bytes to the object store.
package edge

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/settle"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// Config of an Engine.
type Config struct {
	Engine engine.Engine   // that keeps the metadata. It is closed with this one
	Holder engine.HolderID // this machine's; the same for as long as Spill's directory lives
	Spill  *spill.Store    // whose Prefix is the holder's
	// Objects opens the object store of a storage namespace. through is that which reads and writes objects through Engine, for where
	// this machine can't reach the namespace.
	Objects func(ctx context.Context, namespace string, through object.Store) (object.Store, error)
	// Tables is the cache of a namespace's ranges and metaranges; nil for none.
	Tables func(namespace string) committed.TableCache
	Logger *slog.Logger
}

// Engine implements engine.Engine.
type Engine struct {
	engine.Engine // all that is asked as it is
	cfg           Config
	spill         *spill.Store
	log           *slog.Logger
	settler       *settle.Settler
	ctx           context.Context // ends when it closes
	stop          context.CancelFunc
	done          sync.WaitGroup

	keeping [64]sync.Mutex // see Keep

	mu      sync.Mutex
	spaces  map[graveler.RepositoryID]*space
	commits map[commitKey]*frozen
}

// space is a repository's opened storage namespace.
type space struct {
	settle.Store
	tables *committed.Store
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine. What was not settled when it was last closed or killed is taken up again.
func New(cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tables == nil {
		cfg.Tables = func(string) committed.TableCache { return nil }
	}
	e := &Engine{Engine: cfg.Engine, cfg: cfg, spill: cfg.Spill, log: cfg.Logger, spaces: map[graveler.RepositoryID]*space{}, commits: map[commitKey]*frozen{}}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.settler = settle.New(names{e}, cfg.Spill, cfg.Logger)
	ids, err := cfg.Spill.IDs()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		e.settler.Add(id)
	}
	cfg.Spill.SetReady(e.settler.Add)
	e.settler.Start()
	e.done.Go(e.hold)
	return e, nil
}

// hold serves what others want of this machine's bytes, again and again until the engine closes.
func (e *Engine) hold() {
	wait := time.Duration(0)
	for {
		began := time.Now()
		err := e.Engine.Hold(e.ctx, e.cfg.Holder, e.settler.Secure)
		if e.ctx.Err() != nil {
			return
		}
		if time.Since(began) > 10*time.Second {
			wait = 0
		}
		if errors.Is(err, graveler.Conflict) {
			// Two daemons over one data directory can't be: the old connection of this one is meant, or a copied directory.
			e.log.Warn("another connection serves this machine's files", "holder", e.cfg.Holder, "err", err)
			wait = max(wait, time.Second)
		}
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(max(2*wait, 50*time.Millisecond), time.Second)
	}
}

// Close settles what it can in ten seconds, and closes. What is not settled stays in its spill file.
func (e *Engine) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e.spill.SetReady(nil)
	stop := context.AfterFunc(ctx, e.stop) // what waits for an answer gives up then
	e.settler.Close(ctx)
	stop()
	e.stop()
	e.done.Wait()
	err := e.Engine.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.spaces {
		err = errors.Join(err, s.Objects.Close())
	}
	return err
}

// space opens a repository's object store once.
func (e *Engine) space(ctx context.Context, repo graveler.RepositoryID) (*space, error) {
	e.mu.Lock()
	s := e.spaces[repo]
	e.mu.Unlock()
	if s != nil {
		return s, nil
	}
	r, err := e.Engine.Repository(ctx, repo)
	if err != nil {
		return nil, err
	}
	through, err := e.Engine.Objects(ctx, repo)
	if err != nil {
		return nil, err
	}
	st, err := e.cfg.Objects(context.WithoutCancel(ctx), r.StorageNamespace, through)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if had := e.spaces[repo]; had != nil {
		return had, st.Close()
	}
	s = &space{Store: settle.Store{URL: r.StorageNamespace, Objects: st}, tables: committed.New(st, committed.Options{Tables: e.cfg.Tables(r.StorageNamespace)})}
	e.spaces[repo] = s
	return s, nil
}

// DeleteRepository forgets a repository. Another may get its name, on another store; who has this one's open goes on with it.
func (e *Engine) DeleteRepository(ctx context.Context, repo graveler.RepositoryID) error {
	err := e.Engine.DeleteRepository(ctx, repo)
	e.forget(repo)
	return err
}

// forget forgets what is known of a repository, of all if repo is "".
func (e *Engine) forget(repo graveler.RepositoryID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.spaces, func(r graveler.RepositoryID, _ *space) bool { return repo == "" || r == repo })
	maps.DeleteFunc(e.commits, func(k commitKey, _ *frozen) bool { return repo == "" || k.repo == repo })
}

// Watch yields events. What is known of a repository that was made or deleted elsewhere is forgotten on the way.
func (e *Engine) Watch(ctx context.Context, after uint64) iter.Seq2[engine.Event, error] {
	events := e.Engine.Watch(ctx, after)
	return func(yield func(engine.Event, error) bool) {
		for ev, err := range events {
			if err == nil && ev.Lost {
				e.forget("")
			} else if err == nil && ev.Type == engine.ReposChanged {
				e.forget(ev.Repo)
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

// Objects returns the data store of a repository, which also reads pending entries' bytes.
func (e *Engine) Objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error) {
	s, err := e.space(ctx, repo)
	if err != nil {
		return nil, err
	}
	return settle.WithPending(s.Objects, &settle.Pending{Holder: e.cfg.Holder, Spill: e.spill, Secure: e.Secure}), nil
}
