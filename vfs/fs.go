// Package vfs makes files of entries: a tree of nodes with names, attributes and handles over an engine, as a file system
// protocol wants it. It speaks no protocol itself.
//
// The files: fs.go has the tree, node.go the node table, sweep.go what bounds it; tree.go what lies above the entries, repositories and
// refs; lookup.go names and attributes; file.go open files, renew.go those whose content others replace; dir.go directories; change.go
// what makes and removes, rename.go what renames; link.go files of several names; attr.go what sets attributes; xattr.go extended ones;
// lock.go file locks; copy.go copies between files; control.go the control directory; identity.go what protocols without an open need;
// watch.go what others change, peers.go what other trees of the same engine do.
package vfs

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
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
	PID      uint32 // 0 if not known
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

// Pruner is an Invalidator that can have the kernel forget nodes that it doesn't use.
type Pruner interface {
	// Prune asks the kernel to forget nodes; what is in use stays, the others are forgotten soon. False if the kernel can't.
	Prune(ids []NodeID) bool
}

// Passer makes local files known to the kernel, so that it reads and writes them without asking.
type Passer interface {
	// Register returns the kernel's number of an open file; false if it can't be passed to.
	Register(f *os.File) (int32, bool)
	Unregister(id int32)
}

// Config of an FS.
type Config struct {
	Engine  engine.Engine
	Spill   *spill.Store
	Control Control
	Locks   *Locks         // shared by all FS over one engine
	Place   graveler.Place // the root: everything, a repository, or a ref
	// Elsewhere tells that the engine is on another machine, and others change branches through it. They are asked for at each look and
	// open then, and what the kernel keeps of them is kept Briefly, although their changes are told of too.
	Elsewhere bool
	// ReadOnly refuses all changes.
	ReadOnly    bool
	SyncOnClose bool
	// Keep makes a pending content's bytes survive the loss of this machine, as what fsync acknowledges must where the engine is
	// elsewhere; nil where the disk is enough.
	Keep func(ctx context.Context, id graveler.ContentID) error
	// ControlSizes makes Getattr tell the size of control files, which it has to make for that: for protocols that read no further.
	ControlSizes bool
	// ReadAhead bounds, in bytes, the small files that are fetched ahead of who reads a directory's files in order; 0 is none.
	ReadAhead int64
	// NodeMemory bounds, in bytes, what the tree keeps for the kernel: a node for each name that the kernel knows. Beyond it the kernel
	// is asked to forget what it doesn't use. 0 is no bound.
	NodeMemory int64
	UID, GID   uint32 // owner of what has none recorded
	Logger     *slog.Logger
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
	sweeper                   // keeps nodes from becoming too many
	several map[fileKey]*node // the nodes of files with several names
	nextID  NodeID
	root    *node
	stores  sync.Map // repository → object.Store
	handles sync.Map // handle → *file or *dir
	nextFh  atomic.Uint64
	origin  uint64        // marks the changes that this tree makes
	told    atomic.Uint64 // counts the changes by others
	made    atomic.Uint64 // counts the changes of its own
	passer  Passer
	copiers copiers

	stillDirs stillDirs

	ahead *ahead
	work  sync.WaitGroup // what Watch began
}

// New makes a tree.
func New(ctx context.Context, cfg Config) (*FS, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Locks == nil {
		cfg.Locks = new(Locks)
	}
	f := &FS{cfg: cfg, eng: cfg.Engine, log: cfg.Logger, start: time.Now(), origin: newInode(), nodes: map[NodeID]*node{}, several: map[fileKey]*node{}, nextID: RootID + 1}
	f.ahead = newAhead(f, cfg.ReadAhead)
	f.full, f.peaks = make(chan struct{}, 1), map[*node]int{}
	root := &node{id: RootID, ino: 1, kind: kindTop, children: map[string]*node{}, lookups: 1, state: &state{changed: f.start}}
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
	cfg.Locks.join(f)
	return f, nil
}

// Close tells that the tree is no longer used.
func (f *FS) Close() { f.cfg.Locks.leave(f) }

// SetPasser names who can pass the kernel's reads and writes to a local file. Call it before the tree is used.
func (f *FS) SetPasser(p Passer) { f.passer = p }

// SetInvalidator names who is told of changes by others. Call it before Watch.
func (f *FS) SetInvalidator(i Invalidator) { f.inv = i }

// Attr is what stat(2) tells.
type Attr struct {
	Ino     uint64
	Size    uint64
	Mode    uint32 // with the type, as in st_mode
	Nlink   uint32 // of a directory 1 where the count of its subdirectories isn't known
	UID     uint32
	GID     uint32
	Rdev    uint32 // of a device node
	Blocks  uint64 // of 512 bytes
	Atime   time.Time
	Mtime   time.Time
	Ctime   time.Time
	Still   bool // nothing can ever change it
	Brief   bool // others may change it that can't be waited for: it holds for a second
	Writing bool // somebody else may be changing it now: it holds for no time at all
	Gone    bool // it has no name any more
	Moves   bool // the name may come to mean another node without an event, as @main~1 does
}

// Nodes counts the nodes in memory.
func (f *FS) Nodes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.nodes)
}

// NodeBytes is what the nodes in memory take, estimated, in bytes.
func (f *FS) NodeBytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.weight
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
	case m&fs.ModeCharDevice != 0:
		out |= syscall.S_IFCHR
	case m&fs.ModeDevice != 0:
		out |= syscall.S_IFBLK
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
	case syscall.S_IFCHR:
		out |= fs.ModeDevice | fs.ModeCharDevice
	case syscall.S_IFBLK:
		out |= fs.ModeDevice
	}
	return out
}
