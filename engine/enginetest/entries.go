package enginetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// A name is any bytes but NUL.
func testNames(t *testing.T, s *suite) {
	s.create()
	var all []byte
	for b := 1; b < 256; b++ {
		if b != '/' {
			all = append(all, byte(b))
		}
	}
	want := []string{string(all), "dir/\xff\x01 name\n", "\xc3\x28", "über/ß", strings.Repeat("long/", 3000) + "x"}
	slices.Sort(want)
	for i, p := range want {
		s.write("main", p, fmt.Sprint(i))
	}
	check := func(ref graveler.Ref) {
		t.Helper()
		if got := s.paths(ref, engine.ListQuery{}); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		for i, p := range want {
			if got := s.read(ref, p); got != fmt.Sprint(i) {
				t.Errorf("%q holds %q", p, got)
			}
		}
	}
	check("main")
	ds, err := gather(s.Status(s.ctx, repo, "main", engine.DiffQuery{}))
	s.ok(err)
	for i, d := range ds {
		if d.Path != want[i] || d.Type != graveler.Added {
			t.Errorf("%q %v, want %q", d.Path, d.Type, want[i])
		}
	}
	c := s.commit("main", "names")
	check(graveler.Ref(c.ID))
	f, err := s.Lookup(s.ctx, repo, "main", "dir")
	if err != nil || f.HasObject || !f.HasPrefix || f.HasMarker {
		t.Errorf("%+v %v", f, err)
	}
}

func testList(t *testing.T, s *suite) {
	s.create()
	var want []string
	for i := range 3000 { // several parts of a stream
		want = append(want, fmt.Sprintf("d%d/f%04d", i%3, i))
	}
	s.touch("main", want...)
	s.touch("main", "d1/", "empty/", "x", "x/y")
	want = append(want, "d1/", "empty/", "x", "x/y")
	slices.Sort(want)
	for _, ref := range []graveler.Ref{"main", graveler.Ref(func() graveler.CommitID { return s.commit("main", "all").ID }())} {
		if got := s.paths(ref, engine.ListQuery{}); !slices.Equal(got, want) {
			t.Errorf("%d paths of %d", len(got), len(want))
		}
		var top []string
		for l, err := range s.List(s.ctx, repo, ref, engine.ListQuery{Delimiter: "/"}) {
			s.ok(err)
			top = append(top, fmt.Sprint(l.Path, l.Prefix, l.HasMarker))
		}
		if fmt.Sprint(top) != "[d0/true false d1/true true d2/true false empty/true true xfalse false x/true false]" && fmt.Sprint(top) != "[d0/truefalse d1/truetrue d2/truefalse empty/truetrue xfalsefalse x/truefalse]" {
			t.Errorf("%q", top)
		}
		// Pages give what one list gives, with and without a delimiter.
		for _, q := range []engine.ListQuery{{Limit: 700}, {Limit: 2, Delimiter: "/"}, {Limit: 333, Prefix: "d1/", Delimiter: "/"}} {
			whole := q
			whole.Limit = 0
			all, paged := s.paths(ref, whole), []string(nil)
			for {
				page := s.paths(ref, q)
				if paged = append(paged, page...); len(page) < q.Limit {
					break
				}
				q.After = page[len(page)-1]
			}
			if !slices.Equal(all, paged) || len(all) == 0 {
				t.Errorf("%+v: %d by pages, %d at once", q, len(paged), len(all))
			}
		}
		if got := s.paths(ref, engine.ListQuery{Prefix: "d1/", Delimiter: "/"}); len(got) != 1000 {
			t.Errorf("%d entries: the marker of the prefix isn't one", len(got))
		}
		n := 0
		for _, err := range s.List(s.ctx, repo, ref, engine.ListQuery{}) {
			s.ok(err)
			if n++; n == 20 {
				break
			}
		}
		if got := s.paths(ref, engine.ListQuery{Prefix: "none"}); len(got) != 0 {
			t.Errorf("%q", got)
		}
	}
	f, err := s.Lookup(s.ctx, repo, "main", "x")
	if err != nil || !f.HasObject || !f.HasPrefix || f.HasMarker {
		t.Errorf("%+v %v", f, err)
	}
	f, err = s.Lookup(s.ctx, repo, "main", "empty")
	if err != nil || f.HasObject || !f.HasPrefix || !f.HasMarker {
		t.Errorf("%+v %v", f, err)
	}
	f, err = s.Lookup(s.ctx, repo, "main", "none")
	if err != nil || f.HasObject || f.HasPrefix || f.HasMarker {
		t.Errorf("%+v %v", f, err)
	}
	if f, err := s.Lookup(s.ctx, repo, "main", ""); err != nil || !f.HasPrefix {
		t.Errorf("%+v %v", f, err)
	}
	s.ok(second(s.Stat(s.ctx, repo, "main", "d1/")))
	s.wants(graveler.NotFound, second(s.Stat(s.ctx, repo, "main", "d0/")))
}

func testStage(t *testing.T, s *suite) {
	s.create()
	s.write("main", "a", "old")
	s.commit("main", "a")
	e := s.put("new")
	s.ok(s.Stage(s.ctx, repo, "main", []graveler.Change{{Path: "a", Entry: e}, {Path: "b", Entry: e}, {Path: "none", Remove: true}}))
	if s.read("main", "a") != "new" || s.read("main", "b") != "new" || s.read("main@", "a") != "old" {
		t.Error("not as staged")
	}
	// All or none.
	s.wants(graveler.Invalid, s.Stage(s.ctx, repo, "main", []graveler.Change{{Path: "c", Entry: e}, {Path: ""}}))
	s.wants(graveler.NotFound, second(s.Stat(s.ctx, repo, "main", "c")))
	s.remove("main", "a")
	s.wants(graveler.NotFound, second(s.Stat(s.ctx, repo, "main", "a")))
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q", got)
	}
	ds, err := gather(s.Status(s.ctx, repo, "main", engine.DiffQuery{}))
	if err != nil || letters(ds) != "D a\nA b\n" {
		t.Errorf("%q %v", letters(ds), err)
	}
	// What is staged as it was changes nothing.
	s.ok(s.Reset(s.ctx, repo, "main", ""))
	en, err := s.Stat(s.ctx, repo, "main", "a")
	s.ok(err)
	s.ok(s.Stage(s.ctx, repo, "main", []graveler.Change{{Path: "a", Entry: en}}))
	if ds, err := gather(s.Status(s.ctx, repo, "main", engine.DiffQuery{})); err != nil || len(ds) != 0 {
		t.Errorf("%+v %v", ds, err)
	}
	s.ok(s.Sync(s.ctx))
	s.ok(s.Stage(s.ctx, repo, "main", nil))
}

// More than any message holds is staged in one step.
func testStageMany(t *testing.T, s *suite) {
	s.create()
	long := strings.Repeat("x", 900)
	cs := make([]graveler.Change, 20_000)
	for i := range cs {
		cs[i].Path = fmt.Sprintf("%05d/%s", i, long)
	}
	s.ok(s.Stage(s.ctx, repo, "main", cs))
	n := 0
	for l, err := range s.List(s.ctx, repo, "main", engine.ListQuery{}) {
		s.ok(err)
		if l.Path != cs[n].Path {
			t.Fatalf("%d: %.20q", n, l.Path)
		}
		n++
	}
	if n != len(cs) {
		t.Errorf("%d of %d", n, len(cs))
	}
	cs = append(cs, graveler.Change{Path: "new"}, graveler.Change{Path: ""})
	s.wants(graveler.Invalid, s.Stage(s.ctx, repo, "main", cs))
	s.wants(graveler.NotFound, second(s.Stat(s.ctx, repo, "main", "new")))
}

func testMove(t *testing.T, s *suite) {
	s.create()
	s.touch("main", "a/1", "a/2/3", "ab", "b/old")
	s.commit("main", "x")
	s.touch("main", "a/4")
	s.ok(s.Move(s.ctx, repo, "main", "a/", "b/"))
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"ab", "b/1", "b/2/3", "b/4"}) {
		t.Errorf("%q", got)
	}
	s.wants(graveler.Invalid, s.Move(s.ctx, repo, "main", "b/", "b/c/"))
	s.wants(graveler.Invalid, s.Move(s.ctx, repo, "main", "b", "c"))
	s.touch("main", "c")
	s.ok(s.Exchange(s.ctx, repo, "main", "b/", "c"))
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"ab", "b", "c/1", "c/2/3", "c/4"}) {
		t.Errorf("%q", got)
	}
	s.wants(graveler.NotFound, s.Exchange(s.ctx, repo, "main", "ab", "none"))
	s.wants(graveler.Invalid, s.Exchange(s.ctx, repo, "main", "c/", "c/1"))
}

func testReset(t *testing.T, s *suite) {
	s.create()
	s.touch("main", "a", "d/1")
	s.commit("main", "x")
	s.touch("main", "d/2", "d", "e")
	s.remove("main", "a", "d/1")
	s.ok(s.Reset(s.ctx, repo, "main", "d"))
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"d/1", "e"}) {
		t.Errorf("%q", got)
	}
	s.ok(s.Reset(s.ctx, repo, "main", ""))
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"a", "d/1"}) {
		t.Errorf("%q", got)
	}
}

// All that an entry has comes back, staged and committed.
func testAttributes(t *testing.T, s *suite) {
	s.create()
	e := s.put("text")
	e.Modified = time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	e.Home = 77
	e.Changed, e.Accessed = time.Date(1969, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	e.Metadata, e.ContentType, e.Inode = map[string]string{"mode": "33188", "k": ""}, "text/plain", 1<<63+5
	s.ok(s.Stage(s.ctx, repo, "main", []graveler.Change{{Path: "f", Entry: e}}))
	for _, ref := range []graveler.Ref{"main", graveler.Ref(s.commit("main", "f").ID)} {
		for i := range 3 {
			var got graveler.Entry
			switch i {
			case 0:
				var err error
				got, err = s.Stat(s.ctx, repo, ref, "f")
				s.ok(err)
			case 1:
				f, err := s.Lookup(s.ctx, repo, ref, "f")
				s.ok(err)
				got = f.Object
			case 2:
				for l, err := range s.List(s.ctx, repo, ref, engine.ListQuery{}) {
					s.ok(err)
					got = l.Entry
				}
			}
			if got.Address != e.Address || got.AddressType != e.AddressType || !got.Modified.Equal(e.Modified) || got.Size != e.Size || got.ETag != e.ETag ||
				!maps.Equal(got.Metadata, e.Metadata) || got.ContentType != e.ContentType || got.Inode != e.Inode || got.Home != e.Home || !got.Changed.Equal(e.Changed) || !got.Accessed.Equal(e.Accessed) {
				t.Errorf("%s %d: %+v, want %+v", ref, i, got, e)
			}
		}
	}
}
