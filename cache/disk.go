package cache

import (
	"container/list"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// blockBytes is what files occupy in multiples of, on nearly all file systems.
const blockBytes = 4096

// diskPause is how long nothing is written after the disk refused, as it does when it is full.
const diskPause = 30 * time.Second

// disk is the disk tier: a file for each chunk, at DIR/chunks/<2 hex digits>/<38 hex digits>, the least recently used ones
// given up for new ones. After a restart the order is that of writing.
type disk struct {
	root  string
	limit int64
	log   *slog.Logger
	lock  *os.File // held by flock as long as the tier is open

	mu      sync.Mutex // guards the fields below
	index   map[fileKey]*list.Element
	recent  list.List // of *file, the last used first
	used    int64     // occupied by all files, those being written or deleted among them; never over limit
	dropped int64
	paused  time.Time // nothing is written before; zero if the disk takes what it is given
}

// file is what is known of a file of the tier.
type file struct {
	key   fileKey
	size  int64 // bytes
	pins  int   // readers, or the writer or deleter: it must stay
	ready bool  // written, and not found damaged
}

// occupied is what a file with n bytes takes from the limit.
func occupied(n int64) int64 { return (n + blockBytes - 1) / blockBytes * blockBytes }

// openDisk takes over the files of an earlier process. It takes about a second for 300,000 of them.
func openDisk(dir string, limit int64, log *slog.Logger) (*disk, error) {
	d := &disk{root: filepath.Join(dir, "chunks"), limit: limit, log: log, index: map[fileKey]*list.Element{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if d.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.lock.Close()
		return nil, fmt.Errorf("lock %s, is another process using it?: %w", d.lock.Name(), err)
	}
	if err := d.load(); err != nil {
		d.lock.Close()
		return nil, err
	}
	return d, nil
}

// load makes the directories and reads what is in them.
func (d *disk) load() error {
	type found struct {
		file
		written time.Time
	}
	var all []found
	for i := range 256 {
		sub := filepath.Join(d.root, hex.EncodeToString([]byte{byte(i)}))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return err
		}
		ents, err := os.ReadDir(sub)
		if err != nil {
			return err
		}
		for _, e := range ents {
			fi, err := e.Info()
			if err != nil {
				continue // gone
			}
			var k fileKey
			b, err := hex.DecodeString(filepath.Base(sub) + e.Name())
			if err != nil || copy(k[:], b) != len(k) || len(b) != len(k) || k.String()[2:] != e.Name() || !fi.Mode().IsRegular() {
				return fmt.Errorf("%s is no file of the cache; give the cache a directory of its own", filepath.Join(sub, e.Name()))
			}
			all = append(all, found{file{key: k, size: fi.Size(), ready: true}, fi.ModTime()})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].written.After(all[j].written) })
	for i := range all {
		f := &all[i].file
		if d.used+occupied(f.size) > d.limit { // the limit was lowered
			if err := os.Remove(d.path(f.key)); err != nil {
				return err
			}
			continue
		}
		d.used += occupied(f.size)
		d.index[f.key] = d.recent.PushBack(f)
	}
	return nil
}

func (d *disk) path(k fileKey) string {
	name := k.String()
	return filepath.Join(d.root, name[:2], name[2:])
}

// get returns a chunk; ok is false if the tier has it not, or has it damaged.
func (d *disk) get(k fileKey) (data []byte, last, ok bool) {
	f := d.pin(k)
	if f == nil {
		return nil, false, false
	}
	b, err := readFile(d.path(k), f.size)
	if err == nil {
		data, last, err = parseFile(k, b)
	}
	if err != nil {
		d.log.Warn("cache file dropped", "file", d.path(k), "err", err)
	}
	d.unpin(f, err == nil)
	return data, last, err == nil
}

// readFile reads the first size bytes of a file, or all if it is shorter.
func readFile(name string, size int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	n, err := io.ReadFull(f, b)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		err = nil
	}
	return b[:n], err
}

func (d *disk) has(k fileKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.index[k] != nil
}

// pin returns a written file and keeps it from being given up.
func (d *disk) pin(k fileKey) *file {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.index[k]
	if e == nil {
		return nil
	}
	f := e.Value.(*file)
	if !f.ready {
		return nil
	}
	f.pins++
	d.recent.MoveToFront(e)
	return f
}

// unpin ends what pin or put began. The last one to leave a file that is no good deletes it.
func (d *disk) unpin(f *file, good bool) {
	d.mu.Lock()
	if !good && f.ready {
		f.ready = false
		d.dropped++
	}
	f.pins--
	gone := !f.ready && f.pins == 0
	if gone {
		f.pins++ // nobody else may delete it
	}
	d.mu.Unlock()
	if gone {
		d.remove([]*file{f})
	}
}

// put keeps a chunk, if there is room to be made for it and the disk takes it.
func (d *disk) put(k fileKey, data []byte, last bool) {
	f := &file{key: k, size: int64(len(data) + trailerBytes), pins: 1}
	if !d.reserve(f) {
		return
	}
	err := writeFile(d.path(k), data, trailerOf(k, data, last))
	d.mu.Lock()
	f.ready = err == nil
	was := d.paused
	d.paused = time.Time{}
	if err != nil {
		d.paused = time.Now().Add(diskPause)
	}
	d.mu.Unlock()
	d.unpin(f, true)
	switch {
	case err != nil && was.IsZero():
		d.log.Warn("cache directory takes no files; going on without until it does", "dir", d.root, "err", err)
	case err == nil && !was.IsZero():
		d.log.Info("cache directory takes files again", "dir", d.root)
	}
}

func writeFile(name string, data, trailer []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		_, err = f.Write(trailer)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// reserve takes f's size from the limit, and puts it into the index. Others are given up for it first: what they occupy
// counts until they are deleted.
func (d *disk) reserve(f *file) bool {
	for {
		d.mu.Lock()
		size := occupied(f.size)
		if d.index[f.key] != nil || size > d.limit || time.Now().Before(d.paused) {
			d.mu.Unlock()
			return false
		}
		if d.used+size <= d.limit {
			d.used += size
			d.index[f.key] = d.recent.PushFront(f)
			d.mu.Unlock()
			return true
		}
		var victims []*file
		need := d.used + size - d.limit
		for e := d.recent.Back(); e != nil && need > 0; {
			v := e.Value.(*file)
			prev := e.Prev()
			if v.pins == 0 {
				v.pins++
				v.ready = false // nobody begins to read it
				need -= occupied(v.size)
				victims = append(victims, v)
			}
			e = prev
		}
		d.mu.Unlock()
		if len(victims) == 0 || !d.remove(victims) {
			return false
		}
	}
}

// remove deletes pinned files and forgets them. It reports whether all could be deleted.
func (d *disk) remove(victims []*file) bool {
	all := true
	for _, v := range victims {
		err := os.Remove(d.path(v.key))
		d.mu.Lock()
		v.pins--
		if err == nil || errors.Is(err, iofs.ErrNotExist) {
			d.recent.Remove(d.index[v.key])
			delete(d.index, v.key)
			d.used -= occupied(v.size)
		} else {
			all = false
			d.paused = time.Now().Add(diskPause)
		}
		d.mu.Unlock()
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			d.log.Warn("cache file can't be deleted", "file", d.path(v.key), "err", err)
		}
	}
	return all
}

func (d *disk) stats() (bytes, files, dropped int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used, int64(len(d.index)), d.dropped
}

func (d *disk) close() error { return d.lock.Close() }
