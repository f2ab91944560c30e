// Package engine is the contract between those who keep versions (engine/local, engine/remote) and those who show them
// (vfs, gateways, the command line). It holds no implementation.
//
// Every error has a graveler.Kind. Methods may be called from many goroutines. A change is seen by every later call of
// anyone, and survives kill -9 of the process, once the method that made it returns; Sync makes it survive a power cut.
package engine

import (
	"context"
	"iter"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Engine keeps repositories.
type Engine interface {
	Repositories
	Refs
	Entries
	Versions
	Holders
	Sessions
	// Objects returns the data store of a repository. What is read from it is immutable and may be cached for ever. It also
	// reads the bytes of pending entries, under the address SpillAddress gives.
	Objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error)
	// Watch yields an Event for each change after the one with the index after, in order, until ctx ends; after 0 means from now
	// on. A watcher that falls behind, or asks for events that are no longer kept, gets an Event with Lost set.
	Watch(ctx context.Context, after uint64) iter.Seq2[Event, error]
	// Sync makes all that returned so far survive a power cut.
	Sync(ctx context.Context) error
	Close() error
}

// Repositories is the part of an Engine about whole repositories.
type Repositories interface {
	// CreateRepository makes a repository with a first commit ("Repository created") and its default branch. It first
	// proves that the namespace can be written. Exists if the name is taken; Invalid if the namespace holds a repository
	// already (attach it instead).
	CreateRepository(ctx context.Context, r CreateRepository) (graveler.Repository, error)
	// AttachRepository makes a repository of a namespace that lakeFS or lakefsfs wrote, from its refs dump.
	AttachRepository(ctx context.Context, r AttachRepository) (graveler.Repository, error)
	Repository(ctx context.Context, id graveler.RepositoryID) (graveler.Repository, error)
	// ListRepositories lists all, by name.
	ListRepositories(ctx context.Context) ([]graveler.Repository, error)
	// DeleteRepository forgets a repository. Its objects stay where they are.
	DeleteRepository(ctx context.Context, id graveler.RepositoryID) error
	// DumpRefs writes all commits, branches and tags as metaranges and _lakefs/refs_manifest.json, as lakeFS does.
	DumpRefs(ctx context.Context, id graveler.RepositoryID) (graveler.RefsManifest, error)
}

// CreateRepository asks for a new repository.
type CreateRepository struct {
	ID               graveler.RepositoryID
	StorageNamespace string            // URL; "" lets the engine choose one under its default namespace
	DefaultBranch    graveler.BranchID // "" is main
	Committer        string
}

// AttachRepository asks for an existing namespace to be taken in.
type AttachRepository struct {
	ID               graveler.RepositoryID
	StorageNamespace string
	DefaultBranch    graveler.BranchID      // "": main if there, else the only or first branch
	Manifest         *graveler.RefsManifest // nil: the namespace's own _lakefs/refs_manifest.json
}

// Refs is the part of an Engine about branches, tags and what a ref expression means.
type Refs interface {
	// Resolve tells what a ref expression means now.
	Resolve(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (graveler.Resolved, error)

	// ListBranches lists branches by name.
	ListBranches(ctx context.Context, repo graveler.RepositoryID, q RefQuery) ([]graveler.Branch, error)
	CreateBranch(ctx context.Context, r CreateBranch) (graveler.Branch, error)
	// DeleteBranch removes a branch. NotEmpty if something is staged on it and force is not set; Protected if a rule or
	// its being the default branch forbids it.
	DeleteBranch(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, force bool) error
	// RenameBranch renames a branch with what is staged on it. Exists if to is taken. The default branch stays the default.
	RenameBranch(ctx context.Context, repo graveler.RepositoryID, from, to graveler.BranchID) error
	// SetHead moves a branch to the commit that ref means (a hard reset). NotEmpty if something is staged and drop is not
	// set; with drop, the staging is dropped in the same step.
	SetHead(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, ref graveler.Ref, drop bool) (graveler.Branch, error)

	ListTags(ctx context.Context, repo graveler.RepositoryID, q RefQuery) ([]graveler.Tag, error)
	CreateTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID, ref graveler.Ref) (graveler.Tag, error)
	DeleteTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID) error

	// Rules lists the branch protection rules of a repository, SetRules replaces them.
	Rules(ctx context.Context, repo graveler.RepositoryID) ([]graveler.Rule, error)
	SetRules(ctx context.Context, repo graveler.RepositoryID, rules []graveler.Rule) error
}

// RefQuery selects refs.
type RefQuery struct {
	Prefix string
	After  string // exclusive
	Limit  int    // 0 is all
	Hidden bool   // list hidden branches too
}

// CreateBranch asks for a new branch.
type CreateBranch struct {
	Repo   graveler.RepositoryID
	ID     graveler.BranchID
	Source graveler.Ref // "" is the default branch; of a branch, its head: what is staged there stays there
	Hidden bool
}

// Entries is the part of an Engine about paths.
type Entries interface {
	// Stat returns the entry whose path is exactly path, a directory marker ("dir/") included. NotFound if none.
	Stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Entry, error)
	// Lookup tells what path is as a file system sees it: an object, a directory, both or (without an error) neither.
	// path has no trailing slash; "" is the root, which is always a prefix.
	Lookup(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (graveler.Found, error)
	// List yields entries in byte order of their paths.
	List(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q ListQuery) iter.Seq2[graveler.Listed, error]
	// Cuts tells where a commit's entries are cut into parts, at each of which a listing can begin cheaply: the last path of each part, in
	// order. They never change.
	Cuts(ctx context.Context, repo graveler.RepositoryID, commit graveler.CommitID) ([]string, error)
	// Stage applies changes to a branch's staging, all or none. ReadOnly or Protected if the branch may not be written.
	Stage(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, changes []graveler.Change) error
	// Move renames every entry whose path starts with from to start with to instead, and removes every entry under to
	// that was there before, in one atomic step however many there are. Both end in "/". No bytes move.
	Move(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, from, to string) error
	// Exchange makes two paths change places with all that is under them, in one atomic step. A path that ends in "/" is a
	// directory, another a file; neither may lie in the other.
	Exchange(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, a, b string) error
	// Reset drops what is staged on a branch: at the path and under path + "/", or all if path is "".
	Reset(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, path string) error
}

// ListQuery selects entries.
type ListQuery struct {
	Prefix string
	After  string // exclusive; with a delimiter, a common prefix given before is skipped whole
	// Delimiter, "" or "/": entries that have it after Prefix are folded into one Listed with Prefix set. The marker of
	// Prefix itself (path == Prefix) is not listed.
	Delimiter string
	Limit     int // 0 is all
}

// Versions is the part of an Engine about commits.
type Versions interface {
	// Commit makes what is staged on a branch a commit. NothingToDo if it changes nothing and AllowEmpty is not set.
	Commit(ctx context.Context, r CommitRequest) (graveler.Commit, error)
	// Log yields the commits reachable from ref, newest first.
	Log(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q LogQuery) iter.Seq2[graveler.Commit, error]
	// Diff yields what differs from left to right, by path. For a branch its staging counts.
	Diff(ctx context.Context, repo graveler.RepositoryID, left, right graveler.Ref, q DiffQuery) iter.Seq2[graveler.Diff, error]
	// Status yields what is staged on a branch against its head, by path. A staged change that changes nothing is left out.
	Status(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, q DiffQuery) iter.Seq2[graveler.Diff, error]
	// MergeBase returns the best common ancestor of two refs; NotFound if they share no history.
	MergeBase(ctx context.Context, repo graveler.RepositoryID, a, b graveler.Ref) (graveler.Commit, error)
	// Merge merges a ref into a branch. *graveler.MergeConflict if both changed a path differently and Strategy doesn't
	// decide. NotEmpty if the branch has staged changes. NothingToDo if the branch has all of the source already.
	Merge(ctx context.Context, r MergeRequest) (graveler.Commit, error)
	// Revert commits the inverse of a commit. CherryPick commits the change that a commit made elsewhere.
	Revert(ctx context.Context, r PickRequest) (graveler.Commit, error)
	CherryPick(ctx context.Context, r PickRequest) (graveler.Commit, error)
	// Import stages entries that point at objects under a URL, without a copy of bytes. progress, if not nil, is told the
	// count so far. It returns the count; all is staged in one atomic step.
	Import(ctx context.Context, r ImportRequest, progress func(objects int64)) (int64, error)
	// CollectGarbage deletes objects that no commit, branch, tag or staging names any more.
	CollectGarbage(ctx context.Context, r GCRequest) (GCReport, error)
	// Check verifies a repository: tables against their ids, and with Data every object against its size and checksum. Each
	// problem is yielded; a nil error ends the walk.
	Check(ctx context.Context, r CheckRequest) iter.Seq2[Problem, error]
}

// CommitRequest asks for a commit.
type CommitRequest struct {
	Repo       graveler.RepositoryID
	Branch     graveler.BranchID
	Message    string
	Committer  string
	Metadata   map[string]string
	AllowEmpty bool
}

// LogQuery selects commits.
type LogQuery struct {
	Path        string // only commits that changed this path, or a path under it
	FirstParent bool
	Limit       int // 0 is all
}

// DiffQuery selects paths.
type DiffQuery struct {
	Prefix    string
	After     string // exclusive
	Limit     int    // 0 is all
	MergeBase bool   // of Diff: from the merge base of left and right instead of from left (Git's three dots)
}

// MergeRequest asks for a merge.
type MergeRequest struct {
	Repo       graveler.RepositoryID
	Source     graveler.Ref
	Dest       graveler.BranchID
	Message    string // "" is "Merge 'source' into 'dest'"
	Committer  string
	Metadata   map[string]string
	Strategy   graveler.MergeStrategy
	AllowEmpty bool
}

// PickRequest asks for a revert or a cherry-pick.
type PickRequest struct {
	Repo      graveler.RepositoryID
	Branch    graveler.BranchID
	Ref       graveler.Ref
	Parent    int    // of a merge commit: which parent the change is taken against, from 1; 0 if it has only one
	Message   string // "" makes one of the commit's
	Committer string
	Metadata  map[string]string
}

// ImportRequest asks for an import.
type ImportRequest struct {
	Repo   graveler.RepositoryID
	Branch graveler.BranchID
	Source string // URL of an object or of a prefix
	Dest   string // path: of the object, or the directory to put the prefix's objects under
}

// GCRequest asks for a garbage collection.
type GCRequest struct {
	Repo   graveler.RepositoryID
	DryRun bool
	Grace  time.Duration // objects younger than this are kept; 0 is a day
}

// GCReport is what a garbage collection did, or would do.
type GCReport struct {
	Live, Kept, Deleted int64    // objects named; unnamed but young; deleted
	Bytes               int64    // of Deleted
	Addresses           []string // of Deleted, the first 1,000
}

// CheckRequest asks for a check.
type CheckRequest struct {
	Repo graveler.RepositoryID
	Ref  graveler.Ref // "" is every commit and branch
	Data bool         // read every object too
}

// Problem is one thing that a check found wrong, or (with Level "info") what it did.
type Problem struct {
	Level string // "info" or "error"
	Place string // repo/@ref/path, or an object's address
	Text  string
}

// EventType tells what changed.
type EventType uint8

// Event types.
const (
	StagingChanged EventType = iota + 1 // paths of a branch: see Event.Paths
	HeadMoved                           // a branch's head: commit, merge, reset
	RefsChanged                         // a branch or tag was made, renamed or deleted
	ReposChanged                        // a repository was made or deleted
)

// Event tells watchers that something changed.
type Event struct {
	Type   EventType
	Repo   graveler.RepositoryID
	Branch graveler.BranchID
	// Paths are those that changed, nil if they are too many to tell: then any may have. One that ends in "/" stands for
	// the marker and everything under it.
	Paths []string
	// Unchanged tells, of HeadMoved, that the branch shows what it showed before, as after a commit of its staging.
	Unchanged bool
	Lost      bool   // events were dropped before this one: anything may have changed
	Index     uint64 // of the change in the order of all changes, the same on every node of a cluster; a watch can go on after it
	Origin    uint64 // who made the change, see WithOrigin; 0 if nobody said
}

type originKey struct{}

// WithOrigin marks the changes made under a context: their events carry the number, so that who made them knows them for its own.
func WithOrigin(ctx context.Context, origin uint64) context.Context {
	return context.WithValue(ctx, originKey{}, origin)
}

// OriginOf is the number that WithOrigin gave, 0 if none.
func OriginOf(ctx context.Context) uint64 {
	n, _ := ctx.Value(originKey{}).(uint64)
	return n
}

// SpillScheme is the URL scheme of the bytes of pending entries: SpillScheme + content id.
const SpillScheme = "spill://"

// SpillObject names the bytes of a pending entry for Objects.
func SpillObject(e *graveler.Entry) object.Object {
	return object.Object{Address: SpillScheme + string(e.Pending), Type: graveler.AddressFull, Size: e.Size}
}

// ObjectOf names the bytes of any entry, pending or not.
func ObjectOf(e *graveler.Entry) object.Object {
	if e.Pending != "" {
		return SpillObject(e)
	}
	return object.Of(e)
}
