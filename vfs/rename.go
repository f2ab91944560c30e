package vfs

import (
	"context"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Rename flags, as renameat2(2)'s.
const (
	RenameNoReplace = 1
	RenameExchange  = 2
)

// Rename renames a file or a directory, atomically.
func (f *FS) Rename(ctx context.Context, from NodeID, oldName string, to NodeID, newName string, flags uint32) error {
	a, err := f.node(from)
	if err != nil {
		return err
	}
	b, err := f.node(to)
	if err != nil {
		return err
	}
	if a.kind < kindDir || b.kind < kindDir {
		if a.kind != b.kind {
			return syscall.EXDEV
		}
		return f.renameTop(ctx, a, oldName, b, newName)
	}
	if a.kind != kindDir || b.kind != kindDir {
		return graveler.Denied
	}
	if err := f.writable(a.v); err != nil {
		return err
	}
	if err := f.writable(b.v); err != nil {
		return err
	}
	if vKey(a.v) != vKey(b.v) {
		return syscall.EXDEV
	}
	if flags&^(RenameNoReplace|RenameExchange) != 0 || flags == RenameNoReplace|RenameExchange {
		return graveler.Invalid
	}
	if len(newName) > 255 {
		return graveler.TooLarge
	}
	if oldName == ControlName || newName == ControlName {
		return graveler.Denied
	}
	f.moving.Lock()
	defer f.moving.Unlock()
	if f.isGone(a) || f.isGone(b) {
		return graveler.NotFound
	}
	aDir, bDir := f.pathOf(a), f.pathOf(b)
	defer f.cfg.Locks.lock(f.cfg.Locks.index(a.v, aDir), f.cfg.Locks.index(b.v, bDir))()
	src, dst := join(aDir, oldName), join(bDir, newName)
	return f.rename(ctx, &moveOp{a: a, b: b, oldName: oldName, newName: newName, src: src, dst: dst, flags: flags})
}

type moveOp struct {
	a, b             *node
	oldName, newName string
	src, dst         string
	flags            uint32
}

func (f *FS) rename(ctx context.Context, m *moveOp) error {
	v := m.a.v
	s, err := f.found(ctx, m.a, m.oldName, m.src)
	if err != nil {
		return err
	}
	if !s.HasPrefix && !s.HasObject {
		return graveler.NotFound
	}
	if m.src == m.dst {
		return nil
	}
	if s.HasPrefix && strings.HasPrefix(m.dst, m.src+"/") {
		return graveler.Invalid
	}
	d, err := f.found(ctx, m.b, m.newName, m.dst)
	if err != nil {
		return err
	}
	exists := d.HasPrefix || d.HasObject
	if m.flags&RenameExchange != 0 {
		return f.exchange(ctx, m, s, d)
	}
	replaced := false
	if exists {
		switch {
		case m.flags&RenameNoReplace != 0:
			return graveler.Exists
		case s.HasPrefix && !d.HasPrefix:
			return graveler.NotDir
		case !s.HasPrefix && d.HasPrefix:
			if strings.HasPrefix(m.src, m.dst+"/") {
				return graveler.NotEmpty
			}
			return graveler.IsDir
		case d.HasPrefix:
			if empty, err := f.emptyDir(ctx, v, m.dst); err != nil || !empty {
				return orErr(err, graveler.NotEmpty)
			}
			replaced = true
		case s.Object.SameFile(&d.Object):
			return nil // two names of one file: rename(2) leaves both
		}
	}
	marker, err := f.dirMarker(ctx, m.a, m.oldName)
	if err != nil {
		return err
	}
	if s.HasPrefix {
		// The directory keeps its number, and tells where it was.
		if own := f.movedMarker(m, &s); own != nil {
			marker = append(marker, *own)
		}
		if len(marker) > 0 {
			if err := f.stage(ctx, v, marker...); err != nil {
				return err
			}
		}
		if err := f.move(ctx, v, func(ctx context.Context) error {
			return f.eng.Move(ctx, v.repo, graveler.BranchID(v.ref), m.src+"/", m.dst+"/")
		}); err != nil {
			return err
		}
	} else if err := f.renameFile(ctx, m, marker, s.Object, d.Object, exists); err != nil {
		return err
	}
	f.moveNode(m)
	if s.HasPrefix && (m.a != m.b || replaced) {
		m.a.countDirs(-1)
		if m.a != m.b && !replaced {
			m.b.countDirs(1)
		}
	}
	return nil
}

// movedMarker is the change that gives a directory which is about to move a marker with its number and its home, nil if it needs none.
func (f *FS) movedMarker(m *moveOp, s *graveler.Found) *graveler.Change {
	e := s.Marker
	if s.HasMarker && (e.Home != 0 || m.a == m.b) {
		return nil // the move itself gives it its number
	}
	path := m.src + "/"
	if !s.HasMarker {
		e = newEntry(graveler.Permissions{UID: f.cfg.UID, GID: f.cfg.GID, Mode: 0o755 | fs.ModeDir})
		e.Inode = graveler.InodeOf(path)
		e.SetMtime(m.a.v.commit.Created) // as it was shown
	}
	if e.Inode == 0 {
		e.Inode = graveler.InodeOf(path)
	}
	if m.a != m.b {
		e.Home = f.home(m.a)
	}
	c := put(path, e)
	return &c
}

// home is what graveler.Entry.Home is of what is in a directory.
func (f *FS) home(dir *node) uint64 {
	path := f.pathOf(dir)
	if path == "" {
		return homeRoot
	}
	dir.mu.Lock()
	defer dir.mu.Unlock()
	if dir.has && dir.entry.Inode != 0 {
		return dir.entry.Inode
	}
	return graveler.InodeOf(path + "/")
}

func orErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// emptyDir reports whether a directory has nothing but its marker.
func (f *FS) emptyDir(ctx context.Context, v *version, path string) (bool, error) {
	for _, err := range f.eng.List(ctx, v.repo, v.ref, engine.ListQuery{Prefix: path + "/", Delimiter: "/", Limit: 1}) {
		return false, err
	}
	return true, nil
}

// renameFile moves a file's name over another's, if that exists.
func (f *FS) renameFile(ctx context.Context, m *moveOp, changes []graveler.Change, s, d graveler.Entry, exists bool) error {
	if exists {
		if err := f.holdOpen(m.b, m.newName, &d); err != nil {
			return err
		}
	}
	puts, rest, err := f.stageRenamed(ctx, m, changes, s, d, exists)
	if err != nil {
		return err
	}
	if exists {
		f.dropName(ctx, m.b, m.newName, rest)
	}
	n := f.knownChild(m.a, m.oldName)
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(puts) == 1 && n.entry.Pending == s.Pending && n.entry.Address == s.Address {
		n.set(puts[0].Entry)
	} else {
		n.stale.Store(true)
	}
	return nil
}

// stageRenamed stages the rename of a file: puts are those of its names, rest those of the other names of the file that it replaces. It
// takes no node's lock while it has that of the names.
func (f *FS) stageRenamed(ctx context.Context, m *moveOp, changes []graveler.Change, s, d graveler.Entry, exists bool) (puts, rest []graveler.Change, err error) {
	v := m.a.v
	defer f.lockNames(v, &s, &d)()
	if exists {
		if d, err = f.newest(ctx, v, m.dst, &d); err != nil {
			return nil, nil, err
		}
		if rest, err = f.withoutName(ctx, v, &d, m.dst); err != nil {
			return nil, nil, err
		}
	}
	if s, err = f.newest(ctx, v, m.src, &s); err != nil {
		return nil, nil, err
	}
	if s.Inode == 0 {
		s.Inode = graveler.InodeOf(m.src) // which the new path no longer gives
	}
	if s.Home == 0 && m.a != m.b {
		s.Home = f.home(m.a)
	}
	s.Changed = time.Now()
	if puts, err = f.putsMoved(ctx, v, m.src, m.dst, s); err != nil {
		return nil, nil, err
	}
	return puts, rest, f.stage(ctx, v, append(append(append(changes, rest...), puts...), remove(m.src))...)
}

// move runs a move of many entries, which this tree follows itself.
func (f *FS) move(ctx context.Context, v *version, run func(ctx context.Context) error) error {
	err := run(engine.WithOrigin(ctx, f.origin))
	f.made.Add(1)
	f.tellPeers(v, nil)
	if err == nil {
		// Files with several names, some of them elsewhere, name others now.
		f.mu.Lock()
		for _, n := range f.several {
			n.stale.Store(true)
		}
		f.mu.Unlock()
	}
	return err
}

// exchange makes two names change places (RENAME_EXCHANGE).
func (f *FS) exchange(ctx context.Context, m *moveOp, s, d graveler.Found) error {
	v := m.a.v
	if !d.HasPrefix && !d.HasObject {
		return graveler.NotFound
	}
	if strings.HasPrefix(m.src, m.dst+"/") {
		return graveler.Invalid
	}
	if s.HasObject && d.HasObject && s.Object.SameFile(&d.Object) {
		return nil
	}
	x, y := m.src, m.dst
	if s.HasPrefix {
		x += "/"
	}
	if d.HasPrefix {
		y += "/"
	}
	if err := f.move(ctx, v, func(ctx context.Context) error {
		return f.eng.Exchange(ctx, v.repo, graveler.BranchID(v.ref), x, y)
	}); err != nil {
		return err
	}
	f.swapNodes(m)
	if m.a != m.b && s.HasPrefix != d.HasPrefix {
		by := 1
		if s.HasPrefix {
			by = -1
		}
		m.a.countDirs(by)
		m.b.countDirs(-by)
	}
	return nil
}

// moveNode moves the node of a renamed name, whose number stays.
func (f *FS) moveNode(m *moveOp) {
	f.mu.Lock()
	n := m.a.children[m.oldName]
	if old := m.b.children[m.newName]; old != nil && old != n {
		f.cut(old, dentry{m.b, m.newName})
	}
	if n != nil {
		f.rehang(f.keep(n), dentry{m.a, m.oldName}, dentry{m.b, m.newName})
		if n.kind == kindDir {
			n.doubt()
		}
		f.free(m.a)
	}
	f.mu.Unlock()
	for _, x := range []*node{m.a, m.b} {
		f.touched(x)
	}
	if n != nil {
		n.mu.Lock()
		n.ctime = time.Now()
		n.mu.Unlock()
	}
}

// rehang gives a node another place for one of its places. Hold FS.mu.
func (f *FS) rehang(n *node, from, to dentry) {
	delete(from.parent.children, from.name)
	to.parent.children[to.name] = n
	f.relabel(n, from, to)
}

func (f *FS) relabel(n *node, from, to dentry) {
	if n.dentry == from {
		f.place(n, to)
	}
	for i := range n.also {
		if n.also[i] == from {
			n.also[i] = to
		}
	}
}

// doubt marks what is known of a node, and of all below it, as stale: the entries of what was moved have changed. Hold FS.mu.
func (n *node) doubt() {
	n.stale.Store(true)
	for _, c := range n.children {
		c.doubt()
	}
}

func (f *FS) swapNodes(m *moveOp) {
	at, to := dentry{m.a, m.oldName}, dentry{m.b, m.newName}
	f.mu.Lock()
	x, y := m.a.children[m.oldName], m.b.children[m.newName]
	delete(m.a.children, m.oldName)
	delete(m.b.children, m.newName)
	if x != nil {
		m.b.children[m.newName] = f.keep(x)
		f.relabel(x, at, to)
		x.doubt()
	}
	if y != nil {
		m.a.children[m.oldName] = f.keep(y)
		f.relabel(y, to, at)
		y.doubt()
	}
	f.mu.Unlock()
	now := time.Now()
	for _, n := range []*node{x, y} {
		if n != nil {
			n.mu.Lock()
			n.ctime = now
			n.mu.Unlock()
		}
	}
	f.touched(m.a)
	f.touched(m.b)
}
