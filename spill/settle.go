package spill

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
)

const snapInfix = ".snap-"

var snapshots atomic.Int64

// Settling is a content whose bytes stand still, to be made an object. End it with Done or Abort.
type Settling struct {
	c     *content
	f     *os.File // of a snapshot
	in    *lazyFile
	path  string
	size  int64
	mtime time.Time
	snap  bool
	same  bool // it is still the object that it began as
}

// BeginSettle freezes a content that nobody has open for writing: an open for writing waits until Done or Abort. Conflict if a
// writer has it, or if it is being settled already; NotFound if it was settled or dropped.
func (s *Store) BeginSettle(ctx context.Context, id graveler.ContentID) (*Settling, error) {
	s.mu.Lock()
	c, err := s.lookup(id)
	if err == nil {
		err = s.unpark(c)
	}
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	switch {
	case c.gone || c.dropped:
		err = graveler.NotFound
	case c.writers > 0 || c.settling:
		err = graveler.Conflict
	}
	if err != nil {
		s.release(c)
		s.mu.Unlock()
		return nil, fmt.Errorf("settle content %s: %w", id, err)
	}
	c.settling = true
	s.mu.Unlock()

	st := &Settling{c: c, path: s.path(id)}
	c.mu.Lock()
	err = st.measure()
	st.same = err == nil && c.base != nil && c.base.h.ETag != "" && c.base.untouched(st.size)
	complete := err == nil && c.base != nil && !st.same
	c.mu.Unlock()
	if complete {
		err = st.Complete(ctx)
	}
	if err != nil {
		st.Abort()
		return nil, wrap("settle", id, err)
	}
	// Thousands are settled at a time: they don't all have descriptors meanwhile.
	s.mu.Lock()
	if c.refs == 0 {
		s.park(c)
	}
	s.mu.Unlock()
	return st, nil
}

func (st *Settling) measure() error {
	fi, err := st.c.f.Stat()
	if err == nil {
		st.size, st.mtime = fi.Size(), fi.ModTime()
	}
	return err
}

// Snapshot copies the present bytes of a content that is still being written.
func (s *Store) Snapshot(ctx context.Context, id graveler.ContentID) (*Settling, error) {
	f, err := s.OpenFile(id, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := f.c
	path := s.path(id) + snapInfix + strconv.FormatInt(snapshots.Add(1), 10)
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, wrap("copy", id, err)
	}
	st := &Settling{c: c, f: out, path: path, snap: true}
	c.mu.Lock()
	err = st.measure()
	if c.base == nil && err == nil {
		if unix.IoctlFileClone(int(out.Fd()), int(c.f.Fd())) != nil {
			_, err = io.Copy(out, io.NewSectionReader(c.f, 0, math.MaxInt64))
		}
	} else if err == nil {
		buf := make([]byte, chunkSize)
		for off := int64(0); off < st.size && err == nil; {
			var n int
			n, err = c.base.readAt(ctx, c.f, buf, off)
			if n > 0 {
				_, werr := out.WriteAt(buf[:n], off)
				if err == nil || err == io.EOF {
					err = werr
				}
			}
			off += int64(n)
		}
	}
	c.mu.Unlock()
	if err != nil {
		st.Abort()
		return nil, wrap("copy", id, err)
	}
	return st, nil
}

// ID names the content, Size and Mtime tell of it, Path is the file that holds all its bytes.
func (st *Settling) ID() graveler.ContentID { return st.c.id }
func (st *Settling) Size() int64            { return st.size }
func (st *Settling) Mtime() time.Time       { return st.mtime }
func (st *Settling) Path() string           { return st.path }

// Reader reads the bytes from the start. There is one: it begins anew for each who asks.
func (st *Settling) Reader() io.ReadSeeker {
	if st.in == nil {
		st.in = &lazyFile{path: st.path}
	}
	st.in.off = 0
	return st.in
}

// lazyFile reads a file that it opens when it is read, and closes at its end.
type lazyFile struct {
	path string
	f    *os.File
	off  int64
}

func (l *lazyFile) Read(p []byte) (n int, err error) {
	if l.f == nil {
		if l.f, err = os.Open(l.path); err != nil {
			l.f = nil
			return 0, err
		}
	}
	n, err = l.f.ReadAt(p, l.off)
	l.off += int64(n)
	if n > 0 && err == io.EOF {
		return n, nil
	}
	if err != nil {
		l.close()
	}
	return n, err
}

func (l *lazyFile) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += l.off
	case io.SeekEnd:
		fi, err := os.Stat(l.path)
		if err != nil {
			return 0, err
		}
		off += fi.Size()
	}
	if off < 0 {
		return 0, os.ErrInvalid
	}
	l.off = off
	return off, nil
}

func (l *lazyFile) close() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// MD5 is the hex MD5 of the bytes.
func (st *Settling) MD5() (string, error) {
	h := md5.New()
	if _, err := io.Copy(h, st.Reader()); err != nil {
		return "", wrap("read", st.c.id, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Done tells that the bytes are an object now and every entry names that: the file is removed. Open readers go on reading.
func (st *Settling) Done() { st.end(true) }

// Abort gives the content back to writers.
func (st *Settling) Abort() { st.end(false) }

func (st *Settling) end(done bool) {
	if st.in != nil {
		st.in.close()
	}
	if st.snap {
		st.f.Close()
		os.Remove(st.path)
		return
	}
	s, c := st.c.s, st.c
	s.mu.Lock()
	defer s.mu.Unlock()
	c.settling = false
	if done {
		c.gone = true
		if s.open[c.id] == c {
			delete(s.open, c.id)
		}
		s.remove(c.id)
	}
	c.cond.Broadcast()
	s.release(c)
}
