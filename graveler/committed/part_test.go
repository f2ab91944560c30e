package committed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// partStore is a store of local files with a commit of n entries in directories of 100, in few ranges.
func partStore(t testing.TB, n int) (s *Store, id graveler.MetaRangeID, paths []string, dir string) {
	t.Helper()
	dir = t.TempDir()
	st, err := object.Open(t.Context(), "file://"+dir, object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s = New(st, Options{Tables: &mapCache{m: map[string]any{}}, Raggedness: 5000})
	var cs []graveler.Change
	for i := range n {
		p := fmt.Sprintf("dir%04d/file%07d", i/100, i)
		paths = append(paths, p)
		cs = append(cs, graveler.Change{Path: p, Entry: entryOf(p)})
	}
	if id, _, err = s.Apply(t.Context(), "", graveler.SliceCursor(cs)); err != nil {
		t.Fatal(err)
	}
	return s, id, paths, dir
}

// anew is the same store with nothing in its cache.
func (s *Store) anew() *Store {
	opt := s.opt
	opt.Tables = &mapCache{m: map[string]any{}}
	n := New(s.objects, opt)
	n.manyRanges = s.manyRanges
	return n
}

// wholes is how many ranges are held whole.
func (s *Store) wholes() (n int) {
	c := s.opt.Tables.(*mapCache)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.m {
		if t, ok := v.(*table); ok && t.props[propType] == typeRanges {
			n++
		}
	}
	return n
}

// A walk by random seeks and steps, in parts, gives what is there.
func TestPartsAgreeWithModel(t *testing.T) {
	s, id, paths, _ := partStore(t, 30_000)
	t.Run("near", func(t *testing.T) { agreeWithModel(t, s, id, paths) })
	s, id, paths, _ = farStore(t)
	t.Run("far", func(t *testing.T) { agreeWithModel(t, s, id, paths) })
}

func agreeWithModel(t *testing.T, s *Store, id graveler.MetaRangeID, paths []string) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s = s.anew()
		c, err := s.Cursor(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		at, ok := -1, false
		for range 300 {
			if r.IntN(3) == 0 {
				key := paths[r.IntN(len(paths))]
				switch r.IntN(4) {
				case 0:
					key = key[:len("dir0000")]
				case 1:
					key += "x"
				case 2:
					key = "e"
				}
				at = sort.SearchStrings(paths, key)
				ok = c.SeekGE(key)
			} else {
				for range 1 + r.IntN(40) {
					at = min(at+1, len(paths))
					ok = c.Next()
				}
			}
			if ok != (at < len(paths)) {
				t.Fatalf("seed %d: at %d: %v, %v", seed, at, ok, c.Err())
			}
			if !ok {
				at, ok = 0, c.SeekGE("")
			}
			if c.Path() != paths[at] {
				t.Fatalf("seed %d: at %q, want %q", seed, c.Path(), paths[at])
			}
			if r.IntN(2) == 0 {
				if ch, err := c.Change(); err != nil || ch.Path != paths[at] || ch.Entry.ETag != entryOf(paths[at]).ETag {
					t.Fatalf("seed %d: change at %q is %+v, %v", seed, paths[at], ch, err)
				}
			}
		}
		for range 50 {
			p := paths[r.IntN(len(paths))]
			if e, err := s.Get(t.Context(), id, p); err != nil || e.ETag != entryOf(p).ETag {
				t.Fatalf("Get(%q) = %+v, %v", p, e, err)
			}
			if _, err := s.Get(t.Context(), id, p+"x"); !errors.Is(err, graveler.NotFound) {
				t.Fatalf("Get of nothing: %v", err)
			}
		}
	}
}

// Looking for the directories, or at one path, reads no range whole; a walk does, and each once.
func TestLooksReadNoRangeWhole(t *testing.T) {
	s, id, paths, _ := partStore(t, 100_000)
	rs, err := s.Ranges(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	s = s.anew()
	c, err := s.Cursor(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	dirs := 0
	for ok := c.SeekGE(""); ok; dirs++ {
		d, _, _ := strings.Cut(c.Path(), "/")
		ok = c.SeekGE(d + "0")
	}
	if dirs != 1000 || c.Err() != nil {
		t.Fatalf("%d directories, %v", dirs, c.Err())
	}
	small := 0
	for _, r := range rs {
		if r.Count < minPart || r.Count/partShare < (r.Count/100+1)*(seekSpends+firstWindow) {
			small++
		}
	}
	if n := s.wholes(); n > small {
		t.Errorf("%d ranges of %d were read whole to list the directories; %d are small", n, len(rs), small)
	}
	s = s.anew()
	if _, err := s.Get(t.Context(), id, paths[50_000]); err != nil || s.wholes() > 1 {
		t.Errorf("a Get read %d ranges whole, %v", s.wholes(), err)
	}
	s = s.anew()
	if c, err = s.Cursor(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n := 0
	for c.Next() {
		if _, err := c.Change(); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != len(paths) || c.Err() != nil || s.wholes() != len(rs) {
		t.Errorf("a walk met %d entries, read %d ranges of %d whole, %v", n, s.wholes(), len(rs), c.Err())
	}
}

// A table in which any byte is wrong never gives a wrong record in parts: the blocks' checksums see it, or the byte is of no use.
func TestDamagedPart(t *testing.T) {
	s, id, paths, dir := partStore(t, 3000)
	rs, err := s.Ranges(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	r := &rs[0]
	if r.Count < minPart {
		t.Fatalf("a range of %d", r.Count)
	}
	name := filepath.Join(dir, tablePrefix+string(r.ID))
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	seen := 0
	for i := range 400 {
		bad := append([]byte(nil), good...)
		at := rnd.IntN(len(bad))
		if i < 150 {
			at = len(bad) - 1 - i*len(bad)/3000 // the end has the index and the footer
		}
		bad[at] ^= byte(1 + rnd.IntN(255))
		if err := os.WriteFile(name, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		s = s.anew()
		for range 5 {
			p := paths[rnd.IntN(int(r.Count))]
			e, err := s.Get(t.Context(), id, p)
			switch {
			case err == nil && e.ETag != entryOf(p).ETag, errors.Is(err, graveler.NotFound):
				t.Fatalf("byte %d wrong: Get(%q) = %+v, %v", at, p, e, err)
			case err != nil && !errors.Is(err, graveler.Corrupt):
				t.Fatalf("byte %d wrong: %v", at, err)
			case err != nil:
				seen++
			}
		}
	}
	if seen == 0 {
		t.Error("no damage was seen")
	}
}

// A store that fails says so, and the read succeeds when it is well again.
func TestPartOfFailingStore(t *testing.T) {
	s, id, paths, _ := partStore(t, 3000)
	if _, err := s.Ranges(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f := objecttest.NewFaultyLocal(s.objects.(object.Local), 1, objecttest.Faults{FailOneIn: 1})
	if s = New(f, s.opt); !s.near() {
		t.Fatal("not read in parts")
	}
	s.opt.Tables.(*mapCache).dropRanges()
	if _, err := s.Get(t.Context(), id, paths[10]); !errors.Is(err, graveler.Unavailable) {
		t.Errorf("Get = %v, want Unavailable", err)
	}
	f.Set(objecttest.Faults{})
	if _, err := s.Get(t.Context(), id, paths[10]); err != nil {
		t.Error(err)
	}
	f.Set(objecttest.Faults{FailOneIn: 1})
	if _, err := s.Get(t.Context(), id, paths[1999]); !errors.Is(err, graveler.Unavailable) {
		t.Errorf("Get from a part = %v, want Unavailable", err)
	}
}

// dropRanges forgets all but metaranges.
func (c *mapCache) dropRanges() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, v := range c.m {
		if t, ok := v.(*table); !ok || t.props[propType] == typeRanges {
			delete(c.m, id)
		}
	}
}

func FuzzPart(f *testing.F) {
	s, id, paths, dir := partStore(f, 1500)
	rs, err := s.Ranges(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	name := filepath.Join(dir, tablePrefix+string(rs[0].ID))
	b, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[len(b)-4096:])
	f.Fuzz(func(t *testing.T, tail []byte) {
		bad := append(append([]byte(nil), b[:max(0, len(b)-len(tail))]...), tail...)
		if err := os.WriteFile(name, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if e, err := s.anew().Get(t.Context(), id, paths[700]); err == nil && e.ETag == "" {
			t.Fatalf("%+v", e)
		}
	})
}
