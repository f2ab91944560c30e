package nfs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// tree is a vfs.FS that one export or several are in.
type tree struct {
	fs    *vfs.FS
	place graveler.Place
	stop  context.CancelFunc

	mu      sync.Mutex // guards what follows
	refs    map[uint64]version
	finders map[version]*finder
	commits commits
	large   largeDirs
}

// version is a branch or a commit.
type version struct {
	repo graveler.RepositoryID
	ref  graveler.Ref
}

// node is a file or directory that clients have a handle of. It keeps the vfs's node of it.
type node struct {
	fh     string
	x      *exports
	tree   *tree
	id     vfs.NodeID
	form   vfs.Form
	branch bool
	root   bool
	v      version
	fsid   uint64
	home   uint64
	born   time.Time // when this server began to know it

	used atomic.Bool // since the table looked last
	pins int         // requests that work with it; guarded by nodes.mu
}

type nodeKey struct {
	tree   *tree
	id     vfs.NodeID
	export uint32
}

// nodes is the table of what clients have handles of. It is bounded: what falls out is found again by its handle.
type nodes struct {
	limit int

	mu    sync.Mutex
	byFH  map[string]*node
	byKey map[nodeKey]*node
	ring  []*node // for the clock that chooses what goes; nil where one is gone
	hand  int
	free  []int // places of ring
	at    map[*node]int
}

func newNodes(limit int) *nodes {
	return &nodes{limit: limit, byFH: map[string]*node{}, byKey: map[nodeKey]*node{}, at: map[*node]int{}}
}

// pin returns the node of a handle if it is known.
func (t *nodes) pin(fh []byte) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byFH[string(fh)]
	if n != nil {
		n.pins++
		n.used.Store(true)
	}
	return n
}

func (t *nodes) pinKey(k nodeKey) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	if n != nil {
		n.pins++
		n.used.Store(true)
	}
	return n
}

func (t *nodes) unpin(n *node) {
	t.mu.Lock()
	n.pins--
	dead := n.pins == 0 && t.byFH[n.fh] != n
	t.mu.Unlock()
	if dead {
		n.tree.fs.Forget(n.id, 1)
	}
}

func (n *node) key() nodeKey { return nodeKey{n.tree, n.id, n.x.id} }

// add takes a new node in, pinned, with the lookup that it has of the vfs's. One of the same handle that is there already, of a vfs node
// that is another by now, goes.
func (t *nodes) add(n *node) *node {
	var gone []*node
	t.mu.Lock()
	if old := t.byFH[n.fh]; old != nil {
		if old.id == n.id {
			old.pins++
			t.mu.Unlock()
			n.tree.fs.Forget(n.id, 1)
			return old
		}
		gone = t.remove(old, gone)
	}
	n.pins = 1
	n.used.Store(true)
	t.byFH[n.fh], t.byKey[n.key()] = n, n
	if k := len(t.free); k > 0 {
		t.at[n], t.free = t.free[k-1], t.free[:k-1]
		t.ring[t.at[n]] = n
	} else {
		t.at[n] = len(t.ring)
		t.ring = append(t.ring, n)
	}
	for tries := 2 * len(t.ring); len(t.byFH) > t.limit && tries > 0; tries-- {
		o := t.ring[t.hand]
		t.hand = (t.hand + 1) % len(t.ring)
		if o != nil && o.pins == 0 && !o.used.Swap(false) {
			gone = t.remove(o, gone)
		}
	}
	t.mu.Unlock()
	for _, o := range gone {
		o.tree.fs.Forget(o.id, 1)
	}
	return n
}

// remove takes a node out, and adds it to gone unless a request still works with it. Hold t.mu.
func (t *nodes) remove(n *node, gone []*node) []*node {
	delete(t.byFH, n.fh)
	if t.byKey[n.key()] == n {
		delete(t.byKey, n.key())
	}
	i := t.at[n]
	delete(t.at, n)
	t.ring[i], t.free = nil, append(t.free, i)
	if n.pins == 0 {
		gone = append(gone, n)
	}
	return gone
}

// drop takes a node out that is no longer what its handle names.
func (t *nodes) drop(n *node) {
	t.mu.Lock()
	if t.byFH[n.fh] == n {
		t.remove(n, nil) // whoever drops it has it pinned
	}
	t.mu.Unlock()
}

// node returns the node of a handle, pinned.
func (s *Server) node(ctx context.Context, q *request, fh []byte) (*node, error) {
	if n := s.nodes.pin(fh); n != nil {
		if err := q.enter(n.x); err != nil {
			s.nodes.unpin(n)
			return nil, err
		}
		return n, nil
	}
	h, ok := s.seal.open(fh)
	if !ok {
		return nil, statusStale // another server's, or nobody's
	}
	x := s.byID[h.export]
	if x == nil {
		return nil, statusStale // no longer exported
	}
	if err := q.enter(x); err != nil {
		return nil, err
	}
	t, err := s.treeOf(ctx, x)
	var id vfs.NodeID
	if err == nil {
		id, err = t.find(ctx, &h)
	}
	if err != nil {
		if k := graveler.KindOf(err); k == graveler.NotFound || k == graveler.NotDir {
			return nil, statusStale
		}
		return nil, err
	}
	n, err := s.adopt(ctx, x, t, id, &h.home)
	if err == nil && n.fh != string(fh) {
		s.nodes.unpin(n)
		return nil, statusStale
	}
	return n, err
}

// adopt makes a node of a vfs node, with the one lookup of it that the caller has. home is that of the handle that led there, if any.
func (s *Server) adopt(ctx context.Context, x *exports, t *tree, id vfs.NodeID, home *uint64) (*node, error) {
	if n := s.nodes.pinKey(nodeKey{t, id, x.id}); n != nil {
		t.fs.Forget(id, 1)
		return n, nil
	}
	i, err := t.fs.Identity(id)
	if err == nil && i.Gone && i.Form != vfs.FormTop {
		err = statusStale
	}
	if err != nil {
		t.fs.Forget(id, 1)
		return nil, err
	}
	if home == nil {
		home = &i.Home
	}
	var slot uint32
	if i.Form >= vfs.FormDir && !i.Branch && i.Path != "" {
		if slot, err = t.slotOf(ctx, version{i.Repo, i.Ref}, pathKey(&i)); err != nil {
			t.fs.Forget(id, 1)
			return nil, err
		}
	}
	if i.Form == vfs.FormDir && i.Branch && i.Number != 0 {
		t.finder(version{i.Repo, i.Ref}).learnDir(i.Number, i.Path)
	}
	h := handleOf(&i, x.id, slot, *home)
	n := &node{fh: string(s.seal.seal(&h)), x: x, tree: t, id: id, form: i.Form, branch: i.Branch, v: version{i.Repo, i.Ref}, home: *home, fsid: fsidOf(version{i.Repo, i.Ref}, i.Branch), born: time.Now(),
		root: i.Form == vfs.FormTop || i.Form == vfs.FormRepo || i.Form == vfs.FormDir && i.Path == ""}
	return s.nodes.add(n), nil
}

// attr returns a node's attributes, and the node, which may be found anew for that. The node is pinned still, also after an error.
func (q *request) attr(ctx context.Context, n **node) (vfs.Attr, error) {
	for try := 0; ; try++ {
		a, err := (*n).tree.fs.Getattr(ctx, (*n).id)
		if err == nil && !a.Gone {
			if (*n).root && (*n).branch {
				err = (*n).tree.fs.Present(ctx, (*n).id)
			}
			if err == nil {
				return a, nil
			}
		}
		if err == nil {
			err = statusStale
		}
		if k := graveler.KindOf(err); try > 0 || err != error(statusStale) && k != graveler.Stale && k != graveler.NotFound {
			return a, staleOf(err)
		}
		q.s.nodes.drop(*n)
		m, err := q.s.node(ctx, q, []byte((*n).fh))
		if err != nil {
			return a, staleOf(err)
		}
		q.s.nodes.unpin(*n)
		*n = m
	}
}

// staleOf is Stale where a handle's file isn't there any more.
func staleOf(err error) error {
	if k := graveler.KindOf(err); k == graveler.NotFound || k == graveler.NotDir || errors.Is(err, syscall.EBADF) {
		return statusStale
	}
	return err
}
