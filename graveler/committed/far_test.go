package committed

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// farStore is a store that isn't local, with a commit of entries in 400 directories, in some ranges of more than a megabyte.
func farStore(t testing.TB) (s *Store, id graveler.MetaRangeID, paths []string, counting *objecttest.Counting) {
	t.Helper()
	st, err := object.Open(t.Context(), "file://"+t.TempDir(), object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	counting = objecttest.NewCounting(st)
	s = New(counting, Options{Tables: &mapCache{m: map[string]any{}}, Raggedness: 1 << 30, MaxRangeBytes: 2 << 20})
	s.manyRanges = 2
	var cs []graveler.Change
	for i := range 80_000 {
		p := fmt.Sprintf("dir%04d/file%07d", i/200, i)
		paths = append(paths, p)
		e := entryOf(p)
		e.Metadata = map[string]string{"n": fmt.Sprintf("%016x%016x%016x", rand.Uint64(), rand.Uint64(), rand.Uint64())} // not to be compressed
		cs = append(cs, graveler.Change{Path: p, Entry: e})
	}
	if id, _, err = s.Apply(t.Context(), "", graveler.SliceCursor(cs)); err != nil {
		t.Fatal(err)
	}
	rs, err := s.Ranges(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	large := 0
	for i := range rs {
		if s.inParts(&rs[i]) {
			large++
		}
	}
	if large < 2 {
		t.Fatalf("%d of %d ranges are large", large, len(rs))
	}
	return s, id, paths, counting
}

// On an object store a look into a large range costs two requests and little of its bytes; many looks cost no more than some of them and
// the whole; and a walk one a range, and two for the first that it finds out at.
func TestFarLooks(t *testing.T) {
	s, id, paths, counting := farStore(t)
	rs, err := s.Ranges(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for i := range rs {
		size += int64(rs[i].EstimatedSize)
	}
	begin := func() {
		s = s.anew()
		if _, err := s.Ranges(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		counting.Reset()
	}

	begin()
	if _, err := s.Get(t.Context(), id, paths[len(paths)/2]); err != nil {
		t.Fatal(err)
	}
	if got := counting.Counts(); got.Reads != 2 || got.Stats != 0 || got.BytesRead > 300_000 {
		t.Errorf("a look: %+v", got)
	}
	if n := s.wholes(); n != 0 {
		t.Errorf("%d ranges are held whole", n)
	}

	// As ls does in a directory of directories.
	begin()
	c, err := s.Cursor(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	dirs := 0
	for ok := c.SeekGE(""); ok; dirs++ {
		ok = c.SeekGE(c.Path()[:len("dir0000")] + "0")
	}
	if dirs != 400 || c.Err() != nil {
		t.Fatalf("%d directories, %v", dirs, c.Err())
	}
	for i := range rs { // those that are run ahead of may still be on their way
		s.look(t.Context(), &rs[i], rs[i].MinKey, 1)
	}
	if got, most := counting.Counts(), int64(len(rs))*(2+1+2+2); got.Reads > most {
		t.Errorf("looks at %d directories: %+v, want at most %d requests", dirs, got, most)
	}

	begin()
	if c, err = s.Cursor(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; c.Next(); n++ {
		if ch, err := c.Change(); err != nil || ch.Path != paths[n] {
			t.Fatalf("record %d is %+v, %v", n, ch, err)
		}
	}
	if got := counting.Counts(); n != len(paths) || got.Reads > int64(len(rs)+2) || got.Stats != 0 || got.BytesRead > size*5/4 {
		t.Errorf("a walk of %d records in %d ranges of %d bytes: %+v", n, len(rs), size, got)
	}

	// Of a commit of fewer ranges a range is read whole.
	begin()
	s.manyRanges = len(rs) + 1
	if _, err := s.Get(t.Context(), id, paths[len(paths)/2]); err != nil || s.wholes() != 1 {
		t.Errorf("a look at a small commit: %v, %d ranges whole, %+v", err, s.wholes(), counting.Counts())
	}
	s.manyRanges = 2

	// A commit goes through what it touches.
	begin()
	p := paths[len(paths)/2]
	if _, _, err := s.Apply(t.Context(), id, graveler.SliceCursor([]graveler.Change{{Path: p, Entry: entryOf("another")}})); err != nil {
		t.Fatal(err)
	}
	if got := counting.Counts(); got.Reads != 1 {
		t.Errorf("a commit of one change: %+v", got)
	}
}

// A far range that ends otherwise than its metarange lets expect is found out by another request; a short one is damaged.
func TestFarRangeOfAnotherSize(t *testing.T) {
	s, id, paths, counting := farStore(t)
	rs, err := s.Ranges(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, estimate := range []uint64{0, rs[0].EstimatedSize / 2, rs[0].EstimatedSize + 50<<20} {
		s = s.anew()
		counting.Reset()
		r := rs[0]
		r.EstimatedSize = estimate
		sp, err := s.openSpan(t.Context(), &r)
		if err != nil {
			t.Fatal(err)
		}
		i, err := s.objects.Stat(t.Context(), tablePrefix+string(r.ID))
		if err != nil || sp.size != i.Size {
			t.Errorf("by an estimate of %d the range has %d bytes, it has %d, %v", estimate, sp.size, i.Size, err)
		}
	}
	if _, err := s.Get(t.Context(), id, paths[0]); err != nil {
		t.Error(err)
	}
}
