package replica

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

// putRecord writes one staged record and keeps the pending index.
func (a *applier) putRecord(t graveler.StagingToken, path string, value []byte, had *hadPending) error {
	if had.may(path) {
		if err := a.unindex(t, path); err != nil {
			return err
		}
	}
	_, content, _, err := splitRecord(value)
	if err != nil {
		return err
	}
	if content != "" {
		had.add(path)
		if err := a.set(key('p', content, string(t), path), nil); err != nil {
			return err
		}
		if err := a.set(key('q', string(t), path), []byte(content)); err != nil {
			return err
		}
	}
	return a.set(stagedKey(t, path), value)
}

// unindex takes a path's record, if it is a pending one, out of the pending index.
func (a *applier) unindex(t graveler.StagingToken, path string) error {
	q := key('q', string(t), path)
	content := ""
	if ok, err := a.get(q, func(b []byte) error { content = string(b); return nil }); err != nil || !ok {
		return err
	}
	a.suspect = append(a.suspect, content)
	if err := a.del(key('p', content, string(t), path)); err != nil {
		return err
	}
	return a.del(q)
}

// hadPending tells, of many paths, which may have a pending record now: one scan instead of a look at each. Nil knows nothing.
type hadPending struct{ paths map[string]bool }

func (h *hadPending) may(path string) bool { return h == nil || h.paths[path] }

func (h *hadPending) add(path string) {
	if h != nil {
		h.paths[path] = true
	}
}

// manyPaths is from how many paths on the index is scanned.
const manyPaths = 64

// pendingWithin finds the pending records from path lo to hi, or nothing if they are more than limit.
func (a *applier) pendingWithin(t graveler.StagingToken, lo, hi string, limit int) (*hadPending, error) {
	h := &hadPending{map[string]bool{}}
	prefix := within('q', string(t))
	err := a.scan(prefix, append(prefix[:len(prefix):len(prefix)], lo...), func(k, _ []byte) bool {
		path := string(k[len(prefix):])
		if path > hi || len(h.paths) > limit {
			return false
		}
		h.paths[path] = true
		return true
	})
	if err != nil || len(h.paths) > limit {
		return nil, err
	}
	return h, nil
}

func (a *applier) putRecords(t graveler.StagingToken, changes []*pb.Change) error {
	var had *hadPending
	if len(changes) >= manyPaths {
		lo, hi := changes[0].Path, changes[0].Path
		for _, c := range changes {
			if bytes.Compare(c.Path, lo) < 0 {
				lo = c.Path
			}
			if bytes.Compare(c.Path, hi) > 0 {
				hi = c.Path
			}
		}
		var err error
		if had, err = a.pendingWithin(t, string(lo), string(hi), 4*len(changes)); err != nil {
			return err
		}
	}
	for _, c := range changes {
		value := appendRecord(nil, c)
		if c.Pending != "" && !c.Remove {
			// The content may have become an object after the proposer read the entry.
			var s pb.Settled
			ok, err := a.message(key('z', c.Pending), &s)
			if err != nil {
				return err
			}
			if ok {
				if value, err = settledRecord(string(c.Path), value, &s); err != nil {
					return err
				}
			}
		}
		if err := a.putRecord(t, string(c.Path), value, had); err != nil {
			return err
		}
	}
	return nil
}

// settledRecord is a pending record's value with the object that its content became.
func settledRecord(path string, value []byte, s *pb.Settled) ([]byte, error) {
	ch, err := decodeRecord(path, value)
	if err != nil {
		return nil, err
	}
	e := &ch.Entry
	e.Pending, e.Address, e.AddressType = "", s.Address, graveler.AddressType(s.AddressType)
	e.Size, e.ETag, e.Modified = s.Size, s.Etag, time.Unix(0, s.Modified).UTC()
	if _, has := e.Metadata[graveler.MetaMtime]; has {
		e.Metadata[graveler.MetaMtime] = strconv.FormatInt(e.Modified.Unix(), 10)
	}
	b, err := committed.EncodeEntry(e)
	return append([]byte{recPut}, b...), err
}

// drop removes a layer.
func (a *applier) drop(t graveler.StagingToken) error {
	pending, err := a.PendingOf(t)
	if err != nil {
		return err
	}
	for _, p := range pending {
		a.suspect = append(a.suspect, string(p.Content))
		if err := a.del(key('p', string(p.Content), string(t), p.Path)); err != nil {
			return err
		}
	}
	if err := a.clear(within('q', string(t))); err != nil {
		return err
	}
	return a.clear(within('s', string(t)))
}

func (a *applier) stage(c *pb.Stage) error {
	token, err := a.openLayer(graveler.RepositoryID(c.Repository), graveler.BranchID(c.Branch))
	if err != nil {
		return err
	}
	var paths []string
	for _, ch := range c.Changes {
		p := string(ch.Path)
		if err := graveler.ValidatePath(p); err != nil {
			return err
		}
		if len(ch.Pending) > 255 {
			return fmt.Errorf("content id of %d bytes: %w", len(ch.Pending), graveler.Invalid)
		}
		if len(c.Changes) <= maxEventPaths {
			paths = append(paths, p)
		}
	}
	a.event(engine.StagingChanged, c.Repository, c.Branch, paths)
	return a.putRecords(token, c.Changes)
}

func (a *applier) seal(c *pb.Seal) error {
	repo := graveler.RepositoryID(c.Repository)
	b, err := a.Branch(repo, graveler.BranchID(c.Branch))
	if err != nil {
		return err
	}
	if string(b.Token) == c.Token {
		return nil // the same command again
	}
	empty, err := a.Empty(b.Token)
	if err != nil || empty {
		return err // an empty layer needs no seal
	}
	b.Sealed = append([]graveler.StagingToken{b.Token}, b.Sealed...)
	b.Token = graveler.StagingToken(c.Token)
	return a.putBranch(repo, branchPB(&b))
}

// advance moves a branch to a new commit and drops the layers that it holds now, in one step.
func (a *applier) advance(c *pb.AdvanceBranch) error {
	repo := graveler.RepositoryID(c.Repository)
	b, err := a.Branch(repo, graveler.BranchID(c.Branch))
	if err != nil {
		return err
	}
	commit, err := committed.DecodeCommit(c.Commit)
	if err != nil {
		return err
	}
	if b.Commit == commit.ID {
		return nil // the same command again
	}
	if string(b.Commit) != c.Expect {
		return fmt.Errorf("branch %s/@%s moved to %.12s meanwhile: %w", repo, b.ID, b.Commit, graveler.Conflict)
	}
	if !c.Merge {
		if err := a.Allowed(repo, b.ID, graveler.BlockCommit); err != nil {
			return err
		}
	}
	rest := b
	rest.Sealed = slices.DeleteFunc(slices.Clone(b.Sealed), func(t graveler.StagingToken) bool {
		return slices.Contains(c.Drop, string(t))
	})
	if len(rest.Sealed)+len(c.Drop) != len(b.Sealed) {
		return fmt.Errorf("the staging of %s/@%s changed meanwhile: %w", repo, b.ID, graveler.Conflict)
	}
	for _, k := range c.Keep {
		if err := a.keep(&rest, c.Drop, string(k.Path), k.Content); err != nil {
			return err
		}
	}
	for _, t := range c.Drop {
		if err := a.drop(graveler.StagingToken(t)); err != nil {
			return err
		}
	}
	rest.Commit = commit.ID
	if err := a.set(commitKey(repo, commit.ID), c.Commit); err != nil {
		return err
	}
	if err := a.moved(repo, c.Branch, string(commit.ID), c.Now); err != nil {
		return err
	}
	a.event(engine.HeadMoved, c.Repository, c.Branch, nil)
	a.res.Event.Unchanged = !c.Merge
	return a.putBranch(repo, branchPB(&rest))
}

// keep stages a pending record of a layer that is dropped again in the open one, unless a newer layer has the path: its file
// was still being written when the commit took a snapshot of it.
func (a *applier) keep(rest *graveler.Branch, drop []string, path, content string) error {
	for _, t := range layers(rest) {
		if _, ok, err := a.Staged(t, path); err != nil || ok {
			return err
		}
	}
	for _, t := range drop {
		var value []byte
		ok, err := a.get(stagedKey(graveler.StagingToken(t), path), func(b []byte) error {
			value = slices.Clone(b)
			return nil
		})
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if _, got, _, err := splitRecord(value); err != nil || got != content {
			return err
		}
		return a.putRecord(rest.Token, path, value, nil)
	}
	return nil
}

// settle names the objects that pending contents became, in every record that names them.
func (a *applier) settle(c *pb.Settle) error {
	for _, id := range c.Forget {
		if err := a.del(key('z', id)); err != nil {
			return err
		}
	}
	for _, s := range c.Contents {
		if s.Snapshot {
			if err := a.backUp(s); err != nil {
				return err
			}
			continue
		}
		if held(s.Content) {
			if err := a.del(key('y', s.Content)); err != nil {
				return err
			}
		}
		if err := a.set(key('z', s.Content), mustMarshal(s)); err != nil {
			return err
		}
		prefix := within('p', s.Content)
		var places []Pending
		err := a.scan(prefix, nil, func(k, _ []byte) bool {
			rest := k[len(prefix):]
			i := indexNUL(rest)
			places = append(places, Pending{Token: graveler.StagingToken(rest[:i]), Path: string(rest[i+1:])})
			return true
		})
		if err != nil {
			return err
		}
		for _, p := range places {
			var value []byte
			k := stagedKey(p.Token, p.Path)
			if _, err := a.get(k, func(b []byte) error { value = slices.Clone(b); return nil }); err != nil {
				return err
			}
			if _, content, _, err := splitRecord(value); err != nil || content != s.Content {
				return orErr(err, fmt.Errorf("pending index of %q: %w", p.Path, graveler.Corrupt))
			}
			if value, err = settledRecord(p.Path, value, s); err != nil {
				return err
			}
			if err := a.set(k, value); err != nil {
				return err
			}
			if err := a.del(key('p', s.Content, string(p.Token), p.Path)); err != nil {
				return err
			}
			if err := a.del(key('q', string(p.Token), p.Path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// backUp remembers the last snapshot of a content, as long as something names it.
func (a *applier) backUp(s *pb.Settled) error {
	if named, err := a.IsPending(graveler.ContentID(s.Content)); err != nil || !named {
		return err
	}
	return a.set(key('y', s.Content), mustMarshal(s))
}

// held reports whether another machine holds a content.
func held(content string) bool { return engine.HolderOf(graveler.ContentID(content)) != "" }

func (a *applier) reset(c *pb.ResetStaging) error {
	repo := graveler.RepositoryID(c.Repository)
	b, err := a.Branch(repo, graveler.BranchID(c.Branch))
	if err != nil {
		return err
	}
	if len(c.Path) == 0 {
		for _, t := range layers(&b) {
			if err := a.drop(t); err != nil {
				return err
			}
		}
		b.Token, b.Sealed = graveler.StagingToken(c.Token), nil
		a.event(engine.StagingChanged, c.Repository, c.Branch, nil)
		return a.putBranch(repo, branchPB(&b))
	}
	path := string(c.Path)
	for _, t := range layers(&b) {
		var gone []string
		if _, ok, err := a.Staged(t, path); err != nil {
			return err
		} else if ok {
			gone = append(gone, path)
		}
		dir := stagedKey(t, path+"/")
		err := a.scan(dir, nil, func(k, _ []byte) bool {
			gone = append(gone, lastPart(k, 2))
			return true
		})
		if err != nil {
			return err
		}
		for _, p := range gone {
			if err := a.unindex(t, p); err != nil {
				return err
			}
			if err := a.del(stagedKey(t, p)); err != nil {
				return err
			}
		}
	}
	a.event(engine.StagingChanged, c.Repository, c.Branch, []string{path, path + "/"})
	return nil
}

// adopt puts a bulk token's records into a branch's open layer. A layer of its own would cost every later read of the branch.
func (a *applier) adopt(c *pb.AdoptToken) error {
	repo := graveler.RepositoryID(c.Repository)
	b, err := a.Branch(repo, graveler.BranchID(c.Branch))
	if err != nil {
		return err
	}
	token := graveler.StagingToken(c.Token)
	if slices.Contains(b.Sealed, token) {
		return nil // a log of an older version, applied again
	}
	if err := a.Allowed(repo, b.ID, graveler.BlockStaging); err != nil {
		return err
	}
	type record struct {
		path  string
		value []byte
	}
	var records []record
	prefix := within('s', c.Token)
	err = a.scan(prefix, nil, func(k, v []byte) bool {
		records = append(records, record{string(k[len(prefix):]), slices.Clone(v)})
		return true
	})
	if err != nil {
		return err
	}
	var had *hadPending
	if n := len(records); n >= manyPaths {
		if had, err = a.pendingWithin(b.Token, records[0].path, records[n-1].path, 4*n); err != nil {
			return err
		}
	}
	for _, r := range records {
		if err := a.putRecord(b.Token, r.path, r.value, had); err != nil {
			return err
		}
	}
	if err := a.drop(token); err != nil {
		return err
	}
	a.event(engine.StagingChanged, c.Repository, c.Branch, nil)
	return a.del(key('g', c.Token))
}
