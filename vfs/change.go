package vfs

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/spill"
)

func put(path string, e graveler.Entry) graveler.Change { return graveler.Change{Path: path, Entry: e} }
func remove(path string) graveler.Change                { return graveler.Change{Path: path, Remove: true} }

// emptyMD5 is the MD5 of no bytes.
const emptyMD5 = "d41d8cd98f00b204e9800998ecf8427e"

// stage stages changes that are reported back to nobody: this tree knows them.
func (f *FS) stage(ctx context.Context, v *version, changes ...graveler.Change) error {
	err := f.eng.Stage(engine.WithOrigin(ctx, f.origin), v.repo, graveler.BranchID(v.ref), changes)
	f.made.Add(1)
	if f.cfg.Locks.count.Load() > 1 {
		paths := make([]string, len(changes))
		for i := range changes {
			paths[i] = changes[i].Path
		}
		f.tellPeers(v, paths)
	}
	return err
}

// owner is the mode and owner of something new in a directory: a setgid directory hands on its group, and to directories the bit.
func (f *FS) owner(dir *node, c Caller, mode uint32) graveler.Permissions {
	p := graveler.Permissions{UID: c.UID, GID: c.GID, Mode: fileMode(mode)}
	dir.mu.Lock()
	defer dir.mu.Unlock()
	if dir.hasPerm && dir.has && dir.perm.Mode&fs.ModeSetgid != 0 {
		p.GID = dir.perm.GID
		if p.Mode.IsDir() {
			p.Mode |= fs.ModeSetgid
		}
	}
	return p
}

func newEntry(p graveler.Permissions) graveler.Entry {
	e := graveler.Entry{AddressType: graveler.AddressRelative, ETag: emptyMD5, Metadata: map[string]string{graveler.MetaPermissions: p.String()}, Inode: newInode()}
	e.SetMtime(time.Now())
	e.Changed = e.Modified
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
	if name == ControlName {
		return nil, fmt.Errorf("%s is the control directory's name: %w", ControlName, graveler.Denied)
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

// madeNode makes the node of what was staged.
func (f *FS) madeNode(m *making, k kind, e graveler.Entry) *node {
	n := f.child(m.dir, m.name, k, m.dir.v, number(m.dir.v, &e, m.path))
	n.mu.Lock()
	n.stale.Store(false)
	n.has = k == kindDir
	n.set(e)
	if k == kindDir {
		n.subdirs = 1
		n.changed = time.Time{}
	}
	n.mu.Unlock()
	f.touched(m.dir)
	if k == kindDir {
		m.dir.countDirs(1)
	}
	return n
}

// countDirs notes that subdirectories came or went, where their count is known.
func (n *node) countDirs(by int) {
	n.mu.Lock()
	if n.subdirs > 0 {
		n.subdirs = max(n.subdirs+by, 1)
	}
	n.mu.Unlock()
}

// Create makes and opens a file. With flags O_EXCL an existing one is an error; without, it is opened.
func (f *FS) Create(ctx context.Context, c Caller, parent NodeID, name string, flags int, mode uint32) (NodeID, Attr, Opened, error) {
	return f.create(ctx, c, parent, name, flags, mode, nil)
}

// CreateOnce makes and opens a file for a caller who may ask again, not knowing whether it was made: the file that was made for the same
// token is opened, any other one is an error. The token is kept as the file's time of access, which the caller is expected to set then.
func (f *FS) CreateOnce(ctx context.Context, c Caller, parent NodeID, name string, mode uint32, token uint64) (NodeID, Attr, Opened, error) {
	t := time.Unix(0, int64(token))
	id, a, o, err := f.create(ctx, c, parent, name, syscall.O_RDWR|syscall.O_EXCL, mode, func(e *graveler.Entry) { e.Accessed = t })
	if graveler.KindOf(err) != graveler.Exists {
		return id, a, o, err
	}
	id, a, lerr := f.Lookup(ctx, parent, name)
	if lerr != nil {
		return 0, Attr{}, Opened{}, lerr
	}
	if a.Mode&syscall.S_IFMT == syscall.S_IFREG && a.Atime.Equal(t) && token != 0 {
		o, oerr := f.Open(ctx, c, id, syscall.O_RDWR)
		if oerr == nil {
			return id, a, o, nil
		}
		err = oerr
	}
	f.Forget(id, 1)
	return 0, Attr{}, Opened{}, err
}

func (f *FS) create(ctx context.Context, c Caller, parent NodeID, name string, flags int, mode uint32, edit func(e *graveler.Entry)) (NodeID, Attr, Opened, error) {
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
		o, err := f.Open(ctx, c, id, flags)
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
	if edit != nil {
		edit(&e)
	}
	if err := f.stage(ctx, m.dir.v, put(m.path, e)); err != nil {
		f.cfg.Spill.Drop(sf.ID())
		sf.Close()
		return 0, Attr{}, Opened{}, err
	}
	n := f.madeNode(m, kindFile, e)
	n.mu.Lock()
	defer n.mu.Unlock()
	a, o, err := f.openMade(ctx, c, n, sf, flags)
	return n.id, a, o, err
}

// openMade opens a file that was just made with its content. Hold n.mu.
func (f *FS) openMade(ctx context.Context, c Caller, n *node, sf *spill.File, flags int) (Attr, Opened, error) {
	if n.content != nil {
		n.content.Close()
	}
	n.content, n.wopen = sf, true
	fl := &file{n: n, write: flags&syscall.O_ACCMODE != syscall.O_RDONLY, append: flags&syscall.O_APPEND != 0, slow: f.slow(c), entry: n.entry}
	// The handle counts even if it reads only: the file must stay until it is closed.
	n.count(fl, 1)
	o := f.opened(fl, c)
	a, err := f.attrLocked(ctx, n)
	o.Handle = f.addHandle(fl)
	return a, o, err
}

// Tmpfile makes and opens a file without a name (O_TMPFILE) in a directory; Link can give it one.
func (f *FS) Tmpfile(ctx context.Context, c Caller, parent NodeID, flags int, mode uint32) (NodeID, Attr, Opened, error) {
	dir, err := f.node(parent)
	if err != nil {
		return 0, Attr{}, Opened{}, err
	}
	if dir.kind != kindDir {
		return 0, Attr{}, Opened{}, graveler.Denied
	}
	if err := f.writable(dir.v); err != nil {
		return 0, Attr{}, Opened{}, err
	}
	sf, err := f.cfg.Spill.Create()
	if err != nil {
		return 0, Attr{}, Opened{}, err
	}
	e := newEntry(f.owner(dir, c, mode&^syscall.S_IFMT))
	e.Pending = sf.ID()
	n := &node{ino: number(dir.v, &e, ""), kind: kindFile, v: dir.v, dentry: dentry{parent: dir, name: fmt.Sprintf("#%d", e.Inode)}, lookups: 1, gone: true, unnamed: true, nameless: flags&syscall.O_EXCL != 0}
	f.mu.Lock()
	f.enter(n)
	f.keep(n)
	f.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set(e)
	a, o, err := f.openMade(ctx, c, n, sf, flags)
	return n.id, a, o, err
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
	n := f.madeNode(m, k, e)
	n.mu.Lock()
	defer n.mu.Unlock()
	a, err := f.attrLocked(ctx, n)
	return n.id, a, err
}

// Mknod makes an empty file, a named pipe, a socket or a device node.
func (f *FS) Mknod(ctx context.Context, c Caller, parent NodeID, name string, mode, dev uint32) (NodeID, Attr, error) {
	switch mode & syscall.S_IFMT {
	case 0, syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK: // the kernel asks who may make devices
	default:
		return 0, Attr{}, syscall.EINVAL
	}
	return f.makeEntry(ctx, parent, name, kindFile, func(dir *node) graveler.Entry {
		e := newEntry(f.owner(dir, c, mode))
		if t := mode & syscall.S_IFMT; t == syscall.S_IFCHR || t == syscall.S_IFBLK {
			e.Metadata[graveler.MetaDevice] = strconv.FormatUint(uint64(dev), 10)
		}
		return e
	})
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
	has := dir.has && dir.fresh()
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
	e.Inode = graveler.InodeOf(path + "/")
	dir.mu.Lock()
	dir.has = true
	dir.set(e)
	dir.mu.Unlock()
	return []graveler.Change{put(path+"/", e)}, nil
}

// found is what a name is: as this tree knows it, if it can be trusted, else as the engine does.
func (f *FS) found(ctx context.Context, dir *node, name, path string) (graveler.Found, error) {
	if n := f.knownChild(dir, name); n != nil && n.kind == kindFile && !f.shared(dir.v) {
		n.mu.Lock()
		e, ok := n.entry, n.fresh()
		n.mu.Unlock()
		if ok {
			return graveler.Found{HasObject: true, Object: e}, nil
		}
	}
	return f.eng.Lookup(ctx, dir.v.repo, dir.v.ref, path)
}

// Unlink removes a file.
func (f *FS) Unlink(ctx context.Context, parent NodeID, name string) error {
	m, err := f.begin(ctx, parent, name)
	if err != nil {
		return err
	}
	defer m.done()
	found, err := f.found(ctx, m.dir, name, m.path)
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
	rest, err := f.stageWithout(ctx, m, &found.Object, changes)
	if err != nil {
		return err
	}
	f.dropName(ctx, m.dir, name, rest)
	f.touched(m.dir)
	return nil
}

// stageWithout stages changes and the removal of a file's name, and tells the file's other names: rest. It takes no node's lock while it
// has that of the names.
func (f *FS) stageWithout(ctx context.Context, m *making, e *graveler.Entry, changes []graveler.Change) (rest []graveler.Change, err error) {
	v := m.dir.v
	defer f.lockNames(v, e)()
	now, err := f.newest(ctx, v, m.path, e)
	if err != nil {
		return nil, err
	}
	if rest, err = f.withoutName(ctx, v, &now, m.path); err != nil {
		return nil, err
	}
	return rest, f.stage(ctx, v, append(append(changes, remove(m.path)), rest...)...)
}

// holdOpen makes sure that handles of a pending file keep its bytes when its name goes.
func (f *FS) holdOpen(dir *node, name string, e *graveler.Entry) error {
	n := f.knownChild(dir, name)
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kind == kindFile {
		n.ctime = time.Now()
	}
	if e.Pending != "" && n.writers+n.readers > 0 && n.content == nil {
		n.set(*e)
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
		f.cut(n, dentry{dir, name})
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
	if empty, err := f.emptyDir(ctx, v, m.path); err != nil || !empty {
		return orErr(err, graveler.NotEmpty)
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
	m.dir.countDirs(-1)
	return nil
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
	unlock, err := f.lockNode(ctx, n)
	if err != nil {
		return err
	}
	defer unlock()
	path := f.pathOf(n)
	e := n.entry
	e.Metadata = maps.Clone(e.Metadata)
	if n.kind == kindDir {
		path += "/"
		if !n.has {
			e = newEntry(graveler.Permissions{UID: f.cfg.UID, GID: f.cfg.GID, Mode: 0o755 | fs.ModeDir})
			e.Inode = graveler.InodeOf(path)
		}
	}
	if e.Metadata == nil {
		e.Metadata = map[string]string{}
	}
	if err := edit(&e); err != nil {
		return err
	}
	e.Changed = time.Now()
	if !f.isGone(n) && path != "/" {
		changes, err := f.puts(ctx, n.v, path, e)
		if err != nil {
			return err
		}
		if err := f.stage(ctx, n.v, changes...); err != nil {
			return err
		}
	}
	n.ctime = e.Changed
	n.set(e)
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
	n := &node{kind: kindFile, v: &version{moves: true}, dentry: dentry{p, name}, lookups: 1, gone: true}
	n.ino = specialNumber(n)
	f.mu.Lock()
	f.enter(n)
	f.keep(n)
	f.mu.Unlock()
	n.mu.Lock()
	n.set(e)
	n.mu.Unlock()
	a, err := f.attr(ctx, n)
	a.Writing = true // known for no time at all
	return n.id, a, err
}
