package vfs

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// DirEntry is one name of a directory.
type DirEntry struct {
	Name   string
	Dir    bool
	Mode   uint32 // type bits, of a file
	Ino    uint64
	Off    uint64 // where the reading goes on after it
	listed *graveler.Listed
}

// page is how many names are read at a time.
const page = 1024

// dir is an open directory. A position is the count of names before it; each page's start is remembered, so that a reader can go
// back to any position in a directory of any size.
type dir struct {
	n  *node
	mu sync.Mutex
	// names are read from the engine in pages. pages[i] is the last path before page i.
	pages []string
	cur   int        // the page in memory
	names []DirEntry // of it
	end   bool       // no page follows
	all   bool       // names is everything, in one page
	told  uint64     // counts of changes, by others and of this tree, when it was read
	made  uint64

	scratch state // of the name that is being given
}

// OpenDir is an open directory.
type OpenDir = *dir

// Opendir opens a directory. keep tells that the kernel may keep its names: it is told when they change.
func (f *FS) Opendir(ctx context.Context, id NodeID) (h Handle, keep bool, err error) {
	n, err := f.node(id)
	if err != nil {
		return 0, false, err
	}
	if !n.isDir() {
		return 0, false, graveler.NotDir
	}
	keep = n.kind == kindDir && !f.shared(n.v) && !f.distant(n.v) && !n.v.moves
	return f.addHandle(&dir{n: n, cur: -1}), keep, nil
}

// OpenedDir returns an open directory; where directories need not be opened (Still), the handle is 0 and the node tells.
func (f *FS) OpenedDir(h Handle, id NodeID) (OpenDir, error) {
	if v, ok := f.handles.Load(h); ok {
		if d, ok := v.(*dir); ok {
			return d, nil
		}
	}
	if h == 0 && f.Still() {
		n, err := f.node(id)
		if err != nil {
			return nil, err
		}
		if !n.isDir() {
			return nil, graveler.NotDir
		}
		return f.stillDirs.get(n), nil
	}
	return nil, fmt.Errorf("handle %d: %w", h, syscall.EBADF)
}

// Still reports whether nothing in the tree can ever change: it shows one commit.
func (f *FS) Still() bool {
	return f.root.kind == kindDir && !f.root.v.writable && !f.root.v.moves
}

// IsControl reports whether a node is a control file, whose content is made when it is opened.
func (f *FS) IsControl(id NodeID) bool {
	n, err := f.node(id)
	return err == nil && n.kind == kindCtlFile
}

// stillDirs keeps the pages of the directories that are being read without an open, the last few of them.
type stillDirs struct {
	mu   sync.Mutex
	last [16]*dir
	next int
}

func (s *stillDirs) get(n *node) *dir {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.last {
		if d != nil && d.n == n {
			return d
		}
	}
	d := &dir{n: n, cur: -1}
	s.last[s.next%len(s.last)] = d
	s.next++
	return d
}

// Readdir gives names from a position on to yield, until it returns false or the end. After each name the position is its Off.
func (f *FS) Readdir(ctx context.Context, d OpenDir, off uint64, yield func(*DirEntry) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for given := 0; ; {
		if err := f.fill(ctx, d, off); err != nil {
			if given > 0 {
				return nil // what was given counts; the error comes again at the next position
			}
			return err
		}
		i := off
		if !d.all {
			i = off % page
		}
		if i >= uint64(len(d.names)) {
			return nil
		}
		for ; i < uint64(len(d.names)); i++ {
			off++
			e := &d.names[i]
			e.Off = off
			if e.Name == "" {
				continue // a key that no name can hold
			}
			if !yield(e) {
				return nil
			}
			given++
		}
		if d.end {
			return nil
		}
	}
}

// fill reads the page of a position.
func (f *FS) fill(ctx context.Context, d *dir, off uint64) error {
	if d.n.kind < kindDir || d.n.kind == kindCtlDir {
		if off > 0 && d.all {
			return nil
		}
		names, err := f.listSpecial(ctx, d.n)
		d.names, d.all, d.end = names, true, true
		return err
	}
	want := int(off / page)
	if off == 0 {
		f.ahead.list(d.n)
	}
	if want == d.cur && (off > 0 || !d.n.v.writable) {
		return nil
	}
	if off == 0 && d.n.v.writable || len(d.pages) == 0 {
		d.pages, d.cur = []string{""}, -1 // from the start again, with what there is now
	}
	// A page's start is known from the one before it.
	for {
		next := min(want, len(d.pages)-1)
		if err := f.readPage(ctx, d, next); err != nil || next == want {
			return err
		}
		if d.end {
			d.names = nil
			return nil
		}
	}
}

// readPage reads a page whose start is known.
func (f *FS) readPage(ctx context.Context, d *dir, want int) error {
	f.moving.RLock()
	defer f.moving.RUnlock()
	if f.isGone(d.n) {
		d.names, d.end = nil, true
		return nil
	}
	prefix := f.pathOf(d.n)
	if prefix != "" {
		prefix += "/"
	}
	d.names, d.cur = d.names[:0], -1 // no page until it is whole
	d.told, d.made = f.told.Load(), f.made.Load()
	last := ""
	files := map[string]int{}
	// A directory that was moved is read on from the same name.
	after := ""
	if p := d.pages[want]; p != "" {
		after = prefix + p
	}
	for l, err := range f.eng.List(ctx, d.n.v.repo, d.n.v.ref, engine.ListQuery{Prefix: prefix, After: after, Delimiter: "/", Limit: page}) {
		if err != nil {
			return err
		}
		last = strings.Clone(l.Path[len(prefix):]) // a path may be a piece of a whole table, which would be kept with it
		path := l.Path
		l.Path = ""
		e := DirEntry{Name: strings.TrimSuffix(last, "/"), Dir: l.Prefix, listed: &l}
		if !l.Prefix {
			e.Mode = syscall.S_IFREG
			if p, ok := permissions(&l.Entry); ok {
				e.Mode = modeOf(p.Mode) & syscall.S_IFMT
			}
			if _, ok := symlink(&l.Entry); ok {
				e.Mode = syscall.S_IFLNK
			}
			e.Ino = number(d.n.v, &l.Entry, path)
			files[e.Name] = len(d.names)
		} else {
			e.Mode = syscall.S_IFDIR
			e.Ino = number(d.n.v, &l.Entry, path)
			if i, ok := files[e.Name]; ok {
				d.names[i].Name = "" // the directory has the name
			}
		}
		if !graveler.FileName(e.Name) || d.n.parent == nil && e.Name == ControlName || e.Name == ControlName {
			e.Name = ""
		}
		d.names = append(d.names, e)
	}
	d.cur = want
	d.end = len(d.names) < page
	if !d.end && want+1 == len(d.pages) {
		d.pages = append(d.pages, last)
	}
	return nil
}

func (f *FS) listSpecial(ctx context.Context, n *node) ([]DirEntry, error) {
	if n.kind < kindDir {
		names, err := f.listTop(ctx, n)
		for i := range names {
			names[i].Mode = syscall.S_IFDIR
		}
		return names, err
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	f.mu.Lock()
	at := n.parent.path()
	f.mu.Unlock()
	var out []DirEntry
	if at == "" && f.cfg.Control != nil {
		for _, name := range f.cfg.Control.Names(n.v.writable) {
			out = append(out, DirEntry{Name: name, Mode: syscall.S_IFREG})
		}
	} else if _, err := f.eng.Stat(ctx, n.v.repo, n.v.ref, at); err == nil {
		out = append(out, DirEntry{Name: ObjectName, Mode: syscall.S_IFREG})
	}
	return out, nil
}

// LookupEntry is Lookup of a name that Readdir just gave: it costs no look at the engine. Call it from yield. It fails with Unavailable
// where there are too many nodes already: the kernel then asks for what it wants.
func (f *FS) LookupEntry(ctx context.Context, d OpenDir, e *DirEntry) (NodeID, Attr, error) {
	if f.crowded() {
		return 0, Attr{}, graveler.Unavailable
	}
	if e.listed == nil || d.n.v.writable && (f.told.Load() != d.told || f.made.Load() != d.made) {
		return f.Lookup(ctx, d.n.id, e.Name) // it may have changed since it was read
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	n := f.listedNode(d, e)
	if n == nil {
		return f.lookupListed(ctx, d, e)
	}
	// Its entry isn't kept: most of what is listed is never opened.
	d.scratch = state{has: e.Dir && e.listed.HasMarker}
	d.scratch.set(e.listed.Entry)
	f.mistrust(n, d.told)
	n.mu.Lock()
	defer n.mu.Unlock()
	a, err := f.entryAttr(n, &d.scratch)
	if err != nil {
		f.Forget(n.id, 1)
	}
	return n.id, a, err
}

// listedNode is the node of a name that was listed, with one lookup more; nil if more is known of it than a listing tells.
func (f *FS) listedNode(d *dir, e *DirEntry) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := d.n.children[e.Name]
	if n != nil && n.state != nil || !e.Dir && e.listed.Entry.Metadata[graveler.MetaLinks] != "" {
		return nil
	}
	k, ino := kindFile, e.Ino
	if e.Dir {
		if k = kindDir; n != nil && n.kind == kindDir {
			ino = 0 // as take has it: a directory stays one when it gets a marker
		}
	}
	return f.listedLocked(d.n, e.Name, k, d.n.v, ino)
}

// lookupListed is LookupEntry of what more is known of.
func (f *FS) lookupListed(ctx context.Context, d *dir, e *DirEntry) (NodeID, Attr, error) {
	n := f.known(d.n, e.Name)
	if n == nil {
		var err error
		n, err = f.take(ctx, d.n, e.Name, join(f.pathOf(d.n), e.Name), graveler.Found{HasObject: !e.Dir, Object: e.listed.Entry, HasPrefix: e.Dir, HasMarker: e.listed.HasMarker, Marker: e.listed.Entry}, asOf{d.told, d.made})
		if err != nil {
			return 0, Attr{}, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	a, err := f.attrLocked(ctx, n)
	if err != nil {
		f.Forget(n.id, 1)
	}
	return n.id, a, err
}

// Releasedir closes a directory.
func (f *FS) Releasedir(h Handle) { f.handles.Delete(h) }

// Fsyncdir makes all changes of names survive a power cut.
func (f *FS) Fsyncdir(ctx context.Context) error { return f.eng.Sync(ctx) }
