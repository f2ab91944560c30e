package vfs

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/spill"
)

// ControlName is the control directory's name.
const ControlName = ".lakefs"

// ObjectName is the file in a directory's control directory that holds the object of the directory's own key.
const ObjectName = "object"

// Lookup finds a name in a directory, and counts one lookup of its node.
func (f *FS) Lookup(ctx context.Context, parent NodeID, name string) (NodeID, Attr, error) {
	p, err := f.node(parent)
	if err != nil {
		return 0, Attr{}, err
	}
	f.awaitRoom()
	n, err := f.lookup(ctx, p, name)
	if err != nil {
		return 0, Attr{}, err
	}
	a, err := f.attr(ctx, n)
	if err != nil {
		f.Forget(n.id, 1)
		return 0, Attr{}, err
	}
	return n.id, a, nil
}

func (f *FS) lookup(ctx context.Context, p *node, name string) (*node, error) {
	switch p.kind {
	case kindTop:
		return f.lookupTop(ctx, p, name)
	case kindRepo:
		return f.lookupRef(ctx, p, name)
	case kindCtlDir:
		return f.lookupCtl(ctx, p, name)
	case kindDir:
	default:
		return nil, graveler.NotDir
	}
	if len(name) > 255 {
		return nil, graveler.TooLarge
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	if name == ControlName {
		return f.child(p, name, kindCtlDir, p.v, 0), nil
	}
	for try := 0; ; try++ {
		if n := f.known(p, name); n != nil {
			return n, nil
		}
		path, as := join(f.pathOf(p), name), f.asOf()
		found, err := f.eng.Lookup(ctx, p.v.repo, p.v.ref, path)
		if err != nil {
			return nil, err
		}
		n, err := f.take(ctx, p, name, path, found, as)
		if graveler.KindOf(err) == graveler.Stale && try < 3 {
			continue // the name was given to another file meanwhile
		}
		return n, err
	}
}

// asOf tells when something was looked up: the counts of changes by others, and of this tree's own.
type asOf struct{ told, made uint64 }

func (f *FS) asOf() asOf { return asOf{f.told.Load(), f.made.Load()} }

// known returns the node of a name that is in memory and can be trusted: of a version that never changes, or one that is kept
// up to date by events.
func (f *FS) known(p *node, name string) *node {
	f.mu.Lock()
	n := p.children[name]
	if n == nil {
		f.mu.Unlock()
		return nil
	}
	n.lookups++
	n.recent = true
	f.mu.Unlock()
	n.mu.Lock()
	ok := n.fresh() && !f.distant(p.v)
	if !ok {
		// Before the engine is asked: what is told from now on makes it stale again.
		n.stale.Store(false)
		n.valid = false
	}
	n.mu.Unlock()
	if !ok {
		f.Forget(n.id, 1)
		return nil
	}
	return n
}

// distant reports whether other machines may change a version.
func (f *FS) distant(v *version) bool { return f.cfg.Elsewhere && v != nil && v.writable }

// doubt has the entry of a file that other machines may change asked for again, unless it is being written here. Hold n.mu.
func (f *FS) doubt(n *node) {
	if f.distant(n.v) && n.content == nil {
		n.valid = false
	}
}

// take makes or refreshes the node of what was found at a name and path. It fails with Stale if the name should be looked up again.
func (f *FS) take(ctx context.Context, p *node, name, path string, found graveler.Found, as asOf) (*node, error) {
	switch {
	case found.HasPrefix:
		f.mu.Lock()
		n := p.children[name]
		ino := uint64(0)
		if n == nil || n.kind != kindDir {
			ino = number(p.v, &found.Marker, path+"/")
		}
		n = f.childLocked(p, name, kindDir, p.v, ino)
		f.mu.Unlock()
		n.mu.Lock()
		n.has = found.HasMarker
		n.set(found.Marker)
		n.mu.Unlock()
		f.mistrust(n, as.told)
		return n, nil
	case found.HasObject:
		n := f.fileNode(p, name, number(p.v, &found.Object, path), &found.Object)
		if err := f.takeFile(ctx, n, &found.Object, as.made); err != nil {
			f.Forget(n.id, 1)
			return nil, err
		}
		f.mistrust(n, as.told)
		return n, nil
	}
	return nil, graveler.NotFound
}

// takeFile gives a file's node what was found, if that can't be older than what this tree did since. A file that is open is asked for
// under its lock, see renew.
func (f *FS) takeFile(ctx context.Context, n *node, e *graveler.Entry, made uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.readers+n.writers == 0 && f.made.Load() == made {
		n.set(*e)
		return nil
	}
	n.valid = false
	err := f.refresh(ctx, n)
	if err == nil && f.isGone(n) {
		return graveler.Stale
	}
	return err
}

// mistrust marks a node stale if others changed anything since it was looked up: they may not have found it yet.
func (f *FS) mistrust(n *node, told uint64) {
	if f.told.Load() != told && n.v.writable {
		n.stale.Store(true)
	}
}

// fileNode is child of a file, which may have other names and be known by them.
func (f *FS) fileNode(p *node, name string, ino uint64, e *graveler.Entry) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Metadata[graveler.MetaLinks] == "" {
		return f.childLocked(p, name, kindFile, p.v, ino)
	}
	key := fileKey{vKey(p.v), ino}
	n := f.several[key]
	if n == nil || n.gone {
		n = f.childLocked(p, name, kindFile, p.v, ino)
		f.several[key] = n
		return n
	}
	f.hang(n, dentry{p, name})
	n.lookups++
	return n
}

// refresh brings a node's entry up to date. Hold n.mu and moving. Stale if its name is another file's now: a look at the name finds
// that. errLoose, which is Stale too, if it is open and has just lost its name to another content: it can be used on.
func (f *FS) refresh(ctx context.Context, n *node) error {
	if n.stale.Swap(false) {
		n.valid = false
	}
	if n.valid || n.v == nil {
		return nil
	}
	f.mu.Lock()
	gone, path := n.gone, n.path()
	f.mu.Unlock()
	if gone {
		return nil
	}
	switch n.kind {
	case kindFile:
		found, err := f.eng.Lookup(ctx, n.v.repo, n.v.ref, path)
		if err != nil {
			return err
		}
		if found.HasPrefix || !found.HasObject || number(n.v, &found.Object, path) != n.ino {
			f.mu.Lock()
			f.cut(n, n.dentry)
			gone := n.gone
			f.mu.Unlock()
			if !gone {
				return f.refresh(ctx, n) // by its next name
			}
			if n.readers+n.writers > 0 {
				n.valid, n.loose = true, true
				return errLoose
			}
			return fmt.Errorf("%q: %w", path, graveler.Stale)
		}
		return f.renew(n, found.Object)
	case kindDir:
		if path == "" {
			n.valid = true
			break
		}
		found, err := f.eng.Lookup(ctx, n.v.repo, n.v.ref, path)
		if err != nil {
			return err
		}
		if !found.HasPrefix {
			return fmt.Errorf("%q: %w", path, graveler.Stale)
		}
		n.has, n.subdirs = found.HasMarker, 0
		n.set(found.Marker)
	case kindObject:
		e, err := f.eng.Stat(ctx, n.v.repo, n.v.ref, objectPath(path))
		if err != nil {
			return err
		}
		n.set(e)
	}
	return nil
}

// objectPath is the key of the object that is read at <dir>/.lakefs/object.
func objectPath(p string) string { return p[:len(p)-len("/"+ControlName+"/"+ObjectName)] }

// Getattr returns a node's attributes.
func (f *FS) Getattr(ctx context.Context, id NodeID) (Attr, error) {
	n, err := f.node(id)
	if err != nil {
		return Attr{}, err
	}
	return f.attr(ctx, n)
}

func (f *FS) attr(ctx context.Context, n *node) (Attr, error) {
	a := Attr{Ino: n.ino, Nlink: 1, UID: f.cfg.UID, GID: f.cfg.GID, Atime: f.start, Mtime: f.start, Ctime: f.start}
	switch n.kind {
	case kindTop, kindRepo:
		a.Mode, a.Nlink = syscall.S_IFDIR|0o755, 2
		return a, nil
	case kindCtlDir:
		a.Mode, a.Nlink = syscall.S_IFDIR|0o755, 2
		return a, nil
	case kindCtlFile:
		a.Mode = syscall.S_IFREG | 0o444
		if f.cfg.Control.Writable(n.name) && n.v.writable {
			a.Mode |= 0o222
		}
		a.Writing = true // its size is known by reading
		if f.Still() || f.cfg.ControlSizes {
			// There it is read without an open.
			text, err := f.cfg.Control.Read(ctx, n.v.repo, n.v.ref, n.name)
			if err != nil {
				return a, err
			}
			a.Size = uint64(len(text))
		}
		now := time.Now()
		a.Atime, a.Mtime, a.Ctime = now, now, now
		return a, nil
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	f.doubt(n)
	return f.attrLocked(ctx, n)
}

// attrLocked is attr of what lies in a version. Hold moving and n.mu.
func (f *FS) attrLocked(ctx context.Context, n *node) (Attr, error) {
	for try := 0; ; try++ {
		if err := f.refresh(ctx, n); err != nil && !errors.Is(err, errLoose) {
			return Attr{}, err
		}
		a, err := f.entryAttr(n, n.state)
		if !errors.Is(err, graveler.NotFound) || try > 3 {
			return a, err
		}
		n.valid = false // settled since; the engine tells as what
	}
}

// entryAttr is what a node's attributes are by what is known of it. Hold n.mu.
func (f *FS) entryAttr(n *node, s *state) (Attr, error) {
	e := &s.entry
	a := Attr{Ino: n.ino, Nlink: 1, UID: f.cfg.UID, GID: f.cfg.GID, Still: !n.v.writable, Mtime: e.Mtime()}
	a.Writing = n.stale.Load() || f.shared(n.v)
	a.Brief = f.distant(n.v)
	a.Gone = f.isGone(n)
	a.Moves = n.v.moves && n.parent != nil && n.parent.kind == kindRepo
	known := s.hasPerm
	if known {
		a.UID, a.GID = s.perm.UID, s.perm.GID
	}
	changed := e.Changed
	if n.kind == kindDir {
		a.Nlink = uint32(max(s.subdirs, 0) + 1)
		a.Mode = syscall.S_IFDIR | 0o755
		if known && s.has {
			a.Mode = modeOf(s.perm.Mode|fs.ModeDir) | syscall.S_IFDIR
		}
		if !s.has {
			a.UID, a.GID = f.cfg.UID, f.cfg.GID
			a.Mtime = n.v.commit.Created
		}
		if !s.changed.IsZero() {
			a.Mtime = s.changed
		}
		a.Mtime = later(a.Mtime, &s.names)
	} else {
		a.Mode = syscall.S_IFREG | 0o644
		if known {
			a.Mode = modeOf(s.perm.Mode &^ fs.ModeDir)
		}
		a.Size = uint64(e.Size)
		if target, ok := symlink(e); ok {
			a.Mode = syscall.S_IFLNK | 0o777
			a.Size = uint64(len(target))
		}
		if dev, err := strconv.ParseUint(e.Metadata[graveler.MetaDevice], 10, 32); err == nil {
			a.Rdev = uint32(dev)
		}
		if e.Metadata[graveler.MetaLinks] != "" {
			a.Nlink = uint32(len(e.Links()))
		}
		if a.Gone {
			a.Nlink = 0
		}
		a.Blocks = (a.Size + 511) / 512
		if e.Pending != "" {
			var info spill.Info
			var err error
			if s.content != nil {
				info, err = s.content.Stat()
			} else {
				info, err = f.cfg.Spill.Stat(e.Pending)
			}
			if err != nil {
				return a, err
			}
			a.Size, a.Mtime, a.Blocks = uint64(info.Size), info.Mtime, info.Blocks
		}
	}
	a.Atime = a.Mtime
	if !e.Accessed.IsZero() {
		a.Atime = e.Accessed
	}
	// A write changes both times, and is not known to staging; a time that was set into the future isn't when it was changed.
	a.Ctime = changed
	if a.Mtime.After(a.Ctime) && (changed.IsZero() || a.Mtime.Before(time.Now())) {
		a.Ctime = a.Mtime
	}
	if s.ctime.After(a.Ctime) {
		a.Ctime = s.ctime
	}
	if n.kind == kindDir {
		a.Ctime = later(a.Ctime, &s.any)
	}
	return a, nil
}

func permissions(e *graveler.Entry) (graveler.Permissions, bool) {
	s, ok := e.Metadata[graveler.MetaPermissions]
	if !ok {
		return graveler.Permissions{}, false
	}
	p, err := graveler.ParsePermissions(s)
	return p, err == nil
}

func symlink(e *graveler.Entry) (string, bool) {
	if t, ok := e.Metadata[graveler.MetaSymlink]; ok {
		return t, true
	}
	if t, ok := e.Metadata[graveler.MetaSymlinkB64]; ok {
		b, err := base64.StdEncoding.DecodeString(t)
		return string(b), err == nil
	}
	return "", false
}

// Readlink returns a symbolic link's target.
func (f *FS) Readlink(ctx context.Context, id NodeID) (string, error) {
	n, err := f.node(id)
	if err != nil {
		return "", err
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.refresh(ctx, n); err != nil {
		return "", err
	}
	if t, ok := symlink(&n.entry); ok && n.kind == kindFile {
		return t, nil
	}
	return "", graveler.Invalid
}

// KeepsAbsent reports whether the kernel may keep that a name isn't in a directory, as it is told when one comes; briefly if other
// machines may make one.
func (f *FS) KeepsAbsent(id NodeID) (keeps, briefly bool) {
	n, err := f.node(id)
	if err != nil || n.kind != kindDir || f.shared(n.v) {
		return false, false
	}
	return true, f.distant(n.v)
}
