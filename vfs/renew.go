package vfs

import (
	"fmt"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// errLoose tells that a name means another content than the node that it led to.
var errLoose = fmt.Errorf("its name means another content now: %w", graveler.Stale)

// renew gives a file's node the entry that the engine has for it now. A file that is open may have got another content by what is no
// write to it: a reset, a merge, another head. Its handles go on with what they opened, as those of a file that was replaced by a
// rename; so the node is cut loose, and the name gets a fresh one, whose readers share neither content nor the kernel's pages with them. Then
// the error is errLoose. Hold n.mu, and moving.
func (f *FS) renew(n *node, e graveler.Entry) error {
	if n.readers+n.writers > 0 {
		if f.replaced(n, &e) {
			n.valid, n.loose = true, true
			f.mu.Lock()
			for !n.gone {
				f.cut(n, n.dentry)
			}
			f.mu.Unlock()
			return errLoose
		}
		f.followWriter(n, &e)
	}
	n.set(e)
	return nil
}

// replaced reports whether an entry has another content than what the node's handles have, and no writer's that they should see.
func (f *FS) replaced(n *node, e *graveler.Entry) bool {
	switch {
	case n.wopen:
		// Nobody settles what is open for writing: it is what it was, or was dropped.
		return e.Pending != n.content.ID()
	case e.Pending != "":
		return false // somebody writes it, perhaps at another mount
	case n.content != nil:
		// What it was settled into has its size and time.
		info, err := n.content.Stat()
		return err != nil || info.Size != e.Size || !info.Mtime.Equal(e.Mtime())
	}
	return n.entry.Pending == "" && n.entry.Address != e.Address
}

// followWriter opens the content that is being written at another mount, for the handles here. Hold n.mu.
func (f *FS) followWriter(n *node, e *graveler.Entry) {
	if e.Pending == "" || n.wopen || n.content != nil && n.content.ID() == e.Pending {
		return
	}
	sf, err := f.cfg.Spill.OpenFile(e.Pending, false)
	if err != nil {
		return // it was settled meanwhile; the next look tells as what
	}
	if n.content != nil {
		n.content.Close()
	}
	n.content = sf
}
