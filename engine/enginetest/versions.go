package enginetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func testCommit(t *testing.T, s *suite) {
	s.create()
	root, err := s.Resolve(s.ctx, repo, "main")
	s.ok(err)
	s.write("main", "a", "text")
	c, err := s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "one", Committer: "ada", Metadata: map[string]string{"k": "v"}})
	s.ok(err)
	if c.Message != "one" || c.Committer != "ada" || c.Metadata["k"] != "v" || c.Generation != root.Commit.Generation+1 || !slices.Equal(c.Parents, []graveler.CommitID{root.Commit.ID}) || c.ID != c.ComputeID() {
		t.Errorf("%+v", c)
	}
	s.wants(graveler.NothingToDo, second(s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "two"})))
	e, err := s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "empty", AllowEmpty: true})
	if err != nil || e.MetaRange != c.MetaRange || e.ID == c.ID {
		t.Errorf("%+v %v", e, err)
	}
	// A commit is what it was, whatever comes after it.
	s.write("main", "a", "other")
	if got := s.read(graveler.Ref(c.ID), "a"); got != "text" {
		t.Errorf("%q", got)
	}
	if got := s.read("main@", "a"); got != "text" {
		t.Errorf("%q", got)
	}
}

func testLog(t *testing.T, s *suite) {
	s.create()
	var ids []graveler.CommitID
	for i := range 60 {
		s.touch("main", fmt.Sprintf("d%d/f%d", i%2, i))
		ids = append(ids, s.commit("main", fmt.Sprint(i)).ID)
	}
	slices.Reverse(ids)
	log := func(ref graveler.Ref, q engine.LogQuery) (out []graveler.CommitID) {
		t.Helper()
		for c, err := range s.Log(s.ctx, repo, ref, q) {
			s.ok(err)
			if c.ID != c.ComputeID() {
				t.Errorf("%+v", c)
			}
			out = append(out, c.ID)
		}
		return out
	}
	if got := log("main", engine.LogQuery{}); len(got) != 61 || !slices.Equal(got[:60], ids) {
		t.Errorf("%d commits", len(got))
	}
	if got := log("main~10", engine.LogQuery{Limit: 5}); !slices.Equal(got, ids[10:15]) {
		t.Errorf("%q", got)
	}
	if got := log(graveler.Ref(ids[0]), engine.LogQuery{Path: "d0/f40"}); !slices.Equal(got, ids[19:20]) {
		t.Errorf("%q", got)
	}
	if got := log("main", engine.LogQuery{Path: "d1", Limit: 3}); !slices.Equal(got, []graveler.CommitID{ids[0], ids[2], ids[4]}) {
		t.Errorf("%q", got)
	}
	s.branch("side", "main~1")
	s.touch("side", "side")
	side := s.commit("side", "side")
	m, err := s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "side", Dest: "main"})
	s.ok(err)
	if got := log("main", engine.LogQuery{FirstParent: true, Limit: 2}); !slices.Equal(got, []graveler.CommitID{m.ID, ids[0]}) {
		t.Errorf("%q", got)
	}
	if got := log("main", engine.LogQuery{}); len(got) != 63 || !slices.Contains(got, side.ID) {
		t.Errorf("%d commits", len(got))
	}
	if b, err := s.MergeBase(s.ctx, repo, graveler.Ref(side.ID), graveler.Ref(ids[0])); err != nil || b.ID != ids[1] {
		t.Errorf("%v %v", b.ID, err)
	}
}

func testDiff(t *testing.T, s *suite) {
	s.create()
	s.touch("main", "gone", "same")
	s.write("main", "mod", "1")
	s.commit("main", "base")
	s.branch("dev", "")
	s.remove("dev", "gone")
	s.write("dev", "mod", "2")
	s.write("dev", "new\xff", "3")
	diff := func(l, r graveler.Ref, q engine.DiffQuery) string {
		t.Helper()
		ds, err := gather(s.Diff(s.ctx, repo, l, r, q))
		s.ok(err)
		return letters(ds)
	}
	want := "D gone\nM mod\nA new\xff\n"
	if got := diff("main", "dev", engine.DiffQuery{}); got != want {
		t.Errorf("%q", got)
	}
	ds, err := gather(s.Status(s.ctx, repo, "dev", engine.DiffQuery{}))
	if err != nil || letters(ds) != want {
		t.Errorf("%q %v", letters(ds), err)
	}
	for _, d := range ds {
		if d.Path == "mod" && (d.Left.Size != 1 || d.Right.Size != 1 || d.Left.ETag == d.Right.ETag) {
			t.Errorf("%+v", d)
		}
	}
	if got := diff("main", "dev", engine.DiffQuery{After: "gone", Limit: 1}); got != "M mod\n" {
		t.Errorf("%q", got)
	}
	if got := diff("main", "dev", engine.DiffQuery{Prefix: "n"}); got != "A new\xff\n" {
		t.Errorf("%q", got)
	}
	if got := diff("dev", "main", engine.DiffQuery{}); got != "A gone\nM mod\nD new\xff\n" {
		t.Errorf("%q", got)
	}
	s.commit("dev", "dev")
	s.touch("main", "mine")
	s.commit("main", "mine")
	if got := diff("main", "dev", engine.DiffQuery{}); got != "D gone\nD mine\nM mod\nA new\xff\n" {
		t.Errorf("%q", got)
	}
	if got := diff("main", "dev", engine.DiffQuery{MergeBase: true}); got != want {
		t.Errorf("%q", got)
	}
	// Many, in order.
	var many []string
	for i := range 2500 {
		many = append(many, fmt.Sprintf("many/%04d", i))
	}
	s.touch("dev", many...)
	got, err := gather(s.Status(s.ctx, repo, "dev", engine.DiffQuery{}))
	if err != nil || !slices.EqualFunc(got, many, func(d graveler.Diff, p string) bool { return d.Path == p }) {
		t.Errorf("%d of %d: %v", len(got), len(many), err)
	}
}

func testMerge(t *testing.T, s *suite) {
	s.create()
	s.write("main", "f", "base")
	base := s.commit("main", "base")
	s.branch("dev", "")
	s.write("dev", "g", "dev")
	dev := s.commit("dev", "dev")
	s.touch("main", "staged")
	s.wants(graveler.NotEmpty, second(s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "dev", Dest: "main"})))
	s.ok(s.Reset(s.ctx, repo, "main", ""))
	m, err := s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "dev", Dest: "main", Committer: "ada", Metadata: map[string]string{"k": "v"}})
	if err != nil || m.Message != "Merge 'dev' into 'main'" || m.Committer != "ada" || m.Metadata["k"] != "v" || !slices.Equal(m.Parents, []graveler.CommitID{base.ID, dev.ID}) {
		t.Errorf("%+v %v", m, err)
	}
	if s.read("main", "g") != "dev" || s.read("main", "f") != "base" {
		t.Error("not merged")
	}
	s.wants(graveler.NothingToDo, second(s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "dev", Dest: "main"})))
}

// What conflicts is told whole, and nothing is changed.
func testConflicts(t *testing.T, s *suite) {
	s.create()
	var paths []string
	var cs []graveler.Change
	for i := range 3000 {
		paths = append(paths, fmt.Sprintf("dir/%04d\xff", i))
		cs = append(cs, graveler.Change{Path: paths[i]})
	}
	s.branch("dev", "")
	set := func(b graveler.BranchID, text string) graveler.Commit {
		e := s.put(text)
		for i := range cs {
			cs[i].Entry = e
		}
		s.ok(s.Stage(s.ctx, repo, b, cs))
		s.write(b, "only-"+string(b), "x")
		return s.commit(b, text)
	}
	ours, theirs := set("main", "ours"), set("dev", "theirs")
	_, err := s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "dev", Dest: "main"})
	var mc *graveler.MergeConflict
	if !errors.As(err, &mc) || !slices.Equal(mc.Paths, paths) || mc.More || graveler.KindOf(err) != graveler.Conflict || !strings.Contains(err.Error(), "conflict in dir/0000") {
		t.Fatalf("%.200v", err)
	}
	if _, err := s.CherryPick(s.ctx, engine.PickRequest{Repo: repo, Branch: "main", Ref: "dev"}); !errors.As(err, &mc) || !slices.Equal(mc.Paths, paths) {
		t.Errorf("%.200v", err)
	}
	if r, err := s.Resolve(s.ctx, repo, "main"); err != nil || r.Commit.ID != ours.ID {
		t.Errorf("the branch moved: %v %v", r.Commit.ID, err)
	}
	m, err := s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "dev", Dest: "main", Strategy: graveler.DestWins})
	if err != nil || !slices.Equal(m.Parents, []graveler.CommitID{ours.ID, theirs.ID}) || s.read("main", paths[0]) != "ours" || s.read("main", "only-dev") != "x" {
		t.Errorf("%+v %v", m, err)
	}
	s.ok(second(s.SetHead(s.ctx, repo, "main", graveler.Ref(ours.ID), false)))
	s.ok(second(s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "dev", Dest: "main", Strategy: graveler.SourceWins})))
	if got := s.read("main", paths[2999]); got != "theirs" {
		t.Errorf("%q", got)
	}
	// One side removed what the other changed.
	s.branch("a", graveler.Ref(ours.ID))
	s.branch("b", graveler.Ref(ours.ID))
	s.remove("a", paths[0])
	s.commit("a", "a")
	s.write("b", paths[0], "b")
	s.commit("b", "b")
	if _, err := s.Merge(s.ctx, engine.MergeRequest{Repo: repo, Source: "a", Dest: "b"}); !errors.As(err, &mc) || !slices.Equal(mc.Paths, paths[:1]) {
		t.Errorf("%v", err)
	}
}

func testPick(t *testing.T, s *suite) {
	s.create()
	s.touch("main", "a")
	s.commit("main", "a")
	s.touch("main", "b")
	b := s.commit("main", "b")
	r, err := s.Revert(s.ctx, engine.PickRequest{Repo: repo, Branch: "main", Ref: "main", Committer: "ada"})
	if err != nil || r.Committer != "ada" || !slices.Equal(r.Parents, []graveler.CommitID{b.ID}) {
		t.Errorf("%+v %v", r, err)
	}
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
	s.branch("dev", "main~2")
	p, err := s.CherryPick(s.ctx, engine.PickRequest{Repo: repo, Branch: "dev", Ref: graveler.Ref(b.ID), Message: "picked", Metadata: map[string]string{"k": "v"}})
	if graveler.KindOf(err) != graveler.NothingToDo && err != nil {
		t.Errorf("%+v %v", p, err)
	}
	s.branch("old", "main~3")
	p, err = s.CherryPick(s.ctx, engine.PickRequest{Repo: repo, Branch: "old", Ref: graveler.Ref(b.ID), Message: "picked", Metadata: map[string]string{"k": "v"}})
	if err != nil || p.Message != "picked" || p.Metadata["k"] != "v" {
		t.Errorf("%+v %v", p, err)
	}
	if got := s.paths("old", engine.ListQuery{}); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q", got)
	}
	s.touch("main", "staged")
	s.wants(graveler.NotEmpty, second(s.Revert(s.ctx, engine.PickRequest{Repo: repo, Branch: "main", Ref: "main"})))
}

func testImport(t *testing.T, s *suite) {
	s.create()
	dir := t.TempDir()
	s.ok(os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	for i := range 30 {
		s.ok(os.WriteFile(filepath.Join(dir, "sub", fmt.Sprintf("f%02d", i)), []byte(fmt.Sprint(i)), 0o644))
	}
	var last int64
	n, err := s.Import(s.ctx, engine.ImportRequest{Repo: repo, Branch: "main", Source: "file://" + dir + "/", Dest: "in/"}, func(n int64) { last = n })
	if err != nil || n != 30 || last > 30 {
		t.Errorf("%d %d %v", n, last, err)
	}
	if got := s.paths("main", engine.ListQuery{}); len(got) != 30 || got[7] != "in/sub/f07" {
		t.Errorf("%q", got)
	}
	if got := s.read("main", "in/sub/f07"); got != "7" {
		t.Errorf("%q", got)
	}
	s.commit("main", "imported")
}

func testCare(t *testing.T, s *suite) {
	s.create()
	s.write("main", "a", "kept")
	s.commit("main", "a")
	lost := s.put("lost")
	r, err := s.CollectGarbage(s.ctx, engine.GCRequest{Repo: repo, DryRun: true, Grace: time.Nanosecond})
	if err != nil || r.Deleted != 1 || r.Bytes != 4 || !slices.Equal(r.Addresses, []string{lost.Address}) || r.Live < 1 {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := s.CollectGarbage(s.ctx, engine.GCRequest{Repo: repo}); err != nil || r.Deleted != 0 || r.Kept != 1 {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := s.CollectGarbage(s.ctx, engine.GCRequest{Repo: repo, Grace: time.Nanosecond}); err != nil || r.Deleted != 1 {
		t.Errorf("%+v %v", r, err)
	}
	st, err := s.Objects(s.ctx, repo)
	s.ok(err)
	s.wants(graveler.NotFound, second(st.Stat(s.ctx, lost.Address)))
	if got := s.read("main", "a"); got != "kept" {
		t.Errorf("%q", got)
	}
	problems := func() (n int) {
		for p, err := range s.Check(s.ctx, engine.CheckRequest{Repo: repo, Data: true}) {
			s.ok(err)
			if p.Level == "error" {
				n++
			}
			if p.Place == "" && p.Text == "" {
				t.Error("an empty problem")
			}
		}
		return n
	}
	if n := problems(); n != 0 {
		t.Errorf("%d problems", n)
	}
	e, err := s.Stat(s.ctx, repo, "main", "a")
	s.ok(err)
	s.ok(st.Delete(s.ctx, e.Address))
	if n := problems(); n == 0 {
		t.Error("a lost object isn't seen")
	}
}
