package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// disk knows what a power cut would take.
//
// Names: changes of directories are kept in order until a directory that one of them touched is synced, which makes it and all before it
// durable, as a journal does. A cut undoes any number of the last ones. What a removed or replaced name named is kept in trash meanwhile.
//
// Bytes: of each file, the size that is durable, and what was in the durable part before it was written over.
type disk struct {
	root, trash string

	fsyncFails, writeFails    atomic.Bool
	failedSyncs, failedWrites atomic.Int64
	open                      atomic.Int64 // handles

	mu    sync.Mutex // guards the fields below; taken before a file's
	files map[uint64]*state
	names []nameOp
	next  int // name in trash
}

// state is what is known of one file, by its number on the file system below.
type state struct {
	mu     sync.Mutex
	synced int64 // bytes that are durable
	over   []old // what was in them, in the order of the writes
	doomed bool  // an fsync failed: what was not durable then never will be
}

type old struct {
	off int64
	b   []byte
}

// nameOp is one change of a directory, and what undoes it.
type nameOp struct {
	dirs [2]string // that it touched
	kept string    // in trash, until it is durable
	undo func() error
}

func newDisk(root, trash string) (*disk, error) {
	for _, dir := range []string{root, trash} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return &disk{root: root, trash: trash, files: map[uint64]*state{}}, nil
}

// of finds the state of a file, which is durable as it is if it isn't known.
func (d *disk) of(st *syscall.Stat_t) *state {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.files[st.Ino]
	if s == nil {
		s = &state{synced: st.Size}
		d.files[st.Ino] = s
	}
	return s
}

// made is told of a new file: nothing of it is durable.
func (d *disk) made(ino uint64) *state {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &state{}
	d.files[ino] = s
	return s
}

// overwrite is told of a write, or a cut to a size (n is then all that there is), before it is done.
func (s *state) overwrite(f *os.File, off, n int64) {
	if off >= s.synced {
		return
	}
	b := make([]byte, min(n, s.synced-off))
	k, _ := f.ReadAt(b, off)
	s.over = append(s.over, old{off, b[:k]})
}

// sync makes the bytes of a file durable, unless it can't be any more.
func (s *state) sync(size int64) {
	if s.doomed {
		return
	}
	s.synced, s.over = size, nil
}

// note keeps what undoes a change of names.
func (d *disk) note(a, b, kept string, undo func() error) {
	d.names = append(d.names, nameOp{[2]string{a, b}, kept, undo})
}

// keep gives what a name names a second one in trash, before the name goes.
func (d *disk) keep(path string) (string, error) {
	d.next++
	to := filepath.Join(d.trash, strconv.Itoa(d.next))
	return to, os.Link(path, to)
}

func (d *disk) created(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := filepath.Dir(path)
	d.note(dir, dir, "", func() error { return os.Remove(path) })
}

func (d *disk) unlink(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept, err := d.keep(path)
	if err != nil {
		return err
	}
	if err := unix.Unlink(path); err != nil {
		os.Remove(kept)
		return err
	}
	dir := filepath.Dir(path)
	d.note(dir, dir, kept, func() error { return os.Rename(kept, path) })
	return nil
}

func (d *disk) rmdir(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if err := unix.Rmdir(path); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	d.note(dir, dir, "", func() error { return os.Mkdir(path, fi.Mode().Perm()) })
	return nil
}

func (d *disk) rename(from, to string, noreplace bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fi, err := os.Lstat(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	there := err == nil
	if there && noreplace {
		return unix.EEXIST
	}
	kept := ""
	if there && !fi.IsDir() {
		if kept, err = d.keep(to); err != nil {
			return err
		}
	}
	if err := unix.Rename(from, to); err != nil {
		if kept != "" {
			os.Remove(kept)
		}
		return err
	}
	d.note(filepath.Dir(from), filepath.Dir(to), kept, func() error {
		if err := os.Rename(to, from); err != nil {
			return err
		}
		switch {
		case kept != "":
			return os.Rename(kept, to)
		case there:
			return os.Mkdir(to, fi.Mode().Perm())
		}
		return nil
	})
	return nil
}

// syncDir makes the names of a directory durable.
func (d *disk) syncDir(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.names) - 1; i >= 0; i-- {
		if d.names[i].dirs[0] == dir || d.names[i].dirs[1] == dir {
			d.forget(d.names[:i+1])
			d.names = append(d.names[:0:0], d.names[i+1:]...)
			return
		}
	}
}

// forget drops what was kept for undoing changes of names.
func (d *disk) forget(ops []nameOp) {
	for _, op := range ops {
		if op.kept != "" {
			os.Remove(op.kept)
		}
	}
}

// loss counts what a power cut took.
type loss struct {
	Names, Files int
	Bytes        int64
}

// String is what is printed: three numbers.
func (l loss) String() string { return fmt.Sprintf("%d %d %d", l.Names, l.Files, l.Bytes) }

// cut loses what was not durable: the last changes of names, and of each file what it can lose, by chance.
func (d *disk) cut(seed uint64) (loss, error) {
	if n := d.open.Load(); n > 0 {
		return loss{}, fmt.Errorf("%d files are open: %w", n, syscall.EBUSY)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 0x637574))
	var l loss
	// A power cut between two writes of the journal: often all or nothing of it is there.
	n := len(d.names)
	keep := []int{0, n, r.IntN(n + 1)}[r.IntN(3)]
	for i := n - 1; i >= keep; i-- {
		if err := d.names[i].undo(); err != nil {
			return l, fmt.Errorf("undo a change of names: %w", err)
		}
		l.Names++
	}
	d.forget(d.names[:keep])
	d.names = nil
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		s := d.files[st.Ino]
		if s == nil || st.Size <= s.synced && len(s.over) == 0 {
			return nil
		}
		lost, err := s.cut(path, st.Size, r)
		if lost > 0 {
			l.Files++
			l.Bytes += lost
		}
		return err
	})
	clear(d.files) // what is there now is durable
	return l, err
}

// cut loses bytes of one file: writes over durable bytes each by chance, and the tail from some byte on. Where a file's size had become
// durable before its bytes, there is something else in their place.
func (s *state) cut(path string, size int64, r *rand.Rand) (lost int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for i := len(s.over) - 1; i >= 0; i-- {
		if o := s.over[i]; r.IntN(2) == 0 {
			if _, err := f.WriteAt(o.b, o.off); err != nil {
				return lost, err
			}
			lost += int64(len(o.b))
			size = max(size, o.off+int64(len(o.b)))
		}
	}
	if size <= s.synced {
		return lost, nil
	}
	at := s.synced
	if !s.doomed {
		at += r.Int64N(size - s.synced + 1)
	}
	lost += size - at
	switch r.IntN(4) {
	case 0: // zeros
		if err := f.Truncate(at); err != nil {
			return lost, err
		}
		return lost, f.Truncate(size)
	case 1: // what was on the disk before
		junk := make([]byte, min(size-at, 64<<10))
		for i := range junk {
			junk[i] = byte(r.Uint32())
		}
		_, err := f.WriteAt(junk, at)
		return lost, errors.Join(err, f.Truncate(at+int64(len(junk))))
	}
	return lost, f.Truncate(at)
}
