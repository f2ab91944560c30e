package replica

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// walFS puts off the fsync of write-ahead logs. A commit with Sync then returns when its record reached the kernel by
// write(2), which survives kill -9, and sync makes all of it durable against a power cut when that is asked for. Pebble's own
// NoSync is no substitute: it leaves records in the process's memory.
type walFS struct {
	vfs.FS
	mu    sync.Mutex
	files map[*walFile]struct{}
}

func newWALFS(fs vfs.FS) *walFS { return &walFS{FS: fs, files: map[*walFile]struct{}{}} }

// Unwrap gives Pebble the file system below.
func (w *walFS) Unwrap() vfs.FS { return w.FS }

func (w *walFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	wf := &walFile{File: f, fs: w}
	w.mu.Lock()
	w.files[wf] = struct{}{}
	w.mu.Unlock()
	return wf, nil
}

// Create creates a file.
func (w *walFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, c)
	return w.wrap(name, f, err)
}

// ReuseForWrite recycles a file.
func (w *walFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.ReuseForWrite(old, name, c)
	return w.wrap(name, f, err)
}

// sync makes all write-ahead logs durable.
func (w *walFS) sync() error {
	w.mu.Lock()
	var dirty []*walFile
	for f := range w.files {
		dirty = append(dirty, f)
	}
	w.mu.Unlock()
	for _, f := range dirty {
		if err := f.syncNow(); err != nil {
			return err
		}
	}
	return nil
}

type walFile struct {
	vfs.File
	fs     *walFS
	mu     sync.Mutex // orders syncs with Close
	dirty  bool
	closed bool
}

func (f *walFile) later() error {
	f.mu.Lock()
	f.dirty = true
	f.mu.Unlock()
	return nil
}

// Sync, SyncData and SyncTo note that there is something to sync.
func (f *walFile) Sync() error                { return f.later() }
func (f *walFile) SyncData() error            { return f.later() }
func (f *walFile) SyncTo(int64) (bool, error) { return false, f.later() }

func (f *walFile) syncNow() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dirty || f.closed {
		return nil
	}
	f.dirty = false
	if err := f.File.SyncData(); err != nil {
		f.dirty = true
		return err
	}
	return nil
}

// Close syncs: a finished log is not looked at again before a crash.
func (f *walFile) Close() error {
	err := f.syncNow()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.fs.mu.Lock()
	delete(f.fs.files, f)
	f.fs.mu.Unlock()
	if cerr := f.File.Close(); err == nil {
		err = cerr
	}
	return err
}
