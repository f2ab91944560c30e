package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lakefsfs/lakefsfs/vfs"
)

var lockTypes = map[uint32]vfs.LockType{syscall.F_RDLCK: vfs.ReadLock, syscall.F_WRLCK: vfs.WriteLock, syscall.F_UNLCK: vfs.Unlock}

func lockOf(in *fuse.LkIn) (vfs.FileLock, bool) {
	t, ok := lockTypes[in.Lk.Typ]
	return vfs.FileLock{Type: t, Flock: in.LkFlags&fuse.FUSE_LK_FLOCK != 0, Owner: in.Owner, PID: in.Lk.Pid, Start: in.Lk.Start, End: in.Lk.End}, ok
}

func (s *server) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	l, ok := lockOf(in)
	if !ok {
		return fuse.EINVAL
	}
	got, err := s.fs.GetLock(vfs.Handle(in.Fh), vfs.NodeID(in.NodeId), l)
	out.Lk = fuse.FileLock{Start: got.Start, End: got.End, Pid: got.PID}
	for typ, t := range lockTypes {
		if t == got.Type {
			out.Lk.Typ = typ
		}
	}
	return s.status("getlk", err)
}

func (s *server) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return s.setLk(cancel, in, false)
}

// SetLkw waits as long as it takes, or until a signal comes.
func (s *server) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return s.setLk(cancel, in, true)
}

func (s *server) setLk(cancel <-chan struct{}, in *fuse.LkIn, wait bool) fuse.Status {
	l, ok := lockOf(in)
	if !ok {
		return fuse.EINVAL
	}
	err := s.fs.SetLock(&waitContext{cancel}, vfs.Handle(in.Fh), vfs.NodeID(in.NodeId), l, wait)
	var no syscall.Errno
	if errors.As(err, &no) {
		return fuse.Status(no)
	}
	return s.status("setlk", err)
}

// waitContext ends when the caller gets a signal, and at no time.
type waitContext struct{ cancel <-chan struct{} }

func (c *waitContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *waitContext) Done() <-chan struct{}       { return c.cancel }
func (c *waitContext) Value(any) any               { return nil }
func (c *waitContext) Err() error {
	select {
	case <-c.cancel:
		return context.Canceled
	default:
		return nil
	}
}
