package fs

import (
	"os"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// passer registers local files as backing files of the kernel's FUSE (passthrough, Linux 6.9 and later, root alone).
type passer struct {
	srv *fuse.Server
	off atomic.Bool // the kernel, or our rights, don't allow it
}

// Register makes an open file known to the kernel.
func (p *passer) Register(f *os.File) (int32, bool) {
	if p.off.Load() {
		return 0, false
	}
	id, errno := p.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.Fd())})
	if errno != 0 || id <= 0 {
		p.off.Store(true)
		return 0, false
	}
	return id, true
}

// Unregister forgets it. What is open goes on.
func (p *passer) Unregister(id int32) { p.srv.UnregisterBackingFd(id) }
