package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// alone is an engine without peers, in this process: a put stages an entry, and waits until that survives a power cut.
type alone struct {
	e  *local.Engine
	sp *spill.Store
}

func startAlone(ctx context.Context, _ *plan, dir string) (_ putter, err error) {
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	a := &alone{}
	if a.sp, err = spill.Open(filepath.Join(dir, "spill"), spill.Options{OpenBase: objects}); err != nil {
		return nil, err
	}
	a.e, err = local.Open(ctx, local.Config{
		Dir: filepath.Join(dir, "meta"), Spill: a.sp, Objects: objects, DefaultNamespace: "file://" + filepath.Join(dir, "objects"),
	})
	if err != nil {
		a.sp.Close()
		return nil, err
	}
	if _, err := a.e.CreateRepository(ctx, engine.CreateRepository{ID: repo}); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *alone) put(ctx context.Context, _ int, key string, value []byte) error {
	if err := a.e.Stage(ctx, repo, "main", []graveler.Change{{Path: key, Entry: entryOf(value)}}); err != nil {
		return err
	}
	return a.e.Sync(ctx)
}

func (a *alone) close() {
	a.e.Close()
	a.sp.Close()
}

// pebbleDB is raw Pebble, in this process: a put is a synced write, which it commits in groups.
type pebbleDB struct{ db *pebble.DB }

func startPebble(_ context.Context, _ *plan, dir string) (putter, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
	return pebbleDB{db}, err
}

func (p pebbleDB) put(_ context.Context, _ int, key string, value []byte) error {
	return p.db.Set([]byte(key), value, pebble.Sync)
}

func (p pebbleDB) close() { p.db.Close() }

// quiet drops what Pebble says, but for its end.
type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
