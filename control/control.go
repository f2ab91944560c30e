// Package control is the control directory's files, .lakefs/commit and its siblings: what each holds and what a write to it
// does. Its renderings, text and JSON, are the command line's too.
package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Control serves the control files of one mount.
type Control struct {
	eng  engine.Engine
	mu   sync.Mutex
	last map[branch]graveler.CommitID
	errs map[branch]error
}

type branch struct {
	repo   graveler.RepositoryID
	branch graveler.BranchID
}

// New returns the control files of a mount.
func New(e engine.Engine) *Control {
	return &Control{eng: e, last: map[branch]graveler.CommitID{}, errs: map[branch]error{}}
}

// file says what a control file is.
type file struct {
	writable bool
	branch   bool // a branch has it alone
	read     func(c *Control, ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (any, error)
	text     func(v any) []byte
}

var files map[string]file

func init() {
	line := func(v any) []byte { return append([]byte(fmt.Sprint(v)), '\n') }
	diffs := func(v any) []byte {
		var b bytes.Buffer
		for _, d := range v.([]graveler.Diff) {
			WriteDiff(&b, d)
		}
		return b.Bytes()
	}
	files = map[string]file{
		"commit": {writable: true, branch: true, read: (*Control).lastCommit, text: func(v any) []byte {
			if c := v.(graveler.Commit); c.ID != "" {
				return line(c.ID)
			}
			return nil
		}},
		"head":   {writable: true, read: (*Control).head, text: func(v any) []byte { return line(v.(graveler.Commit).ID) }},
		"status": {branch: true, read: (*Control).status, text: diffs},
		"diff":   {read: (*Control).diff, text: diffs},
		"log": {read: (*Control).log, text: func(v any) []byte {
			var b bytes.Buffer
			for _, c := range v.([]graveler.Commit) {
				WriteCommit(&b, c)
			}
			return b.Bytes()
		}},
		"merge": {writable: true, branch: true},
		"reset": {writable: true, branch: true},
		"error": {branch: true, read: (*Control).lastError, text: func(v any) []byte {
			if f := v.(Failure); f.Message != "" {
				return line(f.Message)
			}
			return nil
		}},
	}
}

const jsonSuffix = ".json"

// Names lists the files of a branch's control directory, or of another ref's.
func (c *Control) Names(writable bool) []string {
	var names []string
	for n, f := range files {
		if f.branch && !writable {
			continue
		}
		names = append(names, n)
		if f.read != nil {
			names = append(names, n+jsonSuffix)
		}
	}
	slices.Sort(names)
	return names
}

// Writable reports whether a file takes writes.
func (c *Control) Writable(name string) bool { return files[name].writable }

// Read returns what a file holds now.
func (c *Control) Read(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, name string) ([]byte, error) {
	base, asJSON := strings.CutSuffix(name, jsonSuffix)
	f, ok := files[base]
	if !ok {
		return nil, fmt.Errorf("control file %q: %w", name, graveler.NotFound)
	}
	if f.read == nil {
		return nil, nil // write-only
	}
	v, err := f.read(c, ctx, repo, ref)
	if err != nil {
		return nil, err
	}
	if !asJSON {
		return f.text(v), nil
	}
	switch v := v.(type) {
	case graveler.Commit:
		if v.ID == "" {
			return JSON(nil)
		}
		return JSON(CommitOf(v))
	case []graveler.Commit:
		out := []Commit{}
		for _, c := range v {
			out = append(out, CommitOf(c))
		}
		return JSON(out)
	case []graveler.Diff:
		out := []Change{}
		for _, d := range v {
			out = append(out, ChangeOf(d))
		}
		return JSON(out)
	}
	return JSON(v)
}

func (c *Control) lastCommit(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (any, error) {
	c.mu.Lock()
	id := c.last[branch{repo, graveler.BranchID(ref)}]
	c.mu.Unlock()
	if id == "" {
		return graveler.Commit{}, nil
	}
	r, err := c.eng.Resolve(ctx, repo, graveler.Ref(id))
	return r.Commit, err
}

func (c *Control) head(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (any, error) {
	r, err := c.eng.Resolve(ctx, repo, ref)
	return r.Commit, err
}

func (c *Control) status(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (any, error) {
	out := []graveler.Diff{}
	for d, err := range c.eng.Status(ctx, repo, graveler.BranchID(ref), engine.DiffQuery{}) {
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (c *Control) diff(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (any, error) {
	r, err := c.eng.Resolve(ctx, repo, ref)
	if err != nil {
		return nil, err
	}
	if r.View != graveler.Committed {
		return c.status(ctx, repo, ref)
	}
	out := []graveler.Diff{}
	if len(r.Commit.Parents) == 0 {
		return out, nil
	}
	for d, err := range c.eng.Diff(ctx, repo, graveler.Ref(r.Commit.Parents[0]), graveler.Ref(r.Commit.ID), engine.DiffQuery{}) {
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (c *Control) log(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (any, error) {
	out := []graveler.Commit{}
	for cm, err := range c.eng.Log(ctx, repo, ref, engine.LogQuery{}) {
		if err != nil {
			return nil, err
		}
		out = append(out, cm)
	}
	return out, nil
}

func (c *Control) lastError(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return FailureOf(c.errs[branch{repo, graveler.BranchID(ref)}]), nil
}

// FailureOf is err's JSON form.
func FailureOf(err error) Failure {
	if err == nil {
		return Failure{}
	}
	f := Failure{Kind: graveler.KindOf(err).Error(), Message: strings.ReplaceAll(err.Error(), "\n", " ")}
	var mc *graveler.MergeConflict
	if errors.As(err, &mc) {
		f.Paths = mc.Paths
	}
	return f
}

// Committer names a user by id.
func Committer(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// Write carries out what was written to a file.
func (c *Control) Write(ctx context.Context, uid uint32, repo graveler.RepositoryID, id graveler.BranchID, name string, data []byte) error {
	err := c.write(ctx, uid, repo, id, name, strings.TrimRight(string(data), "\r\n"))
	if w, ok := c.eng.(interface{ CaughtUp(context.Context) }); ok {
		w.CaughtUp(ctx) // the next look at the mount sees what the write did
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.errs[branch{repo, id}] = fmt.Errorf("%s: %w", name, err)
	} else {
		delete(c.errs, branch{repo, id})
	}
	return err
}

func (c *Control) write(ctx context.Context, uid uint32, repo graveler.RepositoryID, id graveler.BranchID, name, text string) error {
	arg := strings.TrimSpace(text)
	if name != "commit" && (arg == "" || strings.ContainsAny(arg, "\n\x00")) {
		return fmt.Errorf("write one ref or path to %s: %w", name, graveler.Invalid)
	}
	switch name {
	case "commit":
		cm, err := c.eng.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: id, Message: text, Committer: Committer(uid)})
		c.made(repo, id, cm, err)
		return err
	case "merge":
		cm, err := c.eng.Merge(ctx, engine.MergeRequest{Repo: repo, Source: graveler.Ref(strings.TrimPrefix(arg, "@")), Dest: id, Committer: Committer(uid)})
		c.made(repo, id, cm, err)
		return err
	case "head":
		_, err := c.eng.SetHead(ctx, repo, id, graveler.Ref(strings.TrimPrefix(arg, "@")), false)
		return err
	case "reset":
		path := strings.Trim(arg, "/")
		if arg == "." {
			path = ""
		} else if path == "" {
			return fmt.Errorf("reset %q: write a path, or . for all: %w", arg, graveler.Invalid)
		}
		return c.eng.Reset(ctx, repo, id, path)
	}
	return fmt.Errorf("control file %q takes no writes: %w", name, graveler.Denied)
}

func (c *Control) made(repo graveler.RepositoryID, id graveler.BranchID, cm graveler.Commit, err error) {
	if err == nil {
		c.mu.Lock()
		c.last[branch{repo, id}] = cm.ID
		c.mu.Unlock()
	}
}
