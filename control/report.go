package control

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// The JSON forms. They are the same in control files and on the command line, documented in docs/json.md, and only grow.

// Repo is a repository.
type Repo struct {
	ID               string    `json:"id"`
	StorageNamespace string    `json:"storage_namespace"`
	DefaultBranch    string    `json:"default_branch"`
	Created          time.Time `json:"created"`
}

// RepoOf is r's JSON form.
func RepoOf(r graveler.Repository) Repo {
	return Repo{string(r.ID), r.StorageNamespace, string(r.DefaultBranch), r.Created}
}

// Branch is a branch.
type Branch struct {
	ID     string `json:"id"`
	Commit string `json:"commit_id"`
	Hidden bool   `json:"hidden,omitempty"`
}

// BranchOf is b's JSON form.
func BranchOf(b graveler.Branch) Branch { return Branch{string(b.ID), string(b.Commit), b.Hidden} }

// Tag is a tag.
type Tag struct {
	ID     string `json:"id"`
	Commit string `json:"commit_id"`
}

// TagOf is t's JSON form.
func TagOf(t graveler.Tag) Tag { return Tag{string(t.ID), string(t.Commit)} }

// Commit is a commit.
type Commit struct {
	ID         string            `json:"id"`
	Committer  string            `json:"committer"`
	Message    string            `json:"message"`
	Created    time.Time         `json:"created"`
	MetaRange  string            `json:"meta_range_id"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Parents    []string          `json:"parents"`
	Generation int               `json:"generation"`
}

// CommitOf is c's JSON form.
func CommitOf(c graveler.Commit) Commit {
	out := Commit{string(c.ID), c.Committer, c.Message, c.Created.UTC(), string(c.MetaRange), c.Metadata, []string{}, c.Generation}
	for _, p := range c.Parents {
		out.Parents = append(out.Parents, string(p))
	}
	return out
}

// Change is one path of a status or a diff.
type Change struct {
	Type string `json:"type"` // added, removed, modified or conflict
	Path string `json:"path"`
	Old  *Entry `json:"old,omitempty"`
	New  *Entry `json:"new,omitempty"`
}

var typeNames = map[graveler.DiffType]string{
	graveler.Added: "added", graveler.Removed: "removed", graveler.Modified: "modified", graveler.Conflicted: "conflict",
}

// ChangeOf is d's JSON form.
func ChangeOf(d graveler.Diff) Change {
	c := Change{Type: typeNames[d.Type], Path: d.Path}
	if d.Type != graveler.Added {
		e := EntryOf(d.Path, d.Left)
		c.Old = &e
	}
	if d.Type != graveler.Removed {
		e := EntryOf(d.Path, d.Right)
		c.New = &e
	}
	return c
}

// Entry is an entry, or in a listing a directory.
type Entry struct {
	Path        string            `json:"path"`
	Type        string            `json:"type"` // object or directory
	Size        int64             `json:"size_bytes"`
	Checksum    string            `json:"checksum,omitempty"`
	Address     string            `json:"physical_address,omitempty"`
	Mtime       time.Time         `json:"mtime"`
	ContentType string            `json:"content_type,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

// EntryOf is e's JSON form.
func EntryOf(path string, e graveler.Entry) Entry {
	return Entry{Path: path, Type: "object", Size: e.Size, Checksum: e.ETag, Address: e.Address, Mtime: e.Mtime().UTC(), ContentType: e.ContentType, Metadata: e.Metadata}
}

// Failure is an error.
type Failure struct {
	Kind    string   `json:"kind"`
	Message string   `json:"error"`
	Paths   []string `json:"conflicts,omitempty"`
}

// quote writes a path as one field of a line: as it is, or quoted where it holds a tab, a newline or what is no text.
func quote(p string) string {
	if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return fmt.Sprintf("%q", p)
	}
	return p
}

// WriteDiff writes a change as status and diff print it: a letter, a tab, the path.
func WriteDiff(w io.Writer, d graveler.Diff) error {
	_, err := fmt.Fprintf(w, "%s\t%s\n", d.Type.Letter(), quote(d.Path))
	return err
}

// WriteCommit writes a commit as log prints it.
func WriteCommit(w io.Writer, c graveler.Commit) error {
	var b strings.Builder
	fmt.Fprintf(&b, "commit %s\n", c.ID)
	if len(c.Parents) > 1 {
		b.WriteString("Merge:")
		for _, p := range c.Parents {
			fmt.Fprintf(&b, " %.12s", p)
		}
		b.WriteByte('\n')
	}
	if c.Committer != "" {
		fmt.Fprintf(&b, "Author: %s\n", c.Committer)
	}
	fmt.Fprintf(&b, "Date:   %s\n\n", c.Created.UTC().Format(time.RFC3339))
	for line := range strings.SplitSeq(strings.TrimRight(c.Message, "\n"), "\n") {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// JSON encodes v for people and programs: indented, with a newline at the end.
func JSON(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}
