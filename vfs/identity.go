package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/spill"
)

// What follows is for protocols without an open and a close, and with names for files that outlive the tree: NFS.

// homeRoot is graveler.Entry.Home of what was in the root.
const homeRoot = 1

// Form tells what a node is.
type Form uint8

// Forms.
const (
	FormTop         Form = iota // lists repositories
	FormRepo                    // lists refs
	FormDir                     // a directory of a version
	FormFile                    // a file, symbolic link or special file
	FormControlDir              // .lakefs
	FormControlFile             // a file in it
	FormObject                  // .lakefs/object of a directory
)

// Identity is what a node is, in words that mean the same in another tree and after a restart.
type Identity struct {
	Form   Form
	Repo   graveler.RepositoryID // from FormRepo down
	Ref    graveler.Ref          // from FormDir down: a branch, or a full commit id
	Branch bool
	Path   string // in the version; of a control directory or a file in it, that of the directory which has it
	Name   string // of a control file
	// Number is the inode number, 0 of a version's root. Home is that of the directory where it was made, as far as is known, 0 if that is
	// the version's root: both stay. Of a control directory, or of what is in it, they are those of the directory which has it.
	Number, Home uint64
	Gone         bool // it has no name any more
}

// Identity tells what a node is.
func (f *FS) Identity(id NodeID) (Identity, error) {
	n, err := f.node(id)
	if err != nil {
		return Identity{}, err
	}
	f.mu.Lock()
	at := n // what the handle's words are of
	switch n.kind {
	case kindCtlDir:
		at = n.parent
	case kindCtlFile, kindObject:
		at = n.parent.parent
	}
	f.keep(at)
	f.mu.Unlock()
	if at.kind == kindDir || at.kind == kindFile {
		at.mu.Lock()
		placed := at.placed
		at.mu.Unlock()
		if !placed {
			if _, err := f.attr(context.Background(), at); err != nil {
				return Identity{}, err
			}
		}
	}
	at.mu.Lock()
	home := at.entry.Home
	at.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	i := Identity{Form: Form(n.kind), Gone: n.gone, Repo: n.repo}
	if n.v == nil {
		return i, nil
	}
	i.Repo, i.Ref, i.Branch, i.Path = n.v.repo, n.v.ref, n.v.writable, at.path()
	if n.kind == kindCtlFile {
		i.Name = n.name
	}
	if at.parent == nil || at.parent.v == nil {
		return i, nil // a version's root
	}
	i.Number = at.ino
	switch up := at.parent; {
	case home == homeRoot:
	case home != 0:
		i.Home = n.v.mix(home)
	case up.parent != nil && up.parent.v != nil:
		i.Home = up.ino
	}
	return i, nil
}

// Keep counts one lookup more of a node.
func (f *FS) Keep(id NodeID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[id]
	if n == nil {
		return fmt.Errorf("node %d: %w", id, graveler.Stale)
	}
	n.lookups++
	return nil
}

// Parent returns the directory that a node is in, with one lookup more; the root is in itself.
func (f *FS) Parent(ctx context.Context, id NodeID) (NodeID, error) {
	n, err := f.node(id)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case n.gone:
		return 0, fmt.Errorf("node %d: %w", id, graveler.Stale)
	case n.parent != nil:
		n = n.parent
	}
	n.lookups++
	return n.id, nil
}

// Present is NotFound if the branch that a node is in is gone.
func (f *FS) Present(ctx context.Context, id NodeID) error {
	n, err := f.node(id)
	if err != nil || n.v == nil || !n.v.writable {
		return err
	}
	v, err := f.resolve(ctx, n.v.repo, n.v.ref)
	if err == nil && !v.writable {
		err = fmt.Errorf("branch %s: %w", n.v.ref, graveler.NotFound)
	}
	return err
}

// Alone tells that no other tree shows the branch that a node is in, and counts what others did to it until now: while the count stays,
// all that changes the node is done through this tree.
func (f *FS) Alone(id NodeID) (others uint64, alone bool) {
	n, err := f.node(id)
	if err != nil || n.v == nil || f.shared(n.v) {
		return 0, false
	}
	return f.told.Load(), true
}

// outer is when others changed a directory, in nanoseconds since 1970.
type outer struct{ names, any atomic.Int64 }

// later is the later of t and a time of outer's.
func later(t time.Time, ns *atomic.Int64) time.Time {
	if at := ns.Load(); at != 0 && time.Unix(0, at).After(t) {
		return time.Unix(0, at)
	}
	return t
}

// changedNames notes that others changed the names of the directories that paths of a branch are in: as far as is known here, since
// a path that was there before may have got another content. If paths is nil any directory of the branch may have changed.
func (f *FS) changedNames(repo graveler.RepositoryID, ref graveler.Ref, paths []string) {
	now := time.Now().UnixNano()
	f.mu.Lock()
	defer f.mu.Unlock()
	if paths == nil {
		for _, n := range f.nodes {
			if n.kind == kindDir && n.state != nil && n.v.writable && (repo == "" || n.v.repo == repo && n.v.ref == ref) {
				n.any.Store(now)
			}
		}
		return
	}
	for root := range f.rootsOf(repo, ref) {
		for _, p := range paths {
			n, name := root, ""
			for rest := strings.TrimSuffix(p, "/"); ; {
				var more bool
				name, rest, more = strings.Cut(rest, "/")
				c := n.children[name]
				if !more || c == nil || c.kind != kindDir {
					break
				}
				n = c
			}
			f.keep(n).any.Store(now)
			if n.children[name] == nil {
				n.names.Store(now)
			}
		}
	}
}

// ReadNode reads what a file has now, without a handle; the end of the file is no error.
func (f *FS) ReadNode(ctx context.Context, id NodeID, p []byte, off int64) (int, error) {
	n, err := f.node(id)
	if err != nil {
		return 0, err
	}
	if n.v == nil || n.isDir() {
		return 0, syscall.EBADF
	}
	if n.kind == kindCtlFile {
		text, err := f.cfg.Control.Read(ctx, n.v.repo, n.v.ref, n.name)
		return (&ctlFile{text: text}).read(p, off), err
	}
	for try := 0; ; try++ {
		content, e, err := f.present(ctx, n)
		if err != nil {
			return 0, err
		}
		var k int
		if content != nil {
			k, err = content.ReadAt(ctx, p, off)
		} else {
			k, err = f.readEntry(ctx, n, &e, p, off)
		}
		if err == io.EOF {
			err = nil
		}
		if try < 3 && (errors.Is(err, graveler.NotFound) && e.Pending != "" || errors.Is(err, syscall.EBADF)) {
			// Settled since, or closed.
			n.mu.Lock()
			n.valid = false
			n.mu.Unlock()
			continue
		}
		return k, err
	}
}

// present is what a file's bytes are now: the open content if there is one, else what the entry names.
func (f *FS) present(ctx context.Context, n *node) (*spill.File, graveler.Entry, error) {
	if n.v.writable {
		f.moving.RLock()
		defer f.moving.RUnlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	err := f.refresh(ctx, n)
	return n.content, n.entry, err
}

// SyncNode makes a file's bytes and its names survive a power cut, without a handle.
func (f *FS) SyncNode(ctx context.Context, id NodeID) error {
	n, err := f.node(id)
	if err != nil {
		return err
	}
	if n.v == nil || !n.v.writable {
		return nil
	}
	named := make(chan error, 1)
	go func() { named <- f.eng.Sync(ctx) }()
	err = f.syncContent(ctx, n)
	return errors.Join(err, <-named)
}

func (f *FS) syncContent(ctx context.Context, n *node) error {
	if n.kind != kindFile {
		return nil
	}
	_, e, err := f.present(ctx, n)
	if err != nil || e.Pending == "" {
		return err // an object is durable before an entry names it
	}
	sf, err := f.cfg.Spill.OpenFile(e.Pending, false)
	if graveler.KindOf(err) == graveler.NotFound {
		return nil // settled since, or removed
	}
	if err != nil {
		return err
	}
	defer sf.Close()
	return sf.Sync()
}

// Names is a part of a directory's names, in the order of listing. An entry without a name is one that no name can hold.
type Names struct {
	dir     *dir
	Entries []DirEntry
	End     bool   // nothing follows
	Next    string // where the next part begins
}

// NamesAfter reads up to a page of a directory's names, those after a place that DirEntry.Place gave, or the first if that is "".
func (f *FS) NamesAfter(ctx context.Context, id NodeID, after string) (*Names, error) {
	n, err := f.node(id)
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, graveler.NotDir
	}
	d := &dir{n: n, cur: -1, pages: []string{after}}
	if n.kind != kindDir {
		names, err := f.listSpecial(ctx, n)
		if err != nil {
			return nil, err
		}
		if after != "" {
			for len(names) > 0 && names[0].Place() != after {
				names = names[1:]
			}
			if len(names) > 0 {
				names = names[1:]
			}
		}
		for i := range names {
			names[i].Ino = f.specialIno(n, names[i].Name)
		}
		return &Names{dir: d, Entries: names, End: true}, nil
	}
	if after == "" {
		f.ahead.list(n)
	}
	if err := f.readPage(ctx, d, 0); err != nil {
		return nil, err
	}
	p := &Names{dir: d, Entries: d.names, End: d.end}
	if !d.end {
		p.Next = d.pages[1]
	}
	return p, nil
}

// specialIno is a number for a name that no entry stands behind, that of the node if it is known.
func (f *FS) specialIno(n *node, name string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := n.children[name]; c != nil {
		return c.ino
	}
	return specialNumber(&node{kind: n.kind + 1, dentry: dentry{n, name}})
}

// Fresh reports whether the names are those that the directory still has, as far as this tree knows.
func (f *FS) Fresh(p *Names) bool {
	d := p.dir
	return d.n.v != nil && (!d.n.v.writable || f.told.Load() == d.told && f.made.Load() == d.made)
}

// LookupNamed is Lookup of one of the names: it costs no look at the engine where nothing changed since they were read.
func (f *FS) LookupNamed(ctx context.Context, p *Names, e *DirEntry) (NodeID, Attr, error) {
	id, a, err := f.LookupEntry(ctx, p.dir, e)
	if err != nil || e.listed == nil {
		return id, a, err
	}
	n, err := f.node(id)
	if err != nil {
		return 0, Attr{}, err
	}
	n.mu.Lock()
	if !n.placed { // it was only listed: no more need be known of it to name it
		n.entry.Home, n.placed = e.listed.Entry.Home, true
	}
	n.mu.Unlock()
	return id, a, nil
}

// Place is where an entry stands in its directory's order: its name, of a directory with a slash.
func (e *DirEntry) Place() string {
	if e.Dir {
		return e.Name + "/"
	}
	return e.Name
}

// Numbered is a file or a directory as Scan finds it.
type Numbered struct {
	Path   string // no trailing slash
	Dir    bool
	Number uint64
}

// Scan yields each file and each directory of a version with its number, until yield returns false. It reads all entries.
func (f *FS) Scan(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, yield func(Numbered) bool) error {
	return f.scan(ctx, repo, ref, "", func(string) bool { return true }, yield)
}

// Cuts tells where the entries of a commit are cut into parts: the last path of each.
func (f *FS) Cuts(ctx context.Context, repo graveler.RepositoryID, commit graveler.Ref) ([]string, error) {
	return f.eng.Cuts(ctx, repo, graveler.CommitID(commit))
}

// ScanPart is Scan of the entries of a part, which come after a path up to another, with all directories that they are in.
func (f *FS) ScanPart(ctx context.Context, repo graveler.RepositoryID, commit graveler.Ref, after, last string, yield func(Numbered) bool) error {
	return f.scan(ctx, repo, commit, after, func(path string) bool { return path <= last }, yield)
}

func (f *FS) scan(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, after string, within func(path string) bool, yield func(Numbered) bool) error {
	v, err := f.resolve(ctx, repo, ref)
	if err != nil {
		return err
	}
	var none graveler.Entry
	dir := ""
	for l, err := range f.eng.List(ctx, v.repo, v.ref, engine.ListQuery{After: after}) {
		if err != nil {
			return err
		}
		if !within(l.Path) {
			return nil
		}
		// The directories on the way that the entry before it wasn't in, without those whose markers come now.
		for at := strings.IndexByte(l.Path, '/'); at >= 0; {
			p := l.Path[:at+1]
			if !strings.HasPrefix(dir, p) && p != l.Path && !yield(Numbered{p[:at], true, number(v, &none, p)}) {
				return nil
			}
			next := strings.IndexByte(l.Path[at+1:], '/')
			if next < 0 {
				dir = p
				break
			}
			at += 1 + next
		}
		if !yield(Numbered{strings.TrimSuffix(l.Path, "/"), strings.HasSuffix(l.Path, "/"), number(v, &l.Entry, l.Path)}) {
			return nil
		}
	}
	return nil
}
