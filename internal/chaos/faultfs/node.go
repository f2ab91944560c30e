package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or directory of the disk: go-fuse's pass-through, which tells the disk what it does.
type node struct {
	*gofs.LoopbackNode
	d *disk
}

// file is an open file.
type file struct {
	*gofs.LoopbackFile
	d  *disk
	s  *state
	os *os.File // the same file again, for what LoopbackFile keeps to itself
}

var (
	_ gofs.NodeWrapChilder = (*node)(nil)
	_ gofs.NodeCreater     = (*node)(nil)
	_ gofs.NodeOpener      = (*node)(nil)
	_ gofs.NodeSetattrer   = (*node)(nil)
	_ gofs.NodeUnlinker    = (*node)(nil)
	_ gofs.NodeRmdirer     = (*node)(nil)
	_ gofs.NodeRenamer     = (*node)(nil)
	_ gofs.NodeMkdirer     = (*node)(nil)
	_ gofs.NodeSymlinker   = (*node)(nil)
	_ gofs.NodeLinker      = (*node)(nil)
	_ gofs.FileWriter      = (*file)(nil)
	_ gofs.FileFsyncer     = (*file)(nil)
	_ gofs.FileAllocater   = (*file)(nil)
	_ gofs.FileSetattrer   = (*file)(nil)
	_ gofs.FileReleaser    = (*file)(nil)
)

func wrap(n gofs.InodeEmbedder, d *disk) *node {
	return &node{n.(*gofs.LoopbackNode), d}
}

// WrapChild is gofs.NodeWrapChilder's.
func (n *node) WrapChild(_ context.Context, ops gofs.InodeEmbedder) gofs.InodeEmbedder {
	return wrap(ops, n.d)
}

func (n *node) path(name string) string {
	in := n.EmbeddedInode()
	return filepath.Join(n.d.root, in.Path(in.Root()), name)
}

// handle opens a file.
func (n *node) handle(path string, flags int, mode uint32, s *state) (*file, syscall.Errno) {
	f, err := os.OpenFile(path, flags&^(os.O_APPEND|int(gofuse.FMODE_EXEC)), os.FileMode(mode))
	if err != nil {
		return nil, gofs.ToErrno(err)
	}
	if s == nil {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			f.Close()
			return nil, gofs.ToErrno(err)
		}
		s = n.d.of(&st)
	}
	again, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		f.Close()
		return nil, gofs.ToErrno(err)
	}
	n.d.open.Add(1)
	return &file{gofs.NewLoopbackFileFromOS(f), n.d, s, again}, 0
}

// Create is gofs.NodeCreater's.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *gofuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	path := n.path(name)
	_, err := os.Lstat(path)
	old := err == nil
	in, fh, _, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	fh.(gofs.FileReleaser).Release(ctx) // it is opened again, as ours
	var s *state
	if !old {
		s = n.d.made(out.Ino)
		n.d.created(path)
	}
	f, errno := n.handle(path, int(flags)&^(os.O_CREATE|os.O_EXCL|os.O_TRUNC), mode, s)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return in, f, 0, 0
}

// Open is gofs.NodeOpener's. The kernel truncates by Setattr.
func (n *node) Open(_ context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	f, errno := n.handle(n.path(""), int(flags), 0, nil)
	if errno != 0 {
		return nil, 0, errno
	}
	return f, 0, 0
}

// Write is gofs.FileWriter's.
func (f *file) Write(ctx context.Context, b []byte, off int64) (uint32, syscall.Errno) {
	if f.d.writeFails.Load() {
		f.d.failedWrites.Add(1)
		return 0, syscall.EIO
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.overwrite(f.os, off, int64(len(b)))
	return f.LoopbackFile.Write(ctx, b, off)
}

// Allocate is gofs.FileAllocater's: room ahead, and holes.
func (f *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if f.d.writeFails.Load() {
		f.d.failedWrites.Add(1)
		return syscall.EIO
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		f.s.overwrite(f.os, int64(off), int64(size))
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}

// Fsync is gofs.FileFsyncer's. The disk below isn't waited for: nobody takes the power from that.
func (f *file) Fsync(_ context.Context, _ uint32) syscall.Errno {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.d.fsyncFails.Load() {
		f.d.failedSyncs.Add(1)
		f.s.doomed = true
		return syscall.EIO
	}
	fi, err := f.os.Stat()
	if err != nil {
		return gofs.ToErrno(err)
	}
	f.s.sync(fi.Size())
	return 0
}

// Release is gofs.FileReleaser's.
func (f *file) Release(ctx context.Context) syscall.Errno {
	f.os.Close()
	defer f.d.open.Add(-1)
	return f.LoopbackFile.Release(ctx)
}

// listing is an open directory.
type listing struct {
	gofs.FileReaddirenter
	gofs.FileSeekdirer
	gofs.FileReleasedirer
	n *node
}

var _ gofs.FileFsyncdirer = (*listing)(nil)

// OpendirHandle is gofs.NodeOpendirHandler's.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	fh, fl, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &listing{fh.(gofs.FileReaddirenter), fh.(gofs.FileSeekdirer), fh.(gofs.FileReleasedirer), n}, fl, 0
}

// Fsyncdir is gofs.FileFsyncdirer's.
func (l *listing) Fsyncdir(_ context.Context, _ uint32) syscall.Errno {
	d := l.n.d
	if d.fsyncFails.Load() {
		d.failedSyncs.Add(1)
		return syscall.EIO
	}
	d.syncDir(l.n.path(""))
	return 0
}

// Setattr is gofs.NodeSetattrer's.
func (n *node) Setattr(ctx context.Context, fh gofs.FileHandle, in *gofuse.SetAttrIn, out *gofuse.AttrOut) syscall.Errno {
	size, ok := in.GetSize()
	if !ok {
		return n.LoopbackNode.Setattr(ctx, fh, in, out)
	}
	f, mine := fh.(*file)
	if !mine {
		var errno syscall.Errno
		if f, errno = n.handle(n.path(""), os.O_RDONLY, 0, nil); errno != 0 {
			return errno
		}
		defer f.Release(ctx)
		fh = nil // it isn't open for writing
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fi, err := f.os.Stat()
	if err != nil {
		return gofs.ToErrno(err)
	}
	if int64(size) < fi.Size() {
		f.s.overwrite(f.os, int64(size), fi.Size()-int64(size))
	}
	return n.LoopbackNode.Setattr(ctx, fh, in, out)
}

// Unlink is gofs.NodeUnlinker's.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return gofs.ToErrno(n.d.unlink(n.path(name)))
}

// Rmdir is gofs.NodeRmdirer's.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	return gofs.ToErrno(n.d.rmdir(n.path(name)))
}

// Rename is gofs.NodeRenamer's. Nobody who runs here exchanges names.
func (n *node) Rename(_ context.Context, name string, parent gofs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	p, ok := parent.(*node)
	if !ok || flags&^unix.RENAME_NOREPLACE != 0 {
		return syscall.EINVAL
	}
	return gofs.ToErrno(n.d.rename(n.path(name), p.path(to), flags != 0))
}

// Mkdir is gofs.NodeMkdirer's.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *gofuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	in, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	if errno == 0 {
		n.d.created(n.path(name))
	}
	return in, errno
}

// Symlink is gofs.NodeSymlinker's.
func (n *node) Symlink(ctx context.Context, target, name string, out *gofuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	in, errno := n.LoopbackNode.Symlink(ctx, target, name, out)
	if errno == 0 {
		n.d.created(n.path(name))
	}
	return in, errno
}

// Link is gofs.NodeLinker's.
func (n *node) Link(ctx context.Context, target gofs.InodeEmbedder, name string, out *gofuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	t, ok := target.(*node)
	if !ok {
		return nil, syscall.EXDEV
	}
	in, errno := n.LoopbackNode.Link(ctx, t.LoopbackNode, name, out)
	if errno == 0 {
		n.d.created(n.path(name))
	}
	return in, errno
}
