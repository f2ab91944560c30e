package vfs

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// copiers counts, by process, the large committed files that are open for reading.
type copiers struct {
	mu sync.Mutex
	m  map[uint32]int
}

func (c *copiers) add(pid uint32, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[uint32]int{}
	}
	if c.m[pid] += by; c.m[pid] == 0 {
		delete(c.m, pid)
	}
}

func (c *copiers) has(pid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[pid] > 0
}

// copyStep bounds what one call copies by moving bytes.
const copyStep = 64 << 20

// CopyRange copies n bytes between open files, as copy_file_range(2), and returns how many it did: fewer at the end of the source,
// or when there is more than one call should do. A file that is copied from its start out of an object gets the object as its base:
// no byte moves.
func (f *FS) CopyRange(ctx context.Context, from Handle, fromOff int64, to Handle, toOff, n int64) (int64, error) {
	src, err := f.file(from)
	if err != nil {
		return 0, err
	}
	dst, err := f.file(to)
	if err != nil {
		return 0, err
	}
	if src.ctl != nil || dst.ctl != nil || !dst.write || dst.append {
		return 0, syscall.EBADF
	}
	if n <= 0 {
		return 0, nil
	}
	if k, err := f.graft(ctx, src, fromOff, dst, toOff, n); k > 0 || err != nil {
		return k, err
	}
	buf := make([]byte, min(n, 1<<20))
	done := int64(0)
	for done < min(n, copyStep) {
		k, err := f.Read(ctx, from, buf[:min(int64(len(buf)), n-done)], fromOff+done)
		if err == nil && k > 0 {
			k, err = f.Write(ctx, to, Caller{}, false, buf[:k], toOff+done)
		}
		if err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		if k == 0 {
			break
		}
		done += int64(k)
	}
	return done, nil
}

// graft makes an object the base of an empty file, or more of the object the base of a file that has its start already. It returns 0
// if that can't be.
func (f *FS) graft(ctx context.Context, src *file, fromOff int64, dst *file, toOff, n int64) (int64, error) {
	if fromOff != toOff || src.n == dst.n || src.n.v.repo != dst.n.v.repo {
		return 0, nil
	}
	src.n.mu.Lock()
	e := src.entry
	busy := src.n.content != nil
	if e.Pending != "" && src.n.fresh() && src.n.entry.Pending == "" {
		e = src.n.entry // settled since it was opened
	}
	src.n.mu.Unlock()
	if busy || e.Pending != "" || fromOff >= e.Size {
		return 0, nil
	}
	n = min(n, e.Size-fromOff)
	st, err := f.objects(ctx, src.n.v.repo)
	if err != nil {
		return 0, err
	}
	r, err := f.eng.Repository(ctx, src.n.v.repo)
	if err != nil {
		return 0, err
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	dst.n.mu.Lock()
	defer dst.n.mu.Unlock()
	if dst.n.passes > 0 {
		return 0, nil // the kernel would read zeros where the object's bytes are not copied
	}
	if err := f.ensureWritable(ctx, dst.n, false); err != nil {
		return 0, err
	}
	err = dst.n.content.Graft(spill.Base{Store: st, Namespace: r.StorageNamespace, Object: object.Of(&e), ETag: e.ETag}, fromOff, n)
	if errors.Is(err, graveler.Invalid) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return n, dst.n.content.SetTimes(time.Time{}, time.Now())
}
