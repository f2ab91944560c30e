package vfs

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Watch follows the engine's events until ctx ends, and keeps nodes and the kernel's caches true to what others change. No event
// after its return is missed; call it before the tree is used.
func (f *FS) Watch(ctx context.Context) {
	events := f.eng.Watch(ctx, 0)
	f.work.Go(func() { f.ahead.follow(ctx) })
	f.work.Go(func() { f.sweep(ctx) })
	go func() {
		for ev, err := range events {
			if err != nil {
				return
			}
			f.event(ev)
		}
	}()
}

// Wait returns when, after the end of Watch's context, the tree asks nothing of the engine on its own account any more.
func (f *FS) Wait() { f.work.Wait() }

func (f *FS) event(ev engine.Event) {
	if ev.Lost {
		f.changedNames("", "", nil)
		f.outdate("", "", nil)
		return
	}
	if ev.Origin == f.origin {
		return // this tree's own change, which it knows
	}
	switch ev.Type {
	case engine.StagingChanged:
		if !f.cfg.Locks.has(ev.Origin) { // or it told so itself
			f.changedNames(ev.Repo, graveler.Ref(ev.Branch), ev.Paths)
		}
		f.outdate(ev.Repo, graveler.Ref(ev.Branch), ev.Paths)
	case engine.HeadMoved:
		if !ev.Unchanged {
			f.changedNames(ev.Repo, graveler.Ref(ev.Branch), nil)
			f.outdate(ev.Repo, graveler.Ref(ev.Branch), nil)
		}
	case engine.RefsChanged, engine.ReposChanged:
		if ev.Branch != "" {
			// Another branch may have its name now.
			f.changedNames(ev.Repo, graveler.Ref(ev.Branch), nil)
			f.outdate(ev.Repo, graveler.Ref(ev.Branch), nil)
		}
		f.staleNames(ev)
	}
}

// named is a name whose meaning may have changed, and the node that it had.
type named struct {
	parent NodeID
	name   string
	n      *node // nil if none is known
}

// affected finds what is known of paths of a branch; nil paths are all, an empty repo every branch.
func (f *FS) affected(repo graveler.RepositoryID, ref graveler.Ref, paths []string) (nodes []*node, names []named) {
	f.mu.Lock()
	defer f.mu.Unlock()
	match := func(n *node) bool {
		return n.v != nil && n.v.writable && (repo == "" || n.v.repo == repo && n.v.ref == ref)
	}
	if paths == nil {
		for _, n := range f.nodes {
			if match(n) {
				nodes = append(nodes, n)
				if n.parent != nil {
					names = append(names, named{n.parent.id, n.name, n})
				}
				for _, d := range n.others() {
					names = append(names, named{d.parent.id, d.name, n})
				}
			}
		}
		return nodes, names
	}
	for root := range f.rootsOf(repo, ref) {
		for _, p := range paths {
			ns, nm := walk(root, strings.TrimSuffix(p, "/"), strings.HasSuffix(p, "/"))
			nodes, names = append(nodes, ns...), append(names, nm...)
		}
	}
	return nodes, names
}

// rootsOf yields the nodes that are the root of a branch: the tree's own, or one below its repository. Hold FS.mu.
func (f *FS) rootsOf(repo graveler.RepositoryID, ref graveler.Ref) iter.Seq[*node] {
	return func(yield func(*node) bool) {
		r := f.root
		if r.kind == kindTop {
			if r = r.children[string(repo)]; r == nil {
				return
			}
		}
		if r.kind == kindDir {
			if r.v.writable && r.v.repo == repo && r.v.ref == ref {
				yield(r)
			}
			return
		}
		// Several names can lead to one branch.
		for _, n := range r.children {
			if n.kind == kindDir && n.v.writable && n.v.repo == repo && n.v.ref == ref && !yield(n) {
				return
			}
		}
	}
}

// outdate forgets what is known of paths of a branch, as affected has them, here and in the kernel.
func (f *FS) outdate(repo graveler.RepositoryID, ref graveler.Ref, paths []string) {
	f.told.Add(1)
	nodes, names := f.affected(repo, ref, paths)
	for _, n := range nodes {
		n.stale.Store(true)
	}
	if f.inv == nil {
		return
	}
	for _, n := range nodes {
		f.inv.InvalidateNode(n.id)
	}
	for _, n := range names {
		// A directory that is still one keeps its name: for who works in it, the kernel would have none for it any more.
		if n.n == nil || n.n.kind != kindDir || !f.remains(n.n) {
			f.inv.InvalidateName(n.parent, n.name)
		}
	}
}

// watchPatience bounds a look at the engine that an event asks for.
const watchPatience = 10 * time.Second

// remains reports whether a directory is still there.
func (f *FS) remains(n *node) bool {
	ctx, cancel := context.WithTimeout(context.Background(), watchPatience)
	defer cancel()
	f.moving.RLock()
	defer f.moving.RUnlock()
	f.mu.Lock()
	path, gone := n.path(), n.gone
	f.mu.Unlock()
	if gone || path == "" {
		return !gone
	}
	found, err := f.eng.Lookup(ctx, n.v.repo, n.v.ref, path)
	return err == nil && found.HasPrefix
}

// means reports whether a ref's name among a repository's refs still leads to the same version.
func (f *FS) means(n *node, name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), watchPatience)
	defer cancel()
	v, err := f.resolve(ctx, n.v.repo, graveler.Ref(strings.TrimPrefix(name, "@")))
	return err == nil && vKey(v) == vKey(n.v)
}

// walk finds the known nodes on the way to a path, the last of which may change its name's meaning, and those below it if all.
func walk(root *node, path string, all bool) (nodes []*node, names []named) {
	n := root
	for seg := range strings.SplitSeq(path, "/") {
		nodes = append(nodes, n) // a directory's names change
		names = append(names, named{n.id, seg, n.children[seg]})
		if n = n.children[seg]; n == nil {
			return nodes, names
		}
	}
	var below func(n *node)
	below = func(n *node) {
		nodes = append(nodes, n)
		for name, c := range n.children {
			names = append(names, named{n.id, name, c})
			below(c)
		}
	}
	if all {
		below(n)
	} else {
		nodes = append(nodes, n)
	}
	return nodes, names
}

// staleNames tells the kernel that a ref's or repository's name may mean something else.
func (f *FS) staleNames(ev engine.Event) {
	if f.inv == nil {
		return
	}
	var names []named
	var dirs []NodeID
	f.mu.Lock()
	for _, n := range append(slices.Collect(maps.Values(f.root.children)), f.root) {
		if n.kind == kindTop && ev.Type == engine.ReposChanged {
			names, dirs = append(names, named{n.id, string(ev.Repo), nil}), append(dirs, n.id)
		}
		if n.kind == kindRepo && n.repo == ev.Repo {
			for name, c := range n.children {
				names = append(names, named{n.id, name, c})
			}
			if name := "@" + string(ev.Branch); n.children[name] == nil {
				names = append(names, named{n.id, name, nil})
			}
			dirs = append(dirs, n.id)
		}
	}
	f.mu.Unlock()
	for _, id := range dirs {
		f.inv.InvalidateNode(id)
	}
	for _, n := range names {
		if n.n == nil || n.n.v == nil || !f.means(n.n, n.name) {
			f.inv.InvalidateName(n.parent, n.name)
		}
	}
}
