package fs

import (
	"context"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// How long the kernel may keep what it was told. Changes by others are told to it, see vfs.Invalidator.
const (
	stillTimeout  = 24 * time.Hour // of what can never change
	normalTimeout = time.Hour
	briefTimeout  = time.Second // of what other machines may change
)

// server answers the kernel's requests from a vfs.FS.
type server struct {
	fuse.RawFileSystem // answers ENOSYS to what is not here
	fs                 *vfs.FS
	srv                *fuse.Server
	log                *slog.Logger
	deadline           time.Duration
	said               said
	still              bool   // nothing in it can ever change
	statfs             string // a directory on the file system that data is written to
}

// begin makes a request's context: it ends when the caller is interrupted, and at the deadline.
func (s *server) begin(cancel <-chan struct{}) (context.Context, func()) {
	now := time.Now()
	c := &reqContext{cancel: cancel, patience: now.Add(patience), deadline: now.Add(s.deadline)}
	return c, c.end
}

// patience is how long a request goes on although its caller got a signal. On a local disk calls are not interrupted, and many
// programs don't expect it; Go's runtime sends its threads signals all the time. What takes longer, a signal can end.
const patience = time.Second

// reqContext is a request's context. Most requests never wait on it, so it costs nothing until one does.
type reqContext struct {
	cancel             <-chan struct{}
	patience, deadline time.Time
	mu                 sync.Mutex
	done, ended        chan struct{}
}

func (c *reqContext) Deadline() (time.Time, bool) { return c.deadline, true }
func (c *reqContext) Value(any) any               { return nil }

func (c *reqContext) Err() error {
	now := time.Now()
	if now.After(c.deadline) {
		return context.DeadlineExceeded
	}
	if now.After(c.patience) {
		select {
		case <-c.cancel:
			return context.Canceled
		default:
		}
	}
	return nil
}

func (c *reqContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done, c.ended = make(chan struct{}), make(chan struct{})
		go c.watch(c.done, c.ended)
	}
	return c.done
}

// watch closes done when the context ends.
func (c *reqContext) watch(done, ended chan struct{}) {
	cancel := c.cancel
	t := time.NewTimer(time.Until(c.deadline))
	defer t.Stop()
	for {
		select {
		case <-ended: // answered; nobody waits any more
			return
		case <-cancel:
			cancel = nil
			t.Reset(min(max(time.Until(c.patience), 0)+time.Millisecond, time.Until(c.deadline)))
		case <-t.C:
			close(done)
			return
		}
	}
}

// end frees what waits.
func (c *reqContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
}

func (s *server) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	no := errnoOf(err)
	if (no == syscall.EIO || no == syscall.ENOSPC) && !s.said.already(op+err.Error(), time.Now()) {
		s.log.Error("file system request failed", "op", op, "err", err)
	}
	return fuse.Status(no)
}

func caller(h *fuse.InHeader) vfs.Caller { return vfs.Caller{UID: h.Uid, GID: h.Gid, PID: h.Pid} }

const blockSize = 4096

func fillAttr(out *fuse.Attr, a *vfs.Attr) {
	out.Ino = a.Ino
	out.Size = a.Size
	out.Blocks = a.Blocks
	out.Rdev = a.Rdev
	out.Blksize = blockSize
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Owner = fuse.Owner{Uid: a.UID, Gid: a.GID}
	out.SetTimes(&a.Atime, &a.Mtime, &a.Ctime)
}

// attrTimeout is how long attributes hold: of a file that somebody else may be writing, not at all.
func attrTimeout(a *vfs.Attr) time.Duration {
	switch {
	case a.Writing:
		return 0
	case a.Still:
		return stillTimeout
	case a.Brief:
		return briefTimeout
	}
	return normalTimeout
}

func (s *server) fillEntry(out *fuse.EntryOut, id vfs.NodeID, a *vfs.Attr) {
	out.NodeId = uint64(id)
	out.Generation = 1
	fillAttr(&out.Attr, a)
	out.SetAttrTimeout(attrTimeout(a))
	switch {
	case a.Moves, a.Writing: // also of a name, so that an open asks
		out.SetEntryTimeout(0)
	case a.Still:
		out.SetEntryTimeout(stillTimeout)
	case a.Brief:
		out.SetEntryTimeout(briefTimeout)
	default:
		out.SetEntryTimeout(normalTimeout)
	}
}

func (s *server) String() string    { return "lakefsfs" }
func (s *server) Init(*fuse.Server) {}

func (s *server) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	id, a, err := s.fs.Lookup(ctx, vfs.NodeID(h.NodeId), name)
	if err != nil {
		if errnoOf(err) == syscall.ENOENT {
			if keeps, briefly := s.fs.KeepsAbsent(vfs.NodeID(h.NodeId)); keeps {
				out.SetEntryTimeout(normalTimeout) // a negative entry
				if briefly {
					out.SetEntryTimeout(briefTimeout)
				}
				return fuse.OK
			}
		}
		return s.status("lookup", err)
	}
	s.fillEntry(out, id, &a)
	return fuse.OK
}

func (s *server) Forget(id, n uint64) { s.fs.Forget(vfs.NodeID(id), n) }

func (s *server) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	a, err := s.fs.Getattr(ctx, vfs.NodeID(in.NodeId))
	if err != nil {
		return s.status("getattr", err)
	}
	fillAttr(&out.Attr, &a)
	out.SetTimeout(attrTimeout(&a))
	return fuse.OK
}

func (s *server) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	var set vfs.SetAttr
	if m, ok := in.GetMode(); ok {
		set.Mode = &m
	}
	if u, ok := in.GetUID(); ok {
		set.UID = &u
	}
	if g, ok := in.GetGID(); ok {
		set.GID = &g
	}
	if n, ok := in.GetSize(); ok {
		size := int64(n)
		set.Size = &size
	}
	if t, ok := in.GetATime(); ok {
		set.Atime = &t
	}
	if t, ok := in.GetMTime(); ok {
		set.Mtime = &t
	}
	if fh, ok := in.GetFh(); ok {
		set.Handle = vfs.Handle(fh)
	}
	set.Strip = in.Valid&setattrStrip != 0
	a, err := s.fs.Setattr(ctx, caller(&in.InHeader), vfs.NodeID(in.NodeId), set)
	if err != nil {
		return s.status("setattr", err)
	}
	fillAttr(&out.Attr, &a)
	out.SetTimeout(attrTimeout(&a))
	return fuse.OK
}

func (s *server) entry(op string, out *fuse.EntryOut, id vfs.NodeID, a vfs.Attr, err error) fuse.Status {
	if err != nil {
		return s.status(op, err)
	}
	s.fillEntry(out, id, &a)
	return fuse.OK
}

func (s *server) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	id, a, err := s.fs.Mknod(ctx, caller(&in.InHeader), vfs.NodeID(in.NodeId), name, in.Mode, in.Rdev)
	return s.entry("mknod", out, id, a, err)
}

func (s *server) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	id, a, err := s.fs.Mkdir(ctx, caller(&in.InHeader), vfs.NodeID(in.NodeId), name, in.Mode&0o7777)
	return s.entry("mkdir", out, id, a, err)
}

func (s *server) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	id, a, err := s.fs.Symlink(ctx, caller(h), vfs.NodeID(h.NodeId), name, target)
	return s.entry("symlink", out, id, a, err)
}

func (s *server) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	a, err := s.fs.Link(ctx, vfs.NodeID(in.Oldnodeid), vfs.NodeID(in.NodeId), name)
	return s.entry("link", out, vfs.NodeID(in.Oldnodeid), a, err)
}

func (s *server) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	ctx, end := s.begin(cancel)
	defer end()
	t, err := s.fs.Readlink(ctx, vfs.NodeID(h.NodeId))
	return []byte(t), s.status("readlink", err)
}

func (s *server) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("unlink", s.fs.Unlink(ctx, vfs.NodeID(h.NodeId), name))
}

func (s *server) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("rmdir", s.fs.Rmdir(ctx, vfs.NodeID(h.NodeId), name))
}

func (s *server) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("rename", s.fs.Rename(ctx, vfs.NodeID(in.NodeId), oldName, vfs.NodeID(in.Newdir), newName, in.Flags))
}

func (s *server) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	return fuse.ENOSYS // the kernel checks permissions itself
}

// Flags of requests that go-fuse has no names for.
const (
	setattrStrip = 1 << 11 // FATTR_KILL_SUIDGID
	writeStrip   = 1 << 2  // FUSE_WRITE_KILL_SUIDGID
)

func fillOpen(out *fuse.OpenOut, o vfs.Opened) {
	out.Fh = uint64(o.Handle)
	switch {
	case o.Direct:
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
	case o.Pass:
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH
		out.BackingID = o.Backing
	case o.Keep:
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	if o.NoFlush {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH
	}
}

func (s *server) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	id, a, o, err := s.fs.Create(ctx, caller(&in.InHeader), vfs.NodeID(in.NodeId), name, int(in.Flags), in.Mode)
	if err != nil {
		return s.status("create", err)
	}
	s.fillEntry(&out.EntryOut, id, &a)
	fillOpen(&out.OpenOut, o)
	return fuse.OK
}

func (s *server) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	id, a, o, err := s.fs.Tmpfile(ctx, caller(&in.InHeader), vfs.NodeID(in.NodeId), int(in.Flags), in.Mode)
	if err != nil {
		return s.status("tmpfile", err)
	}
	s.fillEntry(&out.EntryOut, id, &a)
	fillOpen(&out.OpenOut, o)
	return fuse.OK
}

// Open opens a file. On a mount where nothing can change there is nothing to open: the kernel is told once, and asks no more.
func (s *server) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s.still && !s.fs.IsControl(vfs.NodeID(in.NodeId)) {
		return fuse.ENOSYS
	}
	ctx, end := s.begin(cancel)
	defer end()
	o, err := s.fs.Open(ctx, caller(&in.InHeader), vfs.NodeID(in.NodeId), int(in.Flags))
	if err != nil {
		return s.status("open", err)
	}
	if in.Flags&syscall.O_TRUNC != 0 && in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
		if _, err := s.fs.Setattr(ctx, caller(&in.InHeader), vfs.NodeID(in.NodeId), vfs.SetAttr{Strip: true}); err != nil {
			s.fs.Release(o.Handle)
			return s.status("open", err)
		}
	}
	fillOpen(out, o)
	return fuse.OK
}

func (s *server) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	ctx, end := s.begin(cancel)
	defer end()
	var n int
	var err error
	if in.Fh == 0 {
		n, err = s.fs.ReadNode(ctx, vfs.NodeID(in.NodeId), buf, int64(in.Offset))
	} else {
		n, err = s.fs.Read(ctx, vfs.Handle(in.Fh), buf, int64(in.Offset))
	}
	if err != nil {
		return nil, s.status("read", err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (s *server) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	ctx, end := s.begin(cancel)
	defer end()
	n, err := s.fs.Write(ctx, vfs.Handle(in.Fh), caller(&in.InHeader), in.WriteFlags&writeStrip != 0, data, int64(in.Offset))
	if err != nil {
		return 0, s.status("write", err)
	}
	return uint32(n), fuse.OK
}

func (s *server) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if in.Fh == 0 { // what was never opened, see Open
		return fuse.ENOSYS
	}
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("close", s.fs.Flush(ctx, vfs.Handle(in.Fh), caller(&in.InHeader), in.LockOwner))
}

func (s *server) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.Fh == 0 {
		return fuse.OK
	}
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("fsync", s.fs.Fsync(ctx, vfs.Handle(in.Fh)))
}

func (s *server) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	s.fs.Release(vfs.Handle(in.Fh))
}

func (s *server) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("fallocate", s.fs.Allocate(ctx, vfs.Handle(in.Fh), in.Mode, int64(in.Offset), int64(in.Length)))
}

func (s *server) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	off, err := s.fs.Seek(ctx, vfs.Handle(in.Fh), vfs.NodeID(in.NodeId), int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return s.status("lseek", err)
}

func (s *server) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	ctx, end := s.begin(cancel)
	defer end()
	n, err := s.fs.CopyRange(ctx, vfs.Handle(in.FhIn), int64(in.OffIn), vfs.Handle(in.FhOut), int64(in.OffOut), int64(min(in.Len, 1<<32-4096)))
	return uint32(n), s.status("copy_file_range", err)
}

// OpenDir opens a directory. The kernel keeps what it reads of it where it is told of changes; on a mount where nothing can change
// it need not even open it.
func (s *server) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s.still {
		return fuse.ENOSYS
	}
	ctx, end := s.begin(cancel)
	defer end()
	h, keep, err := s.fs.Opendir(ctx, vfs.NodeID(in.NodeId))
	if err != nil {
		return s.status("opendir", err)
	}
	out.Fh = uint64(h)
	if keep {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

func (s *server) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	d, err := s.fs.OpenedDir(vfs.Handle(in.Fh), vfs.NodeID(in.NodeId))
	if err == nil {
		err = s.fs.Readdir(ctx, d, in.Offset, func(e *vfs.DirEntry) bool {
			return out.AddDirEntry(fuse.DirEntry{Mode: e.Mode, Name: e.Name, Off: e.Off, Ino: e.Ino})
		})
	}
	return s.status("readdir", err)
}

func (s *server) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	d, err := s.fs.OpenedDir(vfs.Handle(in.Fh), vfs.NodeID(in.NodeId))
	if err != nil {
		return s.status("readdir", err)
	}
	err = s.fs.Readdir(ctx, d, in.Offset, func(e *vfs.DirEntry) bool {
		entry := out.AddDirLookupEntry(fuse.DirEntry{Mode: e.Mode, Name: e.Name, Off: e.Off, Ino: e.Ino})
		if entry == nil {
			return false
		}
		id, a, err := s.fs.LookupEntry(ctx, d, e)
		if err != nil {
			*entry = fuse.EntryOut{} // the kernel looks it up when it is wanted
			return true
		}
		s.fillEntry(entry, id, &a)
		out.FixMode(a.Mode)
		return true
	})
	return s.status("readdir", err)
}

func (s *server) ReleaseDir(in *fuse.ReleaseIn) { s.fs.Releasedir(vfs.Handle(in.Fh)) }

func (s *server) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("fsync", s.fs.Fsyncdir(ctx))
}

func (s *server) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.statfs, &st); err != nil {
		return fuse.ToStatus(err)
	}
	out.FromStatfsT(&st)
	out.NameLen = 255
	return fuse.OK
}

func (s *server) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	ctx, end := s.begin(cancel)
	defer end()
	v, err := s.fs.Getxattr(ctx, vfs.NodeID(h.NodeId), name)
	if err != nil {
		return 0, s.status("getxattr", err)
	}
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (s *server) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ctx, end := s.begin(cancel)
	defer end()
	names, err := s.fs.Listxattr(ctx, vfs.NodeID(h.NodeId))
	if err != nil {
		return 0, s.status("listxattr", err)
	}
	var b []byte
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	if len(dest) < len(b) {
		return uint32(len(b)), fuse.ERANGE
	}
	return uint32(copy(dest, b)), fuse.OK
}

func (s *server) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("setxattr", s.fs.Setxattr(ctx, vfs.NodeID(in.NodeId), name, data, int(in.Flags)))
}

func (s *server) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx, end := s.begin(cancel)
	defer end()
	return s.status("removexattr", s.fs.Removexattr(ctx, vfs.NodeID(h.NodeId), name))
}

// InvalidateNode tells the kernel to forget a node's attributes and content.
func (s *server) InvalidateNode(id vfs.NodeID) { s.srv.InodeNotify(uint64(id), 0, 0) }

// InvalidateName tells the kernel to look a name up again.
func (s *server) InvalidateName(parent vfs.NodeID, name string) {
	s.srv.EntryNotify(uint64(parent), name)
}

// Prune asks the kernel to forget nodes that it doesn't use (Linux 6.18 and later).
func (s *server) Prune(ids []vfs.NodeID) bool {
	nodes := make([]uint64, len(ids))
	for i, id := range ids {
		nodes[i] = uint64(id)
	}
	return s.srv.PruneNotify(nodes).Ok()
}
