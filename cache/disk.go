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

// disk is the disk tier: a file for each chunk, at DIR/chunks/<2 hex digits>/<38 hex digits>, and packs of small ones, see pack.go. The
// least recently used files are given up for new ones. After a restart the order is that of writing.
type disk struct {
	root  string
	limit int64
	log   *slog.Logger
	lock  *os.File // held by flock as long as the tier is open

	mu      sync.Mutex // guards the fields below
	index   map[fileKey]*spot
	recent  list.List // of *file, the last used first
	used    int64     // occupied by all files, those being written or deleted among them; never over limit
	dropped int64
	paused  time.Time // nothing is written before; zero if the disk takes what it is given

	packing sync.Mutex // held by who looks for a place in a pack; taken before mu
	pack    *pack      // takes small chunks; nil before the first. Guarded by packing
}

// file is what is known of a file of the tier.
type file struct {
	key   fileKey
	size  int64 // bytes
	pins  int   // readers, or the writer or deleter: it must stay
	ready bool  // written, and not found damaged
	e     *list.Element
	packs []fileKey // of a pack, what is in it
	many  bool      // it is a pack
}

// spot is where a chunk is.
type spot struct {
	f     *file
	off   int64 // in a pack: where its record begins, and how long that is
	n     int64
	ready bool // of a record in a pack: it is written
}

// occupied is what a file with n bytes takes from the limit.
func occupied(n int64) int64 { return (n + blockBytes - 1) / blockBytes * blockBytes }

// openDisk takes over the files of an earlier process. It takes about a second for 300,000 of them.
func openDisk(dir string, limit int64, log *slog.Logger) (*disk, error) {
	d := &disk{root: filepath.Join(dir, "chunks"), limit: limit, log: log, index: map[fileKey]*spot{}}
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
	all, err := d.loadPacks()
	if err != nil {
		return err
	}
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
			all = append(all, found{&file{key: k, size: fi.Size(), ready: true}, map[fileKey]*spot{k: {}}, fi.ModTime()})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].written.After(all[j].written) })
	for i := range all {
		f := all[i].file
		if d.used+occupied(f.size) > d.limit { // the limit was lowered
			if err := os.Remove(d.path(f)); err != nil {
				return err
			}
			continue
		}
		d.used += occupied(f.size)
		f.e = d.recent.PushBack(f)
		for k, s := range all[i].spots {
			if d.index[k] == nil { // the newest counts
				s.f = f
				d.index[k] = s
				if f.many {
					f.packs = append(f.packs, k)
				}
			}
		}
	}
	return nil
}

// found is a file that an earlier process left.
type found struct {
	*file
	spots   map[fileKey]*spot
	written time.Time
}

func (d *disk) path(f *file) string {
	name := f.key.String()
	if f.many {
		return filepath.Join(d.root, packDir, name)
	}
	return filepath.Join(d.root, name[:2], name[2:])
}

// get returns a chunk; ok is false if the tier has it not, or has it damaged.
func (d *disk) get(k fileKey) (data []byte, last, ok bool) {
	at, ok := d.pin(k)
	if !ok {
		return nil, false, false
	}
	f := at.f
	var b []byte
	var err error
	if f.many {
		if b, err = readSpan(d.path(f), at.off, at.n); err == nil {
			data, last, err = parseRecord(k, b)
		}
	} else if b, err = readFile(d.path(f), f.size); err == nil {
		data, last, err = parseFile(k, b)
	}
	if err != nil {
		d.log.Warn("cache file dropped", "file", d.path(f), "err", err)
	}
	if err != nil && f.many {
		d.forget(k, at) // the others in it may be good
		d.unpin(f, true)
	} else {
		d.unpin(f, err == nil)
	}
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

// pin returns where a written chunk is, and keeps its file from being given up.
func (d *disk) pin(k fileKey) (spot, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.index[k]
	if at == nil || !at.f.ready || at.f.many && !at.ready {
		return spot{}, false
	}
	at.f.pins++
	d.recent.MoveToFront(at.f.e)
	return *at, true
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
	if len(data) <= packed && d.putPacked(k, data, last) {
		return
	}
	f := &file{key: k, size: int64(len(data) + trailerBytes), pins: 1}
	if !d.reserve(k, occupied(f.size), func() {
		f.e = d.recent.PushFront(f)
		d.index[k] = &spot{f: f}
	}) {
		return
	}
	err := writeFile(d.path(f), data, trailerOf(k, data, last))
	d.mu.Lock()
	f.ready = err == nil
	d.mu.Unlock()
	d.wrote(err)
	d.unpin(f, true)
}

// wrote notes whether the disk takes what it is given.
func (d *disk) wrote(err error) {
	d.mu.Lock()
	was := d.paused
	d.paused = time.Time{}
	if err != nil {
		d.paused = time.Now().Add(diskPause)
	}
	d.mu.Unlock()
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

// reserve takes size bytes from the limit for a chunk that isn't there, and calls take with mu held. Others are given up for it first: what
// they occupy counts until they are deleted.
func (d *disk) reserve(k fileKey, size int64, take func()) bool {
	for {
		d.mu.Lock()
		if d.index[k] != nil || size > d.limit || time.Now().Before(d.paused) {
			d.mu.Unlock()
			return false
		}
		if d.used+size <= d.limit {
			d.used += size
			take()
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
		err := os.Remove(d.path(v))
		d.mu.Lock()
		v.pins--
		if err == nil || errors.Is(err, iofs.ErrNotExist) {
			d.recent.Remove(v.e)
			for _, k := range v.chunks() {
				if at := d.index[k]; at != nil && at.f == v {
					delete(d.index, k)
				}
			}
			d.used -= occupied(v.size)
		} else {
			all = false
			d.paused = time.Now().Add(diskPause)
		}
		d.mu.Unlock()
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			d.log.Warn("cache file can't be deleted", "file", d.path(v), "err", err)
		}
	}
	return all
}

func (d *disk) stats() (bytes, files, dropped int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used, int64(len(d.index)), d.dropped
}

func (d *disk) close() error {
	d.packing.Lock()
	defer d.packing.Unlock()
	if d.pack != nil {
		d.leavePack()
	}
	return d.lock.Close()
}
