// Package spill keeps the bytes of files that are not yet objects: those being written, and those written whose upload is still
// to come. Every write is a write(2) to a local file, so what a write acknowledged survives kill -9; Sync makes it survive a
// power cut.
//
//	DIR/<content id>        the bytes
//	DIR/<content id>.base   of a file that began as a committed object: which object, and which chunks are in the local file
//	                        already; the others are read from the object until they are written or the file is settled
package spill

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Options of a Store.
type Options struct {
	// MinFree is the room that is left on the disk before writes fail with NoSpace; 0 is 64 MiB. It keeps the metadata beside
	// it working.
	MinFree uint64
	// Ahead is how many empty files are made before Create asks for them, from the first Create on. If it isn't 0, files are removed
	// in the background too, and Close must be called.
	Ahead int
	// Prefix begins the ids of the contents that are made: who holds them, where they are named elsewhere.
	Prefix string
	// MaxOpen is how many contents callers can have open at a time; 0 is what the process's limit of descriptors leaves, see Room.
	MaxOpen int
	Logger  *slog.Logger
	// OpenBase opens the object store of a base's namespace again after a restart.
	OpenBase func(ctx context.Context, namespace string) (object.Store, error)
}

// Store is a directory of spill files.
type Store struct {
	dir     string
	opt     Options
	boot    string
	mu      sync.Mutex
	open    map[graveler.ContentID]*content
	files   int // of open: those that have descriptors
	onReady func(graveler.ContentID)
	checked atomic.Int64

	// namesKept tells that on this file system the fsync of a new file makes its name durable too.
	namesKept bool
	names     struct {
		mu    sync.Mutex
		asked atomic.Uint64
		done  uint64 // guarded by mu
	}

	removals chan graveler.ContentID     // of what nobody names any more; nil if that is done at once
	dying    map[graveler.ContentID]bool // guarded by mu: those in removals

	// Files that were made ahead of Create, which has no time for a file system's ways of finding an inode. They belong to nobody.
	ahead     chan *made
	aheadOnce sync.Once
	aheadIDs  map[graveler.ContentID]bool // guarded by mu
	closed    chan struct{}
	stopped   chan struct{} // closed when nothing is made ahead any more
	removed   chan struct{} // closed when nothing is removed in the background any more
}

const baseSuffix = ".base"

// Open opens the store in a directory, which it makes if need be.
func Open(dir string, opt Options) (*Store, error) {
	if opt.MinFree == 0 {
		opt.MinFree = 64 << 20
	}
	if opt.MaxOpen == 0 {
		opt.MaxOpen = Room()
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spill directory: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil // nothing unsynced is trusted then
	}
	s := &Store{dir: dir, opt: opt, boot: strings.TrimSpace(string(boot)), open: map[graveler.ContentID]*content{}, ahead: make(chan *made, opt.Ahead), aheadIDs: map[graveler.ContentID]bool{}, dying: map[graveler.ContentID]bool{}, closed: make(chan struct{}), stopped: make(chan struct{}), removed: make(chan struct{})}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil {
		// They write the journal up to the file's creation, or log its new name. POSIX doesn't ask for it.
		s.namesKept = st.Type == unix.EXT4_SUPER_MAGIC || st.Type == unix.XFS_SUPER_MAGIC || st.Type == unix.BTRFS_SUPER_MAGIC
	}
	if opt.Ahead > 0 {
		s.removals = make(chan graveler.ContentID, 1024)
		go s.removeLater()
	} else {
		close(s.removed)
	}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the spill directory: %w", err)
	}
	for _, e := range ents {
		if strings.Contains(e.Name(), snapInfix) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return s, nil
}

// SetReady names the function that is told of a content whose last writer closed it. It must not block.
func (s *Store) SetReady(f func(graveler.ContentID)) {
	s.mu.Lock()
	s.onReady = f
	s.mu.Unlock()
}

// IDs lists all contents on disk.
func (s *Store) IDs() ([]graveler.ContentID, error) {
	ents, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the spill directory: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []graveler.ContentID
	for _, e := range ents {
		if id := graveler.ContentID(e.Name()); s.aheadIDs[id] || s.dying[id] {
			continue
		}
		if !strings.Contains(e.Name(), ".") {
			ids = append(ids, graveler.ContentID(e.Name()))
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func (s *Store) path(id graveler.ContentID) string { return filepath.Join(s.dir, string(id)) }

func validID(id graveler.ContentID) bool {
	return id != "" && !strings.ContainsAny(string(id), "./\x00")
}

// syncDir makes the names in the directory durable. Who asks while it is being done is served by the next, together with all others.
func (s *Store) syncDir() error {
	ticket := s.names.asked.Add(1)
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	if s.names.done >= ticket {
		return nil
	}
	upto := s.names.asked.Load()
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return err
	}
	s.names.done = upto
	return nil
}

// room fails while the disk is nearly full.
func (s *Store) room() error {
	now := time.Now().UnixMilli()
	if now-s.checked.Load() < 20 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("look for room in %s: %w", s.dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < s.opt.MinFree {
		return fmt.Errorf("the disk of %s has %d MiB left: %w", s.dir, free>>20, graveler.NoSpace)
	}
	s.checked.Store(now)
	return nil
}

// Create makes an empty content, open for writing.
func (s *Store) Create() (*File, error) {
	if err := s.room(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	err := s.descriptor()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if s.opt.Ahead > 0 {
		s.aheadOnce.Do(func() { go s.makeAhead() })
	}
	var m *made
	select {
	case m = <-s.ahead:
	default:
		m = s.make(s.newID())
	}
	if m.err != nil {
		s.mu.Lock()
		delete(s.aheadIDs, m.id)
		s.mu.Unlock()
		return nil, wrap("create", m.id, m.err)
	}
	m.touch()
	c := &content{s: s, id: m.id, f: m.f, refs: 1, writers: 1}
	c.cond.L = &s.mu
	s.mu.Lock()
	delete(s.aheadIDs, m.id)
	s.open[m.id] = c
	s.files++
	s.mu.Unlock()
	return &File{c: c, write: true}, nil
}

// Base is the object that a content begins as.
type Base struct {
	Store     object.Store
	Namespace string // the store's URL, to open it again after a restart
	Object    object.Object
	ETag      string // of the entry that names it; "" if the content may not become that entry's object again
	Mtime     time.Time
}

// CreateFrom makes a content that begins as an object's bytes, open for writing. Nothing is copied until it has to be.
func (s *Store) CreateFrom(b Base) (*File, error) {
	f, err := s.Create()
	if err != nil {
		return nil, err
	}
	c := f.c
	if c.base, err = newBase(s, c.id, b); err == nil {
		err = c.f.Truncate(b.Object.Size)
	}
	if err == nil && !b.Mtime.IsZero() {
		err = f.SetTimes(time.Time{}, b.Mtime)
	}
	if err != nil {
		s.Drop(c.id)
		f.Close()
		return nil, wrap("create", c.id, err)
	}
	return f, nil
}

// OpenFile opens a content. While it is being settled an open for writing waits. NotFound if it was settled or dropped: the
// entry then names something else.
func (s *Store) OpenFile(id graveler.ContentID, write bool) (*File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[id]; c == nil || c.parked {
		if err := s.descriptor(); err != nil {
			return nil, err
		}
	}
	c, err := s.lookup(id)
	if err == nil {
		err = s.unpark(c)
	}
	if err != nil {
		return nil, err
	}
	c.refs++ // who waits keeps it
	for write && c.settling && !c.gone {
		c.cond.Wait()
	}
	if c.gone || c.dropped {
		c.refs--
		s.release(c)
		return nil, fmt.Errorf("content %s: %w", id, graveler.NotFound)
	}
	if write {
		c.writers++
	}
	return &File{c: c, write: write}, nil
}

// lookup finds an open content or opens it from disk, without a reference. Called with mu.
func (s *Store) lookup(id graveler.ContentID) (*content, error) {
	if c := s.open[id]; c != nil {
		return c, nil
	}
	if !validID(id) || s.dying[id] {
		return nil, fmt.Errorf("content %q: %w", id, graveler.NotFound)
	}
	c := &content{s: s, id: id, parked: true}
	c.cond.L = &s.mu
	if err := s.unpark(c); err != nil {
		return nil, err
	}
	s.open[id] = c
	return c, nil
}

// release closes a content that nobody refers to any more. Called with mu.
func (s *Store) release(c *content) {
	if c.refs > 0 || c.settling {
		return
	}
	if s.open[c.id] == c {
		delete(s.open, c.id)
	}
	s.park(c)
	if c.dropped && !c.gone {
		s.remove(c.id)
	}
}

// Drop removes contents that no entry names any more, each when its last handle closes.
func (s *Store) Drop(ids ...graveler.ContentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if c := s.open[id]; c != nil {
			c.dropped = true
			s.release(c)
		} else if validID(id) {
			s.remove(id)
		}
	}
}

// Idle tells which contents nobody has open.
func (s *Store) Idle(ids []graveler.ContentID) map[graveler.ContentID]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := make(map[graveler.ContentID]bool, len(ids))
	for _, id := range ids {
		if s.open[id] == nil && !s.aheadIDs[id] {
			idle[id] = true
		}
	}
	return idle
}

// DropIdle removes contents that no entry names any more, but for those that somebody has open.
func (s *Store) DropIdle(ids ...graveler.ContentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.open[id] == nil && !s.aheadIDs[id] && validID(id) {
			s.remove(id)
		}
	}
}

// Info tells of a content.
type Info struct {
	Size    int64
	Mtime   time.Time
	Blocks  uint64 // of 512 bytes, that it takes on disk
	Writers int    // handles open for writing
}

func infoOf(fi os.FileInfo, b *base, writers int) Info {
	i := Info{Size: fi.Size(), Mtime: fi.ModTime(), Writers: writers}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		i.Blocks = uint64(st.Blocks)
	}
	if b != nil { // what is still the object's counts as if it were here
		i.Blocks = max(i.Blocks, uint64(i.Size+511)/512)
	}
	return i
}

// Stat tells of a content; NotFound if it was settled or dropped.
func (s *Store) Stat(id graveler.ContentID) (Info, error) {
	s.mu.Lock()
	c := s.open[id]
	if c != nil && c.gone || !validID(id) || s.dying[id] {
		s.mu.Unlock()
		return Info{}, fmt.Errorf("content %q: %w", id, graveler.NotFound)
	}
	var fi os.FileInfo
	var err error
	writers := 0
	held := c != nil && !c.parked
	if held {
		fi, err = c.f.Stat()
		writers = c.writers
		s.mu.Unlock()
	} else {
		s.mu.Unlock()
		fi, err = os.Stat(s.path(id))
	}
	if err != nil {
		return Info{}, wrap("stat", id, err)
	}
	if held {
		return infoOf(fi, c.base, writers), nil
	}
	info := infoOf(fi, nil, writers)
	if _, err := os.Lstat(s.path(id) + baseSuffix); err == nil {
		info.Blocks = max(info.Blocks, uint64(info.Size+511)/512)
	}
	return info, nil
}

// ReadAt reads a content without a handle.
func (s *Store) ReadAt(ctx context.Context, id graveler.ContentID, p []byte, off int64) (int, error) {
	f, err := s.OpenFile(id, false)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(ctx, p, off)
}

func wrap(op string, id graveler.ContentID, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var k graveler.Kind
	switch {
	case errors.As(err, &k):
		return fmt.Errorf("%s spill file %s: %w", op, id, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		k = graveler.NoSpace
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%s spill file %s: %w", op, id, err) // the errno says it
	case errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("%s spill file %s: %w: %w", op, id, err, graveler.TooLarge)
	case errors.Is(err, iofs.ErrNotExist):
		k = graveler.NotFound
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EOPNOTSUPP):
		k = graveler.Invalid
	default:
		k = graveler.KindOf(err)
	}
	return fmt.Errorf("%s spill file %s: %v: %w", op, id, err, k)
}
