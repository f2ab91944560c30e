package committed

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"

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
}

func newTableWriter(props map[string]string) *tableWriter {
	t := &tableWriter{id: newIDHash(), props: maps.Clone(props)}
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
	if t.count == 0 {
		t.first = key
	}
	t.last = key
	t.count++
	return nil
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
		w.cur = newTableWriter(w.typed(typeRanges))
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
	b, r, err := w.cur.finish()
	w.cur = nil
	if err != nil {
		return err
	}
	w.ranges = append(w.ranges, r)
	w.sum.RangesWritten++
	w.sum.BytesWritten += int64(len(b))
	w.up.Go(func() error { return w.s.put(w.upCtx, string(r.ID), b) })
	return nil
}

// reuse takes a range of another metarange as it is.
func (w *writer) reuse(r RangeInfo) error {
	if err := w.endRange(); err != nil {
		return err
	}
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
	t := newTableWriter(w.typed(typeMetas))
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
	if err := w.s.put(w.ctx, string(r.ID), b); err != nil {
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

func (s *Store) put(ctx context.Context, id string, b []byte) error {
	if _, err := s.objects.Put(ctx, tablePrefix+id, bytes.NewReader(b), object.PutOptions{Size: int64(len(b))}); err != nil {
		return fmt.Errorf("write table %.12s: %w", id, err)
	}
	return nil
}
