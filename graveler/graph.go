package graveler

import (
	"container/heap"
	"fmt"
	"iter"
)

// commitHeap orders commits newest first: by generation, then time, then id. A child always comes before its parents.
type commitHeap []Commit

func (h commitHeap) Len() int { return len(h) }
func (h commitHeap) Less(i, j int) bool {
	a, b := &h[i], &h[j]
	if a.Generation != b.Generation {
		return a.Generation > b.Generation
	}
	if !a.Created.Equal(b.Created) {
		return a.Created.After(b.Created)
	}
	return a.ID < b.ID
}
func (h commitHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *commitHeap) Push(x any)   { *h = append(*h, x.(Commit)) }
func (h *commitHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}

// LogWalk yields the commits reachable from a commit, itself first, children always before their parents.
func LogWalk(s CommitGetter, from CommitID, firstParent bool) iter.Seq2[Commit, error] {
	return func(yield func(Commit, error) bool) {
		seen := map[CommitID]bool{from: true}
		var h commitHeap
		push := func(id CommitID) bool {
			c, err := s.CommitByID(id)
			if err != nil {
				yield(Commit{}, err)
				return false
			}
			heap.Push(&h, c)
			return true
		}
		if !push(from) {
			return
		}
		for h.Len() > 0 {
			c := heap.Pop(&h).(Commit)
			if !yield(c, nil) {
				return
			}
			for i, p := range c.Parents {
				if firstParent && i > 0 {
					break
				}
				if !seen[p] {
					seen[p] = true
					if !push(p) {
						return
					}
				}
			}
		}
	}
}

// MergeBase returns the best common ancestor of two commits: the one of the highest generation that both reach. NotFound
// if they share no history.
func MergeBase(s CommitGetter, a, b CommitID) (Commit, error) {
	const fromA, fromB = 1, 2
	seen := map[CommitID]uint8{}
	var h commitHeap
	reach := func(id CommitID, side uint8) error {
		had := seen[id]
		seen[id] = had | side
		if had != 0 {
			return nil // queued already; its side is read when it is popped
		}
		c, err := s.CommitByID(id)
		if err == nil {
			heap.Push(&h, c)
		}
		return err
	}
	if err := reach(a, fromA); err != nil {
		return Commit{}, err
	}
	if err := reach(b, fromB); err != nil {
		return Commit{}, err
	}
	// Highest generation first: when a commit is popped, all its descendants have been, so its sides are complete.
	for h.Len() > 0 {
		c := heap.Pop(&h).(Commit)
		side := seen[c.ID]
		if side == fromA|fromB {
			return c, nil
		}
		for _, p := range c.Parents {
			if err := reach(p, side); err != nil {
				return Commit{}, err
			}
		}
	}
	return Commit{}, fmt.Errorf("commits %.12s and %.12s share no history: %w", a, b, NotFound)
}

// IsAncestor reports whether a is b or one of its ancestors.
func IsAncestor(s CommitGetter, a, b CommitID) (bool, error) {
	base, err := MergeBase(s, a, b)
	if err != nil {
		if KindOf(err) == NotFound {
			return false, nil
		}
		return false, err
	}
	return base.ID == a, nil
}
