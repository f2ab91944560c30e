package vfs

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/spill"
)

type kind uint8

const (
	kindTop     kind = iota // lists repositories
	kindRepo                // lists refs
	kindDir                 // a directory of a version; its root if it has no parent of this kind
	kindFile                // a file, symbolic link or special file
	kindCtlDir              // .lakefs
	kindCtlFile             // a file in it
	kindObject              // .lakefs/object of a directory: the object that has the directory's name as its key
)

// version is the ref that a part of the tree shows.
type version struct {
	repo     graveler.RepositoryID
	ref      graveler.Ref // a branch, or a full commit id
	writable bool
	commit   graveler.Commit
	moves    bool   // the name that led here may lead elsewhere later
	seed     uint64 // of inode numbers
}

func newVersion(v version) *version {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", v.repo, v.ref)
	v.seed = h.Sum64()
	return &v
}

// dentry is one place where a node stands in the tree.
type dentry struct {
	parent *node
	name   string
}

// node is one file or directory that the protocol knows. There may be as many as the kernel has names, so one that was only listed is
// small: a place and a number.
type node struct {
	id NodeID
	// mu guards valid and what is in state, but for its names, and is taken after FS.moving and before FS.mu.
	mu sync.Mutex
	// stale is set, without mu, when others changed what valid vouches for.
	stale    atomic.Bool
	kind     kind
	valid    bool // entry is what the engine has, unless stale
	ino      uint64
	v        *version // from a version's root down
	children map[string]*node

	// Guarded by FS.mu.
	lookups  uint32
	gone     bool // removed: reachable through handles alone
	unnamed  bool // never had a name: an O_TMPFILE
	nameless bool // nor can it be given one: with O_EXCL
	recent   bool // looked at since the last sweep passed by
	dentry        // where it stands; for one that is gone, where it stood

	// What is known beyond that; nil of what was only listed. It is made under FS.mu, see FS.keep, and stays.
	*state
}

// state is what is known of a node that was looked at.
type state struct {
	repo graveler.RepositoryID // of kindRepo

	also []dentry // its other names, of a file with several. Guarded by FS.mu

	entry   graveler.Entry
	placed  bool                 // entry.Home is known, though the rest may not be
	perm    graveler.Permissions // of entry, if hasPerm
	hasPerm bool
	has     bool      // a directory has a marker, which is entry
	changed time.Time // of a directory: when a child last came or went, since it was looked up; zero if not
	ctime   time.Time // last change of attributes, since it was looked up
	subdirs int       // 1 + the count of subdirectories where it is known, else 0
	writers int
	readers int
	loose   bool        // it lost its name to another content, see renew: who opens it means the other
	locked  bool        // somebody has had a lock on it
	content *spill.File // open while the file is being written, or read before it is settled
	wopen   bool        // content is open for writing
	passing             // how the kernel reads and writes it
	outer
}

// keep makes sure that a node has a state. Hold FS.mu.
func (f *FS) keep(n *node) *node {
	if n.state == nil {
		n.state = new(state)
		f.weigh(stateCost)
	}
	return n
}

// others are a node's names but the first. Hold FS.mu.
func (n *node) others() []dentry {
	if n.state == nil {
		return nil
	}
	return n.also
}

func (n *node) isDir() bool { return n.kind <= kindDir || n.kind == kindCtlDir }

// fresh reports whether the entry can be trusted. Hold n.mu.
func (n *node) fresh() bool { return n.valid && !n.stale.Load() }

// set takes what the engine, or a change of this tree's, says that the entry is. Hold n.mu.
func (n *node) set(e graveler.Entry) {
	n.valid = true
	n.state.set(e)
}

func (s *state) set(e graveler.Entry) {
	s.entry, s.placed = e, true
	s.perm, s.hasPerm = permissions(&e)
}

// pathOf is a node's path in its version. Hold moving.
func (f *FS) pathOf(n *node) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return n.path()
}

// path is pathOf with FS.mu held.
func (n *node) path() string {
	if n.parent == nil || n.parent.v == nil {
		return ""
	}
	size := 0
	for p := n; p.parent != nil && p.parent.v != nil; p = p.parent {
		size += len(p.name) + 1
	}
	b := make([]byte, size)
	for p := n; p.parent != nil && p.parent.v != nil; p = p.parent {
		size -= len(p.name) + 1
		copy(b[size+1:], p.name)
		b[size] = '/'
	}
	return string(b[1:])
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func (f *FS) node(id NodeID) (*node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[id]
	if n == nil {
		return nil, fmt.Errorf("node %d: %w", id, graveler.Stale)
	}
	n.recent = true
	return f.keep(n), nil
}

// knownChild is the node of a name in a directory, nil if there is none.
func (f *FS) knownChild(dir *node, name string) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := dir.children[name]; n != nil {
		return f.keep(n)
	}
	return nil
}

// child returns the node of a name, a new one if there is none of this kind and number, with one lookup more.
func (f *FS) child(parent *node, name string, k kind, v *version, ino uint64) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.childLocked(parent, name, k, v, ino)
}

func (f *FS) childLocked(parent *node, name string, k kind, v *version, ino uint64) *node {
	n := f.keep(f.listedLocked(parent, name, k, v, ino))
	if k == kindRepo {
		n.repo = graveler.RepositoryID(name)
	}
	return n
}

// listedLocked is childLocked of what nobody asked for: the node has no state unless it had one.
func (f *FS) listedLocked(parent *node, name string, k kind, v *version, ino uint64) *node {
	n := parent.children[name]
	if n != nil && (n.kind != k || ino != 0 && n.ino != ino || n.v != v && (n.v == nil || v == nil || vKey(n.v) != vKey(v))) {
		f.cut(n, dentry{parent, name})
		n = nil
	}
	if n == nil {
		name = strings.Clone(name) // it may be the end of a path, or of a buffer
		n = &node{ino: ino, kind: k, v: v, dentry: dentry{parent, name}}
		if n.isDir() {
			n.children = map[string]*node{}
		}
		if ino == 0 {
			n.ino = specialNumber(n)
		}
		f.enter(n)
		parent.children[name] = n
		f.grown(parent)
	}
	n.lookups++
	return n
}

// enter gives a new node its id. Hold FS.mu.
func (f *FS) enter(n *node) {
	n.id = f.nextID
	f.nextID++
	f.nodes[n.id] = n
	f.order.push(n.id, f.nodes)
	f.weigh(n.cost())
}

type versionKey struct {
	repo     graveler.RepositoryID
	ref      graveler.Ref
	writable bool
}

func vKey(v *version) versionKey { return versionKey{v.repo, v.ref, v.writable} }

// fileKey names a file whatever its name is.
type fileKey struct {
	v   versionKey
	ino uint64
}

// cut takes one name off a node; without any it is gone, and lives on while the protocol knows it. Hold FS.mu.
func (f *FS) cut(n *node, d dentry) {
	if d.parent != nil && d.parent.children[d.name] == n {
		delete(d.parent.children, d.name)
		f.shrink(d.parent)
	}
	switch {
	case n.dentry != d:
		f.keep(n).also = slices.DeleteFunc(n.also, func(a dentry) bool { return a == d })
	case len(n.others()) > 0:
		f.place(n, n.also[0])
		n.also = n.also[1:]
	default:
		n.gone = true
		if n.v != nil && f.several[fileKey{vKey(n.v), n.ino}] == n {
			delete(f.several, fileKey{vKey(n.v), n.ino})
		}
	}
}

// hang gives a node one name more. Hold FS.mu.
func (f *FS) hang(n *node, d dentry) {
	if old := d.parent.children[d.name]; old == n {
		return
	} else if old != nil {
		f.cut(old, d)
	}
	d.parent.children[d.name] = f.keep(n)
	if n.gone {
		f.place(n, d)
		n.also, n.gone, n.unnamed = nil, false, false
	} else {
		n.also = append(n.also, d)
	}
}

// place makes a node's first name another. Hold FS.mu.
func (f *FS) place(n *node, d dentry) {
	f.weigh(-n.cost())
	n.dentry = d
	f.weigh(n.cost())
}

// Forget takes lookups off a node; at none it is freed.
func (f *FS) Forget(id NodeID, lookups uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[id]
	if n == nil || id == RootID {
		return
	}
	n.lookups -= uint32(min(uint64(n.lookups), lookups))
	f.free(n)
}

// free frees a node that nobody knows any more, and those above it that were kept for it alone. Hold FS.mu.
func (f *FS) free(n *node) {
	if n == nil || n.id == RootID || n.lookups > 0 || len(n.children) > 0 || f.nodes[n.id] != n {
		return
	}
	delete(f.nodes, n.id)
	delete(f.peaks, n)
	f.weigh(-n.cost())
	if n.gone {
		return
	}
	names := append([]dentry{n.dentry}, n.others()...)
	for _, d := range names {
		f.cut(n, d)
	}
	for _, d := range names {
		f.free(d.parent)
	}
}

// number is the inode number that a version's file has: the entry's own, or for one that lakeFS wrote that of its path, mixed with
// the version, so that the same file in two versions isn't taken for one.
func number(v *version, e *graveler.Entry, path string) uint64 {
	x := e.Inode
	if x == 0 {
		x = graveler.InodeOf(path)
	}
	return v.mix(x)
}

// mix makes a number of an entry's one of the version's.
func (v *version) mix(x uint64) uint64 {
	x ^= v.seed
	// A bijection (Stafford's variant 13 of MurmurHash3's finalizer): different files of a version keep different numbers.
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	if x < 16 {
		x += 1 << 63 // small numbers mean something
	}
	return x
}

// specialNumber is the inode number of what is no entry.
func specialNumber(n *node) uint64 {
	h := fnv.New64a()
	if n.v != nil {
		fmt.Fprintf(h, "%s\x00%s\x00", n.v.repo, n.v.ref)
	}
	fmt.Fprintf(h, "%d\x00", n.kind)
	for p := n; p != nil; p = p.parent {
		h.Write([]byte(p.name))
		h.Write([]byte{0})
	}
	return h.Sum64() | 1<<62 // never a small number that means something
}

// newInode makes a number for a new file.
func newInode() uint64 { return rand.Uint64() | 1<<62 }
