package nfs

import (
	"context"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// Types of files, ftype3.
const (
	typeReg  = 1
	typeDir  = 2
	typeBlk  = 3
	typeChr  = 4
	typeLnk  = 5
	typeSock = 6
	typeFifo = 7
)

var types = map[uint32]uint32{
	syscall.S_IFREG: typeReg, syscall.S_IFDIR: typeDir, syscall.S_IFBLK: typeBlk, syscall.S_IFCHR: typeChr,
	syscall.S_IFLNK: typeLnk, syscall.S_IFSOCK: typeSock, syscall.S_IFIFO: typeFifo,
}

// post is a node's attributes, to be given in a reply.
type post struct {
	n *node
	a vfs.Attr
}

// put writes post_op_attr.
func (p *post) put(q *request) {
	if p == nil {
		q.w.Bool(false)
		return
	}
	q.w.Bool(true)
	q.putAttr(p.n, &p.a)
}

// putAttr writes fattr3.
func (q *request) putAttr(n *node, a *vfs.Attr) {
	w := &q.w
	w.Uint32(types[a.Mode&syscall.S_IFMT])
	w.Uint32(a.Mode & 0o7777)
	w.Uint32(max(a.Nlink, 1))
	w.Uint32(mapped(q.opt.toUID, a.UID))
	w.Uint32(mapped(q.opt.toGID, a.GID))
	w.Uint64(a.Size)
	w.Uint64(a.Blocks * 512)
	major, minor := a.Rdev>>8&0xfff, a.Rdev&0xff|a.Rdev>>12&0xfff00
	w.Uint32(major)
	w.Uint32(minor)
	w.Uint64(n.fsid)
	w.Uint64(a.Ino)
	putTime(w, a.Atime)
	putTime(w, a.Mtime)
	putTime(w, n.changed(a))
}

// fsidOf is the number of the file system that a node is in: each version is one.
func fsidOf(v version, branch bool) uint64 {
	switch {
	case v.ref == "":
		return hash64("repositories", string(v.repo))
	case branch:
		return branchHash(v.repo, v.ref)
	}
	return hash64("commit", string(v.repo), string(v.ref))
}

// changed is a node's ctime, which clients take as the sign of a change. Of a directory, names may have come and gone while it was not
// in memory.
func (n *node) changed(a *vfs.Attr) time.Time {
	if n.branch && n.form == vfs.FormDir && n.born.After(a.Ctime) {
		return n.born
	}
	return a.Ctime
}

func putTime(w *xdr.Writer, t time.Time) {
	w.Uint32(uint32(t.Unix()))
	w.Uint32(uint32(t.Nanosecond()))
}

func timeOf(r *xdr.Reader) time.Time { return time.Unix(int64(r.Uint32()), int64(r.Uint32())) }

// pre is what a node was before a change, if nobody but this request can have changed it since: wcc_attr.
type pre struct {
	n      *node
	a      vfs.Attr
	others uint64
	known  bool
}

// before notes what a node is before a change. Hold the node's lock of s.changing until after.
func (q *request) before(ctx context.Context, n *node) pre {
	others, alone := n.tree.fs.Alone(n.id)
	if !alone {
		return pre{}
	}
	a, err := n.tree.fs.Getattr(ctx, n.id)
	return pre{n, a, others, err == nil}
}

// putWcc writes wcc_data: what a node was before, if that is known, and after.
func (q *request) putWcc(p *pre, after *post) {
	if p != nil && p.known {
		if others, alone := p.n.tree.fs.Alone(p.n.id); alone && others == p.others {
			q.w.Bool(true)
			q.w.Uint64(p.a.Size)
			putTime(&q.w, p.a.Mtime)
			putTime(&q.w, p.n.changed(&p.a))
			after.put(q)
			return
		}
	}
	q.w.Bool(false)
	after.put(q)
}

// readSet reads sattr3. now tells that times are set to the server's alone.
func (q *request) readSet() (set vfs.SetAttr, now bool, err error) {
	r := &q.args
	word := func() *uint32 {
		if !r.Bool() {
			return nil
		}
		v := r.Uint32()
		return &v
	}
	set.Mode, set.UID, set.GID = word(), word(), word()
	if set.Mode != nil {
		*set.Mode &= 0o7777
	}
	if set.UID != nil {
		*set.UID = mapped(q.opt.UIDs, *set.UID)
	}
	if set.GID != nil {
		*set.GID = mapped(q.opt.GIDs, *set.GID)
	}
	if r.Bool() {
		size := int64(r.Uint64())
		if size < 0 {
			return set, false, statusInval
		}
		set.Size = &size
	}
	now = true
	clock := time.Now()
	when := func() *time.Time {
		switch r.Uint32() {
		case 0:
			return nil
		case 1:
			return &clock
		case 2:
			now = false
			t := timeOf(r)
			return &t
		}
		r.Fixed(1 << 30) // no such discriminant: a failure
		return nil
	}
	set.Atime, set.Mtime = when(), when()
	if r.Err() != nil {
		return set, false, errGarbage
	}
	return set, now, nil
}
