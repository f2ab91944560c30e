package nfs

import (
	"context"
	"hash/fnv"
	"sync"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs/xdr"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// The cookie of a name is a hash of it: it stays what it is when other names come and go, when the server starts again, and on another
// one. Where the name is that a cookie is of is kept in memory for those that clients go on from; any other one is found by reading
// the directory's names from the start.

// Cookies of the two names that every directory has.
const (
	cookieDot    = 1
	cookieDotDot = 2
)

func cookieOf(place string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(place))
	x := h.Sum64()
	// FNV alone has too little of the last bytes in its high bits.
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	return max(x&(1<<63-1), cookieDotDot+1) // some clients take it for a signed number
}

// Bounds of what is kept.
const (
	placesKept = 64 << 10
	pagesKept  = 64
)

type listKey struct {
	tree   *tree
	id     vfs.NodeID
	cookie uint64
}

// lists is what is kept of directories that are being read.
type lists struct {
	mu     sync.Mutex
	places map[listKey]listPlace // what place a cookie is of
	old    map[listKey]listPlace // places, before it was full
	pages  [pagesKept]listPage
	next   int
	count  uint64 // of pages until now
}

// listPlace is where a name is: its place, and its index in a page, if that is still kept.
type listPlace struct {
	place string
	page  uint64
	index int
}

type listPage struct {
	tree   *tree
	id     vfs.NodeID
	names  *vfs.Names
	number uint64
}

func newLists() *lists { return &lists{places: map[listKey]listPlace{}} }

// keep notes where a client may go on: after names' entry of an index.
func (l *lists) keep(k listKey, names *vfs.Names, index int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var number uint64
	for i := range l.pages {
		if l.pages[i].names == names {
			number = l.pages[i].number
		}
	}
	if number == 0 {
		l.count++
		number = l.count
		l.pages[l.next] = listPage{k.tree, k.id, names, number}
		l.next = (l.next + 1) % pagesKept
	}
	if len(l.places) >= placesKept {
		l.old, l.places = l.places, map[listKey]listPlace{}
	}
	l.places[k] = listPlace{names.Entries[index].Place(), number, index}
}

// removed notes where a name was that a client has removed: one that lists and removes goes on after it, perhaps long after its page is
// forgotten.
func (l *lists) removed(n *node, name string, dir bool) {
	e := vfs.DirEntry{Name: name, Dir: dir}
	place := e.Place()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.places) >= placesKept {
		l.old, l.places = l.places, map[listKey]listPlace{}
	}
	l.places[listKey{n.tree, n.id, cookieOf(place)}] = listPlace{place: place}
}

// find finds a cookie's place, and the page that has it, if any.
func (l *lists) find(k listKey) (place string, names *vfs.Names, index int, ok bool) {
	l.mu.Lock()
	p, ok := l.places[k]
	if !ok {
		p, ok = l.old[k]
	}
	pages := l.pages
	l.mu.Unlock()
	if ok {
		for i := range pages {
			if p.page != 0 && pages[i].number == p.page && pages[i].names != nil {
				return p.place, pages[i].names, p.index, true
			}
		}
		return p.place, nil, 0, true
	}
	// A client may go on from any name that it was given, not only from the last.
	for i := range pages {
		if pages[i].names == nil || pages[i].tree != k.tree || pages[i].id != k.id {
			continue
		}
		for j := range pages[i].names.Entries {
			if e := &pages[i].names.Entries[j]; e.Name != "" && cookieOf(e.Place()) == k.cookie {
				return e.Place(), pages[i].names, j, true
			}
		}
	}
	return "", nil, 0, false
}

// from returns names of a directory, and the index of the one that comes after a cookie.
func (s *Server) from(ctx context.Context, n *node, cookie uint64) (*vfs.Names, int, error) {
	f := n.tree.fs
	if cookie <= cookieDotDot {
		names, err := f.NamesAfter(ctx, n.id, "")
		return names, 0, err
	}
	k := listKey{n.tree, n.id, cookie}
	place, names, index, ok := s.lists.find(k)
	if ok && names != nil && f.Fresh(names) {
		return names, index + 1, nil
	}
	for after := ""; !ok; {
		names, err := f.NamesAfter(ctx, n.id, after)
		if err != nil {
			return nil, 0, err
		}
		for i := range names.Entries {
			if e := &names.Entries[i]; e.Name != "" && cookieOf(e.Place()) == cookie {
				s.lists.keep(k, names, i)
				return names, i + 1, nil
			}
		}
		if names.End {
			return nil, 0, statusBadCookie // of a name that is gone, from another time of this server
		}
		after = names.Next
	}
	names, err := f.NamesAfter(ctx, n.id, place)
	return names, 0, err
}

func readdir(ctx context.Context, q *request) error { return list(ctx, q, false) }

func readdirplus(ctx context.Context, q *request) error { return list(ctx, q, true) }

// attrSize is the size of a post_op_attr with attributes, in bytes.
const attrSize = 4 + 84

func list(ctx context.Context, q *request, plus bool) error {
	obj, a, err := q.object(ctx)
	if err != nil {
		return err
	}
	cookie, verf, dirCount := q.args.Uint64(), q.args.Uint64(), q.args.Uint32()
	most := dirCount
	if plus {
		most = q.args.Uint32()
	}
	if q.args.Err() != nil {
		return errGarbage
	}
	if !isDir(a) {
		return statusNotDir
	}
	if err := q.who.check(a, mayRead); err != nil {
		return err
	}
	n := *obj
	if own := n.listVerf(); cookie != 0 && verf != own {
		return statusBadCookie
	}
	size := min(int(most), maxData)
	buf, err := q.takeBody(size + headRoom)
	if err != nil {
		return err
	}
	head := len(q.w)
	q.w = append(xdr.Writer(buf[:0]), q.w...)
	q.w.Uint32(uint32(statusOK))
	q.post.put(q)
	q.w.Uint64(n.listVerf())
	l := &lister{q: q, n: n, plus: plus, end: head + size - 8, dirLeft: int(dirCount)}
	if cookie < cookieDot && !l.add(ctx, ".", cookieDot, n, a.Ino) {
		return statusTooSmall
	}
	if cookie < cookieDotDot {
		if up, ino := q.up(ctx, n); !l.add(ctx, "..", cookieDotDot, up, ino) {
			return l.close(false)
		}
	}
	names, i, err := q.s.from(ctx, n, cookie)
	if err != nil {
		return err
	}
	for {
		for ; i < len(names.Entries); i++ {
			e := &names.Entries[i]
			if e.Name == "" {
				continue
			}
			if !l.entry(ctx, names, i) {
				return l.close(false)
			}
		}
		if names.End {
			return l.close(true)
		}
		if names, err = n.tree.fs.NamesAfter(ctx, n.id, names.Next); err != nil {
			if l.count > 0 {
				return l.close(false) // what was read counts; the error comes again
			}
			return err
		}
		i = 0
	}
}

// headRoom is what a reply has before and after what a client's count of bytes counts.
const headRoom = 256

// listVerf is a directory's cookie verifier: cookies of a commit mean nothing elsewhere.
func (n *node) listVerf() uint64 {
	if n.branch || n.v.ref == "" {
		return 0
	}
	return n.fsid
}

// up is the directory above a node, nil if it can't be told, and its number.
func (q *request) up(ctx context.Context, n *node) (*node, uint64) {
	id, err := n.tree.fs.Parent(ctx, n.id)
	if err != nil {
		return nil, 0
	}
	p, err := q.s.adopt(ctx, n.x, n.tree, id, nil)
	if err != nil {
		return nil, 0
	}
	q.pin(p)
	a, err := n.tree.fs.Getattr(ctx, p.id)
	if err != nil {
		return nil, 0
	}
	return p, a.Ino
}

// lister fills the reply of a READDIR or READDIRPLUS.
type lister struct {
	q       *request
	n       *node
	plus    bool
	end     int // of what the entries may take of q.w
	dirLeft int // bytes of numbers, names and cookies that the client still wants
	count   int
	names   *vfs.Names
	last    int // the last entry, of names
	cookie  uint64
}

// add writes an entry whose node is known, unless it doesn't fit.
func (l *lister) add(ctx context.Context, name string, cookie uint64, n *node, ino uint64) bool {
	var a *post
	if l.plus && n != nil {
		a = l.q.after(ctx, n)
	}
	fh := ""
	if n != nil {
		fh = n.fh
	}
	return l.put(name, cookie, ino, a, fh)
}

func (l *lister) put(name string, cookie, ino uint64, a *post, fh string) bool {
	w := &l.q.w
	before := len(*w)
	w.Uint32(1)
	w.Uint64(ino)
	w.String(name)
	w.Uint64(cookie)
	l.dirLeft -= len(*w) - before
	if l.plus {
		a.put(l.q)
		w.Bool(a != nil)
		if a != nil {
			w.Bytes([]byte(fh))
		}
	}
	if len(*w) > l.end || l.plus && l.dirLeft < 0 && l.count > 0 {
		*w = (*w)[:before]
		return false
	}
	l.count++
	return true
}

// entry writes a name that was listed.
func (l *lister) entry(ctx context.Context, names *vfs.Names, i int) bool {
	e := &names.Entries[i]
	cookie := cookieOf(e.Place())
	if !l.plus {
		if !l.put(e.Name, cookie, e.Ino, nil, "") {
			return false
		}
	} else {
		if len(l.q.w)+attrSize+maxHandle+len(e.Name) > l.end && l.count > 0 {
			return false // without a look at what wouldn't fit
		}
		var p *post
		fh := ""
		id, a, err := l.n.tree.fs.LookupNamed(ctx, names, e)
		switch {
		case graveler.KindOf(err) == graveler.NotFound && err != nil:
			return true // removed since
		case err == nil:
			if c, err := l.q.child(ctx, l.n, id, e.Name); err == nil {
				defer l.q.s.nodes.unpin(c)
				p, fh = &post{c, a}, c.fh
			}
		}
		ino := e.Ino
		if p != nil {
			ino = a.Ino
		}
		if !l.put(e.Name, cookie, ino, p, fh) {
			return false
		}
	}
	l.names, l.last, l.cookie = names, i, cookie
	return true
}

// close ends the reply.
func (l *lister) close(eof bool) error {
	if l.count == 0 && !eof {
		return statusTooSmall
	}
	l.q.w.Bool(false)
	l.q.w.Bool(eof)
	// After the last one too: a client may go on from any name that it was given, when that is gone.
	if l.names != nil {
		l.q.s.lists.keep(listKey{l.n.tree, l.n.id, l.cookie}, l.names, l.last)
	}
	return nil
}
