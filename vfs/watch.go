package vfs

import (
	"context"
	"strings"
	"sync"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// ownChanges counts the changes that this tree made itself and whose events are still to come: they need no invalidation.
type ownChanges struct {
	mu sync.Mutex
	m  map[changeKey]int
}

type changeKey struct {
	repo   graveler.RepositoryID
	branch graveler.BranchID
	path   string
}

func (o *ownChanges) expect(v *version, paths []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		o.m = map[changeKey]int{}
	}
	for _, p := range paths {
		o.m[changeKey{v.repo, graveler.BranchID(v.ref), p}]++
	}
}

// seen takes an event's paths off and returns those that others changed.
func (o *ownChanges) seen(repo graveler.RepositoryID, branch graveler.BranchID, paths []string) (others []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range paths {
		k := changeKey{repo, branch, p}
		switch n := o.m[k]; {
		case n == 0:
			others = append(others, p)
		case n == 1:
			delete(o.m, k)
		default:
			o.m[k] = n - 1
		}
	}
	return others
}

// Watch follows the engine's events until ctx ends, and keeps nodes and the kernel's caches true to what others change. No event
// after its return is missed; call it before the tree is used.
func (f *FS) Watch(ctx context.Context) {
	events := f.eng.Watch(ctx)
	f.work.Go(func() { f.ahead.follow(ctx) })
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
		f.own.mu.Lock()
		f.own.m = nil
		f.own.mu.Unlock()
		f.stale("", "", nil)
		return
	}
	switch ev.Type {
	case engine.StagingChanged:
		if ev.Paths == nil {
			f.stale(ev.Repo, graveler.Ref(ev.Branch), nil)
		} else if others := f.own.seen(ev.Repo, ev.Branch, ev.Paths); len(others) > 0 {
			f.stale(ev.Repo, graveler.Ref(ev.Branch), others)
		}
	case engine.HeadMoved:
		if !ev.Unchanged {
			f.stale(ev.Repo, graveler.Ref(ev.Branch), nil)
		}
	case engine.RefsChanged, engine.ReposChanged:
		f.staleNames(ev)
	}
}

type named struct {
	parent NodeID
	name   string
}

// stale forgets what is known of paths of a branch; nil paths are all, an empty repo every branch.
func (f *FS) stale(repo graveler.RepositoryID, ref graveler.Ref, paths []string) {
	var nodes []*node
	var names []named
	f.mu.Lock()
	match := func(n *node) bool {
		return n.v != nil && n.v.writable && (repo == "" || n.v.repo == repo && n.v.ref == ref)
	}
	if paths == nil {
		for _, n := range f.nodes {
			if match(n) {
				nodes = append(nodes, n)
				if n.parent != nil {
					names = append(names, named{n.parent.id, n.name})
				}
			}
		}
	} else {
		for _, root := range f.nodes {
			if match(root) && root.kind == kindDir && (root.parent == nil || root.parent.v == nil) {
				for _, p := range paths {
					ns, nm := walk(root, strings.TrimSuffix(p, "/"), strings.HasSuffix(p, "/"))
					nodes, names = append(nodes, ns...), append(names, nm...)
				}
			}
		}
	}
	f.mu.Unlock()
	for _, n := range nodes {
		n.mu.Lock()
		n.valid = false
		n.mu.Unlock()
	}
	if f.inv == nil {
		return
	}
	for _, n := range nodes {
		f.inv.InvalidateNode(n.id)
	}
	for _, n := range names {
		f.inv.InvalidateName(n.parent, n.name)
	}
}

// walk finds the known nodes on the way to a path, the last of which may change its name's meaning, and those below it if all.
func walk(root *node, path string, all bool) (nodes []*node, names []named) {
	n := root
	for seg := range strings.SplitSeq(path, "/") {
		nodes = append(nodes, n) // a directory's names change
		names = append(names, named{n.id, seg})
		if n = n.children[seg]; n == nil {
			return nodes, names
		}
	}
	var below func(n *node)
	below = func(n *node) {
		nodes = append(nodes, n)
		for name, c := range n.children {
			names = append(names, named{n.id, name})
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
	for _, n := range f.nodes {
		if n.kind == kindTop && ev.Type == engine.ReposChanged {
			names, dirs = append(names, named{n.id, string(ev.Repo)}), append(dirs, n.id)
		}
		if n.kind == kindRepo && n.repo == ev.Repo {
			for name := range n.children {
				names = append(names, named{n.id, name})
			}
			names, dirs = append(names, named{n.id, "@" + string(ev.Branch)}), append(dirs, n.id)
		}
	}
	f.mu.Unlock()
	for _, id := range dirs {
		f.inv.InvalidateNode(id)
	}
	for _, n := range names {
		f.inv.InvalidateName(n.parent, n.name)
	}
}
