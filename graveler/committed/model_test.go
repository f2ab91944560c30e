package committed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

type tree map[string]string // path → etag

func entryOf(etag string) graveler.Entry {
	return graveler.Entry{Address: "data/" + etag, AddressType: graveler.AddressRelative, Size: int64(len(etag)), ETag: etag}
}

// mapCache keeps every table.
type mapCache struct {
	mu sync.Mutex
	m  map[string]any
}

func (c *mapCache) Get(ctx context.Context, id string, load func(context.Context) (any, int64, error)) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.m[id]; ok {
		return v, nil
	}
	v, _, err := load(ctx)
	if err == nil {
		c.m[id] = v
	}
	return v, err
}

func (c *mapCache) Put(id string, value any, _ int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[id] = value
}

func (c *mapCache) Has(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.m[id]
	return ok
}

func memStore(t testing.TB, opt Options) *Store {
	st, err := object.Open(t.Context(), "mem://"+strings.ReplaceAll(t.Name(), "/", "-"), object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	opt.Tables = &mapCache{m: map[string]any{}}
	return New(st, opt)
}

func randomPath(r *rand.Rand) string {
	return fmt.Sprintf("%c/%c%d", 'a'+r.IntN(4), 'a'+r.IntN(3), r.IntN(60))
}

func randomChanges(r *rand.Rand, n int) []graveler.Change {
	m := map[string]graveler.Change{}
	for range n {
		p := randomPath(r)
		m[p] = graveler.Change{Path: p, Remove: r.IntN(3) == 0, Entry: entryOf(fmt.Sprint("v", r.IntN(3)))}
	}
	var cs []graveler.Change
	for _, p := range slices.Sorted(maps.Keys(m)) {
		cs = append(cs, m[p])
	}
	return cs
}

func (tr tree) apply(cs []graveler.Change) tree {
	out := maps.Clone(tr)
	for _, c := range cs {
		if c.Remove {
			delete(out, c.Path)
		} else {
			out[c.Path] = c.Entry.ETag
		}
	}
	return out
}

func readTree(t testing.TB, s *Store, id graveler.MetaRangeID) tree {
	t.Helper()
	c, err := s.Cursor(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	out := tree{}
	last := ""
	for c.Next() {
		ch, err := c.Change()
		if err != nil {
			t.Fatal(err)
		}
		if ch.Path <= last {
			t.Fatalf("%q after %q", ch.Path, last)
		}
		last = ch.Path
		out[ch.Path] = ch.Entry.ETag
	}
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	return out
}

func mustApply(t testing.TB, s *Store, base graveler.MetaRangeID, cs []graveler.Change) graveler.MetaRangeID {
	t.Helper()
	id, _, err := s.Apply(t.Context(), base, graveler.SliceCursor(cs))
	if err != nil && !errors.Is(err, graveler.NothingToDo) {
		t.Fatal(err)
	}
	return id
}

// Apply, Diff, seeks and Get agree with maps, over metaranges of many small ranges.
func TestAgainstModel(t *testing.T) {
	s := memStore(t, Options{Raggedness: 5})
	r := rand.New(rand.NewPCG(1, 2))
	type version struct {
		id graveler.MetaRangeID
		tr tree
	}
	versions := []version{{"", tree{}}}
	for range 150 {
		base := versions[r.IntN(len(versions))]
		cs := randomChanges(r, 1+r.IntN(40))
		want := base.tr.apply(cs)
		id, sum, err := s.Apply(t.Context(), base.id, graveler.SliceCursor(cs))
		if maps.Equal(want, base.tr) {
			if !errors.Is(err, graveler.NothingToDo) || id != base.id {
				t.Fatalf("no change gave %v, %v", id, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := readTree(t, s, id); !maps.Equal(got, want) {
			t.Fatalf("apply: got %v want %v", got, want)
		}
		if int(sum.Added-sum.Removed) != len(want)-len(base.tr) {
			t.Fatalf("summary %+v for %d → %d entries", sum, len(base.tr), len(want))
		}
		v := version{id, want}
		versions = append(versions, v)
		for range 20 {
			p := randomPath(r)
			e, err := s.Get(t.Context(), id, p)
			if tag, ok := want[p]; ok != (err == nil) || ok && e.ETag != tag || !ok && !errors.Is(err, graveler.NotFound) {
				t.Fatalf("get %q: %v %v, want %q %v", p, e, err, tag, ok)
			}
		}
		c, _ := s.Cursor(t.Context(), id)
		keys := slices.Sorted(maps.Keys(want))
		for range 20 {
			p := randomPath(r)
			i, _ := slices.BinarySearch(keys, p)
			if ok := c.SeekGE(p); ok != (i < len(keys)) || ok && c.Path() != keys[i] {
				t.Fatalf("seek %q", p)
			}
			if i+1 < len(keys) && (!c.Next() || c.Path() != keys[i+1]) {
				t.Fatalf("next after seek %q", p)
			}
		}
	}
	t.Run("diffs", func(t *testing.T) {
		for range 200 {
			a, b := versions[r.IntN(len(versions))], versions[r.IntN(len(versions))]
			d, err := s.Diff(t.Context(), a.id, b.id)
			if err != nil {
				t.Fatal(err)
			}
			got := a.tr
			got = maps.Clone(got)
			from := randomPath(r)
			if r.IntN(2) == 0 {
				from = ""
			}
			for ok := d.SeekGE(from); ok; ok = d.Next() {
				df, err := d.Diff()
				if err != nil {
					t.Fatal(err)
				}
				if df.Type == graveler.Removed {
					delete(got, df.Path)
				} else {
					got[df.Path] = df.Right.ETag
				}
			}
			want := maps.Clone(b.tr)
			for k := range want {
				if k < from {
					delete(want, k)
				}
			}
			for k := range got {
				if k < from {
					delete(got, k)
				}
			}
			if d.Err() != nil || !maps.Equal(got, want) {
				t.Fatalf("diff from %q: %v: got %v want %v", from, d.Err(), got, want)
			}
		}
	})
	t.Run("merges", func(t *testing.T) {
		merged := 0
		for range 300 {
			base := versions[r.IntN(len(versions))]
			ours := base.tr.apply(randomChanges(r, 6))
			theirs := base.tr.apply(randomChanges(r, 6))
			o, th := s.build(t, ours), s.build(t, theirs)
			strategy := graveler.MergeStrategy(r.IntN(3))
			want, conflicts := mergeModel(base.tr, theirs, ours, strategy)
			id, err := s.Merge(t.Context(), base.id, th, o, strategy)
			var mc *graveler.MergeConflict
			switch {
			case len(conflicts) > 0:
				if !errors.As(err, &mc) || !slices.Equal(mc.Paths, conflicts) {
					t.Fatalf("conflicts %v, want %v", err, conflicts)
				}
				continue
			case errors.Is(err, graveler.NothingToDo):
				id = o
			case err != nil:
				t.Fatal(err)
			}
			merged++
			if got := readTree(t, s, id); !maps.Equal(got, want) {
				t.Fatalf("merge: got %v want %v", got, want)
			}
		}
		if merged < 50 {
			t.Fatalf("only %d merges without a conflict", merged)
		}
	})
}

func (s *Store) build(t testing.TB, tr tree) graveler.MetaRangeID {
	var cs []graveler.Change
	for _, p := range slices.Sorted(maps.Keys(tr)) {
		cs = append(cs, graveler.Change{Path: p, Entry: entryOf(tr[p])})
	}
	return mustApply(t, s, "", cs)
}

func mergeModel(base, source, dest tree, strategy graveler.MergeStrategy) (tree, []string) {
	out := maps.Clone(dest)
	paths := map[string]bool{}
	for _, m := range []tree{base, source, dest} {
		for p := range m {
			paths[p] = true
		}
	}
	var conflicts []string
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		b, s, d := base[p], source[p], dest[p]
		if s == b || s == d {
			continue
		}
		if d != b {
			if strategy == graveler.MergeDefault {
				conflicts = append(conflicts, p)
				continue
			}
			if strategy == graveler.DestWins {
				continue
			}
		}
		if s == "" {
			delete(out, p)
		} else {
			out[p] = s
		}
	}
	return out, conflicts
}

// A change of one entry reads the metarange and one range, and writes the same; the rest is shared.
func TestApplyCostFollowsChange(t *testing.T) {
	s := memStore(t, Options{Raggedness: 200})
	var cs []graveler.Change
	for i := range 20_000 {
		cs = append(cs, graveler.Change{Path: fmt.Sprintf("dir%03d/file%05d", i/100, i), Entry: entryOf("x")})
	}
	base := mustApply(t, s, "", cs)
	_, sum, err := s.Apply(t.Context(), base, graveler.SliceCursor([]graveler.Change{{Path: cs[9999].Path, Entry: entryOf("y")}}))
	if err != nil {
		t.Fatal(err)
	}
	if sum.RangesWritten > 2 || sum.RangesReused < 50 {
		t.Fatalf("one change wrote %+v", sum)
	}
}

// A table that was cut, or whose bytes changed, is refused with words.
func TestDamagedTables(t *testing.T) {
	s := memStore(t, Options{})
	id := s.build(t, tree{"a": "1", "b/c": "2", "d": "3"})
	rs, err := s.Ranges(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := readAll(t.Context(), s.objects, object.Object{Address: tablePrefix + string(rs[0].ID)}, new([]byte(make([]byte, 4096))))
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := parseTable(string(rs[0].ID), b[:n]); !errors.Is(err, graveler.Corrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		d := slices.Clone(b)
		d[n] ^= 0x55
		if tb, err := parseTable(string(rs[0].ID), d); err == nil {
			if tb.len() != 3 || tb.key(1) != "b/c" {
				t.Fatalf("flip at %d went unseen", n)
			}
		} else if !errors.Is(err, graveler.Corrupt) {
			t.Fatalf("flip at %d: %v", n, err)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	s := memStore(f, Options{})
	id := s.build(f, tree{"a": "1", "b": "2"})
	b, _ := readAll(f.Context(), s.objects, object.Object{Address: tablePrefix + string(id)}, new([]byte(make([]byte, 4096))))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseTable(string(id), b) })
}

func FuzzValue(f *testing.F) {
	f.Add([]byte("\x06abc\x04de"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, data, err := splitValue(string(b))
		if err != nil {
			return
		}
		i2, d2, err := splitValue(string(appendValue(nil, []byte(id), []byte(data))))
		if err != nil || i2 != id || d2 != data {
			t.Fatal("round trip")
		}
		if e, err := DecodeEntry([]byte(data)); err == nil {
			if _, err := EncodeEntry(&e); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = DecodeCommit([]byte(data))
		_, _ = decodeRange("k", string(b))
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"commits_meta_range_id":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseManifest(b) })
}
