// Package enginetest is the contract of package engine as tests: every implementation runs them.
package enginetest

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Open returns an engine without repositories, which gives namespaces of its own to repositories made without one. It is closed when
// the test ends. Namespaces under t.TempDir can be reached by it.
type Open func(t *testing.T) engine.Engine

// Run runs all of the contract.
func Run(t *testing.T, open Open) {
	for _, group := range []struct {
		name string
		test func(t *testing.T, s *suite)
	}{
		{"Repositories", testRepositories}, {"Attach", testAttach}, {"BadInput", testBadInput},
		{"Branches", testBranches}, {"Heads", testHeads}, {"Tags", testTags}, {"Rules", testRules}, {"Resolve", testResolve},
		{"Names", testNames}, {"List", testList}, {"Stage", testStage}, {"StageMany", testStageMany}, {"Move", testMove}, {"Reset", testReset}, {"Attributes", testAttributes},
		{"Commit", testCommit}, {"Log", testLog}, {"Diff", testDiff}, {"Merge", testMerge}, {"Conflicts", testConflicts}, {"Pick", testPick},
		{"Import", testImport}, {"Care", testCare},
		{"Objects", testObjects}, {"Watch", testWatch}, {"Contexts", testContexts}, {"Holders", testHolders}, {"Sessions", testSessions}, {"Together", testTogether},
	} {
		t.Run(group.name, func(t *testing.T) {
			s := &suite{t: t, ctx: t.Context(), Engine: open(t)}
			group.test(t, s)
		})
	}
}

// suite is an engine under test.
type suite struct {
	engine.Engine
	t   *testing.T
	ctx context.Context
}

const repo graveler.RepositoryID = "repo"

// create makes the repository that most tests work in.
func (s *suite) create() {
	s.t.Helper()
	if _, err := s.CreateRepository(s.ctx, engine.CreateRepository{ID: repo}); err != nil {
		s.t.Fatal(err)
	}
}

// ok stops the test unless err is nil.
func (s *suite) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// wants reports an error that is not of a kind.
func (s *suite) wants(k graveler.Kind, err error) {
	s.t.Helper()
	if err == nil || graveler.KindOf(err) != k {
		s.t.Errorf("%v, want kind %v", err, k)
	}
}

// second is the error of a call with two results.
func second[T any](_ T, err error) error { return err }

// put stores bytes as an object and returns an entry of them.
func (s *suite) put(text string) graveler.Entry {
	s.t.Helper()
	st, err := s.Objects(s.ctx, repo)
	s.ok(err)
	e := graveler.Entry{Address: object.NewAddress(), AddressType: graveler.AddressRelative}
	info, err := st.Put(s.ctx, e.Address, strings.NewReader(text), object.PutOptions{Size: int64(len(text))})
	s.ok(err)
	e.Size, e.ETag = info.Size, info.MD5
	return e
}

// write stages a file.
func (s *suite) write(branch graveler.BranchID, path, text string) {
	s.t.Helper()
	s.ok(s.Stage(s.ctx, repo, branch, []graveler.Change{{Path: path, Entry: s.put(text)}}))
}

// touch stages files of no bytes.
func (s *suite) touch(branch graveler.BranchID, paths ...string) {
	s.t.Helper()
	var cs []graveler.Change
	for _, p := range paths {
		cs = append(cs, graveler.Change{Path: p})
	}
	s.ok(s.Stage(s.ctx, repo, branch, cs))
}

func (s *suite) remove(branch graveler.BranchID, paths ...string) {
	s.t.Helper()
	var cs []graveler.Change
	for _, p := range paths {
		cs = append(cs, graveler.Change{Path: p, Remove: true})
	}
	s.ok(s.Stage(s.ctx, repo, branch, cs))
}

// read returns a file's bytes.
func (s *suite) read(ref graveler.Ref, path string) string {
	s.t.Helper()
	e, err := s.Stat(s.ctx, repo, ref, path)
	s.ok(err)
	st, err := s.Objects(s.ctx, repo)
	s.ok(err)
	b := make([]byte, e.Size)
	if _, err := st.ReadAt(s.ctx, engine.ObjectOf(&e), b, 0); err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *suite) commit(branch graveler.BranchID, message string) graveler.Commit {
	s.t.Helper()
	c, err := s.Commit(s.ctx, engine.CommitRequest{Repo: repo, Branch: branch, Message: message, Committer: "t"})
	s.ok(err)
	return c
}

func (s *suite) branch(id graveler.BranchID, source graveler.Ref) {
	s.t.Helper()
	s.ok(second(s.CreateBranch(s.ctx, engine.CreateBranch{Repo: repo, ID: id, Source: source})))
}

// paths lists a ref.
func (s *suite) paths(ref graveler.Ref, q engine.ListQuery) []string {
	s.t.Helper()
	var out []string
	for l, err := range s.List(s.ctx, repo, ref, q) {
		s.ok(err)
		out = append(out, l.Path)
	}
	return out
}

// gather collects a stream until its first error.
func gather[T any](seq iter.Seq2[T, error]) (out []T, err error) {
	for it, err := range seq {
		if err != nil {
			return out, err
		}
		out = append(out, it)
	}
	return out, nil
}

// letters writes a diff as status prints it.
func letters(ds []graveler.Diff) string {
	var b strings.Builder
	for _, d := range ds {
		b.WriteString(d.Type.Letter() + " " + d.Path + "\n")
	}
	return b.String()
}
