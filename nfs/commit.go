package nfs

import (
	"context"
	"slices"
	"sync"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// A commit never changes. So a handle of a file in it tells the part of the commit's entries that has the path, and a hash of the path:
// who has to find the file reads that part, some tens of thousands of paths at most, and needs to know nothing else. The parts that were
// read last are kept.

// commits is what is known of commits' parts.
type commits struct {
	mu    sync.Mutex
	cuts  map[version][]string
	parts [partsKept]*part
	next  int
}

const (
	cutsKept  = 256
	partsKept = 8
)

// part is where the paths of one part are, by hash.
type part struct {
	v     version
	slot  uint32
	once  sync.Once
	err   error
	paths map[[12]byte]string
}

func (t *tree) cuts(ctx context.Context, v version) ([]string, error) {
	c := &t.commits
	c.mu.Lock()
	cuts, ok := c.cuts[v]
	c.mu.Unlock()
	if ok {
		return cuts, nil
	}
	cuts, err := t.fs.Cuts(ctx, v.repo, v.ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cuts == nil || len(c.cuts) >= cutsKept {
		c.cuts = map[version][]string{}
	}
	c.cuts[v] = cuts
	return cuts, nil
}

// slotOf is the part of a commit that a path is in, or the first path below it.
func (t *tree) slotOf(ctx context.Context, v version, key string) (uint32, error) {
	cuts, err := t.cuts(ctx, v)
	i, _ := slices.BinarySearch(cuts, key)
	return uint32(i), err
}

// inCommit finds what a handle names in a commit.
func (t *tree) inCommit(ctx context.Context, v version, root vfs.NodeID, h *handle) (vfs.NodeID, error) {
	cuts, err := t.cuts(ctx, v)
	if err != nil {
		return 0, err
	}
	if int64(h.slot) >= int64(len(cuts)) {
		return 0, statusStale
	}
	p := t.commits.part(v, h.slot)
	p.once.Do(func() { p.err = t.readPart(ctx, p, cuts) })
	if p.err != nil {
		t.commits.forget(p)
		return 0, p.err
	}
	path, ok := p.paths[h.path]
	if !ok {
		return 0, statusStale
	}
	return t.walk(ctx, root, path)
}

// part returns a part that is kept, or room for it.
func (c *commits) part(v version, slot uint32) *part {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.parts {
		if p != nil && p.v == v && p.slot == slot {
			return p
		}
	}
	p := &part{v: v, slot: slot}
	c.parts[c.next] = p
	c.next = (c.next + 1) % partsKept
	return p
}

func (c *commits) forget(p *part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, o := range c.parts {
		if o == p {
			c.parts[i] = nil
		}
	}
}

func (t *tree) readPart(ctx context.Context, p *part, cuts []string) error {
	after := ""
	if p.slot > 0 {
		after = cuts[p.slot-1]
	}
	p.paths = map[[12]byte]string{}
	return t.fs.ScanPart(ctx, p.v.repo, p.v.ref, after, cuts[p.slot], func(n vfs.Numbered) bool {
		key := n.Path
		if n.Dir {
			key += "/"
		}
		p.paths[pathHash(key)] = n.Path
		return true
	})
}
