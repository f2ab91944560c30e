package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
)

// layouts are the shapes of big repositories: each names the path of entry i of n, in ascending order of paths.
var layouts = map[string]func(i, n int) string{
	"dirs": func(i, n int) string { return fmt.Sprintf("dir-%04d/file-%08d.bin", i/10_000, i) },
	"deep": func(i, n int) string {
		return fmt.Sprintf("l%02d/%02d/%02d/%02d/f-%02d.bin", i/100_000_000, i/1_000_000%100, i/10_000%100, i/100%100, i%100)
	},
	"flat": func(i, n int) string { return fmt.Sprintf("file-%08d.bin", i) },
}

// generated walks the entries of a layout without holding them.
type generated struct {
	path   func(i, n int) string
	i, n   int
	change graveler.Change
}

func (g *generated) Next() bool { g.i++; return g.i < g.n }

// SeekGE is asked for by Apply only where a base has records, and there is none.
func (g *generated) SeekGE(string) bool { return false }
func (g *generated) Path() string       { return g.path(g.i, g.n) }
func (g *generated) Err() error         { return nil }
func (g *generated) Close() error       { return nil }

func (g *generated) Change() (*graveler.Change, error) {
	g.change = graveler.Change{Path: g.Path(), Entry: graveler.Entry{
		Address: fmt.Sprintf("data/gen/%08d/%016x", g.i/1000, uint64(g.i)*0x9e3779b97f4a7c15), AddressType: graveler.AddressRelative,
		Size: int64(g.i % 100_000), ETag: fmt.Sprintf("%016x%016x", uint64(g.i)*0xbf58476d1ce4e5b9, uint64(g.i)), Modified: time.Unix(1_700_000_000+int64(g.i), 0),
	}}
	return &g.change, nil
}

// buildBig writes a namespace with one commit of n entries on main, and its refs dump. The objects that the entries name
// are not there.
func buildBig(ctx context.Context, url, layout string, n int) error {
	path, ok := layouts[layout]
	if !ok {
		return fmt.Errorf("no layout %q: %w", layout, graveler.Invalid)
	}
	st, err := object.Open(ctx, url, object.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	return writeRepo(ctx, st, &generated{path: path, i: -1, n: n})
}

// writeRepo writes a commit of entries on main, and the refs dump.
func writeRepo(ctx context.Context, st object.Store, entries graveler.Cursor) error {
	s := committed.New(st, committed.Options{})
	meta, _, err := s.Apply(ctx, "", entries)
	if err != nil {
		return err
	}
	c := graveler.Commit{Committer: "bench", Message: "all", Created: time.Unix(1_700_000_000, 0), MetaRange: meta, Version: 1, Generation: 1}
	c.ID = c.ComputeID()
	_, err = s.DumpRefs(ctx, committed.RefsDump{Commits: []graveler.Commit{c}, Branches: []graveler.Branch{{ID: "main", Commit: c.ID}}})
	return err
}
