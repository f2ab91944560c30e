package cache

import (
	"container/list"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// key names a chunk of an object, or a table.
type key struct {
	store   uint32 // see Cache.id
	full    bool   // address is a URL
	address string
	md5     string
	index   int32 // of the chunk; wholeIndex or tableIndex
}

// Indexes that are no chunk's.
const (
	wholeIndex = -1 - iota
	tableIndex
)

// item is what the memory keeps. It never changes.
type item struct {
	key  key
	data []byte // of a chunk
	last bool   // no chunk comes after this one
	val  any    // of a table
	cost int64  // bytes
}

// itemCost is what an item costs besides its bytes: itself, its key, and its place in the maps.
const itemCost = 256

// windowShare is the part of the memory that keeps what was used last, whatever it is. The rest is ristretto's, which admits
// what is used often; alone it would refuse a new chunk that is just being read.
const windowShare = 4

// memory is the memory tier.
type memory struct {
	seed maphash.Seed
	main *ristretto.Cache[uint64, *item]

	mu     sync.Mutex // guards the fields below
	window map[key]*list.Element
	recent list.List // of *item, the last used first
	used   int64
	limit  int64
}

func newMemory(bytes int64) (*memory, error) {
	m := &memory{seed: maphash.MakeSeed(), window: map[key]*list.Element{}, limit: bytes / windowShare}
	var err error
	m.main, err = ristretto.NewCache(&ristretto.Config[uint64, *item]{
		NumCounters:        max(1000, bytes/1024), // ten times as many as there can be small objects of some KiB
		MaxCost:            bytes - m.limit,
		BufferItems:        64,
		IgnoreInternalCost: true, // itemCost has it
	})
	if err != nil {
		return nil, fmt.Errorf("cache: %v: %w", err, graveler.Invalid)
	}
	return m, nil
}

func (m *memory) hash(k key) uint64 {
	h := maphash.String(m.seed, k.address)
	h ^= (uint64(k.store)<<32 | uint64(uint32(k.index))) * 0x9e3779b97f4a7c15
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>32
}

// get returns an item, nil if it isn't there.
func (m *memory) get(k key) *item {
	m.mu.Lock()
	if e := m.window[k]; e != nil {
		m.recent.MoveToFront(e)
		m.mu.Unlock()
		return e.Value.(*item)
	}
	m.mu.Unlock()
	// Ristretto knows a hash only; the item knows its key.
	if it, ok := m.main.Get(m.hash(k)); ok && it.key == k {
		return it
	}
	return nil
}

// put keeps an item. What falls out of the window goes to ristretto.
func (m *memory) put(it *item) {
	if it.cost > m.limit {
		m.admit(it)
		return
	}
	m.mu.Lock()
	if e := m.window[it.key]; e != nil {
		m.used += it.cost - e.Value.(*item).cost
		e.Value = it
		m.recent.MoveToFront(e)
	} else {
		m.window[it.key] = m.recent.PushFront(it)
		m.used += it.cost
	}
	var out []*item
	for m.used > m.limit {
		old := m.recent.Remove(m.recent.Back()).(*item)
		delete(m.window, old.key)
		m.used -= old.cost
		out = append(out, old)
	}
	m.mu.Unlock()
	for _, old := range out {
		m.admit(old)
	}
}

// admit offers an item to ristretto, and waits until it is decided: else what waits for the decision would count nowhere.
func (m *memory) admit(it *item) {
	if it.cost <= m.main.MaxCost() && m.main.Set(m.hash(it.key), it, it.cost) {
		m.main.Wait()
	}
}

// bytes is the cost of all that is kept.
func (m *memory) bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used + m.main.MaxCost() - m.main.RemainingCost()
}

func (m *memory) close() { m.main.Close() }
