package spill

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// chunkSize is how much is copied from the base at a time.
const chunkSize = 1 << 20

// States of a chunk. A chunk's bytes are in the local file before its state says so; after a power cut only synced states are
// sure to have their bytes.
const (
	fromBase = 0
	local    = 1 // trusted in the boot that wrote it
	synced   = 2
)

// The sidecar file: magic, limit (8 bytes), length of the header (4), its CRC-32 (4), the header in JSON, then a byte a chunk.
const (
	baseMagic   = "lfsbase1"
	limitOffset = 8
	headOffset  = 24
)

type baseHeader struct {
	Namespace string
	Address   string
	Type      graveler.AddressType
	Size      int64
	MD5       string
	ETag      string
	Boot      string // boot id of the kernel that wrote local states
}

// base is the object that a content began as. Guarded by content.mu, but for opening its store.
type base struct {
	h      baseHeader
	obj    object.Object
	side   *os.File
	mapOff int64
	limits atomic.Int64 // bytes from here on never come from the object
	state  []byte
	s      *Store
	once   sync.Mutex
	store  object.Store
}

func newBase(s *Store, id graveler.ContentID, b Base) (*base, error) {
	h := baseHeader{Namespace: b.Namespace, Address: b.Object.Address, Type: b.Object.Type, Size: b.Object.Size, MD5: b.Object.MD5, ETag: b.ETag, Boot: s.boot}
	j, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	buf := append([]byte(baseMagic), make([]byte, headOffset-8)...)
	binary.BigEndian.PutUint64(buf[limitOffset:], uint64(h.Size))
	binary.BigEndian.PutUint32(buf[16:], uint32(len(j)))
	binary.BigEndian.PutUint32(buf[20:], crc32.ChecksumIEEE(j))
	buf = append(buf, j...)
	mapOff := int64(len(buf))
	buf = append(buf, make([]byte, chunks(h.Size))...)
	side, err := os.OpenFile(s.path(id)+baseSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if _, err := side.WriteAt(buf, 0); err != nil {
		side.Close()
		return nil, err
	}
	bs := &base{h: h, obj: b.Object, side: side, mapOff: mapOff, state: make([]byte, chunks(h.Size)), s: s, store: b.Store}
	bs.limits.Store(h.Size)
	return bs, nil
}

func chunks(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// decodeBase reads a sidecar's bytes.
func decodeBase(buf []byte) (h baseHeader, limit, mapOff int64, err error) {
	bad := func(why string) (baseHeader, int64, int64, error) {
		return h, 0, 0, fmt.Errorf("sidecar: %s: %w", why, graveler.Corrupt)
	}
	if len(buf) < headOffset || string(buf[:8]) != baseMagic {
		return bad("no header")
	}
	limit = int64(binary.BigEndian.Uint64(buf[limitOffset:]))
	n := int64(binary.BigEndian.Uint32(buf[16:]))
	if n > int64(len(buf)-headOffset) {
		return bad("cut short")
	}
	j := buf[headOffset : headOffset+n]
	if crc32.ChecksumIEEE(j) != binary.BigEndian.Uint32(buf[20:]) {
		return bad("checksum")
	}
	if err := json.Unmarshal(j, &h); err != nil {
		return bad(err.Error())
	}
	mapOff = headOffset + n
	if h.Size < 0 || limit < 0 || limit > h.Size || int64(len(buf))-mapOff != chunks(h.Size) {
		return bad("inconsistent")
	}
	return h, limit, mapOff, nil
}

// loadBase reads a content's sidecar, nil if it has none.
func loadBase(s *Store, id graveler.ContentID, f *os.File) (*base, error) {
	side, err := os.OpenFile(s.path(id)+baseSuffix, os.O_RDWR, 0)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf, err := io.ReadAll(side)
	var b *base
	if err == nil {
		var h baseHeader
		var limit, mapOff int64
		if h, limit, mapOff, err = decodeBase(buf); err == nil {
			b = &base{h: h, side: side, mapOff: mapOff, state: buf[mapOff:], s: s}
			b.obj = object.Object{Address: h.Address, Type: h.Type, Size: h.Size, MD5: h.MD5}
			fi, serr := f.Stat()
			b.limits.Store(limit)
			if err = serr; err == nil && fi.Size() < limit {
				err = b.limit(fi.Size()) // killed within a truncate
			}
		}
	}
	if err != nil {
		side.Close()
		return nil, err
	}
	if h := b.h; h.Boot == "" || h.Boot != s.boot {
		for i, st := range b.state {
			if st == local {
				b.state[i] = fromBase
			}
		}
	}
	return b, nil
}

func (b *base) close() { b.side.Close() }

func (b *base) objects(ctx context.Context) (object.Store, error) {
	b.once.Lock()
	defer b.once.Unlock()
	if b.store == nil {
		if b.s.opt.OpenBase == nil {
			return nil, fmt.Errorf("no way to open %s: %w", b.h.Namespace, graveler.Internal)
		}
		st, err := b.s.opt.OpenBase(ctx, b.h.Namespace)
		if err != nil {
			return nil, err
		}
		b.store = st
	}
	return b.store, nil
}

// baseEnd is where a chunk's bytes from the object end.
func (b *base) baseEnd(i int64) int64 { return min((i+1)*chunkSize, b.limits.Load()) }

// needs reports whether chunk i has bytes that only the object holds.
func (b *base) needs(i int64) bool {
	return i < int64(len(b.state)) && b.state[i] == fromBase && i*chunkSize < b.limits.Load()
}

// covers reports whether a write touches no chunk of the object's.
func (b *base) covers(off, n int64) bool {
	for i := off / chunkSize; i*chunkSize < off+n; i++ {
		if b.needs(i) {
			return false
		}
	}
	return true
}

// copyUp brings the parts of chunks that a write leaves as they are into the local file.
func (b *base) copyUp(ctx context.Context, f *os.File, off, n int64) error {
	for i := off / chunkSize; i*chunkSize < off+n; i++ {
		if b.needs(i) && (i*chunkSize < off || b.baseEnd(i) > off+n) {
			if err := b.fetch(ctx, f, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch copies chunk i from the object.
func (b *base) fetch(ctx context.Context, f *os.File, i int64) error {
	st, err := b.objects(ctx)
	if err != nil {
		return err
	}
	start := i * chunkSize
	buf := make([]byte, b.baseEnd(i)-start)
	n, err := st.ReadAt(ctx, b.obj, buf, start)
	if n < len(buf) {
		if err == nil || err == io.EOF {
			err = fmt.Errorf("object %s is shorter than its entry says: %w", b.obj.Address, graveler.Corrupt)
		}
		return err
	}
	if _, err := f.WriteAt(buf, start); err != nil {
		return err
	}
	return b.mark(i, i+1)
}

// mark notes that chunks are in the local file.
func (b *base) mark(from, to int64) error {
	to = min(to, int64(len(b.state)))
	if from >= to {
		return nil
	}
	fresh := make([]byte, to-from)
	for i := range fresh {
		fresh[i] = max(b.state[from+int64(i)], local)
	}
	if _, err := b.side.WriteAt(fresh, b.mapOff+from); err != nil {
		return err
	}
	copy(b.state[from:to], fresh)
	return nil
}

// markWritten notes a write: of chunks that the object had, those it covers whole were not copied.
func (b *base) markWritten(off, n int64) error {
	return b.mark(off/chunkSize, (off+n+chunkSize-1)/chunkSize)
}

// limit notes that the file was cut at size.
func (b *base) limit(size int64) error {
	if size >= b.limits.Load() {
		return nil
	}
	return b.setLimit(size)
}

func (b *base) setLimit(size int64) error {
	if _, err := b.side.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(size)), limitOffset); err != nil {
		return err
	}
	b.limits.Store(size)
	return nil
}

// complete copies all that is still the object's.
func (b *base) complete(ctx context.Context, f *os.File) error {
	for i := range int64(len(b.state)) {
		if b.needs(i) {
			if err := b.fetch(ctx, f, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// readAt reads chunk by chunk from the local file or the object.
func (b *base) readAt(ctx context.Context, f *os.File, p []byte, off int64) (int, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if off >= fi.Size() {
		return 0, io.EOF
	}
	eof := off+int64(len(p)) > fi.Size()
	if eof {
		p = p[:fi.Size()-off]
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		i := at / chunkSize
		part := p[done:min(int64(len(p)), (i+1)*chunkSize-off)]
		// A run of bytes from the object ends at the chunk's end or at the limit; after that the local file has zeros.
		if b.needs(i) && at < b.baseEnd(i) {
			part = part[:min(int64(len(part)), b.baseEnd(i)-at)]
			st, err := b.objects(ctx)
			if err != nil {
				return done, err
			}
			n, err := st.ReadAt(ctx, b.obj, part, at)
			if n < len(part) {
				if err == nil || err == io.EOF {
					err = fmt.Errorf("object %s is shorter than its entry says: %w", b.obj.Address, graveler.Corrupt)
				}
				return done, err
			}
		} else if n, err := f.ReadAt(part, at); n < len(part) {
			return done + n, err
		}
		done += len(part)
	}
	if eof {
		return len(p), io.EOF
	}
	return len(p), nil
}

// sync makes the chunk map durable, after the bytes were.
func (b *base) sync() error {
	changed := false
	for i, st := range b.state {
		if st == local {
			b.state[i] = synced
			changed = true
		}
	}
	if changed {
		if _, err := b.side.WriteAt(b.state, b.mapOff); err != nil {
			return err
		}
	}
	return b.side.Sync()
}

func procFD(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
