package history

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// step is one of a history that is written down: from when to when, 0 for never answered.
type step struct {
	from, to int64
	in, out  any
}

func record(steps []step) *Recorder {
	r := New(time.Now())
	for i, s := range steps {
		if s.to == 0 {
			r.Open(i, s.from, s.in)
		} else {
			r.Add(i, s.from, s.to, s.in, s.out)
		}
	}
	return r
}

// Each wrong history is one that a broken cluster gives; the right ones are what only looks so.
func TestRegisters(t *testing.T) {
	put := func(from, to int64, v string) step { return step{from, to, Put{"k", v}, Done{}} }
	get := func(from, to int64, v string) step { return step{from, to, Get{"k"}, Value(v)} }
	for _, c := range []struct {
		name  string
		right bool
		steps []step
	}{
		{"nothing", true, []step{get(1, 2, "")}},
		{"in order", true, []step{put(1, 2, "a"), get(3, 4, "a"), put(5, 6, "b"), get(7, 8, "b")}},
		{"a lost write", false, []step{put(1, 2, "a"), get(3, 4, "")}},
		{"a stale read", false, []step{put(1, 2, "a"), put(3, 4, "b"), get(5, 6, "a")}},
		{"a read during a write", true, []step{put(1, 2, "a"), put(3, 8, "b"), get(4, 5, "a"), get(6, 7, "b")}},
		{"a write undone", false, []step{put(1, 2, "a"), put(3, 8, "b"), get(4, 5, "b"), get(6, 7, "a")}},
		{"a write that nobody made", false, []step{put(1, 2, "a"), get(3, 4, "x")}},
		{"a removed value that comes back", false, []step{put(1, 2, "a"), put(3, 4, ""), get(5, 6, ""), get(7, 8, "a")}},
		{"an unknown write that was made", true, []step{put(1, 2, "a"), put(3, 0, "b"), get(5, 6, "b")}},
		{"an unknown write that was not", true, []step{put(1, 2, "a"), put(3, 0, "b"), get(5, 6, "a")}},
		{"an unknown write that is made late", true, []step{put(1, 2, "a"), put(3, 0, "b"), get(5, 6, "a"), get(7, 8, "b")}},
		{"an unknown write that is made twice", false, []step{put(1, 2, "a"), put(3, 0, "b"), get(5, 6, "b"), put(7, 8, "c"), get(9, 10, "c"), get(11, 12, "b")}},
		{"an unknown write before it was asked for", false, []step{get(1, 2, "b"), put(3, 0, "b")}},
	} {
		vs := CheckRegisters(record(c.steps), time.Minute)
		if len(vs) != 1 || vs[0].Right() != c.right || vs[0].Undecided() {
			t.Errorf("%s: %+v", c.name, vs)
		}
		if !c.right && !strings.Contains(vs[0].Story, "client 0") {
			t.Errorf("%s has no story: %q", c.name, vs[0].Story)
		}
	}
}

func TestObjectsByThemselves(t *testing.T) {
	r := record([]step{
		{1, 2, Put{"a", "1"}, Done{}}, {1, 2, Put{"b", "2"}, Done{}}, {3, 4, Get{"a"}, Value("1")}, {3, 4, Get{"b"}, Value("1")},
	})
	vs := CheckRegisters(r, time.Minute)
	if len(vs) != 2 || !vs[0].Right() || vs[1].Right() || vs[1].Object != "b" || vs[1].Steps != 2 {
		t.Errorf("%+v", vs)
	}
}

func TestRefs(t *testing.T) {
	create := func(from, to int64, ref int, c string, out any) step {
		return step{from, to, Create{Group: "g", Ref: ref, Commit: c}, out}
	}
	del := func(from, to int64, ref int, out any) step { return step{from, to, Delete{"g", ref}, out} }
	set := func(from, to int64, ref int, c string, out any) step { return step{from, to, Set{"g", ref, c}, out} }
	ren := func(from, to int64, a, b int, out any) step { return step{from, to, Rename{"g", a, b}, out} }
	get := func(from, to int64, ref int, c string) step { return step{from, to, Resolve{"g", ref}, Value(c)} }
	list := func(from, to int64, refs ...string) step {
		var r Refs
		copy(r[:], refs)
		return step{from, to, ListRefs{"g"}, r}
	}
	done, exists, none := Done{}, Exists{}, NotFound{}
	for _, c := range []struct {
		name  string
		right bool
		steps []step
	}{
		{"a life", true, []step{create(1, 2, 0, "a", done), create(3, 4, 0, "b", exists), set(5, 6, 0, "c", done), get(7, 8, 0, "c"), ren(9, 10, 0, 1, done), list(11, 12, "", "c", ""), del(13, 14, 1, done), del(15, 16, 1, none), list(17, 18)}},
		{"two that both made it", false, []step{create(1, 5, 0, "a", done), create(2, 6, 0, "b", done)}},
		{"two, one made it", true, []step{create(1, 5, 0, "a", exists), create(2, 6, 0, "b", done), get(7, 8, 0, "b")}},
		{"a tag made again", true, []step{create(1, 2, 0, "a", done), {3, 4, Create{"g", 0, "a", true}, done}, {3, 4, Create{"g", 0, "b", true}, exists}}},
		{"a tag made anew", false, []step{create(1, 2, 0, "a", done), {3, 4, Create{"g", 0, "b", true}, done}}},
		{"two that both removed it", false, []step{create(1, 2, 0, "a", done), del(3, 5, 0, done), del(3, 5, 0, done)}},
		{"a retry that meets itself", false, []step{create(1, 4, 0, "a", exists), get(5, 6, 0, "a")}},
		{"a lost ref", false, []step{create(1, 2, 0, "a", done), get(3, 4, 0, "")}},
		{"a ref that comes back", false, []step{create(1, 2, 0, "a", done), del(3, 4, 0, done), get(5, 6, 0, "a")}},
		{"a move undone", false, []step{create(1, 2, 0, "a", done), set(3, 4, 0, "b", done), get(5, 6, 0, "a")}},
		{"a move of what is not there", false, []step{set(1, 2, 0, "a", done)}},
		{"a half rename in a listing", false, []step{create(1, 2, 0, "a", done), ren(3, 8, 0, 1, done), list(4, 5, "a", "a", "")}},
		{"a rename over another", false, []step{create(1, 2, 0, "a", done), create(1, 2, 1, "b", done), ren(3, 4, 0, 1, done)}},
		{"an unknown create", true, []step{create(1, 0, 0, "a", nil), create(3, 4, 0, "b", exists), get(5, 6, 0, "a")}},
		{"an unknown create that was not", true, []step{create(1, 0, 0, "a", nil), create(3, 4, 0, "b", done), get(5, 6, 0, "b")}},
		{"an unknown delete made twice", false, []step{create(1, 2, 0, "a", done), del(3, 0, 0, nil), create(4, 5, 0, "b", done), get(6, 7, 0, "")}},
		{"an unknown delete made late", true, []step{create(1, 2, 0, "a", done), del(3, 0, 0, nil), set(4, 5, 0, "b", done), get(6, 7, 0, "")}},
	} {
		if vs := CheckRefs(record(c.steps), time.Minute); len(vs) != 1 || vs[0].Right() != c.right || vs[0].Undecided() {
			t.Errorf("%s: %+v", c.name, vs)
		}
	}
}

func TestChain(t *testing.T) {
	commit := func(from, to int64, m, id, parent string) step {
		return step{from, to, Commit{"b", m}, Committed{id, parent}}
	}
	head := func(from, to int64, id string) step { return step{from, to, Head{"b"}, Value(id)} }
	l := func(ms ...string) (log []Logged) { // message and id are the same letter
		for i, m := range ms {
			p := "0"
			if i+1 < len(ms) {
				p = ms[i+1]
			}
			log = append(log, Logged{ID: m, Parent: p, Message: m})
		}
		return log
	}
	for _, c := range []struct {
		name  string
		steps []step
		log   []Logged
		wrong string // "" is right, "order" the verdict
	}{
		{"in order", []step{commit(1, 2, "a", "a", "0"), head(3, 4, "a"), commit(5, 6, "b", "b", "a")}, l("b", "a"), ""},
		{"concurrent", []step{commit(1, 6, "a", "a", "b"), commit(2, 5, "b", "b", "0"), head(3, 4, "b")}, l("a", "b"), ""},
		{"unanswered, made", []step{commit(1, 0, "a", "", ""), commit(3, 4, "b", "b", "a")}, l("b", "a"), ""},
		{"unanswered, not made", []step{commit(1, 0, "a", "", ""), commit(3, 4, "b", "b", "0")}, l("b"), ""},
		{"nothing", nil, nil, ""},
		{"lost", []step{commit(1, 2, "a", "a", "0"), commit(3, 4, "b", "b", "0")}, l("b"), "is lost"},
		{"twice", []step{commit(1, 2, "a", "a", "0")}, []Logged{{"x", "a", "a"}, {"a", "0", "a"}}, "committed twice"},
		{"another id", []step{commit(1, 2, "a", "z", "0")}, l("a"), "was answered with"},
		{"of nobody", []step{commit(1, 2, "a", "a", "0")}, l("b", "a"), "nobody asked"},
		{"another parent", []step{commit(1, 2, "a", "a", "0"), commit(1, 2, "b", "b", "a")}, []Logged{{"b", "0", "b"}, {"a", "0", "a"}}, "comes before it"},
		{"a stale head", []step{commit(1, 2, "a", "a", "0"), head(3, 4, "0")}, l("a"), "order"},
		{"a head before its commit", []step{head(1, 2, "a"), commit(3, 4, "a", "a", "0")}, l("a"), "order"},
		{"made before what came before it", []step{commit(1, 2, "b", "b", "a"), commit(3, 4, "a", "a", "0")}, l("b", "a"), "order"},
		{"an unanswered one, seen and gone", []step{commit(1, 0, "a", "", ""), head(3, 4, "a"), head(5, 6, "0")}, l("a"), "order"},
	} {
		v, wrong := CheckChain(record(c.steps), "b", "0", c.log, time.Minute)
		said := strings.Join(wrong, "\n")
		if !v.Right() {
			said += "order"
		}
		if c.wrong == "" && said != "" || c.wrong != "" && !strings.Contains(said, c.wrong) {
			t.Errorf("%s: %q, want %q; %+v", c.name, said, c.wrong, v)
		}
	}
}

// A long history with many open steps is judged in time, and one wrong read among them is found.
func TestLong(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		r := New(time.Now())
		at, last := int64(0), ""
		for i := range 3000 {
			at += 4
			v := fmt.Sprint(i)
			if i%100 == 0 {
				r.Open(1, at, Put{"k", "open" + v})
				continue
			}
			r.Add(0, at, at+1, Put{"k", v}, Done{})
			if wrong && i == 2550 {
				r.Add(2, at+2, at+3, Get{"k"}, Value(last))
			} else {
				r.Add(2, at+1, at+3, Get{"k"}, Value(v))
			}
			last = v
		}
		vs := CheckRegisters(r, time.Minute)
		if len(vs) != 1 || vs[0].Undecided() || vs[0].Right() == wrong {
			t.Errorf("wrong %v: %v", wrong, vs[0].Result)
		}
		if all, open := r.Len(); open != 30 || all < 3000 {
			t.Errorf("%d, %d open", all, open)
		}
	}
}
