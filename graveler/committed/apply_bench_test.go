package committed

import (
	"fmt"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// bulk is n changes, as those of a data set's files.
func bulk(n int) []graveler.Change {
	cs := make([]graveler.Change, n)
	for i := range cs {
		cs[i] = graveler.Change{Path: fmt.Sprintf("data/part-%04d/file-%07d.parquet", i/1000, i), Entry: graveler.Entry{
			Address: fmt.Sprintf("data/gdc5gc8pksduekqt3u4v/%020d", i), AddressType: graveler.AddressRelative, Size: int64(i),
			ETag: fmt.Sprintf("%032x", uint64(i)*0x9e3779b97f4a7c15), Modified: time.Unix(int64(i), 0),
		}}
	}
	return cs
}

// BenchmarkApplyAll writes 30,000 new entries.
func BenchmarkApplyAll(b *testing.B) {
	s := memStore(b, Options{})
	cs := bulk(30_000)
	for b.Loop() {
		if _, _, err := s.Apply(b.Context(), "", graveler.SliceCursor(cs)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApplyOne changes one entry among 30,000, again and again.
func BenchmarkApplyOne(b *testing.B) {
	s := memStore(b, Options{})
	cs := bulk(30_000)
	id := mustApply(b, s, "", cs)
	n := 0
	for b.Loop() {
		n++
		c := cs[15_000]
		c.Entry.ETag = fmt.Sprintf("%032x", n)
		var err error
		if id, _, err = s.Apply(b.Context(), id, graveler.SliceCursor([]graveler.Change{c})); err != nil {
			b.Fatal(err)
		}
	}
}
