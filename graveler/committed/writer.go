package committed

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/sstable"
	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// memTable is the SSTable writer's output, in memory: a table is small, and its address is known at its end only.
type memTable struct{ bytes.Buffer }

func (m *memTable) Write(p []byte) error { _, err := m.Buffer.Write(p); return err }
func (m *memTable) Finish() error        { return nil }
func (m *memTable) Abort()               {}

// userProps puts a table's user properties in at its end.
type userProps struct{ props map[string]string }

func (*userProps) Add(sstable.InternalKey, []byte) error { return nil }
func (*userProps) Name() string                          { return "lakefs" }
func (u *userProps) Finish(m map[string]string) error    { maps.Copy(m, u.props); return nil }

// tableWriter writes one table.
type tableWriter struct {
	out   memTable
	w     *sstable.Writer
	id    *idHash
	props map[string]string
	first string
	last  string
	count int64
	// The same table as it is kept in memory, nil if it isn't: who writes a table is likely to be the next to read it.
	data *strings.Builder
	offs []uint32
}

// newTableWriter returns a writer that keeps its table if keep, of some size in bytes and records, isn't nil.
func newTableWriter(props map[string]string, keep *table) *tableWriter {
	t := &tableWriter{id: newIDHash(), props: maps.Clone(props)}
	if keep != nil {
		t.data = new(strings.Builder)
		t.data.Grow(len(keep.data) + len(keep.data)/32)
		t.offs = make([]uint32, 0, len(keep.offs)+len(keep.offs)/32)
		t.out.Grow(len(keep.data) / 4) // compressed, about
	}
	t.w = sstable.NewWriter(&t.out, sstable.WriterOptions{
		TableFormat: sstable.TableFormatRocksDBv2,
		Compression: sstable.SnappyCompression,
		TablePropertyCollectors: []func() sstable.TablePropertyCollector{
			func() sstable.TablePropertyCollector { return &userProps{t.props} },
		},
	})
	return t
}

func (t *tableWriter) add(key string, value []byte) error {
	if err := t.w.Set(bytesOf(key), value); err != nil {
		return fmt.Errorf("write record %q: %w", key, err)
	}
	t.id.add(bytesOf(key), value)
	if t.data != nil {
		if t.data.Len()+len(key)+len(value) > math.MaxUint32 {
			t.data, t.offs = nil, nil
		} else {
			t.offs = append(t.offs, uint32(t.data.Len()), uint32(t.data.Len()+len(key)))
			t.data.WriteString(key)
			t.data.Write(value)
		}
	}
	if t.count == 0 {
		t.first = key
	}
	t.last = key
	t.count++
	return nil
}

// table is what was written, after finish; nil if it isn't kept.
func (t *tableWriter) table() *table {
	if t.data == nil {
		return nil
	}
	return &table{data: t.data.String(), offs: append(t.offs, uint32(t.data.Len())), props: t.props}
}

// finish closes the table and returns its bytes and its record.
func (t *tableWriter) finish() ([]byte, RangeInfo, error) {
	r := RangeInfo{MinKey: t.first, MaxKey: t.last, Count: t.count, EstimatedSize: t.w.EstimatedSize(), ID: graveler.RangeID(t.id.sum(t.props))}
	t.props[propMin], t.props[propMax] = t.first, t.last
	t.props[propCount] = strconv.FormatInt(t.count, 10)
	t.props[propSize] = strconv.FormatUint(r.EstimatedSize, 10)
	if err := t.w.Close(); err != nil {
		return nil, RangeInfo{}, fmt.Errorf("finish table: %w", err)
	}
	return t.out.Bytes(), r, nil
}

// writer writes a metarange: its ranges, broken by lakeFS's rule, then its own table. Uploads of finished ranges run beside
// the writing.
type writer struct {
	s      *Store
	ctx    context.Context
	up     *errgroup.Group
	upCtx  context.Context   // ends with the group
	props  map[string]string // caller metadata
	cur    *tableWriter
	ranges []RangeInfo
	sum    Summary
	// keepEmpty writes a metarange of no ranges too, as refs dumps have.
	keepEmpty bool
	// base is the table that is being rewritten: what it becomes is kept in memory, since it is likely to be read and changed
	// again. What is new altogether is not: a large import must not push everything else out.
	base *table
}

func (s *Store) newWriter(ctx context.Context, props map[string]string) *writer {
	up, upCtx := errgroup.WithContext(ctx)
	up.SetLimit(uploads)
	return &writer{s: s, ctx: ctx, up: up, upCtx: upCtx, props: props}
}

func (w *writer) typed(typ string) map[string]string {
	m := map[string]string{propType: typ}
	maps.Copy(m, w.props)
	return m
}

// add writes one record; keys ascend.
func (w *writer) add(key string, value []byte) error {
	if w.cur == nil {
		w.cur = newTableWriter(w.typed(typeRanges), w.base)
	}
	if err := w.cur.add(key, value); err != nil {
		return err
	}
	size := w.cur.w.EstimatedSize()
	if size >= w.s.opt.MinRangeBytes && (size >= w.s.opt.MaxRangeBytes || breaksAfter(key, w.s.opt.Raggedness)) {
		return w.endRange()
	}
	return nil
}

func breaksAfter(key string, raggedness uint64) bool {
	h := fnv.New64a()
	h.Write(bytesOf(key))
	return h.Sum64()%raggedness == 0
}

func (w *writer) endRange() error {
	if w.cur == nil {
		return nil
	}
	cur := w.cur
	b, r, err := cur.finish()
	w.cur, w.base = nil, nil
	if err != nil {
		return err
	}
	w.ranges = append(w.ranges, r)
	w.sum.RangesWritten++
	w.sum.BytesWritten += int64(len(b))
	w.up.Go(func() error { return w.s.put(w.upCtx, string(r.ID), b, cur.table()) })
	return nil
}

// reuse takes a range of another metarange as it is.
func (w *writer) reuse(r RangeInfo) error {
	if err := w.endRange(); err != nil {
		return err
	}
	w.base = nil
	w.ranges = append(w.ranges, r)
	w.sum.RangesReused++
	return nil
}

// finish ends the ranges and writes the metarange. The id is "" if there is no record at all.
func (w *writer) finish() (graveler.MetaRangeID, error) {
	if err := w.endRange(); err != nil {
		w.abort()
		return "", err
	}
	if err := w.up.Wait(); err != nil {
		return "", err
	}
	if len(w.ranges) == 0 && !w.keepEmpty {
		return "", nil
	}
	var keep *table
	if w.s.opt.Tables != nil && !w.keepEmpty {
		keep = new(table)
	}
	t := newTableWriter(w.typed(typeMetas), keep)
	for i := range w.ranges {
		v, err := encodeRange(&w.ranges[i])
		if err != nil {
			return "", err
		}
		if err := t.add(w.ranges[i].MaxKey, v); err != nil {
			return "", err
		}
	}
	b, r, err := t.finish()
	if err != nil {
		return "", err
	}
	w.sum.BytesWritten += int64(len(b))
	if err := w.s.put(w.ctx, string(r.ID), b, t.table()); err != nil {
		return "", err
	}
	return graveler.MetaRangeID(r.ID), nil
}

func (w *writer) abort() {
	if w.cur != nil {
		w.cur.w.Close()
		w.cur = nil
	}
	w.up.Wait()
}

// put writes a table to the object store, and keeps it if t isn't nil.
func (s *Store) put(ctx context.Context, id string, b []byte, t *table) error {
	if _, err := s.objects.Put(ctx, tablePrefix+id, bytes.NewReader(b), object.PutOptions{Size: int64(len(b))}); err != nil {
		return fmt.Errorf("write table %.12s: %w", id, err)
	}
	if t != nil {
		s.opt.Tables.Put(id, t, t.cost())
	}
	return nil
}
