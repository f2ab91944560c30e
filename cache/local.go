package cache

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// localStore reads local files directly, and checks the small ones once. What lies elsewhere, at a full URL, it reads through
// the cache.
type localStore struct {
	*store
	local    object.Local
	verified verified
	checks   flights[key, struct{}]
}

var _ interface {
	object.Local
	object.Named
} = (*localStore)(nil)

// ReadAt reads a local file; Corrupt if it is no larger than 8 MiB and differs from its MD5.
func (s *localStore) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	if isURL(o) && s.local.Path(o) == "" {
		return s.store.ReadAt(ctx, o, p, off)
	}
	if !s.unverified(o) {
		return s.local.ReadAt(ctx, o, p, off)
	}
	if off == 0 && int64(len(p)) >= o.Size { // all of it: no need to read it twice
		n, err := s.local.ReadAt(ctx, o, p, off)
		if err != nil && err != io.EOF {
			return n, err
		}
		if sum := md5.Sum(p[:n]); hex.EncodeToString(sum[:]) == o.MD5 {
			s.verified.add(s.key(o))
			return n, err
		}
		// Let verify tell, which reads it anew.
	}
	if err := s.verify(ctx, o); err != nil {
		return 0, err
	}
	return s.local.ReadAt(ctx, o, p, off)
}

// Path is the file that holds o, "" if it isn't a local file or differs from its MD5: ReadAt tells.
func (s *localStore) Path(o object.Object) string {
	name := s.local.Path(o)
	if name != "" && s.unverified(o) && s.verify(s.ctx, o) != nil {
		return ""
	}
	return name
}

// Put writes a file.
func (s *localStore) Put(ctx context.Context, address string, r io.Reader, opt object.PutOptions) (object.Info, error) {
	return s.local.Put(ctx, address, r, opt)
}

// Adopt makes a file an object.
func (s *localStore) Adopt(ctx context.Context, address, path string) error {
	return s.local.Adopt(ctx, address, path)
}

// Sync makes what was written durable.
func (s *localStore) Sync(ctx context.Context) error { return s.local.Sync(ctx) }

func (s *localStore) key(o object.Object) key {
	return key{store: s.id, full: isURL(o), address: o.Address, md5: o.MD5}
}

// unverified reports whether o is to be checked before its bytes are given out.
func (s *localStore) unverified(o object.Object) bool {
	return o.MD5 != "" && o.Size > 0 && o.Size <= wholeBytes && !o.Fresh && !s.verified.has(s.key(o))
}

// verify reads a file and checks it, once for all who want it checked.
func (s *localStore) verify(ctx context.Context, o object.Object) error {
	k := s.key(o)
	f := s.checks.join(s.ctx, &s.wg, k, func(ctx context.Context) (struct{}, error) {
		if err := s.check(ctx, o); err != nil {
			return struct{}{}, fmt.Errorf("check object %s: %w", o.Address, err)
		}
		s.verified.add(k)
		return struct{}{}, nil
	})
	if _, err := s.checks.wait(ctx, k, f); err != nil {
		return kinded(err)
	}
	return nil
}

// checkBytes is how much of a file is read at a time to check it.
const checkBytes = 256 << 10

func (s *localStore) check(ctx context.Context, o object.Object) error {
	h := md5.New()
	buf := make([]byte, min(checkBytes, o.Size))
	for off := int64(0); off < o.Size; {
		n, err := s.local.ReadAt(ctx, o, buf[:min(int64(len(buf)), o.Size-off)], off)
		h.Write(buf[:n])
		off += int64(n)
		if err == io.EOF && off >= o.Size {
			break
		}
		if err == io.EOF {
			return fmt.Errorf("the file has %d bytes where %d were written; restore it: %w", off, o.Size, graveler.Corrupt)
		}
		if err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != o.MD5 {
		s.c.corrupt.Add(1)
		return wrongSum(got, o.MD5)
	}
	return nil
}

// maxVerified bounds each of the two generations of verified: some 20 MiB at most.
const maxVerified = 64 << 10

// verified is a bounded set of objects. When one generation is full, the one before is forgotten.
type verified struct {
	mu       sync.RWMutex // guards the fields below
	now, old map[key]struct{}
}

func (v *verified) has(k key) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	_, now := v.now[k]
	_, old := v.old[k]
	return now || old
}

func (v *verified) add(k key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.now) >= maxVerified {
		v.old, v.now = v.now, nil
	}
	if v.now == nil {
		v.now = map[key]struct{}{}
	}
	v.now[k] = struct{}{}
}
