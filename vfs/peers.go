package vfs

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Locks is what all trees over one engine share: it makes changes of one directory atomic against each other, keeps the locks that
// programs take on files, and tells each tree at once what another changes.
type Locks struct {
	stripes [256]sync.Mutex
	files   lockTable

	// groups is held while the names of a file that has several are changed together. It is taken last.
	groups sync.Mutex

	mu    sync.RWMutex
	trees []*FS
	count atomic.Int32 // of trees
}

var stripeSeed = maphash.MakeSeed()

func (l *Locks) index(v *version, dir string) int {
	return int(maphash.Comparable(stripeSeed, struct {
		v   versionKey
		dir string
	}{vKey(v), dir}) % uint64(len(l.stripes)))
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

// join adds a tree. What the others had the kernel keep was kept for trees that are alone, so they forget it.
func (l *Locks) join(f *FS) {
	l.mu.Lock()
	others := slices.Clone(l.trees)
	l.trees = append(l.trees, f)
	l.count.Store(int32(len(l.trees)))
	l.mu.Unlock()
	for _, o := range others {
		o.forgetAll()
	}
}

func (l *Locks) leave(f *FS) {
	l.unlockAll(f)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trees = slices.DeleteFunc(l.trees, func(o *FS) bool { return o == f })
	l.count.Store(int32(len(l.trees)))
}

// shared reports whether another tree shows a branch too. The kernel then may not keep what it knows of the branch: what another
// mount does must be seen at the next look.
func (f *FS) shared(v *version) bool {
	l := f.cfg.Locks
	if l.count.Load() < 2 || !v.writable {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, o := range l.trees {
		if o != f && o.shows(v) {
			return true
		}
	}
	return false
}

func (f *FS) shows(v *version) bool {
	switch f.root.kind {
	case kindTop:
		return true
	case kindRepo:
		return f.root.repo == v.repo
	}
	return f.root.v.repo == v.repo && f.root.v.ref == v.ref
}

// has reports whether a tree marks its changes with a number.
func (l *Locks) has(origin uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.ContainsFunc(l.trees, func(o *FS) bool { return o.origin == origin })
}

// tellPeers marks what the other trees know of paths, all of a branch's if nil, as out of date, before the change that this tree made returns.
func (f *FS) tellPeers(v *version, paths []string) {
	l := f.cfg.Locks
	if l.count.Load() < 2 {
		return
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, o := range l.trees {
		if o != f && o.shows(v) {
			o.told.Add(1)
			o.changedNames(v.repo, v.ref, paths)
			nodes, _ := o.affected(v.repo, v.ref, paths)
			for _, n := range nodes {
				n.stale.Store(true)
			}
		}
	}
}

// forgetAll makes the kernel forget what it keeps of branches.
func (f *FS) forgetAll() { go f.outdate("", graveler.Ref(""), nil) }
