package nfs

import (
	"slices"
	"sync"
)

// stripes are locks of nodes, fewer than there are nodes.
type stripes [256]sync.Mutex

// lock locks one or two nodes, in one order for all.
func (s *stripes) lock(nodes []*node) func() {
	var at []int
	for _, n := range nodes {
		i := int(uint64(n.id) * 0x9e3779b97f4a7c15 >> 56)
		if !slices.Contains(at, i) {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	for _, i := range at {
		s[i].Lock()
	}
	return func() {
		for _, i := range at {
			s[i].Unlock()
		}
	}
}
