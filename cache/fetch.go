package cache

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// whole is all bytes of an object.
type whole struct{ data []byte }

// Write appends bytes, up to the capacity that the object was announced with.
func (w *whole) Write(p []byte) (int, error) {
	w.data = append(w.data, p[:min(len(p), cap(w.data)-len(w.data))]...)
	return len(p), nil
}

// join returns the flight that brings a chunk from the disk or the store.
func (s *store) join(o object.Object, k key) *flight[*item] {
	return s.chunks.join(s.ctx, &s.wg, k, func(ctx context.Context) (*item, error) {
		// Another flight may have ended since the caller looked.
		if it := s.c.mem.get(k); it != nil && fits(o, it) {
			return it, nil
		}
		if it := s.fromDisk(o, k); it != nil {
			return it, nil
		}
		return s.fetchChunk(ctx, o, k)
	})
}

// itemOf is a chunk of an object's bytes, not copied.
func itemOf(k key, data []byte) *item {
	from := min(int64(k.index)*chunkBytes, int64(len(data)))
	to := min(from+chunkBytes, int64(len(data)))
	return &item{key: k, data: data[from:to:to], last: to == int64(len(data)), cost: to - from + itemCost}
}

func (s *store) fromDisk(o object.Object, k key) *item {
	if s.c.disk == nil || s.url == "" {
		return nil
	}
	data, last, ok := s.c.disk.get(fileKeyOf(s.url, k))
	if !ok {
		return nil
	}
	it := &item{key: k, data: data, last: last, cost: int64(cap(data)) + itemCost}
	if !fits(o, it) {
		return nil
	}
	s.c.diskHits.Add(1)
	s.toMemory(it)
	return it
}

// toMemory keeps a chunk in memory. Those of tables only where the disk has them not: in memory a table is kept as what it
// was parsed into.
func (s *store) toMemory(it *item) {
	if !it.key.full && isTable(it.key.address) && s.onDisk(it.key) {
		return
	}
	s.c.mem.put(it)
}

func (s *store) toDisk(it *item) {
	if s.c.disk != nil && s.url != "" {
		s.c.disk.put(fileKeyOf(s.url, it.key), it.data, it.last)
	}
}

func (s *store) onDisk(k key) bool {
	return s.c.disk != nil && s.url != "" && s.c.disk.has(fileKeyOf(s.url, k))
}

// keepWhole keeps an object's chunks, but for what is kept already. Data stays the caller's.
func (s *store) keepWhole(k key, data []byte) {
	var its []*item
	for i := int64(0); i*chunkBytes < int64(len(data)); i++ {
		k.index = int32(i)
		it := itemOf(k, data)
		if len(data) > chunkBytes || cap(data) > len(data) {
			it.data = bytes.Clone(it.data) // a kept chunk must not hold on to the rest
		}
		its = append(its, it)
	}
	if !k.full && isTable(k.address) {
		for _, it := range its {
			s.toDisk(it)
			s.toMemory(it)
		}
		return
	}
	for _, it := range its {
		s.toMemory(it)
	}
	s.later(func() {
		for _, it := range its {
			s.toDisk(it)
		}
	})
}

// later writes to disk what no reader need wait for; Close waits. When too much is waiting already, the caller waits too.
func (s *store) later(do func()) {
	if s.c.disk == nil {
		return
	}
	select {
	case s.c.writers <- struct{}{}:
		s.wg.Go(func() {
			do()
			<-s.c.writers
		})
	default:
		do()
	}
}

// fetch reads from the store, as one of few at a time.
func (s *store) fetch(ctx context.Context, o object.Object, p []byte, off int64) (int, error) {
	select {
	case s.c.slots <- struct{}{}:
		defer func() { <-s.c.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	fctx, cancel := context.WithTimeout(ctx, s.c.opt.FetchTimeout)
	defer cancel()
	n, err := s.Store.ReadAt(fctx, o, p, off)
	s.c.fetches.Add(1)
	s.c.fetchedBytes.Add(int64(n))
	if err != nil && ctx.Err() == nil && errors.Is(fctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("the store did not answer within %v: %w", s.c.opt.FetchTimeout, graveler.Timeout)
	}
	return n, err
}

// fetchExactly fills p, which o has the bytes for. An answer that is too short is asked for once more.
func (s *store) fetchExactly(ctx context.Context, o object.Object, p []byte, off int64) error {
	for again := false; ; again = true {
		n, err := s.fetch(ctx, o, p, off)
		if n == len(p) && (err == nil || err == io.EOF) {
			return nil
		}
		if err == nil || err == io.EOF {
			err = fmt.Errorf("the store has %d bytes where %d were written; restore the object: %w", off+int64(n), o.Size, graveler.Corrupt)
		}
		if again || graveler.KindOf(err) != graveler.Corrupt {
			return err
		}
	}
}

func (s *store) fetchChunk(ctx context.Context, o object.Object, k key) (*item, error) {
	data := make([]byte, chunkLen(o, k.index))
	off := int64(k.index) * chunkBytes
	if err := s.fetchExactly(ctx, o, data, off); err != nil {
		return nil, err
	}
	it := &item{key: k, data: data, last: off+int64(len(data)) == o.Size, cost: int64(len(data)) + itemCost}
	s.toMemory(it)
	s.later(func() { s.toDisk(it) })
	return it, nil
}

// fetchWhole brings a whole object and keeps its chunks.
func (s *store) fetchWhole(ctx context.Context, o object.Object, k key, want int64) (*whole, error) {
	data, err := s.fetchVerified(ctx, o, k, want)
	if err != nil {
		return nil, err
	}
	s.keepWhole(k, data)
	return &whole{data: data}, nil
}

func (s *store) fetchVerified(ctx context.Context, o object.Object, k key, want int64) ([]byte, error) {
	if !k.full && isTable(o.Address) {
		return s.fetchTable(ctx, o, want)
	}
	data := make([]byte, o.Size)
	var before string
	for {
		if err := s.fetchExactly(ctx, o, data, 0); err != nil {
			return nil, err
		}
		sum := md5.Sum(data)
		got := hex.EncodeToString(sum[:])
		if got == o.MD5 {
			return data, nil
		}
		if before == "" {
			before = got
			continue
		}
		if got == before && s.opaqueTag(ctx, o) {
			return data, nil
		}
		s.c.corrupt.Add(1)
		return nil, wrongSum(got, o.MD5)
	}
}

func wrongSum(got, want string) error {
	return fmt.Errorf("the store's bytes have MD5 %s, those written had %s; restore the object: %w", got, want, graveler.Corrupt)
}

// opaqueTag reports whether the store says that what o.MD5 is is no checksum.
func (s *store) opaqueTag(ctx context.Context, o object.Object) bool {
	t, ok := s.Store.(object.Tagger)
	if !ok {
		return false
	}
	yes, err := t.OpaqueTag(ctx, o)
	return yes && err == nil
}

const (
	// firstTable is what is asked for first of a table, whose length isn't known, unless its reader asks for more: most are shorter.
	firstTable = 4 << 20
	// maxTable bounds a table, so that a wrong object can't fill the memory. lakeFS's end at 20 MiB.
	maxTable = 1 << 30
)

func (s *store) fetchTable(ctx context.Context, o object.Object, want int64) ([]byte, error) {
	if o.Size >= 0 {
		data := make([]byte, o.Size)
		return data, s.fetchExactly(ctx, o, data, 0)
	}
	buf := make([]byte, min(max(firstTable, want), maxTable))
	for n := 0; ; {
		m, err := s.fetch(ctx, o, buf[n:], int64(n))
		n += m
		if err == io.EOF {
			return bytes.Clone(buf[:n]), nil
		}
		if err != nil {
			return nil, err
		}
		if n >= maxTable {
			return nil, fmt.Errorf("it is larger than any table: %w", graveler.Corrupt)
		}
		buf = append(buf, make([]byte, 3*len(buf))...)
	}
}
