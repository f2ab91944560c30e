// Package vfs makes files of entries: a tree of nodes with names, attributes and handles over an engine, as a file system
// protocol wants it. It speaks no protocol itself.
//
// The files: fs.go has the node table; tree.go what lies above the entries, repositories and refs; lookup.go names and
// attributes; file.go open files; dir.go directories; change.go what makes, renames and removes; attr.go what sets attributes;
// xattr.go extended ones; control.go the control directory; watch.go what others change.
package vfs

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// NodeID names a node to the protocol. The root is RootID.
type NodeID uint64

// RootID is the root's id.
const RootID NodeID = 1

// Caller is who asks.
type Caller struct {
	UID, GID uint32
}

// Control reads and writes the files of the control directory.
type Control interface {
	// Names lists the files of a ref's control directory.
	Names(writable bool) []string
	// Writable reports whether a file takes writes.
	Writable(name string) bool
	Read(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, name string) ([]byte, error)
	Write(ctx context.Context, uid uint32, repo graveler.RepositoryID, branch graveler.BranchID, name string, data []byte) error
}

// Invalidator is told what others changed, so that it can tell the kernel. Its methods may block and are called without locks.
type Invalidator interface {
	InvalidateNode(id NodeID)
	InvalidateName(parent NodeID, name string)
}

// Config of an FS.
type Config struct {
	Engine  engine.Engine
	Spill   *spill.Store
	Control Control
	Locks   *Locks         // shared by all FS over one engine
	Place   graveler.Place // the root: everything, a repository, or a ref
	// ReadOnly refuses all changes.
	ReadOnly    bool
	SyncOnClose bool
	// ReadAhead bounds, in bytes, the small files that are fetched ahead of who reads a directory's files in order; 0 is none.
	ReadAhead int64
	UID, GID  uint32 // owner of what has none recorded
	Logger    *slog.Logger
}

// Locks makes changes of one directory atomic against each other, over all mounts of one engine.
type Locks struct{ stripes [256]sync.Mutex }

func (l *Locks) index(v *version, dir string) int {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s\x00%s\x00%s", v.repo, v.ref, dir)
	return int(h.Sum32() % uint32(len(l.stripes)))
}

// lock locks one or two directories, in one order for all.
func (l *Locks) lock(i, j int) func() {
	if i > j {
		i, j = j, i
	}
	l.stripes[i].Lock()
	if i != j {
		l.stripes[j].Lock()
	}
	return func() {
		if i != j {
			l.stripes[j].Unlock()
		}
		l.stripes[i].Unlock()
	}
}

// FS is one tree. Its methods may be called from many goroutines.
type FS struct {
	cfg   Config
	eng   engine.Engine
	log   *slog.Logger
	start time.Time
	inv   Invalidator

	// moving is held for writing while a rename changes what paths mean.
	moving sync.RWMutex

	mu      sync.Mutex // guards nodes, and the links between them
	nodes   map[NodeID]*node
	nextID  NodeID
	root    *node
	stores  sync.Map // repository → object.Store
	handles sync.Map // handle → *file or *dir
	nextFh  atomic.Uint64
	own     ownChanges
	ahead   *ahead
	work    sync.WaitGroup // what Watch began
}

// New makes a tree.
func New(ctx context.Context, cfg Config) (*FS, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Locks == nil {
		cfg.Locks = new(Locks)
	}
	f := &FS{cfg: cfg, eng: cfg.Engine, log: cfg.Logger, start: time.Now(), nodes: map[NodeID]*node{}, nextID: RootID + 1}
	f.ahead = newAhead(f, cfg.ReadAhead)
	root := &node{id: RootID, ino: 1, kind: kindTop, children: map[string]*node{}, lookups: 1, changed: f.start}
	switch p := cfg.Place; {
	case p.Path != "":
		return nil, fmt.Errorf("mount of %s: mount a repository or a ref: %w", p, graveler.Invalid)
	case p.Ref != "":
		v, err := f.resolve(ctx, p.Repo, p.Ref)
		if err != nil {
			return nil, err
		}
		root.kind, root.v = kindDir, v
	case p.Repo != "":
		if _, err := cfg.Engine.Repository(ctx, p.Repo); err != nil {
			return nil, err
		}
		root.kind, root.repo = kindRepo, p.Repo
	}
	f.root = root
	f.nodes[RootID] = root
	return f, nil
}

// SetInvalidator names who is told of changes by others. Call it before Watch.
func (f *FS) SetInvalidator(i Invalidator) { f.inv = i }

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
	moves    bool // the name that led here may lead elsewhere later
}

// node is one file or directory that the protocol knows.
type node struct {
	id   NodeID
	ino  uint64
	kind kind
	repo graveler.RepositoryID // of kindRepo
	v    *version              // from a version's root down

	// Guarded by FS.mu.
	parent   *node
	name     string
	children map[string]*node
	lookups  uint64
	gone     bool // removed: reachable through handles alone

	// mu guards what follows, and is taken after FS.moving and before FS.mu.
	mu      sync.Mutex
	valid   bool // entry is what the engine has
	entry   graveler.Entry
	has     bool      // a directory has a marker, which is entry
	changed time.Time // of a directory: when a child last came or went, since it was looked up; zero if not
	ctime   time.Time // last change of attributes, since it was looked up
	writers int
	readers int
	content *spill.File // open while the file is being written, or read before it is settled
	wopen   bool        // content is open for writing
}

func (n *node) isDir() bool { return n.kind <= kindDir || n.kind == kindCtlDir }

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
	if p := n.parent.path(); p != "" {
		return p + "/" + n.name
	}
	return n.name
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
	return n, nil
}

// child returns the node of a name, a new one if there is none of this kind, with one lookup more.
func (f *FS) child(parent *node, name string, k kind, v *version) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := parent.children[name]
	if n != nil && (n.kind != k || n.v != v && (n.v == nil || v == nil || *vKey(n.v) != *vKey(v))) {
		f.unlink(n)
		n = nil
	}
	if n == nil {
		n = &node{id: f.nextID, kind: k, v: v, parent: parent, name: name}
		f.nextID++
		if n.isDir() {
			n.children = map[string]*node{}
		}
		if k == kindRepo {
			n.repo = graveler.RepositoryID(name)
		}
		n.ino = inode(n)
		f.nodes[n.id] = n
		parent.children[name] = n
	}
	n.lookups++
	return n
}

type versionKey struct {
	repo     graveler.RepositoryID
	ref      graveler.Ref
	writable bool
}

func vKey(v *version) *versionKey { return &versionKey{v.repo, v.ref, v.writable} }

// unlink takes a node out of the tree. It lives on while the protocol knows it. Hold FS.mu.
func (f *FS) unlink(n *node) {
	if n.parent != nil && n.parent.children[n.name] == n {
		delete(n.parent.children, n.name)
	}
	n.gone = true
}

// Forget takes lookups off a node; at none it is freed.
func (f *FS) Forget(id NodeID, lookups uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[id]
	if n == nil || id == RootID {
		return
	}
	n.lookups -= min(n.lookups, lookups)
	f.free(n)
}

func (f *FS) free(n *node) {
	for n != nil && n.id != RootID && n.lookups == 0 && len(n.children) == 0 {
		delete(f.nodes, n.id)
		f.unlink(n)
		n = n.parent
	}
}

// inode is a number that stays the same for the same path of the same version.
func inode(n *node) uint64 {
	h := fnv.New64a()
	if n.v != nil {
		fmt.Fprintf(h, "%s\x00%s\x00", n.v.repo, n.v.ref)
	}
	fmt.Fprintf(h, "%d\x00", n.kind/kindCtlDir)
	for p := n; p != nil; p = p.parent {
		h.Write([]byte(p.name))
		h.Write([]byte{0})
	}
	return h.Sum64() | 1<<62 // never a small number that means something
}

// Attr is what stat(2) tells.
type Attr struct {
	Ino     uint64
	Size    uint64
	Mode    uint32 // with the type, as in st_mode
	Nlink   uint32
	UID     uint32
	GID     uint32
	Mtime   time.Time
	Ctime   time.Time
	Still   bool // nothing can ever change it
	Writing bool // somebody may be writing the file now
	Moves   bool // the name may come to mean another node without an event, as @main~1 does
}

// Nodes counts the nodes in memory.
func (f *FS) Nodes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.nodes)
}

func (f *FS) objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error) {
	if s, ok := f.stores.Load(repo); ok {
		return s.(object.Store), nil
	}
	s, err := f.eng.Objects(ctx, repo)
	if err == nil {
		f.stores.Store(repo, s)
	}
	return s, err
}

// writable refuses changes of what can't change.
func (f *FS) writable(v *version) error {
	if f.cfg.ReadOnly || v == nil || !v.writable {
		return graveler.ReadOnly
	}
	return nil
}

// modeOf turns an io/fs mode into st_mode's.
func modeOf(m fs.FileMode) uint32 {
	out := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		out |= syscall.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		out |= syscall.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		out |= syscall.S_ISVTX
	}
	switch {
	case m&fs.ModeDir != 0:
		out |= syscall.S_IFDIR
	case m&fs.ModeSymlink != 0:
		out |= syscall.S_IFLNK
	case m&fs.ModeNamedPipe != 0:
		out |= syscall.S_IFIFO
	case m&fs.ModeSocket != 0:
		out |= syscall.S_IFSOCK
	default:
		out |= syscall.S_IFREG
	}
	return out
}

// fileMode turns st_mode into io/fs's.
func fileMode(m uint32) fs.FileMode {
	out := fs.FileMode(m & 0o777)
	if m&syscall.S_ISUID != 0 {
		out |= fs.ModeSetuid
	}
	if m&syscall.S_ISGID != 0 {
		out |= fs.ModeSetgid
	}
	if m&syscall.S_ISVTX != 0 {
		out |= fs.ModeSticky
	}
	switch m & syscall.S_IFMT {
	case syscall.S_IFDIR:
		out |= fs.ModeDir
	case syscall.S_IFLNK:
		out |= fs.ModeSymlink
	case syscall.S_IFIFO:
		out |= fs.ModeNamedPipe
	case syscall.S_IFSOCK:
		out |= fs.ModeSocket
	}
	return out
}
