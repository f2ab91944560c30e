package nfs

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// NFSv3 has no open and no close. A file that is written to is opened here, and closed when nobody has written for a while: then its
// content becomes an object. Reading opens nothing.

// openFiles are the files that clients are writing.
type openFiles struct {
	s    *Server
	mu   sync.Mutex
	open map[openKey]*openFile
}

type openKey struct {
	tree *tree
	id   vfs.NodeID
}

// openFile is one of them. It keeps the vfs node.
type openFile struct {
	key    openKey
	mu     sync.RWMutex // held for writing while it is opened and closed
	h      vfs.Handle
	opened bool

	// Guarded by openFiles.mu.
	users  int
	last   time.Time
	synced bool // nothing was written since the client asked for a sync
	gone   bool // taken out of the table
}

func newOpenFiles(s *Server) *openFiles { return &openFiles{s: s, open: map[openKey]*openFile{}} }

// use returns a file, open or not, that stays until done.
func (o *openFiles) use(t *tree, id vfs.NodeID, make bool) *openFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := openKey{t, id}
	f := o.open[k]
	if f == nil {
		if !make || t.fs.Keep(id) != nil {
			return nil
		}
		f = &openFile{key: k}
		o.open[k] = f
	}
	f.users++
	f.last = time.Now()
	return f
}

func (o *openFiles) done(f *openFile, synced bool) {
	o.mu.Lock()
	f.users--
	f.last, f.synced = time.Now(), synced
	last := f.gone && f.users == 0
	o.mu.Unlock()
	if last {
		o.close(f)
	}
}

// put takes over a file that was opened by its making.
func (o *openFiles) put(t *tree, id vfs.NodeID, h vfs.Handle) {
	f := o.use(t, id, true)
	if f == nil {
		t.fs.Release(h)
		return
	}
	defer o.done(f, false)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened {
		t.fs.Release(h)
		return
	}
	f.h, f.opened = h, true
}

// handle returns the handle of an open file, which is opened if need be.
func (f *openFile) handle(ctx context.Context, c vfs.Caller) (vfs.Handle, error) {
	f.mu.RLock()
	h, ok := f.h, f.opened
	f.mu.RUnlock()
	if ok {
		return h, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened {
		return f.h, nil
	}
	op, err := f.key.tree.fs.Open(ctx, c, f.key.id, syscall.O_WRONLY)
	if err != nil {
		return 0, err
	}
	f.h, f.opened = op.Handle, true
	return f.h, nil
}

// write writes to a file.
func (o *openFiles) write(ctx context.Context, n *node, c vfs.Caller, p []byte, off int64) (int, error) {
	f := o.use(n.tree, n.id, true)
	if f == nil {
		return 0, statusStale
	}
	defer o.done(f, false)
	h, err := f.handle(ctx, c)
	if err != nil {
		return 0, err
	}
	return n.tree.fs.Write(ctx, h, c, c.UID != 0, p, off)
}

// flush carries out what was written to a control file.
func (o *openFiles) flush(ctx context.Context, n *node, c vfs.Caller) error {
	f := o.use(n.tree, n.id, false)
	if f == nil {
		return nil
	}
	defer o.drop(n.tree, n.id)
	defer o.done(f, true)
	h, err := f.handle(ctx, c)
	if err != nil {
		return err
	}
	return n.tree.fs.Flush(ctx, h, c, 0)
}

// synced notes that a client has all that it wrote on disk: it has probably closed the file.
func (o *openFiles) synced(t *tree, id vfs.NodeID) {
	if f := o.use(t, id, false); f != nil {
		o.done(f, true)
	}
}

// drop closes a file as soon as nobody uses it.
func (o *openFiles) drop(t *tree, id vfs.NodeID) {
	o.mu.Lock()
	f := o.open[openKey{t, id}]
	if f == nil {
		o.mu.Unlock()
		return
	}
	delete(o.open, f.key)
	f.gone = true
	idle := f.users == 0
	o.mu.Unlock()
	if idle {
		o.close(f)
	}
}

func (o *openFiles) close(f *openFile) {
	f.mu.Lock()
	h, ok := f.h, f.opened
	f.opened = false
	f.mu.Unlock()
	t := f.key.tree
	if ok {
		if t.fs.IsControl(f.key.id) {
			// What a client wrote to it and never asked to be done.
			ctx, cancel := context.WithTimeout(context.Background(), o.s.cfg.Deadline)
			if err := t.fs.Flush(ctx, h, vfs.Caller{}, 0); err != nil {
				o.s.log.Warn("nfs: control file", "err", err)
			}
			cancel()
		}
		t.fs.Release(h)
	}
	t.fs.Forget(f.key.id, 1)
}

// run closes files that nobody writes to any more, until the server ends.
func (o *openFiles) run() {
	idle := o.s.cfg.Idle
	t := time.NewTicker(idle / 4)
	defer t.Stop()
	for {
		select {
		case <-o.s.ctx.Done():
			return
		case now := <-t.C:
			o.closeIdle(now, idle)
		}
	}
}

// closeIdle closes the files that were not used for a time; for a third of it, if the client has all on disk.
func (o *openFiles) closeIdle(now time.Time, idle time.Duration) {
	var out []*openFile
	o.mu.Lock()
	for k, f := range o.open {
		after := idle
		if f.synced {
			after = idle / 3
		}
		if f.users == 0 && now.Sub(f.last) >= after {
			delete(o.open, k)
			f.gone = true
			out = append(out, f)
		}
	}
	o.mu.Unlock()
	for _, f := range out {
		o.close(f)
	}
}

// closeAll closes all files; no request is being answered any more.
func (o *openFiles) closeAll() { o.closeIdle(time.Now().Add(24*time.Hour), 0) }
