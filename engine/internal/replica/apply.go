package replica

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

func be(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// Result is what one command did.
type Result struct {
	Err     error                // with a Kind; nothing was changed
	Orphans []graveler.ContentID // contents that were pending and that no record names any more
	Event   engine.Event         // Type 0 if there is nothing to tell
	Known   bool                 // the request had its answer already: nothing was changed, and Err and Value are what it was then
	Value   []byte               // of a known request: what it returned
	Index   uint64               // of the log entry of an OpenSession
}

// entry is a log entry that is applied.
type entry struct {
	index, term uint64
	data        []byte
}

// maxEventPaths bounds the paths that an event carries.
const maxEventPaths = 1000

// applier applies one command to an indexed batch. It is a pure function of the state and the command: no clock, no random
// number, no I/O but reads of the state. Checks come before the first write, so a command that fails changes nothing.
type applier struct {
	view
	b       *pebble.Batch
	open    *openLayers
	index   uint64   // of the entry
	suspect []string // contents that lost a record
	res     Result
}

// apply applies a command, and tells whether it was one that can change nothing but the records of layers that stay. stop is the error
// of an entry that this version, which knows commands up to newest, can't apply.
func apply(b *pebble.Batch, l entry, open *openLayers, newest uint32) (res Result, staging bool, stop error) {
	var cmd pb.Command
	if err := proto.Unmarshal(l.data, &cmd); err != nil {
		return Result{Err: fmt.Errorf("decode command: %v: %w", err, graveler.Invalid)}, true, nil
	}
	if cmd.Version > newest {
		return Result{}, true, errTooNew(cmd.Version, newest)
	}
	if cmd.Term != 0 && cmd.Term != l.term {
		return Result{Err: errLeadMoved}, true, nil
	}
	switch cmd.Op.(type) {
	case *pb.Command_Stage, *pb.Command_Settle, *pb.Command_StageBulk, *pb.Command_AdoptToken, *pb.Command_ForgetSettled,
		*pb.Command_OpenSession, *pb.Command_Tick, *pb.Command_SetNode, *pb.Command_ForgetNode, *pb.Command_Refuse:
		staging = true
	default:
		open.clear()
	}
	a := &applier{view: view{b}, b: b, open: open, index: l.index}
	if cmd.Version > 0 {
		if err := a.useVersion(cmd.Version); err != nil {
			return Result{Err: err}, staging, nil
		}
	}
	if cmd.Session != 0 {
		return a.once(&cmd), staging, nil
	}
	return a.command(&cmd), staging, nil
}

// openLayers remembers the open layers of the branches that may be staged on. It is forgotten with each command that could change them.
type openLayers struct {
	m map[openKey]graveler.StagingToken
}

type openKey struct {
	repo   graveler.RepositoryID
	branch graveler.BranchID
}

func (o *openLayers) clear() { o.m = nil }

// openLayer is the layer that a branch's changes go to, if a rule doesn't forbid them.
func (a *applier) openLayer(repo graveler.RepositoryID, branch graveler.BranchID) (graveler.StagingToken, error) {
	key := openKey{repo, branch}
	if t, ok := a.open.m[key]; ok {
		return t, nil
	}
	b, err := a.Branch(repo, branch)
	if err != nil {
		return "", err
	}
	if err := a.Allowed(repo, b.ID, graveler.BlockStaging); err != nil {
		return "", err
	}
	if a.open.m == nil {
		a.open.m = map[openKey]graveler.StagingToken{}
	}
	a.open.m[key] = b.Token
	return b.Token, nil
}

// command applies a command that was not applied before.
func (a *applier) command(cmd *pb.Command) Result {
	if err := a.run(cmd); err != nil {
		return Result{Err: err}
	}
	a.res.Event.Origin = cmd.Origin
	slices.Sort(a.suspect)
	for _, c := range slices.Compact(a.suspect) {
		named, err := a.IsPending(graveler.ContentID(c))
		if err != nil {
			return Result{Err: err}
		}
		if !named && held(c) {
			if err := a.del(key('y', c)); err != nil {
				return Result{Err: err}
			}
		}
		if !named {
			a.res.Orphans = append(a.res.Orphans, graveler.ContentID(c))
		}
	}
	return a.res
}

func (a *applier) run(cmd *pb.Command) error {
	switch op := cmd.Op.(type) {
	case *pb.Command_CreateRepository:
		return a.createRepository(op.CreateRepository)
	case *pb.Command_DeleteRepository:
		return a.deleteRepository(graveler.RepositoryID(op.DeleteRepository))
	case *pb.Command_LoadRefs:
		return a.putCommits(op.LoadRefs.Repository, op.LoadRefs.Commits)
	case *pb.Command_CreateBranch:
		return a.createBranch(op.CreateBranch)
	case *pb.Command_DeleteBranch:
		return a.deleteBranch(op.DeleteBranch)
	case *pb.Command_RenameBranch:
		return a.renameBranch(op.RenameBranch)
	case *pb.Command_SetHead:
		return a.setHead(op.SetHead)
	case *pb.Command_CreateTag:
		return a.createTag(op.CreateTag)
	case *pb.Command_DeleteTag:
		return a.deleteTag(op.DeleteTag)
	case *pb.Command_Stage:
		return a.stage(op.Stage)
	case *pb.Command_Seal:
		return a.seal(op.Seal)
	case *pb.Command_AdvanceBranch:
		return a.advance(op.AdvanceBranch)
	case *pb.Command_Settle:
		return a.settle(op.Settle)
	case *pb.Command_ResetStaging:
		return a.reset(op.ResetStaging)
	case *pb.Command_StageBulk:
		if err := a.set(key('g', op.StageBulk.Token), nil); err != nil {
			return err
		}
		return a.putRecords(graveler.StagingToken(op.StageBulk.Token), op.StageBulk.Changes)
	case *pb.Command_AdoptToken:
		return a.adopt(op.AdoptToken)
	case *pb.Command_DropToken:
		if err := a.del(key('g', op.DropToken)); err != nil {
			return err
		}
		return a.drop(graveler.StagingToken(op.DropToken))
	case *pb.Command_SetRules:
		return a.setRules(op.SetRules)
	case *pb.Command_ForgetSettled:
		return a.clear([]byte{'z'})
	case *pb.Command_OpenSession:
		return a.openSession()
	case *pb.Command_Tick:
		return a.tick()
	case *pb.Command_SetNode:
		return a.setNode(op.SetNode)
	case *pb.Command_ForgetNode:
		return a.del(nodeKey(op.ForgetNode))
	case *pb.Command_Refuse:
		return outcomeOf(op.Refuse.GetOutcome())
	case *pb.Command_SetCluster:
		return a.setCluster(op.SetCluster)
	}
	return fmt.Errorf("a command that this version doesn't know: %w", graveler.Invalid)
}

func (a *applier) set(k, v []byte) error { return a.b.Set(k, v, nil) }
func (a *applier) del(k []byte) error    { return a.b.Delete(k, nil) }
func (a *applier) clear(prefix []byte) error {
	return a.b.DeleteRange(prefix, after(prefix), nil)
}

func (a *applier) event(t engine.EventType, repo, branch string, paths []string) {
	a.res.Event = engine.Event{Type: t, Repo: graveler.RepositoryID(repo), Branch: graveler.BranchID(branch), Paths: paths}
}

func (a *applier) putCommits(repo string, commits [][]byte) error {
	for _, b := range commits {
		c, err := committed.DecodeCommit(b)
		if err != nil {
			return err
		}
		if err := a.set(commitKey(graveler.RepositoryID(repo), c.ID), b); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) putBranch(repo graveler.RepositoryID, m *pb.Branch) error {
	return a.set(branchKey(repo, graveler.BranchID(m.Id)), mustMarshal(m))
}

func (a *applier) moved(repo graveler.RepositoryID, b string, commit string, now int64) error {
	return a.set(headKey(repo, graveler.BranchID(b), time.Unix(0, now)), []byte(commit))
}

func (a *applier) createRepository(c *pb.CreateRepository) error {
	if c.GetRepository().GetId() == "" {
		return fmt.Errorf("repository without a name: %w", graveler.Invalid)
	}
	id := graveler.RepositoryID(c.Repository.Id)
	var had pb.Repository
	switch ok, err := a.message(repoKey(id), &had); {
	case err != nil:
		return err
	case ok && proto.Equal(&had, c.Repository):
		return nil // the same command again
	case ok:
		return fmt.Errorf("repository %q: %w", id, graveler.Exists)
	}
	if err := a.putCommits(string(id), c.Commits); err != nil {
		return err
	}
	for _, b := range c.Branches {
		if err := a.putBranch(id, b); err != nil {
			return err
		}
		if err := a.moved(id, b.Id, b.Commit, c.Now); err != nil {
			return err
		}
	}
	for _, t := range c.Tags {
		if err := a.set(tagKey(id, graveler.TagID(t.Id)), []byte(t.Commit)); err != nil {
			return err
		}
	}
	if len(c.Rules) > 0 {
		if err := a.set(key('u', string(id)), mustMarshal(&pb.Rules{Rules: c.Rules})); err != nil {
			return err
		}
	}
	a.event(engine.ReposChanged, string(id), "", nil)
	return a.set(repoKey(id), mustMarshal(c.Repository))
}

func (a *applier) deleteRepository(id graveler.RepositoryID) error {
	if _, err := a.Repository(id); err != nil {
		return err
	}
	var tokens []graveler.StagingToken
	err := a.Branches(id, "", func(b graveler.Branch) bool {
		tokens = append(append(tokens, b.Token), b.Sealed...)
		return true
	})
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if err := a.drop(t); err != nil {
			return err
		}
	}
	for _, kind := range []byte("btch") {
		if err := a.clear(within(kind, string(id))); err != nil {
			return err
		}
	}
	if err := a.del(key('u', string(id))); err != nil {
		return err
	}
	a.event(engine.ReposChanged, string(id), "", nil)
	return a.del(repoKey(id))
}

func (a *applier) createBranch(c *pb.CreateBranch) error {
	repo := graveler.RepositoryID(c.Repository)
	if _, err := a.Repository(repo); err != nil {
		return err
	}
	b := branchOf(c.Branch)
	if had, err := a.Branch(repo, b.ID); err == nil {
		if had.Token == b.Token {
			return nil // the same command again
		}
		return fmt.Errorf("branch %s/@%s: %w", repo, b.ID, graveler.Exists)
	} else if graveler.KindOf(err) != graveler.NotFound {
		return err
	}
	if _, err := a.Tag(repo, graveler.TagID(b.ID)); err == nil {
		return fmt.Errorf("a tag has the name %q: %w", b.ID, graveler.Exists)
	}
	if _, err := a.Commit(repo, b.Commit); err != nil {
		return err
	}
	if err := a.moved(repo, c.Branch.Id, c.Branch.Commit, c.Now); err != nil {
		return err
	}
	a.event(engine.RefsChanged, c.Repository, c.Branch.Id, nil)
	return a.putBranch(repo, c.Branch)
}

// staged reports whether any of a branch's layers has a record.
func (a *applier) staged(b *graveler.Branch) (bool, error) {
	for _, t := range layers(b) {
		if empty, err := a.Empty(t); err != nil || !empty {
			return !empty, err
		}
	}
	return false, nil
}

func layers(b *graveler.Branch) []graveler.StagingToken {
	return append([]graveler.StagingToken{b.Token}, b.Sealed...)
}

// Allowed refuses, as Protected, what a branch protection rule blocks.
func (v view) Allowed(repo graveler.RepositoryID, b graveler.BranchID, act graveler.Action) error {
	rules, err := v.Rules(repo)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if ok, _ := path.Match(r.Pattern, string(b)); ok && slices.Contains(r.Block, act) {
			return fmt.Errorf("the rule %q of repository %s blocks %s on branch %s: %w", r.Pattern, repo, act, b, graveler.Protected)
		}
	}
	return nil
}

func (a *applier) deleteBranch(c *pb.DeleteBranch) error {
	repo := graveler.RepositoryID(c.Repository)
	r, err := a.Repository(repo)
	if err != nil {
		return err
	}
	b, err := a.Branch(repo, graveler.BranchID(c.Branch))
	if err != nil {
		return err
	}
	if b.ID == r.DefaultBranch {
		return fmt.Errorf("branch %q is the default branch of %s: %w", b.ID, repo, graveler.Protected)
	}
	if err := a.Allowed(repo, b.ID, graveler.BlockDelete); err != nil {
		return err
	}
	if !c.Force {
		if dirty, err := a.staged(&b); err != nil || dirty {
			return orErr(err, fmt.Errorf("branch %s/@%s has staged changes; commit or reset them first: %w", repo, b.ID, graveler.NotEmpty))
		}
	}
	for _, t := range layers(&b) {
		if err := a.drop(t); err != nil {
			return err
		}
	}
	if err := a.clear(within('h', c.Repository, c.Branch)); err != nil {
		return err
	}
	a.event(engine.RefsChanged, c.Repository, c.Branch, nil)
	return a.del(branchKey(repo, b.ID))
}

func orErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (a *applier) renameBranch(c *pb.RenameBranch) error {
	repo := graveler.RepositoryID(c.Repository)
	var r pb.Repository
	if ok, err := a.message(repoKey(repo), &r); err != nil || !ok {
		return orErr(err, notFound("repository", c.Repository))
	}
	var b pb.Branch
	if ok, err := a.message(branchKey(repo, graveler.BranchID(c.From)), &b); err != nil || !ok {
		return orErr(err, notFound("branch", c.Repository+"/@"+c.From))
	}
	if err := a.Allowed(repo, graveler.BranchID(c.From), graveler.BlockDelete); err != nil {
		return err
	}
	if _, err := a.Branch(repo, graveler.BranchID(c.To)); err == nil {
		return fmt.Errorf("branch %s/@%s: %w", repo, c.To, graveler.Exists)
	}
	if _, err := a.Tag(repo, graveler.TagID(c.To)); err == nil {
		return fmt.Errorf("a tag has the name %q: %w", c.To, graveler.Exists)
	}
	from, to := within('h', c.Repository, c.From), within('h', c.Repository, c.To)
	heads := map[string][]byte{}
	err := a.scan(from, nil, func(k, v []byte) bool {
		heads[string(k[len(from):])] = slices.Clone(v)
		return true
	})
	if err != nil {
		return err
	}
	for t, v := range heads {
		if err := a.set(append(to[:len(to):len(to)], t...), v); err != nil {
			return err
		}
	}
	if err := a.clear(from); err != nil {
		return err
	}
	if err := a.del(branchKey(repo, graveler.BranchID(c.From))); err != nil {
		return err
	}
	if r.DefaultBranch == c.From {
		r.DefaultBranch = c.To
		if err := a.set(repoKey(repo), mustMarshal(&r)); err != nil {
			return err
		}
	}
	b.Id = c.To
	a.event(engine.RefsChanged, c.Repository, c.To, nil)
	return a.putBranch(repo, &b)
}

func (a *applier) setHead(c *pb.SetHead) error {
	repo := graveler.RepositoryID(c.Repository)
	b, err := a.Branch(repo, graveler.BranchID(c.Branch))
	if err != nil {
		return err
	}
	if _, err := a.Commit(repo, graveler.CommitID(c.Commit)); err != nil {
		return err
	}
	if err := a.Allowed(repo, b.ID, graveler.BlockCommit); err != nil {
		return err
	}
	dirty, err := a.staged(&b)
	if err != nil {
		return err
	}
	if dirty && !c.Drop {
		return fmt.Errorf("branch %s/@%s has staged changes; commit or reset them first: %w", repo, b.ID, graveler.NotEmpty)
	}
	if dirty {
		for _, t := range layers(&b) {
			if err := a.drop(t); err != nil {
				return err
			}
		}
		b.Token, b.Sealed = graveler.StagingToken(c.Token), nil
	}
	b.Commit = graveler.CommitID(c.Commit)
	if err := a.moved(repo, c.Branch, c.Commit, c.Now); err != nil {
		return err
	}
	a.event(engine.HeadMoved, c.Repository, c.Branch, nil)
	return a.putBranch(repo, branchPB(&b))
}

func (a *applier) createTag(c *pb.CreateTag) error {
	repo := graveler.RepositoryID(c.Repository)
	if _, err := a.Repository(repo); err != nil {
		return err
	}
	id := graveler.TagID(c.GetTag().GetId())
	if had, err := a.Tag(repo, id); err == nil {
		if string(had.Commit) == c.Tag.Commit {
			return nil
		}
		return fmt.Errorf("tag %s/@%s: %w", repo, id, graveler.Exists)
	}
	if _, err := a.Branch(repo, graveler.BranchID(id)); err == nil {
		return fmt.Errorf("a branch has the name %q: %w", id, graveler.Exists)
	}
	if _, err := a.Commit(repo, graveler.CommitID(c.GetTag().GetCommit())); err != nil {
		return err
	}
	a.event(engine.RefsChanged, c.Repository, string(id), nil)
	return a.set(tagKey(repo, id), []byte(c.Tag.Commit))
}

func (a *applier) deleteTag(c *pb.DeleteTag) error {
	repo, id := graveler.RepositoryID(c.Repository), graveler.TagID(c.Tag)
	if _, err := a.Tag(repo, id); err != nil {
		return err
	}
	a.event(engine.RefsChanged, c.Repository, c.Tag, nil)
	return a.del(tagKey(repo, id))
}

func (a *applier) setRules(c *pb.SetRules) error {
	if _, err := a.Repository(graveler.RepositoryID(c.Repository)); err != nil {
		return err
	}
	return a.set(key('u', c.Repository), mustMarshal(&pb.Rules{Rules: c.Rules}))
}
