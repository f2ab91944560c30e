package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
	"github.com/lakefsfs/lakefsfs/spill"
)

// commits measures a commit of one changed file.
func commits(work, sizes string) error {
	fmt.Printf("## A commit of one changed file\n\n")
	head(os.Stdout, "entries", "commit of all of them", "commit of one", "requests read", "bytes read", "requests written", "bytes written")
	for field := range strings.SplitSeq(sizes, ",") {
		var n int
		if _, err := fmt.Sscan(field, &n); err != nil {
			return fmt.Errorf("sizes %q: %w", sizes, err)
		}
		if err := commitIn(os.Stdout, filepath.Join(work, field), n); err != nil {
			return err
		}
	}
	return nil
}

func commitIn(w io.Writer, dir string, n int) error {
	ctx := context.Background()
	var counting *objecttest.Counting
	c, err := cache.NewCache(cache.Options{MemoryBytes: 1 << 30})
	if err != nil {
		return err
	}
	defer c.Close()
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		st, err := object.Open(ctx, ns, object.Options{})
		if err != nil {
			return nil, err
		}
		counting = objecttest.NewCounting(st)
		return counting, nil
	}
	sp, err := spill.Open(dir+"/spill", spill.Options{})
	if err != nil {
		return err
	}
	e, err := local.Open(ctx, local.Config{
		Dir: dir + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + dir + "/objects",
		Tables: func(ns string) committed.TableCache { return c.Tables(ns) },
	})
	if err != nil {
		return err
	}
	defer e.Close()
	if _, err := e.CreateRepository(ctx, engine.CreateRepository{ID: "repo"}); err != nil {
		return err
	}
	entry := func(i int) graveler.Entry {
		return graveler.Entry{Address: object.NewAddress(), AddressType: graveler.AddressRelative, Size: int64(i), ETag: fmt.Sprintf("%032x", i), Modified: time.Unix(int64(i), 0)}
	}
	var cs []graveler.Change
	for i := range n {
		cs = append(cs, graveler.Change{Path: fmt.Sprintf("data/part-%04d/file-%07d.parquet", i/1000, i), Entry: entry(i)})
		if len(cs) == 2000 || i == n-1 {
			if err := e.Stage(ctx, "repo", "main", cs); err != nil {
				return err
			}
			cs = nil
		}
	}
	start := time.Now()
	if _, err := e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "all"}); err != nil {
		return err
	}
	first := time.Since(start)
	if err := e.Stage(ctx, "repo", "main", []graveler.Change{{Path: fmt.Sprintf("data/part-%04d/file-%07d.parquet", n/2000, n/2), Entry: entry(n + 1)}}); err != nil {
		return err
	}
	// Warm: a daemon that has just written the tables.
	if _, err := e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "warm"}); err != nil {
		return err
	}
	if err := e.Stage(ctx, "repo", "main", []graveler.Change{{Path: fmt.Sprintf("data/part-%04d/file-%07d.parquet", n/2000, n/2), Entry: entry(n + 2)}}); err != nil {
		return err
	}
	before := counting.Counts()
	start = time.Now()
	if _, err := e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "one"}); err != nil {
		return err
	}
	took := time.Since(start)
	d := counting.Counts()
	_, err = fmt.Fprintf(w, "| %d | %s | %s | %d | %d | %d | %d |\n", n, first.Round(time.Millisecond), took.Round(10*time.Microsecond),
		d.Reads-before.Reads, d.BytesRead-before.BytesRead, d.Puts-before.Puts, d.BytesPut-before.BytesPut)
	return err
}
