package vfs

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// ctlName is the control directory's name.
const ctlName = ".lakefs"

// objectName is the file in a directory's control directory that holds the object of the directory's own key.
const objectName = "object"

// Lookup finds a name in a directory, and counts one lookup of its node.
func (f *FS) Lookup(ctx context.Context, parent NodeID, name string) (NodeID, Attr, error) {
	p, err := f.node(parent)
	if err != nil {
		return 0, Attr{}, err
	}
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
	if name == ctlName {
		return f.child(p, name, kindCtlDir, p.v), nil
	}
	if n := f.known(p, name); n != nil {
		return n, nil
	}
	found, err := f.eng.Lookup(ctx, p.v.repo, p.v.ref, join(f.pathOf(p), name))
	if err != nil {
		return nil, err
	}
	return f.take(p, name, found)
}

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
	f.mu.Unlock()
	n.mu.Lock()
	ok := n.valid && (n.entry.Pending == "" || n.content != nil)
	n.mu.Unlock()
	if !ok {
		f.Forget(n.id, 1)
		return nil
	}
	return n
}

// take makes or refreshes the node of what was found.
func (f *FS) take(p *node, name string, found graveler.Found) (*node, error) {
	switch {
	case found.HasPrefix:
		n := f.child(p, name, kindDir, p.v)
		n.mu.Lock()
		n.valid, n.has, n.entry = true, found.HasMarker, found.Marker
		n.mu.Unlock()
		return n, nil
	case found.HasObject:
		n := f.child(p, name, kindFile, p.v)
		n.mu.Lock()
		n.valid, n.entry = true, found.Object
		n.mu.Unlock()
		return n, nil
	}
	return nil, graveler.NotFound
}

// refresh brings a node's entry up to date. Hold n.mu and moving.
func (f *FS) refresh(ctx context.Context, n *node) error {
	f.mu.Lock()
	gone, path := n.gone, n.path()
	f.mu.Unlock()
	if gone || n.valid || n.v == nil {
		return nil
	}
	switch n.kind {
	case kindFile:
		found, err := f.eng.Lookup(ctx, n.v.repo, n.v.ref, path)
		if err != nil {
			return err
		}
		if found.HasPrefix || !found.HasObject {
			return fmt.Errorf("%q: %w", path, graveler.Stale)
		}
		n.entry = found.Object
	case kindDir:
		if path == "" {
			break
		}
		found, err := f.eng.Lookup(ctx, n.v.repo, n.v.ref, path)
		if err != nil {
			return err
		}
		if !found.HasPrefix {
			return fmt.Errorf("%q: %w", path, graveler.Stale)
		}
		n.has, n.entry = found.HasMarker, found.Marker
	case kindObject:
		e, err := f.eng.Stat(ctx, n.v.repo, n.v.ref, objectPath(path))
		if err != nil {
			return err
		}
		n.entry = e
	}
	n.valid = true
	return nil
}

// objectPath is the key of the object that is read at <dir>/.lakefs/object.
func objectPath(p string) string { return p[:len(p)-len("/"+ctlName+"/"+objectName)] }

// Getattr returns a node's attributes.
func (f *FS) Getattr(ctx context.Context, id NodeID) (Attr, error) {
	n, err := f.node(id)
	if err != nil {
		return Attr{}, err
	}
	return f.attr(ctx, n)
}

func (f *FS) attr(ctx context.Context, n *node) (Attr, error) {
	a := Attr{Ino: n.ino, Nlink: 1, UID: f.cfg.UID, GID: f.cfg.GID, Mtime: f.start, Ctime: f.start}
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
		a.Mtime, a.Ctime = time.Now(), time.Now()
		return a, nil
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return f.attrLocked(ctx, n)
}

// attrLocked is attr of what lies in a version. Hold moving and n.mu.
func (f *FS) attrLocked(ctx context.Context, n *node) (Attr, error) {
	for try := 0; ; try++ {
		if err := f.refresh(ctx, n); err != nil {
			return Attr{}, err
		}
		a, err := f.entryAttr(n)
		if !errors.Is(err, graveler.NotFound) || try > 3 {
			return a, err
		}
		n.valid = false // settled since; the engine tells as what
	}
}

func (f *FS) entryAttr(n *node) (Attr, error) {
	e := &n.entry
	a := Attr{Ino: n.ino, Nlink: 1, UID: f.cfg.UID, GID: f.cfg.GID, Still: !n.v.writable, Mtime: e.Mtime()}
	a.Moves = n.v.moves && n.parent != nil && n.parent.kind == kindRepo
	perm, known := permissions(e)
	if known {
		a.UID, a.GID = perm.UID, perm.GID
	}
	if n.kind == kindDir {
		a.Nlink = 2
		a.Mode = syscall.S_IFDIR | 0o755
		if known && n.has {
			a.Mode = modeOf(perm.Mode|fs.ModeDir) | syscall.S_IFDIR
		}
		if !n.has {
			a.UID, a.GID = f.cfg.UID, f.cfg.GID
			a.Mtime = n.v.commit.Created
		}
		if !n.changed.IsZero() {
			a.Mtime = n.changed
		}
	} else {
		a.Mode = syscall.S_IFREG | 0o644
		if known {
			a.Mode = modeOf(perm.Mode &^ fs.ModeDir)
		}
		a.Size = uint64(e.Size)
		if target, ok := symlink(e); ok {
			a.Mode = syscall.S_IFLNK | 0o777
			a.Size = uint64(len(target))
		}
		if e.Pending != "" {
			a.Writing = n.writers == 0
			if n.content != nil {
				info, err := n.content.Stat()
				if err != nil {
					return a, err
				}
				a.Size, a.Mtime = uint64(info.Size), info.Mtime
			} else {
				info, err := f.cfg.Spill.Stat(e.Pending)
				if err != nil {
					return a, err
				}
				a.Size, a.Mtime = uint64(info.Size), info.Mtime
			}
		}
	}
	a.Ctime = a.Mtime
	if n.ctime.After(a.Ctime) {
		a.Ctime = n.ctime
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

// KeepsAbsent reports whether the kernel may keep that a name isn't in a directory: it is told when one comes.
func (f *FS) KeepsAbsent(id NodeID) bool {
	n, err := f.node(id)
	return err == nil && n.kind == kindDir
}
