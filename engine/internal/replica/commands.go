package replica

import (
	"context"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

// The commands. Each is atomic, and carries every id and time that it makes, so that applying it again changes nothing more.

// chunk bounds how much of a large load or bulk goes into one log entry.
const chunk = 2000

// CreateRepository makes a repository with all its refs and rules.
func (r *Replica) CreateRepository(ctx context.Context, repo graveler.Repository, commits []graveler.Commit, branches []graveler.Branch, tags []graveler.Tag, rules ...graveler.Rule) error {
	c := &pb.CreateRepository{Repository: repoPB(&repo), Now: time.Now().UnixNano(), Rules: rulesPB(rules)}
	var encoded [][]byte
	for i := range commits {
		b, err := committed.EncodeCommit(&commits[i])
		if err != nil {
			return err
		}
		encoded = append(encoded, b)
	}
	for len(encoded) > chunk {
		load := &pb.LoadRefs{Repository: string(repo.ID), Commits: encoded[:chunk]}
		if _, err := r.propose(ctx, &pb.Command{Op: &pb.Command_LoadRefs{LoadRefs: load}}); err != nil {
			return err
		}
		encoded = encoded[chunk:]
	}
	c.Commits = encoded
	for i := range branches {
		c.Branches = append(c.Branches, branchPB(&branches[i]))
	}
	for _, t := range tags {
		c.Tags = append(c.Tags, &pb.Tag{Id: string(t.ID), Commit: string(t.Commit)})
	}
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_CreateRepository{CreateRepository: c}})
	return err
}

// DeleteRepository forgets a repository.
func (r *Replica) DeleteRepository(ctx context.Context, id graveler.RepositoryID) (Result, error) {
	return r.propose(ctx, &pb.Command{Op: &pb.Command_DeleteRepository{DeleteRepository: string(id)}})
}

// CreateBranch makes a branch.
func (r *Replica) CreateBranch(ctx context.Context, repo graveler.RepositoryID, b graveler.Branch) error {
	c := &pb.CreateBranch{Repository: string(repo), Branch: branchPB(&b), Now: time.Now().UnixNano()}
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_CreateBranch{CreateBranch: c}})
	return err
}

// DeleteBranch removes a branch.
func (r *Replica) DeleteBranch(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, force bool) (Result, error) {
	c := &pb.DeleteBranch{Repository: string(repo), Branch: string(id), Force: force}
	return r.propose(ctx, &pb.Command{Op: &pb.Command_DeleteBranch{DeleteBranch: c}})
}

// RenameBranch renames a branch.
func (r *Replica) RenameBranch(ctx context.Context, repo graveler.RepositoryID, from, to graveler.BranchID) error {
	c := &pb.RenameBranch{Repository: string(repo), From: string(from), To: string(to)}
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_RenameBranch{RenameBranch: c}})
	return err
}

// SetHead moves a branch; token is the fresh open one if staging is dropped.
func (r *Replica) SetHead(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, commit graveler.CommitID, drop bool, token graveler.StagingToken) (Result, error) {
	c := &pb.SetHead{Repository: string(repo), Branch: string(id), Commit: string(commit), Drop: drop, Token: string(token), Now: time.Now().UnixNano()}
	return r.propose(ctx, &pb.Command{Op: &pb.Command_SetHead{SetHead: c}})
}

// CreateTag makes a tag.
func (r *Replica) CreateTag(ctx context.Context, repo graveler.RepositoryID, t graveler.Tag) error {
	c := &pb.CreateTag{Repository: string(repo), Tag: &pb.Tag{Id: string(t.ID), Commit: string(t.Commit)}}
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_CreateTag{CreateTag: c}})
	return err
}

// DeleteTag removes a tag.
func (r *Replica) DeleteTag(ctx context.Context, repo graveler.RepositoryID, id graveler.TagID) error {
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_DeleteTag{DeleteTag: &pb.DeleteTag{Repository: string(repo), Tag: string(id)}}})
	return err
}

// Stage writes records to a branch's open layer.
func (r *Replica) Stage(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, changes []graveler.Change) (Result, error) {
	cs, err := changesPB(changes)
	if err != nil {
		return Result{}, err
	}
	c := &pb.Stage{Repository: string(repo), Branch: string(id), Changes: cs}
	return r.propose(ctx, &pb.Command{Op: &pb.Command_Stage{Stage: c}})
}

// Encoded is a change whose entry is encoded already, without Pending.
type Encoded struct {
	Path    string
	Remove  bool
	Entry   []byte
	Pending graveler.ContentID
}

// encodedPB is changesPB of encoded changes. The entries' memory is shared.
func encodedPB(cs []Encoded) []*pb.Change {
	out, all := make([]*pb.Change, len(cs)), make([]pb.Change, len(cs))
	for i := range cs {
		m := &all[i]
		m.Path, m.Remove, m.Entry, m.Pending = []byte(cs[i].Path), cs[i].Remove, cs[i].Entry, string(cs[i].Pending)
		out[i] = m
	}
	return out
}

// StageEncoded is Stage of encoded changes.
func (r *Replica) StageEncoded(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, changes []Encoded) (Result, error) {
	c := &pb.Stage{Repository: string(repo), Branch: string(id), Changes: encodedPB(changes)}
	return r.propose(ctx, &pb.Command{Op: &pb.Command_Stage{Stage: c}})
}

// StageBulkEncoded is StageBulk of encoded changes.
func (r *Replica) StageBulkEncoded(ctx context.Context, token graveler.StagingToken, changes []Encoded) error {
	for len(changes) > 0 {
		n := min(len(changes), chunk)
		c := &pb.StageBulk{Token: string(token), Changes: encodedPB(changes[:n])}
		if _, err := r.propose(ctx, &pb.Command{Op: &pb.Command_StageBulk{StageBulk: c}}); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// Seal closes a branch's open layer, unless it is empty; token is the fresh one.
func (r *Replica) Seal(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, token graveler.StagingToken) error {
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_Seal{Seal: &pb.Seal{Repository: string(repo), Branch: string(id), Token: string(token)}}})
	return err
}

// Keep names a pending record that must stay staged although its layer is dropped.
type Keep struct {
	Path    string
	Content graveler.ContentID
}

// Advance is AdvanceBranch's request.
type Advance struct {
	Repo   graveler.RepositoryID
	Branch graveler.BranchID
	Expect graveler.CommitID
	Commit graveler.Commit
	Drop   []graveler.StagingToken
	Keep   []Keep
	Merge  bool
}

// AdvanceBranch moves a branch to a new commit and drops layers, if its head is the expected one; else Conflict.
func (r *Replica) AdvanceBranch(ctx context.Context, a Advance) (Result, error) {
	b, err := committed.EncodeCommit(&a.Commit)
	if err != nil {
		return Result{}, err
	}
	c := &pb.AdvanceBranch{Repository: string(a.Repo), Branch: string(a.Branch), Expect: string(a.Expect), Commit: b, Now: time.Now().UnixNano(), Merge: a.Merge}
	for _, t := range a.Drop {
		c.Drop = append(c.Drop, string(t))
	}
	for _, k := range a.Keep {
		c.Keep = append(c.Keep, &pb.Keep{Path: []byte(k.Path), Content: string(k.Content)})
	}
	return r.propose(ctx, &pb.Command{Op: &pb.Command_AdvanceBranch{AdvanceBranch: c}})
}

// Settle names the objects that pending contents became. A Stage that still names one as pending gets the object too, until it
// is among those to forget.
func (r *Replica) Settle(ctx context.Context, ss []engine.Settled, forget []graveler.ContentID) error {
	c := &pb.Settle{}
	for _, id := range forget {
		c.Forget = append(c.Forget, string(id))
	}
	for _, s := range ss {
		c.Contents = append(c.Contents, &pb.Settled{Content: string(s.Content), Address: s.Address, AddressType: int32(s.AddressType), Size: s.Size, Etag: s.ETag, Modified: s.Modified.UnixNano(), Snapshot: s.Snapshot})
	}
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_Settle{Settle: c}})
	return err
}

// ResetStaging drops what is staged at and under a path, or all.
func (r *Replica) ResetStaging(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, path string, token graveler.StagingToken) (Result, error) {
	c := &pb.ResetStaging{Repository: string(repo), Branch: string(id), Path: []byte(path), Token: string(token)}
	return r.propose(ctx, &pb.Command{Op: &pb.Command_ResetStaging{ResetStaging: c}})
}

// StageBulk writes records to a token that no branch has yet.
func (r *Replica) StageBulk(ctx context.Context, token graveler.StagingToken, changes []graveler.Change) error {
	for len(changes) > 0 {
		n := min(len(changes), chunk)
		cs, err := changesPB(changes[:n])
		if err != nil {
			return err
		}
		if _, err := r.propose(ctx, &pb.Command{Op: &pb.Command_StageBulk{StageBulk: &pb.StageBulk{Token: string(token), Changes: cs}}}); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// AdoptToken puts a bulk token's records into a branch's open layer in one step.
func (r *Replica) AdoptToken(ctx context.Context, repo graveler.RepositoryID, id graveler.BranchID, token graveler.StagingToken) (Result, error) {
	c := &pb.AdoptToken{Repository: string(repo), Branch: string(id), Token: string(token)}
	return r.propose(ctx, &pb.Command{Op: &pb.Command_AdoptToken{AdoptToken: c}})
}

// DropToken removes a bulk token that no branch adopted.
func (r *Replica) DropToken(ctx context.Context, token graveler.StagingToken) (Result, error) {
	return r.propose(ctx, &pb.Command{Op: &pb.Command_DropToken{DropToken: string(token)}})
}

// SetRules replaces a repository's branch protection rules.
func (r *Replica) SetRules(ctx context.Context, repo graveler.RepositoryID, rules []graveler.Rule) error {
	c := &pb.SetRules{Repository: string(repo), Rules: rulesPB(rules)}
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_SetRules{SetRules: c}})
	return err
}

// ForgetSettled forgets what contents became, when no Stage is under way.
func (r *Replica) ForgetSettled(ctx context.Context) error {
	_, err := r.propose(ctx, &pb.Command{Op: &pb.Command_ForgetSettled{ForgetSettled: true}})
	return err
}
