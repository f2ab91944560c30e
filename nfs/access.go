package nfs

import (
	"syscall"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// Under FUSE the kernel checks who may do what. Here it is done by these, as Linux does it.

// Rights that a mode's bits give.
const (
	mayExec  = 1
	mayWrite = 2
	mayRead  = 4
)

// has reports whether a caller has all of some rights.
func (w *who) has(a *vfs.Attr, rights uint32) bool {
	if w.uid == 0 {
		return rights&mayExec == 0 || isDir(a) || a.Mode&0o111 != 0
	}
	bits := a.Mode
	switch {
	case w.uid == a.UID:
		bits >>= 6
	case w.in(a.GID):
		bits >>= 3
	}
	return bits&rights == rights
}

// owns reports whether a caller may do what only a file's owner may.
func (w *who) owns(a *vfs.Attr) bool { return w.uid == 0 || w.uid == a.UID }

// check is Access denied unless a caller has some rights.
func (w *who) check(a *vfs.Attr, rights uint32) error {
	if !w.has(a, rights) {
		return statusAcces
	}
	return nil
}

// checkData is check for the bytes of a file: who owns the file may always, since he may have opened it before its mode was changed, and
// who may run it may read it.
func (w *who) checkData(a *vfs.Attr, rights uint32) error {
	if isDir(a) {
		return statusIsDir
	}
	if a.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return statusInval
	}
	if w.uid == a.UID || w.has(a, rights) || rights == mayRead && w.has(a, mayExec) {
		return nil
	}
	return statusAcces
}

// checkSticky is Not permitted where a sticky directory keeps a caller from removing or replacing a name in it.
func (w *who) checkSticky(dir, a *vfs.Attr) error {
	if dir.Mode&syscall.S_ISVTX != 0 && w.uid != 0 && w.uid != a.UID && w.uid != dir.UID {
		return statusPerm
	}
	return nil
}

// checkSet checks a change of attributes, and changes set to what Linux makes of it.
func (w *who) checkSet(a *vfs.Attr, set *vfs.SetAttr, timesNow bool) error {
	if set.UID != nil && w.uid != 0 && (w.uid != a.UID || *set.UID != a.UID) {
		return statusPerm
	}
	if set.GID != nil && w.uid != 0 && (w.uid != a.UID || *set.GID != a.GID && !w.in(*set.GID)) {
		return statusPerm
	}
	if set.Mode != nil {
		if !w.owns(a) {
			return statusPerm
		}
		gid := a.GID
		if set.GID != nil {
			gid = *set.GID
		}
		if w.uid != 0 && !w.in(gid) && *set.Mode&syscall.S_ISGID != 0 {
			m := *set.Mode &^ syscall.S_ISGID
			set.Mode = &m
		}
	}
	if (set.Atime != nil || set.Mtime != nil) && !w.owns(a) {
		if !timesNow {
			return statusPerm
		}
		if err := w.check(a, mayWrite); err != nil {
			return err
		}
	}
	if set.Size != nil {
		if err := w.checkData(a, mayWrite); err != nil {
			return err
		}
	}
	// What made a program run as its owner goes when that changes, or its bytes do.
	if !isDir(a) && (set.UID != nil || set.GID != nil || set.Size != nil && w.uid != 0) {
		set.Strip = true
	}
	return nil
}

// modeOfNew is the mode that something new gets in a directory: set-group-id is not for who isn't in the group.
func (w *who) modeOfNew(dir *vfs.Attr, mode uint32) uint32 {
	gid := w.gid
	if dir.Mode&syscall.S_ISGID != 0 {
		gid = dir.GID
	}
	if mode&(syscall.S_ISGID|0o010) == syscall.S_ISGID|0o010 && w.uid != 0 && !w.in(gid) {
		mode &^= syscall.S_ISGID
	}
	return mode
}

func isDir(a *vfs.Attr) bool { return a.Mode&syscall.S_IFMT == syscall.S_IFDIR }
