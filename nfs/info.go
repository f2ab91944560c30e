package nfs

import (
	"context"
	"syscall"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// Numbers of some of them.
const (
	procWrite  = 7
	procCommit = 21
)

// nfsProcs are the procedures of NFS version 3, by number.
var nfsProcs = []procedure{
	{name: "null", run: func(context.Context, *request) error { return nil }},
	{name: "getattr", run: getattr},
	{name: "setattr", run: setattr, fail: 2, once: true},
	{name: "lookup", run: lookup, fail: 1},
	{name: "access", run: access, fail: 1},
	{name: "readlink", run: readlink, fail: 1},
	{name: "read", run: read, fail: 1},
	{name: "write", run: write, fail: 2},
	{name: "create", run: create, fail: 2, once: true},
	{name: "mkdir", run: mkdir, fail: 2, once: true},
	{name: "symlink", run: makeSymlink, fail: 2, once: true},
	{name: "mknod", run: mknod, fail: 2, once: true},
	{name: "remove", run: remove, fail: 2, once: true},
	{name: "rmdir", run: rmdir, fail: 2, once: true},
	{name: "rename", run: rename, fail: 4, once: true},
	{name: "link", run: link, fail: 3, once: true},
	{name: "readdir", run: readdir, fail: 1},
	{name: "readdirplus", run: readdirplus, fail: 1},
	{name: "fsstat", run: fsstat, fail: 1},
	{name: "fsinfo", run: fsinfo, fail: 1},
	{name: "pathconf", run: pathconf, fail: 1},
	{name: "commit", run: commit, fail: 2},
}

// object reads a handle and gets its attributes, which a failure gives too.
func (q *request) object(ctx context.Context) (**node, *vfs.Attr, error) {
	n, err := q.handle(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := q.attr(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	q.post = &post{*n, a}
	return n, &q.post.a, nil
}

func getattr(ctx context.Context, q *request) error {
	n, a, err := q.object(ctx)
	if err != nil {
		return err
	}
	q.w.Uint32(uint32(statusOK))
	q.putAttr(*n, a)
	return nil
}

// Bits of ACCESS.
const (
	accessRead    = 1
	accessLookup  = 2
	accessModify  = 4
	accessExtend  = 8
	accessDelete  = 16
	accessExecute = 32
)

func access(ctx context.Context, q *request) error {
	n, a, err := q.object(ctx)
	if err != nil {
		return err
	}
	want := q.args.Uint32()
	if q.args.Err() != nil {
		return errGarbage
	}
	var may uint32
	if q.who.has(a, mayRead) {
		may |= accessRead
	}
	if q.who.has(a, mayExec) {
		if isDir(a) {
			may |= accessLookup
		} else {
			may |= accessExecute
		}
	}
	if q.who.has(a, mayWrite) && q.writable(*n) == nil {
		may |= accessModify | accessExtend
		if isDir(a) {
			may |= accessDelete
		}
	}
	q.w.Uint32(uint32(statusOK))
	q.post.put(q)
	q.w.Uint32(may & want)
	return nil
}

// writable is Read-only unless a node may be changed through the export.
func (q *request) writable(n *node) error {
	if q.opt.ReadOnly || n.v.ref != "" && !n.branch {
		return statusROFS
	}
	return nil
}

func readlink(ctx context.Context, q *request) error {
	n, a, err := q.object(ctx)
	if err != nil {
		return err
	}
	if a.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		return statusInval
	}
	target, err := (*n).tree.fs.Readlink(ctx, (*n).id)
	if err != nil {
		return err
	}
	q.w.Uint32(uint32(statusOK))
	q.post.put(q)
	q.w.String(target)
	return nil
}

func fsstat(ctx context.Context, q *request) error {
	if _, _, err := q.object(ctx); err != nil {
		return err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(q.s.cfg.Data, &st); err != nil {
		return err
	}
	size := uint64(st.Bsize)
	q.w.Uint32(uint32(statusOK))
	q.post.put(q)
	q.w.Uint64(st.Blocks * size)
	q.w.Uint64(st.Bfree * size)
	q.w.Uint64(st.Bavail * size)
	q.w.Uint64(st.Files)
	q.w.Uint64(st.Ffree)
	q.w.Uint64(st.Ffree)
	q.w.Uint32(0) // it may change at any time
	return nil
}

// What FSINFO tells of sizes, in bytes.
const (
	dirPreferred = 128 << 10
	maxFile      = 1<<63 - 1
)

func fsinfo(ctx context.Context, q *request) error {
	if _, _, err := q.object(ctx); err != nil {
		return err
	}
	w := &q.w
	w.Uint32(uint32(statusOK))
	q.post.put(q)
	w.Uint32(maxData)
	w.Uint32(maxData)
	w.Uint32(4096)
	w.Uint32(maxData)
	w.Uint32(maxData)
	w.Uint32(4096)
	w.Uint32(dirPreferred)
	w.Uint64(maxFile)
	w.Uint32(0) // times are kept to the nanosecond
	w.Uint32(1)
	const links, symlinks, homogeneous, canSetTime = 1, 2, 8, 16
	w.Uint32(links | symlinks | homogeneous | canSetTime)
	return nil
}

// maxNames is what PATHCONF tells of hard links: an entry has room for about so many.
const maxNames = 1000

func pathconf(ctx context.Context, q *request) error {
	if _, _, err := q.object(ctx); err != nil {
		return err
	}
	w := &q.w
	w.Uint32(uint32(statusOK))
	q.post.put(q)
	w.Uint32(maxNames)
	w.Uint32(255)
	w.Bool(true)  // a longer name is refused
	w.Bool(true)  // a file can't be given away
	w.Bool(false) // A is not a
	w.Bool(true)  // and both are kept
	return nil
}
