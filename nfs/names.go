package nfs

import (
	"context"
	"strings"
	"syscall"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// maxName is the longest name or path that is read; which are too long for a file is told in words of the protocol.
const maxName = 4096

// name reads a name.
func (q *request) name() (string, error) {
	name := q.args.String(maxName)
	if q.args.Err() != nil {
		return "", errGarbage
	}
	switch {
	case name == "" || strings.ContainsAny(name, "/\x00"):
		return "", statusInval
	case len(name) > 255:
		return "", statusNameTooLong
	}
	return name, nil
}

// dirName reads a directory's handle and a name in it, and checks that the caller has rights in the directory.
func (q *request) dirName(ctx context.Context, rights uint32) (**node, *vfs.Attr, string, error) {
	n, a, err := q.object(ctx)
	if err != nil {
		return nil, nil, "", err
	}
	name, err := q.name()
	if err != nil {
		return nil, nil, "", err
	}
	if !isDir(a) {
		return nil, nil, "", statusNotDir
	}
	if err := q.who.check(a, rights); err != nil {
		return nil, nil, "", err
	}
	if rights&mayWrite != 0 {
		if err := q.writable(*n); err != nil {
			return nil, nil, "", err
		}
	}
	return n, a, name, nil
}

func (q *request) caller() vfs.Caller { return vfs.Caller{UID: q.who.uid, GID: q.who.gid} }

// child makes a node of what was found in a directory, with the one lookup of it that there is.
func (q *request) child(ctx context.Context, dir *node, id vfs.NodeID, name string) (*node, error) {
	t := dir.tree
	if dir.form == vfs.FormRepo {
		// All names of a commit lead to one root.
		i, err := t.fs.Identity(id)
		if err != nil {
			t.fs.Forget(id, 1)
			return nil, err
		}
		if one := "@" + string(i.Ref); i.Form == vfs.FormDir && !i.Branch && name != one {
			root, _, err := t.fs.Lookup(ctx, dir.id, one)
			t.fs.Forget(id, 1)
			if err != nil {
				return nil, err
			}
			id = root
		}
	}
	return q.s.adopt(ctx, dir.x, t, id, nil)
}

func lookup(ctx context.Context, q *request) error {
	dir, _, name, err := q.dirName(ctx, mayExec)
	if err != nil {
		return err
	}
	t := (*dir).tree
	var n **node
	switch name {
	case ".":
		n = dir
	case "..":
		id, err := t.fs.Parent(ctx, (*dir).id)
		if err != nil {
			return err
		}
		up, err := q.s.adopt(ctx, (*dir).x, t, id, nil)
		if err != nil {
			return err
		}
		n = q.pin(up)
	default:
		id, _, err := t.fs.Lookup(ctx, (*dir).id, name)
		if err != nil {
			return err
		}
		c, err := q.child(ctx, *dir, id, name)
		if err != nil {
			return err
		}
		n = q.pin(c)
	}
	a, err := q.attr(ctx, n)
	if err != nil {
		return err
	}
	q.w.Uint32(uint32(statusOK))
	q.w.Bytes([]byte((*n).fh))
	(&post{*n, a}).put(q)
	q.post.put(q)
	return nil
}

// change locks the directories that a call changes against other calls, so that what is told of before and after is true.
func (s *Server) change(nodes ...*node) func() {
	return s.changing.lock(nodes)
}

// after gets a node's attributes after a change; nil if they can't be had.
func (q *request) after(ctx context.Context, n *node) *post {
	a, err := n.tree.fs.Getattr(ctx, n.id)
	if err != nil {
		return nil
	}
	return &post{n, a}
}

// settle makes a change of names survive a power cut, if the export promises that.
func (q *request) settle(ctx context.Context, t *tree) error {
	if q.opt.Async {
		return nil
	}
	return t.fs.Fsyncdir(ctx)
}

// putMade writes the reply of what makes a file.
func (q *request) putMade(ctx context.Context, n *node, before *pre, dir *node) {
	q.w.Uint32(uint32(statusOK))
	if n == nil {
		q.w.Bool(false)
		q.w.Bool(false)
	} else {
		q.w.Bool(true)
		q.w.Bytes([]byte(n.fh))
		q.after(ctx, n).put(q)
	}
	q.putWcc(before, q.after(ctx, dir))
}

func modeOf(set *vfs.SetAttr, otherwise uint32) uint32 {
	if set.Mode != nil {
		return *set.Mode
	}
	return otherwise
}

// finish sets what a new file's attributes are asked to be besides its mode.
func (q *request) finish(ctx context.Context, n *node, set vfs.SetAttr) error {
	set.Mode = nil
	if set.Size != nil && *set.Size == 0 {
		set.Size = nil
	}
	if set.UID != nil && *set.UID == q.who.uid {
		set.UID = nil
	}
	if set.GID == nil && set.UID == nil && set.Size == nil && set.Atime == nil && set.Mtime == nil {
		return nil
	}
	a, err := n.tree.fs.Getattr(ctx, n.id)
	if err != nil {
		return err
	}
	if set.GID != nil && *set.GID == a.GID {
		set.GID = nil
	}
	if err := q.who.checkSet(&a, &set, false); err != nil {
		return err
	}
	set.Strip = false
	_, err = n.tree.fs.Setattr(ctx, q.caller(), n.id, set)
	return err
}

// Ways to create a file.
const (
	createUnchecked = 0
	createGuarded   = 1
	createExclusive = 2
)

func create(ctx context.Context, q *request) error {
	dir, a, name, derr := q.dirName(ctx, mayExec|mayWrite)
	if derr != nil {
		return derr
	}
	how := q.args.Uint32()
	var set vfs.SetAttr
	var token uint64
	var err error
	switch how {
	case createUnchecked, createGuarded:
		if set, _, err = q.readSet(); err != nil {
			return err
		}
	case createExclusive:
		token = q.args.Uint64()
	default:
		return errGarbage
	}
	if q.args.Err() != nil {
		return errGarbage
	}
	d, t := *dir, (*dir).tree
	defer q.s.change(d)()
	before := q.before(ctx, d)
	mode := q.who.modeOfNew(a, modeOf(&set, 0o644))
	var id vfs.NodeID
	var o vfs.Opened
	if how == createExclusive {
		id, _, o, err = t.fs.CreateOnce(ctx, q.caller(), d.id, name, 0o600, token)
	} else {
		id, _, o, err = t.fs.Create(ctx, q.caller(), d.id, name, syscall.O_RDWR|syscall.O_EXCL, mode)
	}
	if graveler.KindOf(err) == graveler.Exists && how == createUnchecked {
		return q.existing(ctx, d, name, set, &before)
	}
	if err != nil {
		return err
	}
	q.s.open.put(t, id, o.Handle)
	n, err := q.child(ctx, d, id, name)
	if err != nil {
		return err
	}
	q.pin(n)
	if err := q.finish(ctx, n, set); err != nil {
		return err
	}
	if err := q.settle(ctx, t); err != nil {
		return err
	}
	q.putMade(ctx, n, &before, d)
	return nil
}

// existing answers an unchecked CREATE of what is there: it is only truncated, if that is asked for.
func (q *request) existing(ctx context.Context, d *node, name string, set vfs.SetAttr, before *pre) error {
	id, a, err := d.tree.fs.Lookup(ctx, d.id, name)
	if err != nil {
		return err
	}
	n, err := q.child(ctx, d, id, name)
	if err != nil {
		return err
	}
	q.pin(n)
	if a.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return statusExist
	}
	if set.Size != nil {
		one := vfs.SetAttr{Size: set.Size}
		if err := q.who.checkSet(&a, &one, false); err != nil {
			return err
		}
		if _, err := d.tree.fs.Setattr(ctx, q.caller(), n.id, one); err != nil {
			return err
		}
	}
	q.putMade(ctx, n, before, d)
	return nil
}

// made answers a call that made something which isn't open.
func (q *request) made(ctx context.Context, d *node, before *pre, name string, id vfs.NodeID, set vfs.SetAttr) error {
	n, err := q.child(ctx, d, id, name)
	if err != nil {
		return err
	}
	q.pin(n)
	if err := q.finish(ctx, n, set); err != nil {
		return err
	}
	if err := q.settle(ctx, d.tree); err != nil {
		return err
	}
	q.putMade(ctx, n, before, d)
	return nil
}

func mkdir(ctx context.Context, q *request) error {
	dir, _, name, err := q.dirName(ctx, mayExec|mayWrite)
	if err != nil {
		return err
	}
	set, _, err := q.readSet()
	if err != nil {
		return err
	}
	d := *dir
	defer q.s.change(d)()
	before := q.before(ctx, d)
	id, _, err := d.tree.fs.Mkdir(ctx, q.caller(), d.id, name, modeOf(&set, 0o755))
	if err != nil {
		return err
	}
	if d.v.ref == "" {
		set = vfs.SetAttr{} // a branch or a repository has none
	}
	return q.made(ctx, d, &before, name, id, set)
}

func makeSymlink(ctx context.Context, q *request) error {
	dir, _, name, err := q.dirName(ctx, mayExec|mayWrite)
	if err != nil {
		return err
	}
	set, _, err := q.readSet()
	if err != nil {
		return err
	}
	target := q.args.String(maxName)
	if q.args.Err() != nil {
		return errGarbage
	}
	if target == "" || strings.Contains(target, "\x00") {
		return statusInval
	}
	d := *dir
	defer q.s.change(d)()
	before := q.before(ctx, d)
	id, _, err := d.tree.fs.Symlink(ctx, q.caller(), d.id, name, target)
	if err != nil {
		return err
	}
	if d.v.ref == "" {
		// It made a branch, which the client finds when it looks.
		d.tree.fs.Forget(id, 1)
		q.putMade(ctx, nil, &before, d)
		return nil
	}
	return q.made(ctx, d, &before, name, id, set)
}

func mknod(ctx context.Context, q *request) error {
	dir, a, name, err := q.dirName(ctx, mayExec|mayWrite)
	if err != nil {
		return err
	}
	var kind, dev uint32
	what := q.args.Uint32()
	switch what {
	case typeChr:
		kind = syscall.S_IFCHR
	case typeBlk:
		kind = syscall.S_IFBLK
	case typeSock:
		kind = syscall.S_IFSOCK
	case typeFifo:
		kind = syscall.S_IFIFO
	default:
		return statusBadType
	}
	set, _, err := q.readSet()
	if err != nil {
		return err
	}
	if what == typeChr || what == typeBlk {
		major, minor := q.args.Uint32(), q.args.Uint32()
		if q.args.Err() != nil {
			return errGarbage
		}
		if q.who.uid != 0 {
			return statusPerm
		}
		if major > 0xfff || minor > 0xfffff {
			return statusInval
		}
		dev = minor&0xff | major<<8 | minor&^0xff<<12
	}
	d := *dir
	defer q.s.change(d)()
	before := q.before(ctx, d)
	id, _, err := d.tree.fs.Mknod(ctx, q.caller(), d.id, name, kind|q.who.modeOfNew(a, modeOf(&set, 0o644)), dev)
	if err != nil {
		return err
	}
	return q.made(ctx, d, &before, name, id, set)
}

// victim looks up a name that is to go, and checks that the caller may take it.
func (q *request) victim(ctx context.Context, d *node, dir *vfs.Attr, name string) (vfs.NodeID, vfs.Attr, error) {
	id, a, err := d.tree.fs.Lookup(ctx, d.id, name)
	if err != nil {
		return 0, a, err
	}
	d.tree.fs.Forget(id, 1)
	return id, a, q.who.checkSticky(dir, &a)
}

func remove(ctx context.Context, q *request) error { return removeBy(ctx, q, (*vfs.FS).Unlink) }

func rmdir(ctx context.Context, q *request) error { return removeBy(ctx, q, (*vfs.FS).Rmdir) }

func removeBy(ctx context.Context, q *request, do func(*vfs.FS, context.Context, vfs.NodeID, string) error) error {
	dir, a, name, err := q.dirName(ctx, mayExec|mayWrite)
	if err != nil {
		return err
	}
	if name == "." || name == ".." {
		return statusInval
	}
	d := *dir
	defer q.s.change(d)()
	before := q.before(ctx, d)
	id, was, err := q.victim(ctx, d, a, name)
	if err != nil {
		return err
	}
	if err := do(d.tree.fs, ctx, d.id, name); err != nil {
		return err
	}
	q.s.lists.removed(d, name, isDir(&was))
	if was.Nlink <= 1 {
		q.s.open.drop(d.tree, id)
	}
	if err := q.settle(ctx, d.tree); err != nil {
		return err
	}
	q.w.Uint32(uint32(statusOK))
	q.putWcc(&before, q.after(ctx, d))
	return nil
}

func rename(ctx context.Context, q *request) error {
	from, a, oldName, err := q.dirName(ctx, mayExec|mayWrite)
	q.post = nil // there would have to be two
	if err != nil {
		return err
	}
	was := *a
	to, b, newName, err := q.dirName(ctx, mayExec|mayWrite)
	q.post = nil
	if err != nil {
		return err
	}
	x, y := *from, *to
	for _, name := range []string{oldName, newName} {
		if name == "." || name == ".." {
			return statusInval
		}
	}
	defer q.s.change(x, y)()
	beforeX, beforeY := q.before(ctx, x), q.before(ctx, y)
	_, src, err := q.victim(ctx, x, &was, oldName)
	if err != nil {
		return err
	}
	// A directory that moves gets another "..".
	if isDir(&src) && x.id != y.id && src.Ino != 0 && x.v.ref != "" {
		if err := q.who.check(&src, mayWrite); err != nil {
			return err
		}
	}
	replaced, dst, err := q.victim(ctx, y, b, newName)
	exists := err == nil
	if err != nil && graveler.KindOf(err) != graveler.NotFound {
		return err
	}
	if err := x.tree.fs.Rename(ctx, x.id, oldName, y.id, newName, 0); err != nil {
		return err
	}
	q.s.lists.removed(x, oldName, isDir(&src))
	if exists && dst.Nlink <= 1 && dst.Ino != src.Ino {
		q.s.open.drop(y.tree, replaced)
	}
	if err := q.settle(ctx, x.tree); err != nil {
		return err
	}
	q.w.Uint32(uint32(statusOK))
	q.putWcc(&beforeX, q.after(ctx, x))
	q.putWcc(&beforeY, q.after(ctx, y))
	return nil
}

func link(ctx context.Context, q *request) error {
	file, _, err := q.object(ctx)
	if err != nil {
		return err
	}
	dir, _, name, err := q.dirName(ctx, mayExec|mayWrite)
	q.post = nil
	if err != nil {
		return err
	}
	n, d := *file, *dir
	defer q.s.change(d)()
	before := q.before(ctx, d)
	if _, err := n.tree.fs.Link(ctx, n.id, d.id, name); err != nil {
		return err
	}
	n.tree.fs.Forget(n.id, 1)
	if err := q.settle(ctx, d.tree); err != nil {
		return err
	}
	q.w.Uint32(uint32(statusOK))
	q.after(ctx, n).put(q)
	q.putWcc(&before, q.after(ctx, d))
	return nil
}

func setattr(ctx context.Context, q *request) error {
	obj, _, err := q.object(ctx)
	if err != nil {
		return err
	}
	set, now, err := q.readSet()
	if err != nil {
		return err
	}
	guarded := q.args.Bool()
	var guard [2]uint32
	if guarded {
		guard = [2]uint32{q.args.Uint32(), q.args.Uint32()}
	}
	if q.args.Err() != nil {
		return errGarbage
	}
	n := *obj
	if err := q.writable(n); err != nil {
		return err
	}
	defer q.s.change(n)()
	a, err := n.tree.fs.Getattr(ctx, n.id)
	if err != nil {
		return err
	}
	q.post.a = a
	if c := n.changed(&a); guarded && guard != [2]uint32{uint32(c.Unix()), uint32(c.Nanosecond())} {
		return statusNotSync
	}
	if err := q.who.checkSet(&a, &set, now); err != nil {
		return err
	}
	before := q.before(ctx, n)
	if set.Mode != nil || set.UID != nil || set.GID != nil || set.Size != nil || set.Atime != nil || set.Mtime != nil {
		if a, err = n.tree.fs.Setattr(ctx, q.caller(), n.id, set); err != nil {
			return err
		}
		if err := q.settle(ctx, n.tree); err != nil {
			return err
		}
	}
	q.w.Uint32(uint32(statusOK))
	q.putWcc(&before, &post{n, a})
	return nil
}
