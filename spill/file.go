package spill

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// content is one spill file that somebody has open.
type content struct {
	s  *Store
	id graveler.ContentID
	f  *os.File

	// Guarded by Store.mu.
	refs, writers int
	settling      bool
	gone          bool // settled: its name is an object's now
	dropped       bool
	parked        bool // f, and base's file, are closed: nobody has a handle
	cond          sync.Cond

	// mu is held for reading by reads and plain writes, for writing by what changes the size or the base.
	mu   sync.RWMutex
	base *base

	named atomic.Bool // the file's name is durable
}

// File is an open content. Its methods may be called from many goroutines.
type File struct {
	c     *content
	write bool
	once  sync.Once
}

// ID names the content.
func (f *File) ID() graveler.ContentID { return f.c.id }

// ReadAt reads as io.ReaderAt does.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	c := f.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.base == nil {
		n, err := c.f.ReadAt(p, off)
		return n, wrap("read", c.id, err)
	}
	n, err := c.base.readAt(ctx, c.f, p, off)
	return n, wrap("read", c.id, err)
}

// WriteAt writes as io.WriterAt does.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	c := f.c
	if err := c.s.room(); err != nil {
		return 0, err
	}
	c.mu.RLock()
	ready := c.base == nil || c.base.covers(off, int64(len(p)))
	if ready {
		n, err := c.f.WriteAt(p, off)
		c.mu.RUnlock()
		return n, wrap("write", c.id, err)
	}
	c.mu.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.base.copyUp(ctx, c.f, off, int64(len(p))); err != nil {
		return 0, wrap("write", c.id, err)
	}
	n, err := c.f.WriteAt(p, off)
	if err == nil {
		err = c.base.markWritten(off, int64(len(p)))
	}
	return n, wrap("write", c.id, err)
}

// Append writes at the end, in one step against all other appends to the file, the kernel's own among them.
func (f *File) Append(ctx context.Context, p []byte) (int, error) {
	c := f.c
	if err := c.s.room(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base == nil {
		for done := 0; ; {
			n, err := unix.Pwritev2(int(c.f.Fd()), [][]byte{p[done:]}, 0, unix.RWF_APPEND)
			if n > 0 {
				done += n
			}
			if err == unix.EINTR && done < len(p) {
				continue
			}
			if err != nil || done == len(p) || n <= 0 {
				return done, wrap("write", c.id, err)
			}
		}
	}
	fi, err := c.f.Stat()
	if err != nil {
		return 0, wrap("write", c.id, err)
	}
	off := fi.Size()
	if err := c.base.copyUp(ctx, c.f, off, int64(len(p))); err != nil {
		return 0, wrap("write", c.id, err)
	}
	n, err := c.f.WriteAt(p, off)
	if err == nil {
		err = c.base.markWritten(off, int64(len(p)))
	}
	return n, wrap("write", c.id, err)
}

// Truncate sets the size; new bytes are zero.
func (f *File) Truncate(size int64) error {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	// The file first: after a kill in between, the base's limit is taken from the size.
	if err := c.f.Truncate(size); err != nil {
		return wrap("truncate", c.id, err)
	}
	if c.base != nil {
		return wrap("truncate", c.id, c.base.limit(size))
	}
	return nil
}

// Allocate is fallocate(2).
func (f *File) Allocate(ctx context.Context, mode uint32, off, n int64) error {
	c := f.c
	if err := c.s.room(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base != nil {
		if err := c.base.complete(ctx, c.f); err != nil {
			return wrap("allocate", c.id, err)
		}
	}
	return wrap("allocate", c.id, unix.Fallocate(int(c.f.Fd()), mode, off, n))
}

// Seek finds data or a hole, as lseek(2) with SEEK_DATA or SEEK_HOLE. The errno ENXIO comes as it is.
func (f *File) Seek(off int64, whence int) (int64, error) {
	c := f.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.base == nil {
		return unix.Seek(int(c.f.Fd()), off, whence)
	}
	size := f.Size()
	switch {
	case off >= size:
		return 0, unix.ENXIO
	case whence == unix.SEEK_HOLE:
		return size, nil
	}
	return off, nil
}

// Size is the size in bytes.
func (f *File) Size() int64 {
	fi, err := f.c.f.Stat()
	if err != nil {
		return 0
	}
	return fi.Size()
}

// Stat tells of the content.
func (f *File) Stat() (Info, error) {
	fi, err := f.c.f.Stat()
	if err != nil {
		return Info{}, wrap("stat", f.c.id, err)
	}
	return infoOf(fi, f.c.base, 0), nil
}

// SetTimes sets the times; a zero one stays as it is. While the content is being settled it waits, since its times are on their way into
// the entry already; NotFound if it was settled then.
func (f *File) SetTimes(atime, mtime time.Time) error {
	for {
		done, err := f.setTimes(atime, mtime)
		if done {
			return err
		}
		s := f.c.s
		s.mu.Lock()
		for f.c.settling && !f.c.gone {
			f.c.cond.Wait()
		}
		gone := f.c.gone
		s.mu.Unlock()
		if gone {
			return fmt.Errorf("content %s: %w", f.c.id, graveler.NotFound)
		}
	}
}

// setTimes sets the times unless the content is being settled. BeginSettle says that it is before it looks at the times under c.mu.
func (f *File) setTimes(atime, mtime time.Time) (done bool, err error) {
	c := f.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.s.mu.Lock()
	settling := c.settling || c.gone
	c.s.mu.Unlock()
	if settling {
		return false, nil
	}
	return true, f.setTimesNow(atime, mtime)
}

func (f *File) setTimesNow(atime, mtime time.Time) error {
	spec := func(t time.Time) unix.Timespec {
		if t.IsZero() {
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		}
		return unix.NsecToTimespec(t.UnixNano())
	}
	ts := []unix.Timespec{spec(atime), spec(mtime)}
	return wrap("set times of", f.c.id, unix.UtimesNanoAt(unix.AT_FDCWD, procFD(f.c.f), ts, 0))
}

// Sync makes the content survive a power cut.
func (f *File) Sync() error {
	c := f.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	named := make(chan error, 1)
	if c.s.namesKept || c.named.Load() {
		named <- nil
	} else {
		go func() { named <- c.s.syncDir() }() // at the same time as the bytes
	}
	err := c.f.Sync()
	if nerr := <-named; err == nil {
		err = nerr
	}
	if err != nil {
		return wrap("sync", c.id, err)
	}
	c.named.Store(true)
	if c.base != nil {
		return wrap("sync", c.id, c.base.sync())
	}
	return nil
}

// Close closes the handle. The last writer's makes the content ready to be settled.
func (f *File) Close() error {
	f.once.Do(func() {
		s, c := f.c.s, f.c
		s.mu.Lock()
		c.refs--
		ready := false
		if f.write {
			c.writers--
			ready = c.writers == 0 && !c.dropped && !c.gone
		}
		notify := s.onReady
		s.release(c)
		s.mu.Unlock()
		if ready && notify != nil {
			notify(c.id)
		}
	})
	return nil
}

// Writers is how many handles have the content open for writing.
func (f *File) Writers() int {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	return f.c.writers
}
