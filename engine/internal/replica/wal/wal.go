// Package wal keeps raft's log and votes in files. An append is one write(2) on the caller's goroutine, which survives kill -9; what
// makes it survive a power cut is Sync, which all who wait share. Raft-wal and Pebble sync or hand over to another goroutine with
// every append, and that is most of what a change of a file would cost.
//
//	DIR/<index>.log   a segment: 24 bytes of head (magic, index of its first entry, 4 random bytes of salt, 4 zeros), then records,
//	                  see record.go
//	DIR/stable        raft's votes and terms, JSON, replaced as a whole
//	DIR/ready.N       a file that can become a segment, see ready.go
//
// Recovery reads all segments. A segment ends at the first record that isn't whole, and the next one goes on from there. What follows the
// last was written after the last Sync, or Sync would have failed: it is cut off, as a torn tail. Unless a later record says that the
// cut entries had been synced when it was written: then the log is damaged, which is an error.
package wal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
)

const (
	segmentMagic = "lfsraft1"
	segmentHead  = 24
	suffix       = ".log"
	stableName   = "stable"
)

// Options of a Log.
type Options struct {
	SegmentSize int64 // bytes from which the next append begins a new segment; 0 is 16 MiB
	Logger      *slog.Logger
}

// Log implements raft.LogStore and raft.StableStore. Its methods may be called from many goroutines.
type Log struct {
	dir string
	opt Options

	mu       sync.RWMutex
	segments []*segment // in order; appends go to the last
	first    uint64     // 0 if the log is empty
	last     uint64
	buf      []byte
	stable   map[string][]byte
	failed   error // a write or a sync failed in a way that leaves open what is on disk

	syncing sync.Mutex // one sync at a time, and none while files are closed
	now     *round     // guarded by mu: the sync that is running
	next    *round     // guarded by mu: the one after it, which serves who comes meanwhile

	// Guarded by mu, see ready.go.
	ready   int   // how many files there are that can become segments
	filling bool  // one is being written
	roll    bool  // the next append begins a segment
	closing error // why the log is closed; nil while it isn't
	filled  sync.WaitGroup
	synced  uint64 // guarded by mu: every entry up to here is durable
	newName bool   // guarded by mu: a segment's name may not be durable
}

// round is one sync, and all who wait for it.
type round struct {
	done chan struct{}
	err  error
}

type segment struct {
	first   uint64 // index of its first entry
	salt    uint32
	f       *os.File
	offsets []int64 // of the entries from first on
	end     int64
	dirty   bool
	written bool // the whole file was written before it became a segment, and is as long as that
	tail    bool // as it was read: there is something behind its last record
}

func (s *segment) last() uint64 { return s.first + uint64(len(s.offsets)) - 1 }

// Open opens, or makes, the log in a directory. Corrupt if entries that were durable are damaged.
func Open(dir string, opt Options) (*Log, error) {
	if opt.SegmentSize == 0 {
		opt.SegmentSize = 16 << 20
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log directory: %w", err)
	}
	l := &Log{dir: dir, opt: opt, stable: map[string][]byte{}}
	b, err := os.ReadFile(filepath.Join(dir, stableName))
	if err == nil {
		err = json.Unmarshal(b, &l.stable)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %v: %w", filepath.Join(dir, stableName), err, graveler.Corrupt)
	}
	if err := l.recover(); err != nil {
		l.closeFiles()
		return nil, err
	}
	return l, nil
}

func (l *Log) name(first uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%020d%s", first, suffix))
}

// recover opens the segments and finds their entries.
func (l *Log) recover() error {
	ents, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("read the log directory: %w", err)
	}
	var starts []uint64
	for _, e := range ents {
		if num, ok := strings.CutSuffix(e.Name(), suffix); ok {
			if n, err := strconv.ParseUint(num, 10, 64); err == nil {
				starts = append(starts, n)
			}
		}
	}
	slices.Sort(starts)
	torn := false
	for _, first := range starts {
		if n := len(l.segments); !torn && n > 0 && first != l.last+1 {
			// The one before ends too early: it is torn, and this one was written after that.
			if err := l.reject(l.segments[n-1].f.Name(), l.segments[n-1].end, l.last+1); err != nil {
				return err
			}
			torn = true
		}
		if torn {
			// Written after what was torn, so it never counted.
			if err := l.reject(l.name(first), 0, l.last+1); err != nil {
				return err
			}
			if err := os.Remove(l.name(first)); err != nil {
				return fmt.Errorf("drop a torn log segment: %w", err)
			}
			continue
		}
		if torn, err = l.load(first); err != nil {
			return err
		}
	}
	cut, err := l.cutTail()
	if err != nil {
		return err
	}
	if torn || cut {
		if err := SyncDir(l.dir); err != nil {
			return err
		}
	}
	l.openReady()
	// Who wrote what was read back may have been killed before it was durable.
	l.newName = len(l.segments) > 0
	return nil
}

// cutTail removes what is behind the last entry: a record that is torn, what was there before the segment, or nothing. Durably: entries that
// come in its place must not meet it again.
func (l *Log) cutTail() (cut bool, err error) {
	if len(l.segments) == 0 {
		return false, nil
	}
	s := l.segments[len(l.segments)-1]
	if !s.tail {
		return false, nil
	}
	if err := l.reject(s.f.Name(), s.end, l.last+1); err != nil {
		return false, err
	}
	var mark [4]byte
	if _, err := s.f.ReadAt(mark[:], s.end); err == nil && binary.BigEndian.Uint32(mark[:]) == recordMark {
		l.opt.Logger.Warn("what is behind the log's last entry, and was never durable, is cut off", "file", s.f.Name(), "offset", s.end, "entry", l.last+1)
	}
	if err := errors.Join(s.f.Truncate(s.end), s.f.Sync()); err != nil {
		return false, fmt.Errorf("cut the torn end of the log: %w", err)
	}
	l.roll = true
	return true, nil
}

// load opens one segment. Torn if it is none, or has no entry.
func (l *Log) load(first uint64) (torn bool, err error) {
	name := l.name(first)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false, fmt.Errorf("open the log: %w", err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		f.Close()
		return false, fmt.Errorf("read the log: %w", err)
	}
	s := &segment{first: first, f: f, end: segmentHead, dirty: true}
	if len(b) >= segmentHead && string(b[:8]) == segmentMagic && binary.BigEndian.Uint64(b[8:]) == first {
		s.salt = binary.BigEndian.Uint32(b[16:])
		var e raft.Log
		next := first
		for s.end < int64(len(b)) {
			n, _, err := decodeRecord(b[s.end:], &e, s.salt)
			if err != nil || e.Index != next {
				break
			}
			s.offsets = append(s.offsets, s.end)
			s.end += int64(n)
			next++
		}
		s.tail, s.written = s.end < int64(len(b)), int64(len(b)) == l.opt.SegmentSize
	}
	if len(s.offsets) == 0 {
		lost := first
		if l.last != 0 {
			lost = l.last + 1
		}
		f.Close()
		if err := l.reject(name, 0, lost); err != nil {
			return false, err
		}
		if err := os.Remove(name); err != nil {
			return false, fmt.Errorf("drop an empty log segment: %w", err)
		}
		return true, nil
	}
	l.segments = append(l.segments, s)
	if l.first == 0 {
		l.first = first
	}
	l.last = s.last()
	return false, nil
}

// reject fails if a record from an offset on says that the entry at index, which is to be cut off, was durable.
func (l *Log) reject(name string, from int64, index uint64) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if len(b) < segmentHead {
		return nil
	}
	salt := binary.BigEndian.Uint32(b[16:])
	mark := binary.BigEndian.AppendUint32(nil, recordMark)
	for at := int(from); at < len(b); at++ {
		i := bytes.Index(b[at:], mark)
		if i < 0 {
			return nil
		}
		at += i
		var e raft.Log
		if _, synced, err := decodeRecord(b[at:], &e, salt); err == nil && synced >= index && e.Index > index {
			return fmt.Errorf("%s: entry %d is damaged at offset %d, and it was durable when entry %d was written; restore the directory from a backup: %w", name, index, from, e.Index, graveler.Corrupt)
		}
	}
	return nil
}

// FirstIndex is the first index in the log, 0 if it is empty.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first, nil
}

// LastIndex is the last index in the log, 0 if it is empty.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last, nil
}

// Size is how many bytes the log has on disk.
func (l *Log) Size() (n int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		n += s.end
	}
	return n
}

// GetLog reads one entry; raft.ErrLogNotFound if it isn't there.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.first == 0 || index < l.first || index > l.last {
		return raft.ErrLogNotFound
	}
	i, found := slices.BinarySearchFunc(l.segments, index, func(s *segment, x uint64) int {
		switch {
		case s.last() < x:
			return -1
		case s.first > x:
			return 1
		}
		return 0
	})
	if !found {
		return raft.ErrLogNotFound
	}
	s := l.segments[i]
	k := index - s.first
	end := s.end
	if k+1 < uint64(len(s.offsets)) {
		end = s.offsets[k+1]
	}
	b := make([]byte, end-s.offsets[k])
	if _, err := s.f.ReadAt(b, s.offsets[k]); err != nil {
		return fmt.Errorf("read log entry %d: %v: %w", index, err, graveler.Corrupt) // it was there: the disk fails, or was cut
	}
	if _, _, err := decodeRecord(b, out, s.salt); err != nil || out.Index != index {
		return fmt.Errorf("read log entry %d: %s at offset %d: %w", index, s.f.Name(), s.offsets[k], graveler.Corrupt)
	}
	return nil
}

// StoreLog appends one entry.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs appends entries, all or none, by one write(2). They must follow the last one, or begin an empty log anywhere.
func (l *Log) StoreLogs(es []*raft.Log) error {
	if len(es) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	for i, e := range es {
		if want := l.last + 1 + uint64(i); (l.last != 0 || i > 0) && e.Index != want && !(l.last == 0 && e.Index == es[0].Index+uint64(i)) {
			return fmt.Errorf("append log entry %d where %d is next: %w", e.Index, want, graveler.Internal)
		}
	}
	s, err := l.open(es[0].Index)
	if err != nil {
		return err
	}
	l.buf = l.buf[:0]
	n := len(s.offsets)
	for _, e := range es {
		s.offsets = append(s.offsets, s.end+int64(len(l.buf)))
		if l.buf, err = appendRecord(l.buf, e, l.synced, s.salt); err != nil {
			s.offsets = s.offsets[:n]
			return err
		}
	}
	if _, err := s.f.WriteAt(l.buf, s.end); err != nil {
		s.offsets = s.offsets[:n]
		if terr := s.f.Truncate(s.end); terr != nil {
			l.failed = fmt.Errorf("write the log: %v; undo that: %v: %w", err, terr, graveler.Unavailable)
		}
		if n == 0 { // nothing may find a segment without entries
			l.segments = l.segments[:len(l.segments)-1]
			s.f.Close()
			os.Remove(s.f.Name())
		}
		kind := graveler.Unavailable
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			kind = graveler.NoSpace
		}
		return fmt.Errorf("write the log: %v: %w", err, kind)
	}
	s.end += int64(len(l.buf))
	s.dirty = true
	l.last = es[len(es)-1].Index
	if l.first == 0 {
		l.first = es[0].Index
	}
	if cap(l.buf) > 4<<20 {
		l.buf = nil
	}
	return nil
}

// open returns the segment that the next append goes to. Hold mu.
func (l *Log) open(next uint64) (*segment, error) {
	if n := len(l.segments); n > 0 && l.segments[n-1].end < l.opt.SegmentSize && !l.roll {
		s := l.segments[n-1]
		if s.end >= l.opt.SegmentSize/2 || !s.written && s.end >= readyFrom {
			l.prepare()
		}
		if s.written || s.end < readyFrom || l.ready == 0 {
			return s, nil
		}
	}
	l.roll = false
	f := l.takeReady(l.name(next))
	written := f != nil
	if !written {
		var err error
		if f, err = os.OpenFile(l.name(next), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return nil, fmt.Errorf("make a log segment: %w", err)
		}
	}
	salt := rand.Uint32()
	head := binary.BigEndian.AppendUint64([]byte(segmentMagic), next)
	head = binary.BigEndian.AppendUint32(head, salt)
	head = binary.BigEndian.AppendUint32(head, 0)
	if !written {
		// Room for all of it: an append needs none any more, so that what makes room on a full disk has it. Where it can't be had
		// the appends will tell.
		unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, l.opt.SegmentSize)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, fmt.Errorf("make a log segment: %w", err)
	}
	s := &segment{first: next, salt: salt, f: f, end: segmentHead, dirty: true, written: written}
	l.segments = append(l.segments, s)
	l.newName = true
	return s, nil
}

// Sync makes all entries that were stored before it durable. Who comes while one runs waits for the next, with all others.
func (l *Log) Sync() error {
	l.mu.Lock()
	if l.failed != nil || l.synced >= l.last {
		defer l.mu.Unlock()
		return l.failed
	}
	if r := l.next; r != nil {
		l.mu.Unlock()
		<-r.done
		return r.err
	}
	r := &round{done: make(chan struct{})}
	l.next = r
	before := l.now
	l.mu.Unlock()
	if before != nil {
		<-before.done
	}
	l.syncing.Lock()
	r.err = l.sync(r)
	l.syncing.Unlock()
	close(r.done)
	return r.err
}

// sync runs a round. Hold syncing.
func (l *Log) sync(r *round) error {
	l.mu.Lock()
	l.next, l.now = nil, r
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	upto, newName := l.last, l.newName
	var dirty []*segment
	for _, s := range l.segments {
		if s.dirty {
			dirty = append(dirty, s)
			s.dirty = false
		}
	}
	l.newName = false
	l.mu.Unlock()
	var err error
	for _, s := range dirty {
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Fdatasync(int(s.f.Fd()))
		}
		if err != nil {
			break
		}
	}
	if err == nil && newName {
		err = SyncDir(l.dir)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		// The kernel may have dropped what it could not write, and says so once. Nothing is promised any more.
		l.failed = fmt.Errorf("sync the log: %v; restart when the disk is well: %w", err, graveler.Unavailable)
		return l.failed
	}
	l.synced = max(l.synced, min(upto, l.last))
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// DeleteRange removes the entries from lo to hi, both included, which must be at the log's front or its back.
func (l *Log) DeleteRange(lo, hi uint64) error {
	l.syncing.Lock() // files are closed here
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	if l.first == 0 || hi < l.first || lo > l.last || lo > hi {
		return nil
	}
	switch {
	case lo <= l.first && hi >= l.last:
		return l.cutBack(l.first)
	case lo <= l.first:
		l.first = hi + 1
		for len(l.segments) > 1 && l.segments[0].last() < l.first {
			// One by one also after a power cut: a gap would be taken for damage.
			if err := errors.Join(l.drop(0, true), SyncDir(l.dir)); err != nil {
				return err
			}
		}
		return nil
	case hi >= l.last:
		return l.cutBack(lo)
	}
	return fmt.Errorf("delete log entries %d to %d of %d to %d: %w", lo, hi, l.first, l.last, graveler.Invalid)
}

// cutBack removes the entries from an index on. It is durable: entries that come in their place must not meet them again.
func (l *Log) cutBack(from uint64) error {
	// Where nothing stays, what was deleted at the front before goes too.
	all := from <= l.first
	for n := len(l.segments); n > 0 && (all || l.segments[n-1].first >= from); n = len(l.segments) {
		if err := l.drop(n-1, false); err != nil {
			return err
		}
	}
	if n := len(l.segments); n > 0 && l.segments[n-1].last() >= from {
		s := l.segments[n-1]
		k := from - s.first
		if err := s.f.Truncate(s.offsets[k]); err != nil {
			return fmt.Errorf("cut the log: %w", err)
		}
		s.end, s.offsets, s.written = s.offsets[k], s.offsets[:k], false
		if err := s.f.Sync(); err != nil {
			l.failed = fmt.Errorf("cut the log: %v: %w", err, graveler.Unavailable)
			return l.failed
		}
	}
	if l.last = from - 1; all {
		l.first, l.last = 0, 0
	}
	l.synced = min(l.synced, l.last)
	if err := SyncDir(l.dir); err != nil {
		return fmt.Errorf("cut the log: %w", err)
	}
	return nil
}

// drop removes a segment; its file may become another one.
func (l *Log) drop(i int, again bool) error {
	s := l.segments[i]
	if !again || !l.reuse(s) {
		if err := os.Remove(s.f.Name()); err != nil {
			return fmt.Errorf("drop a log segment: %w", err)
		}
	}
	s.f.Close()
	l.segments = slices.Delete(l.segments, i, i+1)
	return nil
}

// Set stores a value durably: a vote must not be forgotten.
func (l *Log) Set(k, v []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	was, had := l.stable[string(k)]
	if had && bytes.Equal(was, v) {
		return nil
	}
	l.stable[string(k)] = bytes.Clone(v)
	if err := l.writeStable(); err != nil {
		if delete(l.stable, string(k)); had {
			l.stable[string(k)] = was
		}
		return fmt.Errorf("store %s: %w", k, err)
	}
	return nil
}

func (l *Log) writeStable() error {
	b, err := json.Marshal(l.stable)
	if err != nil {
		return err
	}
	tmp := filepath.Join(l.dir, stableName+".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(l.dir, stableName))
	}
	if err == nil {
		err = SyncDir(l.dir)
	}
	return err
}

// Get returns a value, empty if there is none.
func (l *Log) Get(k []byte) ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return bytes.Clone(l.stable[string(k)]), nil
}

// SetUint64 stores a number durably.
func (l *Log) SetUint64(k []byte, v uint64) error {
	return l.Set(k, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 returns a number, 0 if there is none.
func (l *Log) GetUint64(k []byte) (uint64, error) {
	v, err := l.Get(k)
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

// Close syncs and closes.
func (l *Log) Close() error {
	err := l.Sync()
	l.mu.Lock()
	if l.closing == nil {
		l.closing = fmt.Errorf("the log is closed: %w", graveler.Unavailable)
	}
	l.mu.Unlock()
	l.filled.Wait()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = l.closing
	}
	return errors.Join(err, l.closeFiles())
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, s := range l.segments {
		errs = append(errs, s.f.Close())
	}
	l.segments = nil
	return errors.Join(errs...)
}
