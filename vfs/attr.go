package vfs

import (
	"context"
	"io/fs"
	"strconv"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// SetAttr is what a Setattr changes; nil fields stay.
type SetAttr struct {
	Mode         *uint32 // permission bits
	UID, GID     *uint32
	Size         *int64
	Atime, Mtime *time.Time
	// Strip asks for the set-user-id and set-group-id bits to be cleared, as a change of size or owner by anyone but root does.
	Strip  bool
	Handle Handle // of an open file, 0 if none
}

// Setattr changes attributes.
func (f *FS) Setattr(ctx context.Context, c Caller, id NodeID, set SetAttr) (Attr, error) {
	n, err := f.node(id)
	if err != nil {
		return Attr{}, err
	}
	switch n.kind {
	case kindCtlFile: // > truncates, touch sets times: neither means anything
		return f.attr(ctx, n)
	case kindTop, kindRepo, kindCtlDir:
		return Attr{}, graveler.Denied
	case kindObject:
		return Attr{}, graveler.ReadOnly
	}
	if err := f.writable(n.v); err != nil {
		return Attr{}, err
	}
	if set.Size != nil && n.kind == kindDir {
		return Attr{}, graveler.IsDir
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.refresh(ctx, n); err != nil {
		return Attr{}, err
	}
	if set.Size != nil {
		if err := f.resize(ctx, n, *set.Size); err != nil {
			return Attr{}, err
		}
	}
	if set.Strip && n.kind == kindFile && set.UID == nil && set.GID == nil {
		if err := f.dropPrivilegesLocked(ctx, n); err != nil {
			return Attr{}, err
		}
	}
	if set.Mode != nil || set.UID != nil || set.GID != nil || set.Atime != nil || set.Mtime != nil {
		if err := f.setMeta(ctx, c, n, set); err != nil {
			return Attr{}, err
		}
	}
	return f.attrLocked(ctx, n)
}

// resize truncates a file that may be closed. Hold moving and n.mu.
func (f *FS) resize(ctx context.Context, n *node, size int64) error {
	if size < 0 {
		return graveler.Invalid
	}
	err := f.truncate(ctx, n, size)
	f.idle(n)
	return err
}

func (f *FS) setMeta(ctx context.Context, c Caller, n *node, set SetAttr) error {
	// The spill file is where a pending file's time is.
	if set.Mtime != nil {
		if err := f.refresh(ctx, n); err != nil {
			return err
		}
		if n.entry.Pending != "" {
			if err := f.setTimes(n, *set.Mtime); err != nil && graveler.KindOf(err) != graveler.NotFound {
				return err
			} else if err != nil {
				n.valid = false // settled since: its entry takes the time
			}
		}
	}
	return f.restageLocked(ctx, n, func(e *graveler.Entry) error {
		if set.Mode != nil || set.UID != nil || set.GID != nil {
			p, ok := permissions(e)
			if !ok {
				p = graveler.Permissions{UID: f.cfg.UID, GID: f.cfg.GID, Mode: 0o644}
			}
			kind := p.Mode & fs.ModeType
			if n.kind == kindDir {
				kind = fs.ModeDir
			}
			if set.UID != nil {
				p.UID = *set.UID
			}
			if set.GID != nil {
				p.GID = *set.GID
			}
			if set.Strip && n.kind != kindDir {
				// What made a program run as the old owner.
				if p.Mode&0o010 != 0 {
					p.Mode &^= fs.ModeSetgid
				}
				p.Mode &^= fs.ModeSetuid
			}
			if set.Mode != nil {
				p.Mode = fileMode(*set.Mode &^ syscall.S_IFMT)
			}
			p.Mode = p.Mode&^fs.ModeType | kind
			e.Metadata[graveler.MetaPermissions] = p.String()
		}
		if set.Atime != nil {
			e.Accessed = *set.Atime
		}
		if set.Mtime != nil {
			e.SetMtime(*set.Mtime)
			n.changed = time.Time{}
		} else if _, ok := e.Metadata[graveler.MetaMtime]; !ok {
			e.Metadata[graveler.MetaMtime] = strconv.FormatInt(e.Modified.Unix(), 10)
		}
		return nil
	})
}

func (f *FS) setTimes(n *node, mtime time.Time) error {
	if n.content != nil {
		return n.content.SetTimes(time.Time{}, mtime)
	}
	sf, err := f.cfg.Spill.OpenFile(n.entry.Pending, false)
	if err != nil {
		return err
	}
	defer sf.Close()
	return sf.SetTimes(time.Time{}, mtime)
}

// dropPrivileges clears the setuid and setgid bits, as a write does.
func (f *FS) dropPrivileges(ctx context.Context, n *node) error {
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return f.dropPrivilegesLocked(ctx, n)
}

func (f *FS) dropPrivilegesLocked(ctx context.Context, n *node) error {
	p := n.perm
	if !n.hasPerm {
		return nil
	}
	mode := p.Mode &^ fs.ModeSetuid
	if mode&0o010 != 0 {
		mode &^= fs.ModeSetgid
	}
	if mode == p.Mode {
		return nil
	}
	p.Mode = mode
	return f.restageLocked(ctx, n, func(e *graveler.Entry) error {
		e.Metadata[graveler.MetaPermissions] = p.String()
		return nil
	})
}
