package vfs

import (
	"context"
	"maps"
	"time"
)

// The kernel keeps a name as long as it has memory for it, and a node has to be kept as long. So that this process's memory is bounded
// by its configuration and not by the kernel's, the kernel is asked to forget the nodes that weren't looked at for the longest time,
// when they have become too many. What is open, or where somebody works, stays.

// What a node takes in bytes, measured: itself and its places in the tables, without its name; and what is known of one that was looked
// at, its entry above all.
const (
	nodeCost  = 200
	stateCost = 900
)

const (
	sweepBatch = 512                    // nodes that the kernel is asked to forget at a time
	sweepWait  = 100 * time.Millisecond // at most, for it to have forgotten them
	roomWait   = 50 * time.Millisecond  // at most, that who looks a name up is held back while there are too many nodes
)

func (n *node) cost() int64 {
	c := int64(nodeCost + len(n.name))
	if n.state != nil {
		c += stateCost
	}
	return c
}

// sweeper is the part of an FS that bounds its nodes.
type sweeper struct {
	full chan struct{} // has one if the nodes are too many

	// Guarded by FS.mu.
	order  nodeQueue
	weight int64         // bytes that the nodes take
	hold   int64         // weight below which no sweep begins, since the last could do no more
	peaks  map[*node]int // how many children a directory had, of large ones: a map never gives room back by itself
	peak   int           // of nodes
}

// largeMap is how many elements a map has before it is worth to be made anew when most are gone.
const largeMap = 4096

// grown notes how large a directory and the table of nodes are. Hold FS.mu.
func (f *FS) grown(dir *node) {
	f.peak = max(f.peak, len(f.nodes))
	if n := len(dir.children); n >= largeMap && n > f.peaks[dir] {
		f.peaks[dir] = n
	}
}

// shrink makes the maps of a directory and of all nodes anew, if most of what was in them is gone. Hold FS.mu.
func (f *FS) shrink(dir *node) {
	if f.peak >= largeMap && len(f.nodes) < f.peak/4 {
		f.nodes, f.peak = rebuilt(f.nodes), len(f.nodes)
	}
	if len(f.peaks) == 0 {
		return
	}
	if p := f.peaks[dir]; p > 0 && len(dir.children) < p/4 {
		delete(f.peaks, dir)
		dir.children = rebuilt(dir.children)
		f.grown(dir)
	}
}

func rebuilt[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	maps.Copy(out, m)
	return out
}

// nodeQueue has the ids of all nodes, those that the sweep passed by the longest time ago first, and some that are gone.
type nodeQueue struct{ ids []NodeID }

func (q *nodeQueue) push(id NodeID, nodes map[NodeID]*node) {
	if len(q.ids) == cap(q.ids) && len(q.ids) > 2*len(nodes)+1024 {
		live := make([]NodeID, 0, len(nodes)+len(nodes)/2+1024)
		for _, id := range q.ids {
			if nodes[id] != nil {
				live = append(live, id)
			}
		}
		q.ids = live
	}
	q.ids = append(q.ids, id)
}

// weigh counts bytes that nodes take more. Hold FS.mu.
func (f *FS) weigh(by int64) {
	f.weight += by
	if f.weight < f.cfg.NodeMemory {
		f.hold = 0
	}
	if limit := f.cfg.NodeMemory; limit > 0 && by > 0 && f.weight > max(limit, f.hold) {
		select {
		case f.full <- struct{}{}:
		default:
		}
	}
}

// crowded reports whether no node should be made that nobody asked for: the sweep doesn't keep up.
func (f *FS) crowded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := f.cfg.NodeMemory
	return limit > 0 && f.weight > limit+limit/4
}

// awaitRoom holds back who wants one more node while the sweep doesn't keep up. If it can't, all nodes being in use, the bound gives way.
func (f *FS) awaitRoom() {
	for begin := time.Now(); f.crowded() && time.Since(begin) < roomWait; {
		time.Sleep(time.Millisecond)
		f.mu.Lock()
		hopeless := f.hold > 0
		f.mu.Unlock()
		if hopeless {
			return
		}
	}
}

// sweep bounds the nodes until ctx ends.
func (f *FS) sweep(ctx context.Context) {
	p, ok := f.inv.(Pruner)
	if !ok {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.full:
		}
		limit := f.cfg.NodeMemory
		// Directories that remember when they changed go last: it is nowhere else.
		if f.sweepTo(ctx, p, limit-limit/8, false) || f.sweepTo(ctx, p, limit-limit/8, true) {
			continue
		}
		f.mu.Lock()
		f.hold = f.weight + limit/8
		f.mu.Unlock()
	}
}

// sweepTo passes by all nodes, at most twice since those that were looked at get a second chance, and has the kernel forget them until
// they take no more than target bytes. It reports whether it reached that.
func (f *FS) sweepTo(ctx context.Context, p Pruner, target int64, changed bool) bool {
	f.mu.Lock()
	left := 2 * len(f.order.ids)
	f.mu.Unlock()
	for ctx.Err() == nil {
		f.mu.Lock()
		if f.weight <= target {
			f.mu.Unlock()
			return true
		}
		ids, names := f.victims(&left, changed)
		f.mu.Unlock()
		if len(ids) == 0 {
			return false
		}
		if !p.Prune(ids) {
			// An older kernel drops names on demand, even where they are used, which a file doesn't mind.
			for _, n := range names {
				f.inv.InvalidateName(n.parent, n.name)
			}
		}
		f.awaitForgotten(ctx, ids)
	}
	return true
}

// victims takes the next nodes to be forgotten from the queue, which has passed left at most when it returns; names are the places of
// files among them. Hold FS.mu.
func (f *FS) victims(left *int, changed bool) (ids []NodeID, names []named) {
	q := &f.order
	for ; *left > 0 && len(ids) < sweepBatch && len(q.ids) > 0; *left-- {
		id := q.ids[0]
		q.ids = q.ids[1:]
		n := f.nodes[id]
		if n == nil {
			continue
		}
		q.push(id, f.nodes)
		switch {
		case id == RootID || len(n.children) > 0 || n.gone || n.kind < kindDir:
		case n.recent:
			n.recent = false
		case !f.idleNode(n, changed):
		default:
			ids = append(ids, id)
			if n.kind == kindFile {
				names = append(names, named{n.parent.id, n.name, n})
				for _, d := range n.others() {
					names = append(names, named{d.parent.id, d.name, n})
				}
			}
		}
	}
	return ids, names
}

// idleNode reports whether a node is in no use that is known here.
func (f *FS) idleNode(n *node, changed bool) bool {
	if n.state == nil {
		return true
	}
	// Not waited for: who has it may wait for FS.mu.
	if !n.mu.TryLock() {
		return false
	}
	defer n.mu.Unlock()
	return n.writers+n.readers == 0 && n.content == nil && (changed || n.kind != kindDir || n.changed.IsZero())
}

// awaitForgotten waits until most of the nodes are gone, but not for long: the kernel may be using them.
func (f *FS) awaitForgotten(ctx context.Context, ids []NodeID) {
	for begin := time.Now(); ctx.Err() == nil && time.Since(begin) < sweepWait; time.Sleep(time.Millisecond) {
		gone := 0
		f.mu.Lock()
		for _, id := range ids {
			if f.nodes[id] == nil {
				gone++
			}
		}
		f.mu.Unlock()
		if gone*8 >= len(ids)*7 {
			return
		}
	}
}
