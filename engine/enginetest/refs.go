package enginetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func testBranches(t *testing.T, s *suite) {
	s.create()
	list := func(q engine.RefQuery) []string {
		t.Helper()
		bs, err := s.ListBranches(s.ctx, repo, q)
		s.ok(err)
		var out []string
		for _, b := range bs {
			out = append(out, string(b.ID))
		}
		return out
	}
	var want []string
	for i := range 50 { // more than the first part of a stream
		id := fmt.Sprintf("b%02d", i)
		want = append(want, id)
		s.branch(graveler.BranchID(id), "main")
	}
	b, err := s.CreateBranch(s.ctx, engine.CreateBranch{Repo: repo, ID: "hid", Hidden: true})
	if err != nil || !b.Hidden || b.ID != "hid" || b.Commit == "" {
		t.Errorf("%+v %v", b, err)
	}
	if got := list(engine.RefQuery{}); !slices.Equal(got, append(slices.Clone(want), "main")) {
		t.Errorf("%q", got)
	}
	if got := list(engine.RefQuery{Prefix: "h"}); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if got := list(engine.RefQuery{Prefix: "h", Hidden: true}); !slices.Equal(got, []string{"hid"}) {
		t.Errorf("%q", got)
	}
	if got := list(engine.RefQuery{Prefix: "b", After: "b10", Limit: 3}); !slices.Equal(got, want[11:14]) {
		t.Errorf("%q", got)
	}
	var paged []string
	for after := ""; ; {
		page := list(engine.RefQuery{After: after, Limit: 7})
		if paged = append(paged, page...); len(page) < 7 {
			break
		}
		after = page[6]
	}
	if !slices.Equal(paged, append(slices.Clone(want), "main")) {
		t.Errorf("%q", paged)
	}

	s.touch("b00", "f")
	s.wants(graveler.NotEmpty, s.DeleteBranch(s.ctx, repo, "b00", false))
	s.wants(graveler.Exists, s.RenameBranch(s.ctx, repo, "b00", "b01"))
	s.ok(s.RenameBranch(s.ctx, repo, "b00", "new"))
	s.wants(graveler.NotFound, second(s.Resolve(s.ctx, repo, "b00")))
	if got := s.paths("new", engine.ListQuery{}); !slices.Equal(got, []string{"f"}) {
		t.Errorf("%q", got)
	}
	s.ok(s.DeleteBranch(s.ctx, repo, "new", true))
	s.wants(graveler.NotFound, second(s.Resolve(s.ctx, repo, "new")))
	s.ok(s.DeleteBranch(s.ctx, repo, "b01", false))
	s.ok(s.RenameBranch(s.ctx, repo, "main", "trunk"))
	if r, err := s.Repository(s.ctx, repo); err != nil || r.DefaultBranch != "trunk" {
		t.Errorf("%+v %v", r, err)
	}
	s.wants(graveler.Protected, s.DeleteBranch(s.ctx, repo, "trunk", true))
}

func testHeads(t *testing.T, s *suite) {
	s.create()
	s.touch("main", "a")
	one := s.commit("main", "one")
	s.touch("main", "b")
	two := s.commit("main", "two")
	b, err := s.SetHead(s.ctx, repo, "main", "main~1", false)
	if err != nil || b.Commit != one.ID {
		t.Errorf("%+v %v", b, err)
	}
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
	s.touch("main", "c")
	s.wants(graveler.NotEmpty, second(s.SetHead(s.ctx, repo, "main", graveler.Ref(two.ID), false)))
	s.ok(second(s.SetHead(s.ctx, repo, "main", graveler.Ref(two.ID), true)))
	if got := s.paths("main", engine.ListQuery{}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	s.wants(graveler.NotFound, second(s.SetHead(s.ctx, repo, "main", "none", true)))
}

func testTags(t *testing.T, s *suite) {
	s.create()
	s.touch("main", "a")
	c := s.commit("main", "one")
	var want []string
	for i := range 40 {
		id := fmt.Sprintf("v%02d.0", i)
		want = append(want, id)
		tag, err := s.CreateTag(s.ctx, repo, graveler.TagID(id), "main")
		if err != nil || tag.ID != graveler.TagID(id) || tag.Commit != c.ID {
			t.Errorf("%+v %v", tag, err)
		}
	}
	list := func(q engine.RefQuery) (out []string) {
		t.Helper()
		ts, err := s.ListTags(s.ctx, repo, q)
		s.ok(err)
		for _, x := range ts {
			out = append(out, string(x.ID))
			if x.Commit != c.ID {
				t.Errorf("%+v", x)
			}
		}
		return out
	}
	if got := list(engine.RefQuery{}); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := list(engine.RefQuery{Prefix: "v1", After: "v12.0", Limit: 2}); !slices.Equal(got, want[13:15]) {
		t.Errorf("%q", got)
	}
	s.wants(graveler.Exists, second(s.CreateTag(s.ctx, repo, "v00.0", "main~")))
	r, err := s.Resolve(s.ctx, repo, "v00.0")
	if err != nil || r.Tag != "v00.0" || r.View != graveler.Committed || r.Commit.ID != c.ID {
		t.Errorf("%+v %v", r, err)
	}
	if err := s.Stage(s.ctx, repo, "v00.0", []graveler.Change{{Path: "x"}}); graveler.KindOf(err) != graveler.ReadOnly && graveler.KindOf(err) != graveler.NotFound {
		t.Error(err)
	}
	s.ok(s.DeleteTag(s.ctx, repo, "v00.0"))
	s.wants(graveler.NotFound, second(s.Resolve(s.ctx, repo, "v00.0")))
}

func testRules(t *testing.T, s *suite) {
	s.create()
	s.branch("release-1", "")
	s.branch("dev", "")
	rs := []graveler.Rule{{Pattern: "release-*", Block: []graveler.Action{graveler.BlockStaging, graveler.BlockDelete}}, {Pattern: "main", Block: []graveler.Action{graveler.BlockCommit}}}
	s.ok(s.SetRules(s.ctx, repo, rs))
	got, err := s.Rules(s.ctx, repo)
	if err != nil || !slices.EqualFunc(got, rs, func(a, b graveler.Rule) bool { return a.Pattern == b.Pattern && slices.Equal(a.Block, b.Block) }) {
		t.Errorf("%+v %v", got, err)
	}
	s.wants(graveler.Protected, s.Stage(s.ctx, repo, "release-1", []graveler.Change{{Path: "x"}}))
	s.wants(graveler.Protected, s.DeleteBranch(s.ctx, repo, "release-1", true))
	s.touch("main", "x")
	s.wants(graveler.Protected, second(s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "x"})))
	s.wants(graveler.Invalid, s.SetRules(s.ctx, repo, []graveler.Rule{{Pattern: "[", Block: []graveler.Action{graveler.BlockStaging}}}))
	s.wants(graveler.Invalid, s.SetRules(s.ctx, repo, []graveler.Rule{{Pattern: "x", Block: []graveler.Action{"eating"}}}))
	s.ok(s.SetRules(s.ctx, repo, nil))
	s.commit("main", "x")
}

func testResolve(t *testing.T, s *suite) {
	s.create()
	root, err := s.Resolve(s.ctx, repo, "main")
	s.ok(err)
	if root.View != graveler.Overlaid || root.Branch.ID != "main" || root.Branch.Commit != root.Commit.ID || root.Branch.Token == "" {
		t.Errorf("%+v", root)
	}
	s.touch("main", "a")
	one, err := s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "one\n\ntext é", Committer: "ada", Metadata: map[string]string{"k": "v", "": ""}})
	if graveler.KindOf(err) != graveler.Invalid || one.ID != "" {
		t.Errorf("an empty key of metadata: %+v %v", one, err)
	}
	one, err = s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "one\n\ntext é", Committer: "ada", Metadata: map[string]string{"k": "v"}})
	s.ok(err)
	s.touch("main", "b")
	two := s.commit("main", "two")
	for ref, want := range map[graveler.Ref]graveler.Commit{
		"main": two, "main@": two, "main~0": two, "main~": one, "main^": one, "main~1": one, "main^1": one, "main~2": root.Commit, "main@{2100-01-01}": two,
		graveler.Ref(one.ID): one, graveler.Ref(one.ID[:10]): one, graveler.Ref(two.ID) + "~": one,
	} {
		r, err := s.Resolve(s.ctx, repo, ref)
		if err != nil || r.Commit.ID != want.ID || r.Commit.Message != want.Message || r.Commit.Generation != want.Generation || r.Commit.Version != want.Version ||
			r.Commit.MetaRange != want.MetaRange || !slices.Equal(r.Commit.Parents, want.Parents) || r.Commit.Committer != want.Committer || !r.Commit.Created.Equal(want.Created) ||
			r.Commit.Metadata["k"] != want.Metadata["k"] || r.Commit.ID != r.Commit.ComputeID() {
			t.Errorf("%s: %+v %v, want %+v", ref, r.Commit, err, want)
		}
	}
	s.touch("main", "c")
	if r, err := s.Resolve(s.ctx, repo, "main$"); err != nil || r.View != graveler.StagedOnly {
		t.Errorf("%+v %v", r, err)
	}
	if got := s.paths("main$", engine.ListQuery{}); !slices.Equal(got, []string{"c"}) {
		t.Errorf("%q", got)
	}
	if got := s.paths("main@", engine.ListQuery{}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	s.wants(graveler.NotFound, second(s.Resolve(s.ctx, repo, "main~9")))
	s.wants(graveler.Invalid, second(s.Resolve(s.ctx, repo, graveler.Ref(two.ID)+"$")))
}
