package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// Handle names an open file or directory to the protocol.
type Handle uint64

// file is an open file.
type file struct {
	n      *node
	write  bool
	append bool
	pass   bool           // the kernel reads and writes it itself
	slow   bool           // it had better not
	pid    uint32         // counted in copiers
	entry  graveler.Entry // what it opened; reads of what was never written go there, whatever happens to the name
	ctl    *ctlFile
}

func (f *FS) addHandle(h any) Handle {
	id := f.nextFh.Add(1)
	f.handles.Store(Handle(id), h)
	return Handle(id)
}

func (f *FS) file(h Handle) (*file, error) {
	v, _ := f.handles.Load(h)
	if fl, ok := v.(*file); ok {
		return fl, nil
	}
	return nil, fmt.Errorf("handle %d: %w", h, syscall.EBADF)
}

// fileOrNode is file, or where files need not be opened (Still), one as if it were.
func (f *FS) fileOrNode(h Handle, id NodeID) (*file, error) {
	if h != 0 || !f.Still() {
		return f.file(h)
	}
	n, err := f.node(id)
	if err != nil {
		return nil, err
	}
	if n.kind != kindFile {
		return nil, syscall.EINVAL
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return &file{n: n, entry: n.entry}, nil
}

// Opened tells what an open gave.
type Opened struct {
	Handle  Handle
	Keep    bool // the kernel may keep what it has of the content: it is what the file had when it was read
	Direct  bool // the kernel must not cache: the size isn't known
	NoFlush bool // nobody need be told of a close but the last
	Pass    bool // the kernel goes to the file that is registered as Backing
	Backing int32
}

// Open opens a file. flags are open(2)'s.
func (f *FS) Open(ctx context.Context, c Caller, id NodeID, flags int) (Opened, error) {
	n, err := f.node(id)
	if err != nil {
		return Opened{}, err
	}
	write := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if n.kind == kindCtlFile {
		return f.openCtl(ctx, n, write)
	}
	if n.isDir() {
		return Opened{}, graveler.IsDir
	}
	if write || flags&syscall.O_TRUNC != 0 {
		if err := f.writable(n.v); err != nil {
			return Opened{}, err
		}
		if n.kind == kindObject {
			return Opened{}, graveler.ReadOnly
		}
	}
	if _, err := f.objects(ctx, n.v.repo); err != nil {
		return Opened{}, err
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	fl := &file{n: n, write: write, append: flags&syscall.O_APPEND != 0, slow: flags&syscall.O_TRUNC != 0 && f.slow(c)}
	f.doubt(n)
	for try := 0; ; try++ {
		if err := f.refresh(ctx, n); err != nil {
			return Opened{}, err
		}
		if n.loose {
			return Opened{}, errLoose
		}
		err := f.openContent(n, write && n.entry.Pending != "")
		if err == nil {
			break
		}
		if !errors.Is(err, graveler.NotFound) || try > 3 {
			return Opened{}, err
		}
		n.valid = false // settled since
	}
	n.count(fl, 1)
	if flags&syscall.O_TRUNC != 0 {
		if err := f.truncate(ctx, n, 0); err != nil {
			n.count(fl, -1)
			f.idle(n)
			return Opened{}, err
		}
	}
	fl.entry = n.entry
	o := f.opened(fl, c)
	if o.Pass && write && c.UID != 0 {
		// The kernel's own writes don't ask for this; it is a little early then.
		if err := f.dropPrivilegesLocked(ctx, n); err != nil {
			f.closeLocked(fl)
			return Opened{}, err
		}
	}
	o.Handle = f.addHandle(fl)
	return o, nil
}

// openContent opens the spill file of a pending entry, or opens it for writing too. Hold n.mu.
func (f *FS) openContent(n *node, write bool) error {
	if n.entry.Pending == "" && n.content == nil {
		return nil
	}
	if n.content != nil && (n.wopen || !write) {
		return nil
	}
	sf, err := f.cfg.Spill.OpenFile(n.entry.Pending, write)
	if err != nil {
		return err
	}
	if n.content != nil {
		n.content.Close()
	}
	n.content, n.wopen = sf, write
	return nil
}

// ensureWritable makes sure that n.content takes writes: a file that was committed gets a spill file that begins as its object,
// and a staged entry that names it. Hold n.mu and moving. If fresh, its old bytes aren't wanted.
func (f *FS) ensureWritable(ctx context.Context, n *node, fresh bool) error {
	if n.content != nil && n.wopen {
		return nil
	}
	for try := 0; ; try++ {
		if err := f.refresh(ctx, n); err != nil && !errors.Is(err, errLoose) {
			return err
		}
		if n.content != nil && n.wopen {
			return nil // it is loose
		}
		if n.entry.Pending == "" {
			break
		}
		err := f.openContent(n, true)
		if err == nil {
			return nil
		}
		if !errors.Is(err, graveler.NotFound) || try > 3 {
			return err
		}
		if f.isGone(n) {
			// Nobody names the file any more, and its bytes have become an object: go on from what is open.
			return f.copyOpen(ctx, n)
		}
		n.valid = false
	}
	var sf *spill.File
	var err error
	if fresh || n.entry.Size == 0 {
		sf, err = f.cfg.Spill.Create()
	} else {
		var st object.Store
		if st, err = f.objects(ctx, n.v.repo); err == nil {
			var r graveler.Repository
			if r, err = f.eng.Repository(ctx, n.v.repo); err == nil {
				sf, err = f.cfg.Spill.CreateFrom(spill.Base{Store: st, Namespace: r.StorageNamespace, Object: object.Of(&n.entry), ETag: n.entry.ETag, Mtime: n.entry.Mtime()})
			}
		}
	}
	if err != nil {
		return err
	}
	if err = f.adoptContent(ctx, n, sf); err == errChanged {
		return f.ensureWritable(ctx, n, fresh)
	}
	return err
}

// errChanged tells that a file has another content since it was looked at.
var errChanged = errors.New("changed meanwhile")

// adoptContent makes a new spill file the content of a file, in staging and here.
func (f *FS) adoptContent(ctx context.Context, n *node, sf *spill.File) error {
	was := n.entry
	unlock, err := f.lockNode(ctx, n)
	if err == nil && (n.entry.Pending != was.Pending || n.entry.Address != was.Address) {
		unlock()
		err = errChanged // another tree was faster: its content is the file's
	}
	if errors.Is(err, errLoose) {
		err = errChanged
	}
	if err != nil {
		f.cfg.Spill.Drop(sf.ID())
		sf.Close()
		return err
	}
	defer unlock()
	e := n.entry
	e.Metadata = maps.Clone(e.Metadata)
	e.SetMtime(e.Mtime()) // pending entries show the spill file's time
	e.Pending, e.Address, e.ETag, e.Size = sf.ID(), "", "", 0
	if f.isGone(n) {
		f.cfg.Spill.Drop(sf.ID())
	} else {
		changes, err := f.puts(ctx, n.v, f.pathOf(n), e)
		if err == nil {
			err = f.stage(ctx, n.v, changes...)
		}
		if err != nil {
			f.cfg.Spill.Drop(sf.ID())
			sf.Close()
			return err
		}
	}
	if n.content != nil {
		n.content.Close()
	}
	n.content, n.wopen = sf, true
	n.set(e)
	return nil
}

// copyOpen copies the open content of a removed file into one that can be written.
func (f *FS) copyOpen(ctx context.Context, n *node) error {
	sf, err := f.cfg.Spill.Create()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); n.content != nil; {
		k, err := n.content.ReadAt(ctx, buf, off)
		if k > 0 {
			if _, werr := sf.WriteAt(ctx, buf[:k], off); werr != nil {
				err = werr
			}
		}
		off += int64(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			f.cfg.Spill.Drop(sf.ID())
			sf.Close()
			return err
		}
	}
	return f.adoptContent(ctx, n, sf)
}

func (f *FS) isGone(n *node) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return n.gone
}

// truncate sets a file's size. Hold n.mu and moving.
func (f *FS) truncate(ctx context.Context, n *node, size int64) error {
	if err := f.ensureWritable(ctx, n, size == 0); err != nil {
		return err
	}
	if n.content.Size() == size && size != 0 {
		return nil
	}
	if err := n.content.Truncate(size); err != nil {
		return err
	}
	// A truncate to the present size counts as a change too.
	return n.content.SetTimes(time.Time{}, time.Now())
}

// Read reads as io.ReaderAt, but the end of the file is no error.
func (f *FS) Read(ctx context.Context, h Handle, p []byte, off int64) (int, error) {
	fl, err := f.file(h)
	if err != nil {
		return 0, err
	}
	if fl.ctl != nil {
		return fl.ctl.read(p, off), nil
	}
	n := fl.n
	for try := 0; ; try++ {
		n.mu.Lock()
		content, e := n.content, fl.entry
		var rerr error
		if content == nil && e.Pending != "" && n.valid && n.entry.Pending == "" {
			e = n.entry // settled since it was opened
		}
		n.mu.Unlock()
		var k int
		if content != nil {
			k, rerr = content.ReadAt(ctx, p, off)
		} else {
			k, rerr = f.readEntry(ctx, n, &e, p, off)
		}
		if rerr == io.EOF {
			rerr = nil
		}
		if try < 3 && (errors.Is(rerr, graveler.NotFound) && e.Pending != "" || errors.Is(rerr, syscall.EBADF)) {
			continue // the content was exchanged under the read
		}
		return k, rerr
	}
}

func (f *FS) readEntry(ctx context.Context, n *node, e *graveler.Entry, p []byte, off int64) (int, error) {
	if e.Pending == "" {
		if off >= e.Size {
			return 0, nil
		}
		p = p[:min(int64(len(p)), e.Size-off)]
	}
	st, err := f.objects(ctx, n.v.repo)
	if err != nil {
		return 0, err
	}
	if off == 0 {
		f.ahead.read(n, e, st)
	}
	k, err := st.ReadAt(ctx, engine.ObjectOf(e), p, off)
	if err == io.EOF && e.Pending == "" && k < len(p) {
		return 0, fmt.Errorf("object %s ends at %d, its entry says %d: %w", e.Address, off+int64(k), e.Size, graveler.Corrupt)
	}
	if errors.Is(err, graveler.NotFound) && e.Pending == "" {
		return 0, fmt.Errorf("object %s is missing from the object store: %w", e.Address, graveler.Corrupt)
	}
	return k, err
}

// Write writes all of p. strip asks for the set-user-id and set-group-id bits to be cleared, as a write by anyone but root does.
func (f *FS) Write(ctx context.Context, h Handle, c Caller, strip bool, p []byte, off int64) (int, error) {
	fl, err := f.file(h)
	if err != nil {
		return 0, err
	}
	if fl.ctl != nil {
		return f.writeCtl(ctx, fl, c, p)
	}
	if !fl.write {
		return 0, syscall.EBADF
	}
	n := fl.n
	n.mu.Lock()
	if n.content == nil || !n.wopen {
		n.mu.Unlock()
		f.moving.RLock()
		n.mu.Lock()
		err := f.ensureWritable(ctx, n, false)
		n.mu.Unlock()
		f.moving.RUnlock()
		if err != nil {
			return 0, err
		}
		n.mu.Lock()
	}
	content := n.content
	n.mu.Unlock()
	if strip {
		if err := f.dropPrivileges(ctx, n); err != nil {
			return 0, err
		}
	}
	if fl.append {
		return content.Append(ctx, p)
	}
	return content.WriteAt(ctx, p, off)
}

// Flush is one descriptor's close: the locks that owner, a process, has on the file go.
func (f *FS) Flush(ctx context.Context, h Handle, c Caller, owner uint64) error {
	fl, err := f.file(h)
	if err != nil {
		return err
	}
	if fl.ctl != nil {
		return f.flushCtl(ctx, fl, c)
	}
	f.unlock(fl.n, func(l *heldLock) bool { return !l.Flock && l.Owner == owner })
	if fl.write && f.cfg.SyncOnClose {
		return f.Fsync(ctx, h)
	}
	return nil
}

// Fsync makes a file's bytes and its entry survive a power cut.
func (f *FS) Fsync(ctx context.Context, h Handle) error {
	fl, err := f.file(h)
	if err != nil {
		return err
	}
	if fl.ctl != nil {
		return nil
	}
	fl.n.mu.Lock()
	content := fl.n.content
	fl.n.mu.Unlock()
	if !fl.n.v.writable {
		return nil
	}
	if content == nil {
		return f.eng.Sync(ctx)
	}
	// At the same time, so that the disk has to be waited for once.
	named := make(chan error, 1)
	go func() { named <- f.eng.Sync(ctx) }()
	err = errors.Join(content.Sync(), <-named)
	if err == nil && f.cfg.Keep != nil {
		err = f.cfg.Keep(ctx, content.ID())
	}
	return err
}

// Release closes a handle.
func (f *FS) Release(h Handle) {
	v, ok := f.handles.LoadAndDelete(h)
	if !ok {
		return
	}
	fl, ok := v.(*file)
	if !ok || fl.ctl != nil {
		return
	}
	fl.n.mu.Lock()
	f.closeLocked(fl)
	locked := fl.n.locked
	fl.n.mu.Unlock()
	if locked {
		f.unlock(fl.n, func(l *heldLock) bool { return l.handle == h })
	}
}

// closeLocked takes a handle off its node. The last writer's makes the content ready to be settled; readers go on with it.
func (f *FS) closeLocked(fl *file) {
	fl.n.count(fl, -1)
	f.unpass(fl)
	f.idle(fl.n)
}

// idle closes what a node has open and nobody needs. Hold n.mu.
func (f *FS) idle(n *node) {
	if n.content == nil || n.writers > 0 || n.passes > 0 {
		return // where readers go to the file themselves, it must stay what it is
	}
	if n.readers > 0 {
		if n.wopen {
			if ro, err := f.cfg.Spill.OpenFile(n.content.ID(), false); err == nil {
				n.content.Close()
				n.content, n.wopen = ro, false
			}
		}
		return
	}
	f.mu.Lock()
	drop := n.gone && n.unnamed
	f.mu.Unlock()
	if drop {
		f.cfg.Spill.Drop(n.content.ID())
	}
	n.content.Close()
	n.content, n.wopen = nil, false
}

// Allocate is fallocate(2).
func (f *FS) Allocate(ctx context.Context, h Handle, mode uint32, off, size int64) error {
	fl, err := f.file(h)
	if err != nil {
		return err
	}
	if !fl.write || fl.ctl != nil {
		return syscall.EBADF
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	fl.n.mu.Lock()
	defer fl.n.mu.Unlock()
	if err := f.ensureWritable(ctx, fl.n, false); err != nil {
		return err
	}
	if err := fl.n.content.Allocate(ctx, mode, off, size); err != nil {
		return err
	}
	return f.dropPrivilegesLocked(ctx, fl.n)
}

// Seek finds data or a hole.
func (f *FS) Seek(ctx context.Context, h Handle, id NodeID, off int64, whence int) (int64, error) {
	fl, err := f.fileOrNode(h, id)
	if err != nil {
		return 0, err
	}
	const seekData, seekHole = 3, 4
	if fl.ctl != nil || whence != seekData && whence != seekHole {
		return 0, syscall.EINVAL
	}
	fl.n.mu.Lock()
	content, size := fl.n.content, fl.entry.Size
	fl.n.mu.Unlock()
	if content != nil {
		return content.Seek(off, whence)
	}
	switch {
	case off >= size:
		return 0, syscall.ENXIO
	case whence == seekHole:
		return size, nil
	}
	return off, nil
}

// ctlFile is an open control file: what it held when it was opened, or what is being written.
type ctlFile struct {
	mu   sync.Mutex
	text []byte
	in   []byte
	done bool // what was written was carried out
}

func (c *ctlFile) read(p []byte, off int64) int {
	if off >= int64(len(c.text)) {
		return 0
	}
	return copy(p, c.text[off:])
}
