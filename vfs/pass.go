package vfs

import (
	"io/fs"
	"os"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/object"
)

// passing is how the kernel reads and writes a file: by asking for what its page cache doesn't have, or by going to a local file
// itself. All handles of a node must do the same at a time, and go to the same file. Guarded by node.mu.
type passing struct {
	passes  int // handles that go to the local file
	caches  int // handles that ask
	backing int32
	kept    string // address of the object whose pages the kernel may have
}

// passFrom is the size in bytes from which a committed file is passed. A smaller one is read in one request, and then is in the page
// cache, where it stays when the file is closed.
const passFrom = 256 << 10

// opened decides how the kernel reads and writes a new handle's file. Hold n.mu; n.content and n.entry are those of the handle.
func (f *FS) opened(fl *file, c Caller) Opened {
	n := fl.n
	// A close that nobody waits for saves a request; locks of processes go at any close.
	o := Opened{NoFlush: !f.cfg.SyncOnClose && !n.locked}
	e := &n.entry
	if !fl.write && e.Pending == "" && e.Size >= copierFrom {
		fl.pid = c.PID
		f.copiers.add(c.PID, 1)
	}
	if f.pass(n, fl) {
		fl.pass = true
		n.passes++
		n.kept = ""
		o.Pass, o.Backing = true, n.backing
		return o
	}
	n.caches++
	// An append through the page cache comes in parts where it crosses a page, and another mount's could get between them.
	o.Direct = fl.append && fl.write && f.shared(n.v)
	o.Keep = e.Pending == "" && (n.kept == "" || n.kept == e.Address) && !f.shared(n.v)
	n.kept = e.Address
	return o
}

// pass reports whether the kernel can go to a local file, and registers that.
func (f *FS) pass(n *node, fl *file) bool {
	if n.passes > 0 {
		return true // there is no other way then
	}
	if f.passer == nil || n.caches > 0 || fl.slow || n.hasPerm && n.perm.Mode&(fs.ModeType|fs.ModeSetuid|fs.ModeSetgid) != 0 {
		return false
	}
	var src *os.File
	switch {
	case n.content != nil:
		if !n.wopen {
			return false // it may become an object meanwhile, and then another file be written
		}
		if src = n.content.Whole(); src == nil {
			return false
		}
	case n.v.writable || n.entry.Pending != "" || n.entry.Size < passFrom:
		return false // a writer may come, who has a file of his own
	default:
		if src = f.objectFile(n); src == nil {
			return false
		}
		defer src.Close() // the kernel has it then
	}
	id, ok := f.passer.Register(src)
	n.backing = id
	return ok
}

// objectFile opens the local file that is a node's object, if there is one of the right size.
func (f *FS) objectFile(n *node) *os.File {
	st, ok := f.stores.Load(n.v.repo)
	if !ok {
		return nil
	}
	l, ok := st.(object.Local)
	if !ok {
		return nil
	}
	path := l.Path(engine.ObjectOf(&n.entry))
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil // the read will say why
	}
	if fi, err := file.Stat(); err != nil || fi.Size() != n.entry.Size || !fi.Mode().IsRegular() {
		file.Close()
		return nil
	}
	return file
}

// count counts a handle of a node, or takes it off.
func (n *node) count(fl *file, by int) {
	if fl.write {
		n.writers += by
	} else {
		n.readers += by
	}
}

// unpass takes a handle off what opened counted. Hold n.mu.
func (f *FS) unpass(fl *file) {
	n := fl.n
	if fl.pid != 0 {
		f.copiers.add(fl.pid, -1)
	}
	if !fl.pass {
		n.caches--
		return
	}
	if n.passes--; n.passes > 0 {
		return
	}
	f.passer.Unregister(n.backing)
}

// copierFrom is the size in bytes of a committed file whose reader may be about to copy it.
const copierFrom = 1 << 20

// slow reports whether what a caller makes should not be passed: one that reads a large committed file at the same time probably
// copies it, and copy_file_range of an object moves no bytes where the kernel leaves the file to us.
func (f *FS) slow(c Caller) bool { return f.copiers.has(c.PID) }
