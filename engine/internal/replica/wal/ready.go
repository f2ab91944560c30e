package wal

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// An append to blocks that were written before costs the disk half as much as one that makes the file longer: the file system has nothing
// to note of it. So a segment begins, if it can, as a file that is written whole already, with zeros or with what the log has dropped: the
// salt of the new segment tells its records from those. A log of little use has no such file.

const (
	readyName = "ready."    // with a number from 0 on: a file that can become a segment
	fillName  = "ready.new" // one that is being written
	// maxReady bounds how many there are.
	maxReady = 4
	// readyFrom is how large the first segment has to be for the next one to be written ahead.
	readyFrom = 1 << 20
	fillChunk = 1 << 20
)

func (l *Log) readyFile(i int) string { return filepath.Join(l.dir, readyName+strconv.Itoa(i)) }

// openReady takes over what the last run has left.
func (l *Log) openReady() {
	os.Remove(filepath.Join(l.dir, fillName))
	for i := range maxReady {
		st, err := os.Stat(l.readyFile(i))
		if err == nil && st.Size() == l.opt.SegmentSize && (l.ready == i || os.Rename(l.readyFile(i), l.readyFile(l.ready)) == nil) {
			l.ready++
		} else if err == nil {
			os.Remove(l.readyFile(i))
		}
	}
}

// prepare has a segment written ahead, if there is none. Hold mu.
func (l *Log) prepare() {
	if l.ready > 0 || l.filling || l.closing != nil || l.opt.SegmentSize < readyFrom {
		return
	}
	l.filling = true
	l.filled.Add(1)
	go func() {
		defer l.filled.Done()
		err := l.fill()
		l.mu.Lock()
		defer l.mu.Unlock()
		// After a failure the next segment is one that grows; the one after it is tried again.
		l.filling = false
		if err == nil && l.ready < maxReady && os.Rename(filepath.Join(l.dir, fillName), l.readyFile(l.ready)) == nil {
			l.ready++
		} else {
			os.Remove(filepath.Join(l.dir, fillName))
		}
	}()
}

func (l *Log) fill() (err error) {
	name := filepath.Join(l.dir, fillName)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, l.opt.SegmentSize); err != nil {
		return err
	}
	zeros := make([]byte, fillChunk)
	for at := int64(0); at < l.opt.SegmentSize; at += fillChunk {
		l.mu.RLock()
		stop := l.closing
		l.mu.RUnlock()
		if stop != nil {
			return stop
		}
		if _, err := f.WriteAt(zeros[:min(fillChunk, l.opt.SegmentSize-at)], at); err != nil {
			return err
		}
		// A little at a time: who syncs meanwhile would wait for all of it.
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
	}
	return f.Sync()
}

// takeReady makes the file that is ready the segment called name. Hold mu.
func (l *Log) takeReady(name string) *os.File {
	if l.ready == 0 {
		return nil
	}
	l.ready--
	if err := os.Rename(l.readyFile(l.ready), name); err != nil {
		return nil
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		os.Remove(name)
		return nil
	}
	return f
}

// reuse keeps the file of a dropped segment to become another one. Hold mu.
func (l *Log) reuse(s *segment) bool {
	if l.ready == maxReady || !s.written || os.Rename(s.f.Name(), l.readyFile(l.ready)) != nil {
		return false
	}
	l.ready++
	return true
}
