package vfs

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func put(path string, e graveler.Entry) graveler.Change { return graveler.Change{Path: path, Entry: e} }
func remove(path string) graveler.Change                { return graveler.Change{Path: path, Remove: true} }

// emptyMD5 is the MD5 of no bytes.
const emptyMD5 = "d41d8cd98f00b204e9800998ecf8427e"

// stage stages changes that are reported back to nobody: this tree knows them.
func (f *FS) stage(ctx context.Context, v *version, changes ...graveler.Change) error {
	paths := make([]string, len(changes))
	for i := range changes {
		paths[i] = changes[i].Path
	}
	f.own.expect(v, paths)
	err := f.eng.Stage(ctx, v.repo, graveler.BranchID(v.ref), changes)
	if err != nil {
		f.own.seen(v.repo, graveler.BranchID(v.ref), paths)
	}
	return err
}

// owner is the mode and owner of something new in a directory: a setgid directory hands on its group, and to directories the bit.
func (f *FS) owner(dir *node, c Caller, mode uint32) graveler.Permissions {
	p := graveler.Permissions{UID: c.UID, GID: c.GID, Mode: fileMode(mode)}
	dir.mu.Lock()
	defer dir.mu.Unlock()
	if perm, ok := permissions(&dir.entry); ok && dir.has && perm.Mode&fs.ModeSetgid != 0 {
		p.GID = perm.GID
		if p.Mode.IsDir() {
			p.Mode |= fs.ModeSetgid
		}
	}
	return p
}

func newEntry(p graveler.Permissions) graveler.Entry {
	e := graveler.Entry{AddressType: graveler.AddressRelative, ETag: emptyMD5, Metadata: map[string]string{graveler.MetaPermissions: p.String()}}
	e.SetMtime(time.Now())
	return e
}

// making is a change that makes name in dir.
type making struct {
	dir  *node
	name string
	path string
	done func()
}

// begin locks a directory for a change of a name in it, and checks that the change may be. Call done at the end.
func (f *FS) begin(ctx context.Context, parent NodeID, name string) (*making, error) {
	dir, err := f.node(parent)
	if err != nil {
		return nil, err
	}
	if dir.kind != kindDir {
		if dir.isDir() {
			return nil, graveler.Denied
		}
		return nil, graveler.NotDir
	}
	if err := f.writable(dir.v); err != nil {
		return nil, err
	}
	if len(name) > 255 {
		return nil, graveler.TooLarge
	}
	if !graveler.FileName(name) || strings.Contains(name, "/") {
		return nil, graveler.Invalid
	}
	if name == ctlName {
		return nil, fmt.Errorf("%s is the control directory's name: %w", ctlName, graveler.Denied)
	}
	f.moving.RLock()
	if f.isGone(dir) {
		f.moving.RUnlock()
		return nil, graveler.NotFound
	}
	at := f.pathOf(dir)
	i := f.cfg.Locks.index(dir.v, at)
	unlock := f.cfg.Locks.lock(i, i)
	return &making{dir: dir, name: name, path: join(at, name), done: func() { unlock(); f.moving.RUnlock() }}, nil
}

// absent fails with Exists unless the name is free.
func (f *FS) absent(ctx context.Context, m *making) error {
	found, err := f.eng.Lookup(ctx, m.dir.v.repo, m.dir.v.ref, m.path)
	if err == nil && (found.HasObject || found.HasPrefix) {
		err = graveler.Exists
	}
	return err
}

func (f *FS) touched(dir *node) {
	now := time.Now()
	dir.mu.Lock()
	dir.changed, dir.ctime = now, now
	dir.mu.Unlock()
}

// made makes the node of what was staged.
func (f *FS) made(m *making, k kind, e graveler.Entry) *node {
	n := f.child(m.dir, m.name, k, m.dir.v)
	n.mu.Lock()
	n.valid, n.entry, n.has, n.ctime = true, e, k == kindDir, time.Now()
	n.mu.Unlock()
	f.touched(m.dir)
	return n
}

// Create makes and opens a file. With flags O_EXCL an existing one is an error; without, it is opened.
func (f *FS) Create(ctx context.Context, c Caller, parent NodeID, name string, flags int, mode uint32) (NodeID, Attr, Opened, error) {
	m, err := f.begin(ctx, parent, name)
	if err != nil {
		return 0, Attr{}, Opened{}, err
	}
	err = f.absent(ctx, m)
	if graveler.KindOf(err) == graveler.Exists && flags&syscall.O_EXCL == 0 {
		m.done()
		id, a, err := f.Lookup(ctx, parent, name)
		if err != nil {
			return 0, Attr{}, Opened{}, err
		}
		o, err := f.Open(ctx, id, flags)
		if err != nil {
			f.Forget(id, 1)
		} else if flags&syscall.O_TRUNC != 0 {
			a, err = f.Getattr(ctx, id)
		}
		return id, a, o, err
	}
	defer m.done()
	if err != nil {
		return 0, Attr{}, Opened{}, err
	}
	sf, err := f.cfg.Spill.Create()
	if err != nil {
		return 0, Attr{}, Opened{}, err
	}
	e := newEntry(f.owner(m.dir, c, mode&^syscall.S_IFMT))
	e.Pending = sf.ID()
	if err := f.stage(ctx, m.dir.v, put(m.path, e)); err != nil {
		f.cfg.Spill.Drop(sf.ID())
		sf.Close()
		return 0, Attr{}, Opened{}, err
	}
	n := f.made(m, kindFile, e)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.content != nil {
		n.content.Close()
	}
	n.content, n.wopen = sf, true
	// The handle counts as a writer even if it reads only: the file must stay until it is closed.
	write := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if write {
		n.writers++
	} else {
		n.readers++
	}
	a, err := f.attrLocked(ctx, n)
	h := f.addHandle(&file{n: n, write: write, append: flags&syscall.O_APPEND != 0, entry: e})
	return n.id, a, Opened{Handle: h}, err
}

// makeEntry makes what has no bytes: a directory, a symbolic link, a special or an empty file.
func (f *FS) makeEntry(ctx context.Context, parent NodeID, name string, k kind, entry func(dir *node) graveler.Entry) (NodeID, Attr, error) {
	m, err := f.begin(ctx, parent, name)
	if err != nil {
		return 0, Attr{}, err
	}
	defer m.done()
	if err := f.absent(ctx, m); err != nil {
		return 0, Attr{}, err
	}
	e := entry(m.dir)
	path := m.path
	if k == kindDir {
		path += "/"
	}
	if err := f.stage(ctx, m.dir.v, put(path, e)); err != nil {
		return 0, Attr{}, err
	}
	n := f.made(m, k, e)
	n.mu.Lock()
	defer n.mu.Unlock()
	a, err := f.attrLocked(ctx, n)
	return n.id, a, err
}

// Mknod makes an empty file, a named pipe or a socket.
func (f *FS) Mknod(ctx context.Context, c Caller, parent NodeID, name string, mode uint32) (NodeID, Attr, error) {
	switch mode & syscall.S_IFMT {
	case 0, syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK:
	default:
		return 0, Attr{}, syscall.EPERM
	}
	return f.makeEntry(ctx, parent, name, kindFile, func(dir *node) graveler.Entry { return newEntry(f.owner(dir, c, mode)) })
}

// Mkdir makes a directory; above the versions, a branch or a repository.
func (f *FS) Mkdir(ctx context.Context, c Caller, parent NodeID, name string, mode uint32) (NodeID, Attr, error) {
	p, err := f.node(parent)
	if err != nil {
		return 0, Attr{}, err
	}
	if p.kind < kindDir {
		n, err := f.mkdirTop(ctx, p, name)
		if err != nil {
			return 0, Attr{}, err
		}
		a, err := f.attr(ctx, n)
		return n.id, a, err
	}
	return f.makeEntry(ctx, parent, name, kindDir, func(dir *node) graveler.Entry {
		return newEntry(f.owner(dir, c, mode|syscall.S_IFDIR))
	})
}

// Symlink makes a symbolic link; among refs, "@new" to "@ref" makes a branch.
func (f *FS) Symlink(ctx context.Context, c Caller, parent NodeID, name, target string) (NodeID, Attr, error) {
	p, err := f.node(parent)
	if err != nil {
		return 0, Attr{}, err
	}
	if p.kind < kindDir {
		ref, ok := strings.CutPrefix(target, "@")
		if p.kind != kindRepo || !ok {
			return 0, Attr{}, fmt.Errorf("link %q to %q: among refs, ln -s @ref @new makes a branch: %w", name, target, graveler.Denied)
		}
		n, err := f.branch(ctx, p, name, graveler.Ref(ref))
		if err != nil {
			return 0, Attr{}, err
		}
		f.Forget(n.id, 1)
		return f.passingLink(ctx, p, name, target)
	}
	if len(target) > 4095 {
		return 0, Attr{}, graveler.TooLarge
	}
	return f.makeEntry(ctx, parent, name, kindFile, func(dir *node) graveler.Entry {
		e := newEntry(f.owner(dir, c, syscall.S_IFLNK|0o777))
		if graveler.ValidUTF8(target) {
			e.Metadata[graveler.MetaSymlink] = target
		} else {
			e.Metadata[graveler.MetaSymlinkB64] = base64.StdEncoding.EncodeToString([]byte(target))
		}
		return e
	})
}

// dirMarker is the change that keeps a directory when its last child goes: nil if it has a marker, or another child.
func (f *FS) dirMarker(ctx context.Context, dir *node, leaving string) ([]graveler.Change, error) {
	path := f.pathOf(dir)
	dir.mu.Lock()
	has := dir.has && dir.valid
	dir.mu.Unlock()
	if path == "" || has {
		return nil, nil
	}
	if _, err := f.eng.Stat(ctx, dir.v.repo, dir.v.ref, path+"/"); err == nil {
		return nil, nil
	} else if graveler.KindOf(err) != graveler.NotFound {
		return nil, err
	}
	for l, err := range f.eng.List(ctx, dir.v.repo, dir.v.ref, engine.ListQuery{Prefix: path + "/", Delimiter: "/", Limit: 2}) {
		if err != nil {
			return nil, err
		}
		if strings.TrimSuffix(l.Path, "/") != join(path, leaving) {
			return nil, nil
		}
	}
	e := newEntry(graveler.Permissions{UID: f.cfg.UID, GID: f.cfg.GID, Mode: 0o755 | fs.ModeDir})
	dir.mu.Lock()
	dir.has, dir.entry, dir.valid = true, e, true
	dir.mu.Unlock()
	return []graveler.Change{put(path+"/", e)}, nil
}

// Unlink removes a file.
func (f *FS) Unlink(ctx context.Context, parent NodeID, name string) error {
	m, err := f.begin(ctx, parent, name)
	if err != nil {
		return err
	}
	defer m.done()
	found, err := f.eng.Lookup(ctx, m.dir.v.repo, m.dir.v.ref, m.path)
	if err != nil {
		return err
	}
	if found.HasPrefix {
		return graveler.IsDir
	}
	if !found.HasObject {
		return graveler.NotFound
	}
	changes, err := f.dirMarker(ctx, m.dir, name)
	if err != nil {
		return err
	}
	if err := f.holdOpen(m.dir, name, &found.Object); err != nil {
		return err
	}
	if err := f.stage(ctx, m.dir.v, append(changes, remove(m.path))...); err != nil {
		return err
	}
	f.drop(m.dir, name)
	f.touched(m.dir)
	return nil
}

// holdOpen makes sure that handles of a pending file keep its bytes when its name goes.
func (f *FS) holdOpen(dir *node, name string, e *graveler.Entry) error {
	if e.Pending == "" {
		return nil
	}
	f.mu.Lock()
	n := dir.children[name]
	f.mu.Unlock()
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.writers+n.readers > 0 && n.content == nil {
		n.entry, n.valid = *e, true
		if err := f.openContent(n, false); err != nil && graveler.KindOf(err) != graveler.NotFound {
			return err
		}
	}
	return nil
}

// drop takes the node of a name out of the tree.
func (f *FS) drop(dir *node, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := dir.children[name]; n != nil {
		f.unlink(n)
	}
}

// Rmdir removes an empty directory; above the versions, a branch.
func (f *FS) Rmdir(ctx context.Context, parent NodeID, name string) error {
	p, err := f.node(parent)
	if err != nil {
		return err
	}
	if p.kind < kindDir {
		return f.rmdirTop(ctx, p, name)
	}
	m, err := f.begin(ctx, parent, name)
	if err != nil {
		return err
	}
	defer func() { m.done() }() // the present one: it is exchanged below
	v := m.dir.v
	inside := f.cfg.Locks.index(v, m.path)
	if outside := f.cfg.Locks.index(v, f.pathOf(m.dir)); inside != outside {
		// In the order that two directories are locked in everywhere; nothing was done yet, so letting go is safe.
		m.done()
		f.moving.RLock()
		unlock := f.cfg.Locks.lock(inside, outside)
		m.done = func() { unlock(); f.moving.RUnlock() }
	}
	found, err := f.eng.Lookup(ctx, v.repo, v.ref, m.path)
	if err != nil {
		return err
	}
	if !found.HasPrefix {
		if found.HasObject {
			return graveler.NotDir
		}
		return graveler.NotFound
	}
	for _, err := range f.eng.List(ctx, v.repo, v.ref, engine.ListQuery{Prefix: m.path + "/", Delimiter: "/", Limit: 1}) {
		if err != nil {
			return err
		}
		return graveler.NotEmpty
	}
	changes, err := f.dirMarker(ctx, m.dir, name)
	if err != nil {
		return err
	}
	if err := f.stage(ctx, v, append(changes, remove(m.path+"/"))...); err != nil {
		return err
	}
	f.drop(m.dir, name)
	f.touched(m.dir)
	return nil
}

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
	if *vKey(a.v) != *vKey(b.v) {
		return syscall.EXDEV
	}
	if flags&^(RenameNoReplace|RenameExchange) != 0 || flags == RenameNoReplace|RenameExchange {
		return graveler.Invalid
	}
	if len(newName) > 255 {
		return graveler.TooLarge
	}
	if oldName == ctlName || newName == ctlName {
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
	s, err := f.eng.Lookup(ctx, v.repo, v.ref, m.src)
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
	d, err := f.eng.Lookup(ctx, v.repo, v.ref, m.dst)
	if err != nil {
		return err
	}
	exists := d.HasPrefix || d.HasObject
	if m.flags&RenameExchange != 0 {
		if !exists {
			return graveler.NotFound
		}
		if s.HasPrefix || d.HasPrefix {
			return fmt.Errorf("exchange of directories: %w", syscall.EINVAL)
		}
		if err := f.stage(ctx, v, put(m.src, d.Object), put(m.dst, s.Object)); err != nil {
			return err
		}
		f.swapNodes(m)
		return nil
	}
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
			for _, err := range f.eng.List(ctx, v.repo, v.ref, engine.ListQuery{Prefix: m.dst + "/", Delimiter: "/", Limit: 1}) {
				if err != nil {
					return err
				}
				return graveler.NotEmpty
			}
		default:
			if err := f.holdOpen(m.b, m.newName, &d.Object); err != nil {
				return err
			}
		}
	}
	marker, err := f.dirMarker(ctx, m.a, m.oldName)
	if err != nil {
		return err
	}
	if s.HasPrefix {
		if len(marker) > 0 {
			if err := f.stage(ctx, v, marker...); err != nil {
				return err
			}
		}
		if err := f.eng.Move(ctx, v.repo, graveler.BranchID(v.ref), m.src+"/", m.dst+"/"); err != nil {
			return err
		}
	} else if err := f.stage(ctx, v, append(marker, put(m.dst, s.Object), remove(m.src))...); err != nil {
		return err
	}
	f.moveNode(m)
	return nil
}

// moveNode moves the node of a renamed name, whose number stays.
func (f *FS) moveNode(m *moveOp) {
	f.mu.Lock()
	if old := m.b.children[m.newName]; old != nil {
		f.unlink(old)
	}
	n := m.a.children[m.oldName]
	if n != nil {
		delete(m.a.children, m.oldName)
		n.parent, n.name = m.b, m.newName
		m.b.children[m.newName] = n
		f.free(m.a)
	}
	f.mu.Unlock()
	now := time.Now()
	for _, x := range []*node{m.a, m.b} {
		f.touched(x)
	}
	if n != nil {
		n.mu.Lock()
		n.ctime = now
		n.mu.Unlock()
	}
}

func (f *FS) swapNodes(m *moveOp) {
	f.mu.Lock()
	x, y := m.a.children[m.oldName], m.b.children[m.newName]
	delete(m.a.children, m.oldName)
	delete(m.b.children, m.newName)
	if x != nil {
		x.parent, x.name = m.b, m.newName
		m.b.children[m.newName] = x
	}
	if y != nil {
		y.parent, y.name = m.a, m.oldName
		m.a.children[m.oldName] = y
	}
	f.mu.Unlock()
	f.touched(m.a)
	f.touched(m.b)
}

// restage changes the metadata of a file's or a directory's entry.
func (f *FS) restage(ctx context.Context, n *node, edit func(e *graveler.Entry) error) error {
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return f.restageLocked(ctx, n, edit)
}

func (f *FS) restageLocked(ctx context.Context, n *node, edit func(e *graveler.Entry) error) error {
	if err := f.refresh(ctx, n); err != nil {
		return err
	}
	path := f.pathOf(n)
	e := n.entry
	e.Metadata = maps.Clone(e.Metadata)
	if n.kind == kindDir {
		path += "/"
		if !n.has {
			e = newEntry(graveler.Permissions{UID: f.cfg.UID, GID: f.cfg.GID, Mode: 0o755 | fs.ModeDir})
		}
	}
	if e.Metadata == nil {
		e.Metadata = map[string]string{}
	}
	if err := edit(&e); err != nil {
		return err
	}
	if !f.isGone(n) && path != "/" {
		if err := f.stage(ctx, n.v, put(path, e)); err != nil {
			return err
		}
	}
	n.entry, n.ctime, n.valid = e, time.Now(), true
	if n.kind == kindDir {
		n.has = true
	}
	return nil
}

// passingLink is what the kernel is told that a symlink(2) among refs made: it wants a link, and looks the name up again at its
// next use, when it finds the branch.
func (f *FS) passingLink(ctx context.Context, p *node, name, target string) (NodeID, Attr, error) {
	e := newEntry(graveler.Permissions{UID: f.cfg.UID, GID: f.cfg.GID, Mode: fs.ModeSymlink | 0o777})
	e.Metadata[graveler.MetaSymlink] = target
	f.mu.Lock()
	n := &node{id: f.nextID, kind: kindFile, v: &version{moves: true}, parent: p, name: name, lookups: 1, gone: true, valid: true, entry: e}
	f.nextID++
	n.ino = inode(n) + 1
	f.nodes[n.id] = n
	f.mu.Unlock()
	a, err := f.attr(ctx, n)
	a.Writing = true // known for no time at all
	return n.id, a, err
}
