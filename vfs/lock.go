package vfs

import (
	"context"
	"sync"
	"syscall"
)

// LockType is what a lock keeps others from.
type LockType uint8

// Lock types.
const (
	Unlock LockType = iota
	ReadLock
	WriteLock
)

// FileLock is a lock that an owner has, or wants, on a range of a file's bytes (fcntl) or on the whole file (flock).
type FileLock struct {
	Type       LockType
	Flock      bool
	Owner      uint64 // whom the protocol takes for one: a process's table of open files, or for flock one open file
	PID        uint32
	Start, End uint64 // bytes, both inclusive
}

// heldLock is a lock in the table. It goes when its handle is closed for the last time.
type heldLock struct {
	FileLock
	fs     *FS
	handle Handle
}

func (l *heldLock) sameOwner(o *heldLock) bool {
	return l.fs == o.fs && l.Owner == o.Owner && l.Flock == o.Flock
}

func (l *heldLock) meets(o *heldLock) bool { return l.Start <= o.End && o.Start <= l.End }

// conflicts reports whether both can't be had at once. flock's and fcntl's locks don't know of each other, as on a local disk.
func (l *heldLock) conflicts(o *heldLock) bool {
	return l.Flock == o.Flock && !l.sameOwner(o) && l.meets(o) && (l.Type == WriteLock || o.Type == WriteLock)
}

// lockTable has the locks of all trees over one engine, by file.
type lockTable struct {
	mu    sync.Mutex
	files map[fileKey]*lockedFile
	waits map[waiter]waiter // who waits for whom, of fcntl's locks: to find deadlocks
}

type lockedFile struct {
	held    []heldLock
	changed chan struct{} // closed, and made anew, when a lock goes
	waiting int
}

type waiter struct {
	fs    *FS
	owner uint64
}

func (t *lockTable) file(k fileKey) *lockedFile {
	if t.files == nil {
		t.files, t.waits = map[fileKey]*lockedFile{}, map[waiter]waiter{}
	}
	lf := t.files[k]
	if lf == nil {
		lf = &lockedFile{changed: make(chan struct{})}
		t.files[k] = lf
	}
	return lf
}

// tidy wakes who waits for a file's locks, and forgets the file if it has none.
func (t *lockTable) tidy(k fileKey, lf *lockedFile) {
	close(lf.changed)
	lf.changed = make(chan struct{})
	if len(lf.held) == 0 && lf.waiting == 0 {
		delete(t.files, k)
	}
}

func (lf *lockedFile) conflict(want *heldLock) *heldLock {
	for i := range lf.held {
		if lf.held[i].conflicts(want) {
			return &lf.held[i]
		}
	}
	return nil
}

// put gives an owner a range: what it had there before is replaced, and split where it reaches further.
func (lf *lockedFile) put(want heldLock) {
	var out []heldLock
	for _, h := range lf.held {
		if !h.sameOwner(&want) || !h.meets(&want) {
			out = append(out, h)
			continue
		}
		if h.Start < want.Start {
			left := h
			left.End = want.Start - 1
			out = append(out, left)
		}
		if h.End > want.End {
			right := h
			right.Start = want.End + 1
			out = append(out, right)
		}
	}
	if want.Type != Unlock {
		out = append(out, want)
	}
	lf.held = out
}

func (f *FS) lockOf(h Handle, id NodeID, l FileLock) (fileKey, heldLock, error) {
	fl, err := f.fileOrNode(h, id)
	if err != nil {
		return fileKey{}, heldLock{}, err
	}
	if fl.ctl != nil {
		return fileKey{}, heldLock{}, syscall.EINVAL
	}
	if l.Flock {
		l.Start, l.End = 0, 1<<63-1
	}
	return fileKey{vKey(fl.n.v), fl.n.ino}, heldLock{l, f, h}, nil
}

// GetLock returns a lock that keeps l from being had, Type Unlock if none does.
func (f *FS) GetLock(h Handle, id NodeID, l FileLock) (FileLock, error) {
	k, want, err := f.lockOf(h, id, l)
	if err != nil {
		return l, err
	}
	t := &f.cfg.Locks.files
	t.mu.Lock()
	defer t.mu.Unlock()
	if lf := t.files[k]; lf != nil {
		if c := lf.conflict(&want); c != nil {
			return c.FileLock, nil
		}
	}
	l.Type = Unlock
	return l, nil
}

// SetLock takes, changes or gives back a lock. EAGAIN if another has it and wait is not set; EDEADLK if waiting would never end;
// EINTR if ctx ends.
func (f *FS) SetLock(ctx context.Context, h Handle, id NodeID, l FileLock, wait bool) error {
	k, want, err := f.lockOf(h, id, l)
	if err != nil {
		return err
	}
	if l.Type != Unlock {
		if fl, err := f.file(h); err == nil {
			fl.n.mu.Lock()
			fl.n.locked = true
			fl.n.mu.Unlock()
		}
	}
	t := &f.cfg.Locks.files
	me := waiter{f, l.Owner}
	t.mu.Lock()
	defer t.mu.Unlock()
	lf := t.file(k)
	if l.Flock && l.Type != Unlock {
		// A change of flock's type gives the old lock back first, so that two who both want to upgrade don't wait for ever.
		lf.put(heldLock{FileLock{Type: Unlock, Flock: true, Owner: l.Owner, End: 1<<63 - 1}, f, h})
	}
	for l.Type != Unlock {
		c := lf.conflict(&want)
		if c == nil {
			break
		}
		if !wait {
			t.tidy(k, lf)
			return syscall.EAGAIN
		}
		if !l.Flock {
			for w, ok := (waiter{c.fs, c.Owner}), true; ok; w, ok = t.waits[w] {
				if w == me {
					t.tidy(k, lf)
					return syscall.EDEADLK
				}
			}
			t.waits[me] = waiter{c.fs, c.Owner}
		}
		changed := lf.changed
		lf.waiting++
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			err = syscall.EINTR
		}
		t.mu.Lock()
		lf.waiting--
		delete(t.waits, me)
		if err != nil {
			t.tidy(k, lf)
			return err
		}
	}
	lf.put(want)
	t.tidy(k, lf)
	return nil
}

// unlock gives back what match says of a file's locks.
func (f *FS) unlock(n *node, match func(l *heldLock) bool) {
	t := &f.cfg.Locks.files
	k := fileKey{vKey(n.v), n.ino}
	t.mu.Lock()
	defer t.mu.Unlock()
	lf := t.files[k]
	if lf == nil {
		return
	}
	var keep []heldLock
	for _, h := range lf.held {
		if h.fs != f || !match(&h) {
			keep = append(keep, h)
		}
	}
	if len(keep) != len(lf.held) {
		lf.held = keep
		t.tidy(k, lf)
	}
}

// unlockAll gives back all locks that a tree holds.
func (l *Locks) unlockAll(f *FS) {
	t := &l.files
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, lf := range t.files {
		var keep []heldLock
		for _, h := range lf.held {
			if h.fs != f {
				keep = append(keep, h)
			}
		}
		if len(keep) != len(lf.held) {
			lf.held = keep
			t.tidy(k, lf)
		}
	}
}
