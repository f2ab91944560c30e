package spill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Whole is the file that has all of the content's bytes, for a reader or writer that goes to it directly. Nil where some of them are
// still an object's. It stays open as long as the handle does.
func (f *File) Whole() *os.File {
	f.c.mu.RLock()
	defer f.c.mu.RUnlock()
	if f.c.base != nil {
		return nil
	}
	return f.c.f
}

// Graft puts n bytes of an object at off, where the object has them too, without a copy: the content begins as the object, or
// has begun as it and goes on. Invalid where that can't be: if the content has other bytes already, or doesn't end at off.
func (f *File) Graft(b Base, off, n int64) error {
	c := f.c
	if err := c.s.room(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := f.Size()
	bad := fmt.Errorf("graft at %d of %d: %w", off, size, graveler.Invalid)
	if size != off || off+n > b.Object.Size {
		return bad
	}
	if c.base == nil {
		if off != 0 {
			return bad
		}
		bs, err := newBase(c.s, c.id, b)
		if err == nil {
			if err = c.f.Truncate(n); err == nil {
				err = bs.limit(n)
			}
		}
		if err != nil {
			if bs != nil {
				bs.close()
				os.Remove(c.s.path(c.id) + baseSuffix)
				c.f.Truncate(0)
			}
			return wrap("graft", c.id, err)
		}
		c.base = bs
		return nil
	}
	h := c.base.h
	if h.Namespace != b.Namespace || h.Address != b.Object.Address || h.Type != b.Object.Type || h.Size != b.Object.Size ||
		c.base.limits.Load() != off || off%chunkSize != 0 && c.base.state[off/chunkSize] != fromBase {
		return bad
	}
	for _, st := range c.base.state[(off+chunkSize-1)/chunkSize:] {
		if st != fromBase {
			return bad
		}
	}
	// The file first, as in Truncate: a kill in between leaves zeros that nobody was told of.
	if err := c.f.Truncate(off + n); err != nil {
		return wrap("graft", c.id, err)
	}
	return wrap("graft", c.id, c.base.setLimit(off+n))
}

// BaseOf is the object that a content began as, if it did. A content that is gone began as none.
func (s *Store) BaseOf(id graveler.ContentID) (object.Object, bool, error) {
	f, err := s.OpenFile(id, false)
	if errors.Is(err, graveler.NotFound) {
		return object.Object{}, false, nil
	}
	if err != nil {
		return object.Object{}, false, err
	}
	defer f.Close()
	f.c.mu.RLock()
	defer f.c.mu.RUnlock()
	if f.c.base == nil {
		return object.Object{}, false, nil
	}
	return f.c.base.obj, true, nil
}

// untouched reports whether the content is still the object that it began as.
func (b *base) untouched(size int64) bool {
	if size != b.h.Size || b.limits.Load() != size {
		return false
	}
	for _, st := range b.state {
		if st != fromBase {
			return false
		}
	}
	return true
}

// Object is the object that the content still is, of the store that namespace names; ok is false if it has bytes of its own.
func (st *Settling) Object() (namespace string, o object.Object, etag string, ok bool) {
	if !st.same {
		return "", object.Object{}, "", false
	}
	h := st.c.base.h
	return h.Namespace, st.c.base.obj, h.ETag, true
}

// Complete brings all bytes into the file, of a content that is still an object.
func (st *Settling) Complete(ctx context.Context) error {
	st.c.s.mu.Lock()
	err := st.c.s.unpark(st.c)
	st.c.s.mu.Unlock()
	if err != nil {
		return err
	}
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.same = false
	err = st.c.base.complete(ctx, st.c.f)
	if err == nil {
		err = (&File{c: st.c}).setTimesNow(time.Time{}, st.mtime)
	}
	return wrap("settle", st.c.id, err)
}
