package enginetest

import (
	"slices"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func testRepositories(t *testing.T, s *suite) {
	list, err := s.ListRepositories(s.ctx)
	if err != nil || len(list) != 0 {
		t.Fatalf("%v %v, want none", list, err)
	}
	r, err := s.CreateRepository(s.ctx, engine.CreateRepository{ID: "zoo", DefaultBranch: "trunk", Committer: "ada"})
	s.ok(err)
	if r.ID != "zoo" || r.DefaultBranch != "trunk" || r.StorageNamespace == "" || time.Since(r.Created).Abs() > time.Hour {
		t.Errorf("%+v", r)
	}
	s.ok(second(s.CreateRepository(s.ctx, engine.CreateRepository{ID: "ant", StorageNamespace: "file://" + t.TempDir()})))
	got, err := s.Repository(s.ctx, "zoo")
	if err != nil || got.ID != r.ID || got.DefaultBranch != r.DefaultBranch || got.StorageNamespace != r.StorageNamespace || !got.Created.Equal(r.Created) {
		t.Errorf("%+v %v, want %+v", got, err, r)
	}
	list, err = s.ListRepositories(s.ctx)
	s.ok(err)
	if len(list) != 2 || list[0].ID != "ant" || list[1].ID != "zoo" {
		t.Errorf("%+v", list)
	}
	cs, err := gather(s.Log(s.ctx, "zoo", "trunk", engine.LogQuery{}))
	if err != nil || len(cs) != 1 || cs[0].Message != "Repository created" || len(cs[0].Parents) != 0 {
		t.Errorf("%+v %v", cs, err)
	}
	s.wants(graveler.Exists, second(s.CreateRepository(s.ctx, engine.CreateRepository{ID: "zoo"})))
	s.ok(s.DeleteRepository(s.ctx, "zoo"))
	s.wants(graveler.NotFound, second(s.Repository(s.ctx, "zoo")))
	s.wants(graveler.NotFound, s.DeleteRepository(s.ctx, "zoo"))
	s.wants(graveler.NotFound, second(s.Objects(s.ctx, "zoo")))
}

// A repository's dump makes the same repository of the same namespace.
func testAttach(t *testing.T, s *suite) {
	ns := "file://" + t.TempDir()
	s.ok(second(s.CreateRepository(s.ctx, engine.CreateRepository{ID: repo, StorageNamespace: ns})))
	s.touch("main", "a", "b/c")
	c := s.commit("main", "files")
	s.branch("dev", "")
	s.ok(second(s.CreateTag(s.ctx, repo, "v1", "main")))
	m, err := s.DumpRefs(s.ctx, repo)
	s.ok(err)
	if m.Commits == "" || m.Branches == "" || m.Tags == "" {
		t.Errorf("%+v", m)
	}
	s.wants(graveler.Exists, second(s.CreateRepository(s.ctx, engine.CreateRepository{ID: "other", StorageNamespace: ns})))
	s.ok(s.DeleteRepository(s.ctx, repo))
	s.wants(graveler.Invalid, second(s.CreateRepository(s.ctx, engine.CreateRepository{ID: "other", StorageNamespace: ns})))
	for i, q := range []engine.AttachRepository{{ID: "one", StorageNamespace: ns}, {ID: "two", StorageNamespace: ns, DefaultBranch: "dev", Manifest: &m}} {
		r, err := s.AttachRepository(s.ctx, q)
		s.ok(err)
		if want := []graveler.BranchID{"main", "dev"}[i]; r.DefaultBranch != want {
			t.Errorf("default branch %q, want %q", r.DefaultBranch, want)
		}
		for _, ref := range []graveler.Ref{"main", "dev", "v1"} {
			x, err := s.Resolve(s.ctx, q.ID, ref)
			if err != nil || x.Commit.ID != c.ID {
				t.Errorf("%s: %v %v, want %v", ref, x.Commit.ID, err, c.ID)
			}
		}
		s.wants(graveler.Exists, second(s.AttachRepository(s.ctx, engine.AttachRepository{ID: "again", StorageNamespace: ns})))
		ls, err := gather(s.List(s.ctx, q.ID, "v1", engine.ListQuery{}))
		if err != nil || !slices.EqualFunc(ls, []string{"a", "b/c"}, func(l graveler.Listed, p string) bool { return l.Path == p }) {
			t.Errorf("%+v %v", ls, err)
		}
		s.ok(s.DeleteRepository(s.ctx, q.ID))
	}
	s.wants(graveler.NotFound, second(s.AttachRepository(s.ctx, engine.AttachRepository{ID: "three", StorageNamespace: "file://" + t.TempDir()})))
}

// What can't be is refused, with the kind that says why.
func testBadInput(t *testing.T, s *suite) {
	s.create()
	ctx := s.ctx
	bad := "\xff\xfe"
	for name, c := range map[string]struct {
		err  error
		kind graveler.Kind
	}{
		"repo name":          {second(s.CreateRepository(ctx, engine.CreateRepository{ID: "X"})), graveler.Invalid},
		"repo name of bytes": {second(s.CreateRepository(ctx, engine.CreateRepository{ID: graveler.RepositoryID("repo" + bad)})), graveler.Invalid},
		"repo again":         {second(s.CreateRepository(ctx, engine.CreateRepository{ID: repo})), graveler.Exists},
		"scheme":             {second(s.CreateRepository(ctx, engine.CreateRepository{ID: "other", StorageNamespace: "ftp://x/y"})), graveler.Invalid},
		"default branch":     {second(s.CreateRepository(ctx, engine.CreateRepository{ID: "other", DefaultBranch: "-x"})), graveler.Invalid},
		"no repo":            {second(s.Resolve(ctx, "none", "main")), graveler.NotFound},
		"no repo of bytes":   {second(s.Repository(ctx, graveler.RepositoryID(bad))), graveler.NotFound},
		"no ref":             {second(s.Resolve(ctx, repo, "none")), graveler.NotFound},
		"bad ref":            {second(s.Resolve(ctx, repo, "a~b")), graveler.Invalid},
		"ref of bytes":       {second(s.Resolve(ctx, repo, graveler.Ref(bad))), graveler.Invalid},
		"branch taken":       {second(s.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: "main"})), graveler.Exists},
		"branch name":        {second(s.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: "a b"})), graveler.Invalid},
		"branch source":      {second(s.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: "dev", Source: "none"})), graveler.NotFound},
		"default deleted":    {s.DeleteBranch(ctx, repo, "main", false), graveler.Protected},
		"no branch deleted":  {s.DeleteBranch(ctx, repo, "none", false), graveler.NotFound},
		"no branch renamed":  {s.RenameBranch(ctx, repo, "none", "other"), graveler.NotFound},
		"tag of nothing":     {second(s.CreateTag(ctx, repo, "v1", "none")), graveler.NotFound},
		"tag name":           {second(s.CreateTag(ctx, repo, "v..1", "main")), graveler.Invalid},
		"no tag deleted":     {s.DeleteTag(ctx, repo, "none"), graveler.NotFound},
		"empty commit":       {second(s.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "x"})), graveler.NothingToDo},
		"no message":         {second(s.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "main"})), graveler.Invalid},
		"message of bytes":   {second(s.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: bad})), graveler.Invalid},
		"metadata of bytes":  {second(s.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: "x", Metadata: map[string]string{"k": bad}})), graveler.Invalid},
		"commit to a tag":    {second(s.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "v1", Message: "x"})), graveler.NotFound},
		"empty path":         {s.Stage(ctx, repo, "main", []graveler.Change{{Path: ""}}), graveler.Invalid},
		"NUL in a path":      {s.Stage(ctx, repo, "main", []graveler.Change{{Path: "a\x00b"}}), graveler.Invalid},
		"long path":          {s.Stage(ctx, repo, "main", []graveler.Change{{Path: string(make([]byte, graveler.MaxPath+1))}}), graveler.TooLarge},
		"stage to nothing":   {s.Stage(ctx, repo, "none", []graveler.Change{{Path: "a"}}), graveler.NotFound},
		"no path":            {second(s.Stat(ctx, repo, "main", "none")), graveler.NotFound},
		"list of nothing":    {second(gather(s.List(ctx, repo, "none", engine.ListQuery{}))), graveler.NotFound},
		"log of nothing":     {second(gather(s.Log(ctx, repo, "none", engine.LogQuery{}))), graveler.NotFound},
		"diff of nothing":    {second(gather(s.Diff(ctx, repo, "main", "none", engine.DiffQuery{}))), graveler.NotFound},
		"status of nothing":  {second(gather(s.Status(ctx, repo, "none", engine.DiffQuery{}))), graveler.NotFound},
		"move of nothing":    {s.Move(ctx, repo, "main", "a/", "b/"), graveler.NotFound},
		"move onto itself":   {s.Move(ctx, repo, "main", "a/", "a/"), graveler.Invalid},
		"merge of nothing":   {second(s.Merge(ctx, engine.MergeRequest{Repo: repo, Source: "none", Dest: "main"})), graveler.NotFound},
		"pick of nothing":    {second(s.CherryPick(ctx, engine.PickRequest{Repo: repo, Branch: "main", Ref: "none"})), graveler.NotFound},
		"import of nowhere":  {second(s.Import(ctx, engine.ImportRequest{Repo: repo, Branch: "main", Source: "ftp://x/y", Dest: "d"}, nil)), graveler.Invalid},
		"garbage of nothing": {second(s.CollectGarbage(ctx, engine.GCRequest{Repo: "none"})), graveler.NotFound},
		"check of nothing":   {second(gather(s.Check(ctx, engine.CheckRequest{Repo: "none"}))), graveler.NotFound},
	} {
		if c.err == nil || graveler.KindOf(c.err) != c.kind {
			t.Errorf("%s: %v, want %v", name, c.err, c.kind)
		}
	}
}
