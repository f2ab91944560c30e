package control

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// fake answers what the control files ask: the real engine is tested through them on a mount, in package fs.
type fake struct {
	engine.Engine
	commit graveler.Commit
	err    error
	got    []string
}

func (f *fake) Commit(_ context.Context, r engine.CommitRequest) (graveler.Commit, error) {
	f.got = append(f.got, "commit "+r.Message)
	return f.commit, f.err
}
func (f *fake) Merge(_ context.Context, r engine.MergeRequest) (graveler.Commit, error) {
	f.got = append(f.got, "merge "+string(r.Source))
	return f.commit, f.err
}
func (f *fake) SetHead(_ context.Context, _ graveler.RepositoryID, _ graveler.BranchID, ref graveler.Ref, drop bool) (graveler.Branch, error) {
	f.got = append(f.got, "head "+string(ref))
	return graveler.Branch{}, f.err
}
func (f *fake) Reset(_ context.Context, _ graveler.RepositoryID, _ graveler.BranchID, path string) error {
	f.got = append(f.got, "reset "+path)
	return f.err
}
func (f *fake) Resolve(context.Context, graveler.RepositoryID, graveler.Ref) (graveler.Resolved, error) {
	return graveler.Resolved{Commit: f.commit}, nil
}

func TestWrites(t *testing.T) {
	f := &fake{commit: graveler.Commit{ID: "c0ffee", Message: "m"}}
	c := New(f)
	for _, w := range []struct{ name, data, want string }{
		{"commit", "two\nlines\n", "commit two\nlines"},
		{"merge", "@dev\n", "merge dev"},
		{"head", "main~1", "head main~1"},
		{"reset", ".\n", "reset "},
		{"reset", "/a dir/\n", "reset a dir"},
	} {
		f.got = nil
		if err := c.Write(t.Context(), 0, "repo", "main", w.name, []byte(w.data)); err != nil || len(f.got) != 1 || f.got[0] != w.want {
			t.Errorf("%s %q: %q %v", w.name, w.data, f.got, err)
		}
	}
	if b, err := c.Read(t.Context(), "repo", "main", "commit"); err != nil || string(b) != "c0ffee\n" {
		t.Errorf("%q %v", b, err)
	}
	for _, w := range []struct{ name, data string }{{"merge", ""}, {"merge", "a\nb"}, {"reset", "/"}, {"head", " \n"}, {"status", "x"}} {
		if err := c.Write(t.Context(), 0, "repo", "main", w.name, []byte(w.data)); err == nil {
			t.Errorf("%s %q is no error", w.name, w.data)
		}
		if b, err := c.Read(t.Context(), "repo", "main", "error"); err != nil || strings.Count(string(b), "\n") != 1 {
			t.Errorf("error holds %q %v", b, err)
		}
	}
	f.err = &graveler.MergeConflict{Paths: []string{"a", "b"}}
	if err := c.Write(t.Context(), 0, "repo", "main", "merge", []byte("dev")); graveler.KindOf(err) != graveler.Conflict {
		t.Error(err)
	}
	b, err := c.Read(t.Context(), "repo", "main", "error.json")
	var fl Failure
	if err != nil || json.Unmarshal(b, &fl) != nil || len(fl.Paths) != 2 || fl.Kind != "conflict" {
		t.Errorf("%s %v", b, err)
	}
	f.err = nil
	c.Write(t.Context(), 0, "repo", "main", "merge", []byte("dev"))
	if b, _ := c.Read(t.Context(), "repo", "main", "error"); len(b) != 0 {
		t.Errorf("after a success error holds %q", b)
	}
	if _, err := c.Read(t.Context(), "repo", "main", "none"); graveler.KindOf(err) != graveler.NotFound {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	c := New(&fake{})
	branch, frozen := strings.Join(c.Names(true), " "), strings.Join(c.Names(false), " ")
	for _, n := range []string{"commit", "commit.json", "head", "status", "status.json", "diff", "log", "merge", "reset", "error"} {
		if !strings.Contains(" "+branch+" ", " "+n+" ") {
			t.Errorf("a branch lacks %s", n)
		}
	}
	if frozen != "diff diff.json head head.json log log.json" {
		t.Error(frozen)
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("merge", []byte("dev\n"))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		c := New(&fake{})
		_ = c.Write(context.Background(), 0, "repo", "main", name, b)
		_, _ = c.Read(context.Background(), "repo", "main", "error.json")
	})
}
