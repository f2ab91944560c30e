package graveler

import (
	"fmt"
	"path"
	"time"
)

// Names of things. Distinct types, so that the compiler keeps them apart.
type (
	// RepositoryID names a repository: ^[a-z0-9][a-z0-9-]{2,62}$.
	RepositoryID string
	// BranchID names a branch: ^\w[-\w]*$, with dots and slashes between words refused.
	BranchID string
	// TagID names a tag: as a branch, and dots are allowed inside.
	TagID string
	// CommitID is 64 lower-case hex digits, see Commit.ComputeID.
	CommitID string
	// RangeID is 64 lower-case hex digits: the hash of a range's records.
	RangeID string
	// MetaRangeID is 64 lower-case hex digits, or "" for the metarange of no entries.
	MetaRangeID string
	// StagingToken names one layer of a branch's staging.
	StagingToken string
	// ContentID names bytes in a local spill file (package spill).
	ContentID string
	// Ref is a ref expression as a user writes it, see ParseRef.
	Ref string
)

// Repository is a set of refs and commits over one storage namespace.
type Repository struct {
	ID               RepositoryID
	StorageNamespace string // URL: file:///srv/lake/r1, s3://bucket/prefix, …
	DefaultBranch    BranchID
	Created          time.Time
}

// Branch is a movable ref with its staging.
type Branch struct {
	ID     BranchID
	Commit CommitID       // head
	Token  StagingToken   // the open layer, which takes writes
	Sealed []StagingToken // layers below the open one, newest first
	Hidden bool           // left out of listings unless asked for
}

// Tag is a fixed ref.
type Tag struct {
	ID     TagID
	Commit CommitID
}

// Commit is one version of all paths of a repository.
type Commit struct {
	ID         CommitID
	Committer  string
	Message    string
	Created    time.Time // whole seconds count in the id
	MetaRange  MetaRangeID
	Metadata   map[string]string
	Parents    []CommitID
	Version    int // of the commit record; 1
	Generation int // 1 + the largest parent's
}

// AddressType tells how Entry.Address is to be read. Values are lakeFS's.
type AddressType int32

// Address types.
const (
	AddressByPrefix AddressType = 0 // deprecated: full if it has a URL scheme, else relative
	AddressRelative AddressType = 1 // relative to the repository's storage namespace
	AddressFull     AddressType = 2 // a URL
)

// Entry is what a path holds.
type Entry struct {
	Address     string
	AddressType AddressType
	Modified    time.Time // not part of the identity
	Size        int64     // bytes
	ETag        string    // usually the hex MD5 of the bytes; a store's own etag for multipart uploads
	Metadata    map[string]string
	ContentType string

	// Inode is the file's number within its repository, 0 if none was given: the same for all names of a file, through rename
	// and commit. Changed is when the file or its attributes last changed (ctime), Accessed when its access time was last
	// set; zero if not known. None of them is part of the identity.
	//
	// Home is the number of the directory that the file was in when it first moved to another, or got a name in another; 1 is the
	// version's root, 0 tells that it is still where it was made. What names a file by its number looks for it there first, and goes
	// on naming it the same way.
	Inode    uint64
	Changed  time.Time
	Accessed time.Time
	Home     uint64

	// Pending names the spill file that holds the bytes until they are settled, "" once Address names an object. Size and
	// ETag of a pending entry are not yet known to staging: the spill file is the truth. Only a staged entry is ever
	// pending, never a committed one.
	Pending ContentID
}

// Change is one staged change: a put of Entry at Path, or a removal.
type Change struct {
	Path   string
	Remove bool
	Entry  Entry // of a put
}

// DiffType tells how a path differs.
type DiffType uint8

// Diff types. Conflict is given by merges alone.
const (
	Added DiffType = iota + 1
	Removed
	Modified
	Conflicted
)

// Letter returns the one-letter form that status and diff print: A, D, M or C.
func (t DiffType) Letter() string {
	switch t {
	case Added:
		return "A"
	case Removed:
		return "D"
	case Modified:
		return "M"
	case Conflicted:
		return "C"
	}
	return "?"
}

// Diff is one path that differs between two versions. Left and Right are meaningful as Type says.
type Diff struct {
	Type  DiffType
	Path  string
	Left  Entry // before; unset if Added
	Right Entry // after; unset if Removed
}

// Listed is one line of a listing: an object, or with a delimiter a common prefix.
type Listed struct {
	Path      string // full path; a prefix ends in the delimiter
	Prefix    bool
	Entry     Entry // of an object; for a prefix, of its directory marker if HasMarker
	HasMarker bool  // the prefix itself is an entry ("dir/"), kept for an empty directory or a directory's attributes
}

// Found is what a path is in one version, seen as a file system sees it. Both can hold: an object "a" beside "a/b".
type Found struct {
	HasObject bool
	Object    Entry
	HasPrefix bool // an entry "path/…" exists, the marker "path/" included
	HasMarker bool
	Marker    Entry
}

// View tells which of a ref's data a resolved ref shows.
type View uint8

// Views.
const (
	Committed  View = iota // a commit, frozen
	Overlaid               // a branch: its head overlaid with its staging; the only writable view
	StagedOnly             // "branch$": only what is staged
)

// Resolved is what a ref expression means now.
type Resolved struct {
	View   View
	Branch Branch // of Overlaid and StagedOnly, and of a committed view reached through a branch ("main@")
	Tag    TagID  // if the expression is a tag's plain name
	Commit Commit // the commit named, or the branch's head
}

// MergeStrategy decides a path that both sides changed differently.
type MergeStrategy uint8

// Merge strategies.
const (
	MergeDefault MergeStrategy = iota // a conflict stops the merge
	DestWins                          // keep the destination's
	SourceWins                        // take the source's
)

// MergeConflict is the error of a merge (or revert, cherry-pick) that met conflicting changes; nothing was changed.
type MergeConflict struct {
	Paths []string // in key order; at most MaxConflicts, More tells of the rest
	More  bool
}

// MaxConflicts bounds MergeConflict.Paths.
const MaxConflicts = 10_000

// Error names the first paths.
func (c *MergeConflict) Error() string {
	s := "conflict"
	for i, p := range c.Paths {
		if i == 3 {
			return s + ", …"
		}
		if i == 0 {
			s += " in "
		} else {
			s += ", "
		}
		s += p
	}
	return s
}

// Unwrap gives the kind Conflict.
func (c *MergeConflict) Unwrap() error { return Conflict }

// RefsManifest names the metaranges of a refs dump (_lakefs/refs_manifest.json).
type RefsManifest struct {
	Commits  MetaRangeID `json:"commits_meta_range_id"`
	Branches MetaRangeID `json:"branches_meta_range_id"`
	Tags     MetaRangeID `json:"tags_meta_range_id"`
}

// Rule protects the branches whose names match Pattern (path.Match syntax).
type Rule struct {
	Pattern string   `json:"pattern"`
	Block   []Action `json:"block"`
}

// Validate returns an Invalid error, which says what to write, unless r can be a rule.
func (r *Rule) Validate() error {
	if _, err := path.Match(r.Pattern, "x"); err != nil || r.Pattern == "" {
		return fmt.Errorf("branch pattern %q: write a name, or a pattern with * ? [a-z]: %w", r.Pattern, Invalid)
	}
	for _, a := range r.Block {
		switch a {
		case BlockStaging, BlockCommit, BlockDelete:
		default:
			return fmt.Errorf("rule %q: nothing is called %q; block staging, commit or delete: %w", r.Pattern, a, Invalid)
		}
	}
	return nil
}

// Action is what a rule blocks.
type Action string

// Actions that a rule can block.
const (
	BlockStaging Action = "staging" // direct writes
	BlockCommit  Action = "commit"  // commits; merges into the branch stay possible
	BlockDelete  Action = "delete"
)
