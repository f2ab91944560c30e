package graveler

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

type repo struct {
	commits  map[CommitID]Commit
	branches map[BranchID]Branch
	tags     map[TagID]Tag
}

func (r *repo) CommitByID(id CommitID) (Commit, error) {
	if c, ok := r.commits[id]; ok {
		return c, nil
	}
	return Commit{}, NotFound
}
func (r *repo) BranchByID(id BranchID) (Branch, error) {
	if b, ok := r.branches[id]; ok {
		return b, nil
	}
	return Branch{}, NotFound
}
func (r *repo) TagByID(id TagID) (Tag, error) {
	if t, ok := r.tags[id]; ok {
		return t, nil
	}
	return Tag{}, NotFound
}
func (r *repo) CommitByPrefix(p string) (CommitID, error) {
	var found []CommitID
	for id := range r.commits {
		if len(id) >= len(p) && string(id[:len(p)]) == p {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return "", NotFound
	case 1:
		return found[0], nil
	}
	return "", Invalid
}
func (r *repo) HeadAt(BranchID, time.Time) (CommitID, error) { return "", NotFound }

func (r *repo) add(msg string, parents ...CommitID) CommitID {
	c := Commit{Message: msg, Parents: parents, Created: time.Unix(int64(1000+len(r.commits)), 0), Generation: 1, Version: 1}
	for _, p := range parents {
		c.Generation = max(c.Generation, r.commits[p].Generation+1)
	}
	c.ID = c.ComputeID()
	r.commits[c.ID] = c
	return c.ID
}

func newRepo() *repo {
	return &repo{commits: map[CommitID]Commit{}, branches: map[BranchID]Branch{}, tags: map[TagID]Tag{}}
}

func TestResolve(t *testing.T) {
	r := newRepo()
	a := r.add("a")
	b := r.add("b", a)
	c := r.add("c", a)
	m := r.add("m", b, c)
	r.branches["main"] = Branch{ID: "main", Commit: m}
	r.tags["v1.0"] = Tag{ID: "v1.0", Commit: b}
	for ref, want := range map[Ref]any{
		"main": m, "main@": m, "main~": b, "main~1": b, "main~2": a, "main^": b, "main^2": c, "main^0": m, "main^2~1": a, "v1.0": b, "v1.0~1": a,
		Ref(c): c, Ref(c[:8]): c, Ref(c[:8]) + "~1": a, "main@{1970-01-01T00:16:41Z}": b, "main$": m,
		"none": NotFound, "main~9": NotFound, "main^3": NotFound, "v1.0@": Invalid, "v1.0$": Invalid, "": Invalid, "main~x": Invalid, "main@{": Invalid,
		"main@{soon}": Invalid, "main$~1": Invalid, "-x": Invalid, "a/b": Invalid, "main~99999999999999999999": Invalid, "abcdef": NotFound,
	} {
		got, err := Resolve(r, ref)
		if k, ok := want.(Kind); ok {
			if KindOf(err) != k {
				t.Errorf("%q: %v, want %v", ref, err, k)
			}
		} else if err != nil || got.Commit.ID != want {
			t.Errorf("%q is %.8s %v", ref, got.Commit.ID, err)
		}
	}
	if got, _ := Resolve(r, "main"); got.View != Overlaid {
		t.Error("a branch shows its staging")
	}
	if got, _ := Resolve(r, "main@"); got.View != Committed || got.Branch.ID != "main" {
		t.Error("main@ is committed")
	}
}

// MergeBase on random histories is a common ancestor that no other one is a descendant of.
func TestMergeBase(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		r := newRepo()
		ids := []CommitID{r.add("root")}
		for i := range 20 {
			ps := []CommitID{ids[rnd.IntN(len(ids))]}
			if rnd.IntN(3) == 0 {
				if p := ids[rnd.IntN(len(ids))]; p != ps[0] {
					ps = append(ps, p)
				}
			}
			ids = append(ids, r.add(fmt.Sprint(i), ps...))
		}
		ancestors := func(id CommitID) map[CommitID]bool {
			out := map[CommitID]bool{}
			for c, err := range LogWalk(r, id, false) {
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range c.Parents {
					if out[p] {
						t.Fatal("a parent before its child")
					}
				}
				out[c.ID] = true
			}
			return out
		}
		a, b := ids[rnd.IntN(len(ids))], ids[rnd.IntN(len(ids))]
		base, err := MergeBase(r, a, b)
		if err != nil {
			t.Fatal(err)
		}
		aa, bb := ancestors(a), ancestors(b)
		if !aa[base.ID] || !bb[base.ID] {
			t.Fatal("not a common ancestor")
		}
		for id := range aa {
			if bb[id] && id != base.ID && ancestors(id)[base.ID] {
				t.Fatal("a better one exists")
			}
		}
	}
	r := newRepo()
	if _, err := MergeBase(r, r.add("x"), r.add("y")); !errors.Is(err, NotFound) {
		t.Error(err)
	}
}

func TestOverlay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		want := map[string]Change{}
		var layers []Cursor
		for l := range 1 + rnd.IntN(4) {
			m := map[string]Change{}
			for range rnd.IntN(15) {
				p := fmt.Sprintf("%c%c", 'a'+rnd.IntN(4), 'a'+rnd.IntN(4))
				m[p] = Change{Path: p, Remove: rnd.IntN(3) == 0, Entry: Entry{ETag: fmt.Sprint(l)}}
			}
			var cs []Change
			for _, p := range slices.Sorted(maps.Keys(m)) {
				cs = append(cs, m[p])
				if _, above := want[p]; !above {
					want[p] = m[p]
				}
			}
			layers = append(layers, SliceCursor(cs))
		}
		keys := slices.Sorted(maps.Keys(want))
		c := Visible(Overlay(layers...))
		visible := slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return want[k].Remove })
		var got []string
		for c.Next() {
			ch, err := c.Change()
			if err != nil || ch.Entry.ETag != want[ch.Path].Entry.ETag {
				t.Fatal(ch, err)
			}
			got = append(got, ch.Path)
		}
		if !slices.Equal(got, visible) {
			t.Fatalf("%v, want %v", got, visible)
		}
		for range 10 {
			from := fmt.Sprintf("%c%c", 'a'+rnd.IntN(5), 'a'+rnd.IntN(5))
			i, _ := slices.BinarySearch(visible, from)
			if ok := c.SeekGE(from); ok != (i < len(visible)) || ok && c.Path() != visible[i] {
				t.Fatalf("seek %q", from)
			}
			if i+1 < len(visible) && (!c.Next() || c.Path() != visible[i+1]) {
				t.Fatal("next after a seek")
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlaces(t *testing.T) {
	for s, want := range map[string]Place{
		"repo": {Repo: "repo"}, "repo/@main": {"repo", "main", ""}, "repo/@main/a/b c": {"repo", "main", "a/b c"}, "lakefs://repo/main/x": {"repo", "main", "x"},
		"repo/@main~2/x": {"repo", "main~2", "x"}, "repo/@main@{2026-01-02T03:04:05Z}/x": {"repo", "main@{2026-01-02T03:04:05Z}", "x"}, "repo/": {Repo: "repo"},
	} {
		got, err := ParsePlace(s)
		if err != nil || got != want {
			t.Errorf("%q is %+v %v", s, got, err)
		}
		if again, err := ParsePlace(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q", s, got)
		}
	}
	for _, s := range []string{"", "X", "repo/main", "repo/@", "/repo", "lakefs://", "re", "repo/@a b"} {
		if _, err := ParsePlace(s); !errors.Is(err, Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"main", "main~2^1", "x@{2026-01-01}", "a$", "@", "a@@"} {
		f.Add(s)
	}
	r := newRepo()
	r.branches["main"] = Branch{ID: "main", Commit: r.add("a")}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseRef(Ref(s)); err != nil && !errors.Is(err, Invalid) {
			t.Fatal(err)
		}
		_, _ = Resolve(r, Ref(s))
	})
}

func FuzzParsePlace(f *testing.F) {
	f.Add("repo/@main/x")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePlace(s)
		if err != nil {
			return
		}
		if again, err := ParsePlace(p.String()); err != nil || again != p {
			t.Fatalf("%q → %+v → %q → %+v %v", s, p, p, again, err)
		}
	})
}

func FuzzPermissions(f *testing.F) {
	f.Add(`{"UID":1,"GID":2,"Mode":420}`)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePermissions(s); err == nil {
			if q, err := ParsePermissions(p.String()); err != nil || q != p {
				t.Fatal(p, q, err)
			}
		}
	})
}
