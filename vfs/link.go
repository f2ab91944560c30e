package vfs

import (
	"context"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// A file with several names (hard links) is several entries: each has the file's content, metadata and number, and lists all of the
// names, see graveler.Entry.Links. They are changed together, in one step, under Locks.groups. A name whose entry was changed by
// somebody who knows nothing of the others (a merge, another program) has left the group, and is passed over.

// lockNames locks the names of files that have several, or may be getting some from another tree; nothing where neither is so. Call the
// function that it returns at the end. Until then no node's lock may be taken: who has one may be waiting for this.
func (f *FS) lockNames(v *version, es ...*graveler.Entry) func() {
	if f.mayHaveNames(v, es...) {
		f.cfg.Locks.groups.Lock()
		return f.cfg.Locks.groups.Unlock
	}
	return func() {}
}

func (f *FS) mayHaveNames(v *version, es ...*graveler.Entry) bool {
	for _, e := range es {
		if e.Metadata[graveler.MetaLinks] != "" {
			return true
		}
	}
	return f.shared(v)
}

// lockNode is lockNames of a node, which then has what another tree may have changed until now. Hold n.mu.
func (f *FS) lockNode(ctx context.Context, n *node) (func(), error) {
	unlock := f.lockNames(n.v, &n.entry)
	if f.shared(n.v) {
		n.valid = false
		if err := f.refresh(ctx, n); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// newest is the entry at a path, of a file that is known as e: asked for again if it may have several names, since by any of them it may
// have been changed. Hold Locks.groups in that case.
func (f *FS) newest(ctx context.Context, v *version, path string, e *graveler.Entry) (graveler.Entry, error) {
	if !f.mayHaveNames(v, e) {
		return *e, nil
	}
	return f.eng.Stat(ctx, v.repo, v.ref, path)
}

// names lists a file's names that are still its own, that at path among them. Hold Locks.groups if there are several.
func (f *FS) names(ctx context.Context, v *version, e *graveler.Entry, path string) ([]string, error) {
	links := e.Links()
	if links == nil {
		return []string{path}, nil
	}
	own := links[:0]
	for _, l := range links {
		if l == path {
			own = append(own, l)
			continue
		}
		o, err := f.eng.Stat(ctx, v.repo, v.ref, l)
		if graveler.KindOf(err) == graveler.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.SameFile(&o) {
			own = append(own, l)
		}
	}
	if !slices.Contains(own, path) {
		own = append(own, path) // renamed by somebody who didn't know
	}
	return own, nil
}

// puts are the changes that give all names of the file at path the entry e.
func (f *FS) puts(ctx context.Context, v *version, path string, e graveler.Entry) ([]graveler.Change, error) {
	return f.putsMoved(ctx, v, path, path, e)
}

// putsMoved is puts where the name src becomes dst.
func (f *FS) putsMoved(ctx context.Context, v *version, src, dst string, e graveler.Entry) ([]graveler.Change, error) {
	if e.Metadata[graveler.MetaLinks] == "" {
		return []graveler.Change{put(dst, e)}, nil
	}
	// The entry may be edited already; its number and its names are what tells the others.
	names, err := f.names(ctx, v, &e, src)
	if err != nil {
		return nil, err
	}
	names[slices.Index(names, src)] = dst
	return putAll(names, e)
}

// putAll are the changes that make e a file of these names.
func putAll(names []string, e graveler.Entry) ([]graveler.Change, error) {
	e.Metadata = maps.Clone(e.Metadata)
	if err := e.SetLinks(names); err != nil {
		return nil, err
	}
	out := make([]graveler.Change, len(names))
	for i, n := range names {
		out[i] = put(n, e)
	}
	return out, nil
}

// withoutName are the changes that tell a file's other names that one goes.
func (f *FS) withoutName(ctx context.Context, v *version, e *graveler.Entry, path string) ([]graveler.Change, error) {
	if e.Metadata[graveler.MetaLinks] == "" {
		return nil, nil
	}
	names, err := f.names(ctx, v, e, path)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == path })
	if len(names) == 0 {
		return nil, nil
	}
	rest := *e
	rest.Changed = time.Now()
	return putAll(names, rest)
}

// dropName takes a name away from its node. The node lives on under the file's other names, whose changes are rest.
func (f *FS) dropName(ctx context.Context, dir *node, name string, rest []graveler.Change) {
	var numbers []uint64
	if len(rest) > 0 {
		numbers = f.dirNumbers(ctx, dir.v, rest[0].Path)
	}
	f.mu.Lock()
	n := dir.children[name]
	if n == nil {
		f.mu.Unlock()
		return
	}
	if len(rest) > 0 && len(n.others()) == 0 {
		// Whoever has the file open goes on with the file, not with a copy that nobody names.
		f.hangAt(n, dir, rest[0].Path, numbers)
	}
	f.cut(n, dentry{dir, name})
	gone := n.gone
	f.mu.Unlock()
	if len(rest) > 0 && !gone {
		n.stale.Store(true) // its entry lists the names
	}
}

// dirNumbers are the inode numbers of the directories on the way to a path.
func (f *FS) dirNumbers(ctx context.Context, v *version, path string) []uint64 {
	var out []uint64
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		dir := path[:i+1]
		e, err := f.eng.Stat(ctx, v.repo, v.ref, dir)
		if err != nil {
			e = graveler.Entry{} // it has no marker, or is as good as without
		}
		out = append(out, number(v, &e, dir))
	}
	return out
}

// hangAt gives a node the name at a path of its version, with nodes for the directories on the way, which have numbers. Hold FS.mu.
func (f *FS) hangAt(n, within *node, path string, numbers []uint64) {
	root := within
	for root.parent != nil && root.parent.v != nil {
		root = root.parent
	}
	dirs := strings.Split(path, "/")
	at := root
	for i, name := range dirs[:len(dirs)-1] {
		d := at.children[name]
		if d == nil || d.kind != kindDir {
			d = f.childLocked(at, name, kindDir, n.v, numbers[i])
			d.lookups-- // nobody asked for it: it stays as long as the node does
		}
		at = d
	}
	f.hang(n, dentry{at, dirs[len(dirs)-1]})
}

// Link gives a file one name more.
func (f *FS) Link(ctx context.Context, id, parent NodeID, name string) (Attr, error) {
	n, err := f.node(id)
	if err != nil {
		return Attr{}, err
	}
	if n.kind != kindFile {
		return Attr{}, syscall.EPERM
	}
	if p, err := f.node(parent); err != nil {
		return Attr{}, err
	} else if p.v == nil || vKey(p.v) != vKey(n.v) {
		return Attr{}, syscall.EXDEV
	}
	m, err := f.begin(ctx, parent, name)
	if err != nil {
		return Attr{}, err
	}
	defer m.done()
	if err := f.absent(ctx, m); err != nil {
		return Attr{}, err
	}
	f.mu.Lock()
	was := n.parent
	f.mu.Unlock()
	home := f.home(was)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.refresh(ctx, n); err != nil {
		return Attr{}, err
	}
	f.mu.Lock()
	gone, unnamed, path := n.gone, n.unnamed && !n.nameless, n.path()
	f.mu.Unlock()
	if gone && !unnamed {
		return Attr{}, graveler.NotFound
	}
	if !gone {
		f.cfg.Locks.groups.Lock()
		defer f.cfg.Locks.groups.Unlock()
		if f.shared(n.v) { // another tree may have given it a name until now
			n.valid = false
			if err := f.refresh(ctx, n); err != nil {
				return Attr{}, err
			}
		}
	}
	e := n.entry
	e.Changed = time.Now()
	changes := []graveler.Change{put(m.path, e)}
	if !gone {
		if e.Inode == 0 {
			e.Inode = graveler.InodeOf(path)
		}
		if e.Home == 0 && was != m.dir {
			e.Home = home
		}
		names, err := f.names(ctx, n.v, &e, path)
		if err != nil {
			return Attr{}, err
		}
		if changes, err = putAll(append(names, m.path), e); err != nil {
			if graveler.KindOf(err) == graveler.TooLarge {
				return Attr{}, syscall.EMLINK
			}
			return Attr{}, err
		}
	}
	if err := f.stage(ctx, n.v, changes...); err != nil {
		return Attr{}, err
	}
	n.set(changes[0].Entry)
	n.ctime = e.Changed
	f.mu.Lock()
	f.hang(n, dentry{m.dir, m.name})
	f.several[fileKey{vKey(n.v), n.ino}] = n
	n.lookups++
	f.mu.Unlock()
	f.touched(m.dir)
	return f.attrLocked(ctx, n)
}
