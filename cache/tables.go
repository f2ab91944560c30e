package cache

import "context"

// Tables keeps the parsed tables of one namespace in the memory tier.
type Tables struct {
	c  *Cache
	id uint32
}

// Tables returns the tables of a namespace, named by its URL. It fits graveler/committed's TableCache.
func (c *Cache) Tables(namespace string) *Tables {
	return &Tables{c: c, id: c.id("tables:" + namespace)}
}

// Get returns the table with an id. If it isn't in memory, load is called, once for all who wait for it, and gives its cost
// in bytes; the context that load gets ends when nobody waits any more. Values must not change.
func (t *Tables) Get(ctx context.Context, id string, load func(context.Context) (value any, cost int64, err error)) (any, error) {
	k := key{store: t.id, address: id, index: tableIndex}
	if it := t.c.mem.get(k); it != nil {
		t.c.memHits.Add(1)
		return it.val, nil
	}
	f := t.c.tables.join(t.c.ctx, &t.c.wg, k, func(ctx context.Context) (any, error) {
		if it := t.c.mem.get(k); it != nil { // loaded in between
			return it.val, nil
		}
		val, cost, err := load(ctx)
		if err != nil {
			return nil, err
		}
		t.c.mem.put(&item{key: k, val: val, cost: cost + itemCost})
		return val, nil
	})
	v, err := t.c.tables.wait(ctx, k, f)
	if err != nil {
		return nil, kinded(err)
	}
	return v, nil
}

// Put keeps a table that was not loaded but made, of a cost in bytes. It must not change.
func (t *Tables) Put(id string, value any, cost int64) {
	k := key{store: t.id, address: id, index: tableIndex}
	t.c.mem.put(&item{key: k, val: value, cost: cost + itemCost})
}

// Has reports whether the table with an id is in memory.
func (t *Tables) Has(id string) bool {
	return t.c.mem.get(key{store: t.id, address: id, index: tableIndex}) != nil
}
