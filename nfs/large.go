package nfs

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// Who looks for many files by their numbers in a large directory doesn't read all of it for each: which part of it has which number is
// kept of the directories that were looked through last.

const (
	largeFrom = 3 // parts
	largeKept = 4 // directories
)

type largeDirs struct {
	mu   sync.Mutex
	dirs [largeKept]*largeDir
	next int
}

type dirKey struct {
	v    version
	path string
}

type largeDir struct {
	key    dirKey
	starts []string // of the parts
	files  []place  // by number; their parts
	first  *vfs.Names

	mu   sync.Mutex
	last *vfs.Names // the part that was looked into last
	part uint32
}

// find looks for a number in a directory, and returns its name.
func (l *largeDirs) find(ctx context.Context, t *tree, k dirKey, dir vfs.NodeID, number uint64) (string, bool, error) {
	l.mu.Lock()
	var d *largeDir
	for _, o := range l.dirs {
		if o != nil && o.key == k {
			d = o
		}
	}
	l.mu.Unlock()
	if d != nil {
		name, ok, err := d.find(ctx, t, dir, number)
		if ok || err != nil || t.fs.Fresh(d.first) {
			return name, ok, err
		}
	}
	d, name, ok, err := readLarge(ctx, t, k, dir, number)
	if err == nil && len(d.starts) >= largeFrom {
		l.keep(d)
	}
	return name, ok, err
}

func (l *largeDirs) keep(d *largeDir) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, o := range l.dirs {
		if o != nil && o.key == d.key {
			l.dirs[i] = d
			return
		}
	}
	l.dirs[l.next] = d
	l.next = (l.next + 1) % largeKept
}

// readLarge reads a directory, of which only what is needed to find names again is kept.
func readLarge(ctx context.Context, t *tree, k dirKey, dir vfs.NodeID, number uint64) (d *largeDir, name string, ok bool, err error) {
	d = &largeDir{key: k}
	for after := ""; ; {
		names, err := t.fs.NamesAfter(ctx, dir, after)
		if err != nil {
			return d, "", false, err
		}
		if d.first == nil {
			d.first = names
		}
		for i := range names.Entries {
			e := &names.Entries[i]
			if e.Name == "" {
				continue
			}
			if e.Ino == number {
				name, ok = e.Name, true
			}
			d.files = append(d.files, place{e.Ino, uint32(len(d.starts))})
		}
		d.starts = append(d.starts, after)
		if names.End {
			break
		}
		after = names.Next
	}
	slices.SortFunc(d.files, func(a, b place) int { return cmp.Compare(a.number, b.number) })
	return d, name, ok, nil
}

func (d *largeDir) find(ctx context.Context, t *tree, dir vfs.NodeID, number uint64) (string, bool, error) {
	i, ok := slices.BinarySearchFunc(d.files, number, func(p place, n uint64) int { return cmp.Compare(p.number, n) })
	if !ok {
		return "", false, nil
	}
	part := d.files[i].dir
	d.mu.Lock()
	names := d.last
	same := names != nil && d.part == part && t.fs.Fresh(names)
	d.mu.Unlock()
	if !same {
		var err error
		if names, err = t.fs.NamesAfter(ctx, dir, d.starts[part]); err != nil {
			return "", false, err
		}
		d.mu.Lock()
		d.last, d.part = names, part
		d.mu.Unlock()
	}
	for i := range names.Entries {
		if e := &names.Entries[i]; e.Ino == number && e.Name != "" {
			return e.Name, true, nil
		}
	}
	return "", false, nil
}
