package replica

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

// reader is what a View or a batch in the making offers.
type reader interface {
	Get(key []byte) ([]byte, io.Closer, error)
	NewIter(*pebble.IterOptions) (*pebble.Iterator, error)
}

// view reads the records of the state.
type view struct{ r reader }

// View is one consistent state. Close it.
type View struct {
	view
	of   *stateStore
	snap *pebble.Snapshot // nil of a Peek
	refs uint64
	now  *atomic.Uint64
}

// Unchanged reports whether a view showed one state of the refs all the time: always true but for a Peek.
func (v *View) Unchanged() bool { return v.snap != nil || v.refs != 0 && v.now.Load() == v.refs }

// Refs numbers the state of all repositories, refs and commits: views with the same number agree on them. 0 if it has none.
func (v *View) Refs() uint64 { return v.refs }

// Close frees the view.
func (v *View) Close() error {
	var err error
	if v.snap != nil {
		err = v.snap.Close()
	}
	v.of.release()
	return err
}

func notFound(what, name string) error {
	return fmt.Errorf("%s %q: %w", what, name, graveler.NotFound)
}

// get calls use with a key's value, which it may not keep.
func (v view) get(k []byte, use func([]byte) error) (bool, error) {
	b, closer, err := v.r.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the state store: %v: %w", err, graveler.Corrupt)
	}
	defer closer.Close()
	return true, use(b)
}

func (v view) message(k []byte, m proto.Message) (bool, error) {
	return v.get(k, func(b []byte) error {
		if err := proto.Unmarshal(b, m); err != nil {
			return fmt.Errorf("read the state store: %v: %w", err, graveler.Corrupt)
		}
		return nil
	})
}

// scan calls each for the keys with a prefix, from start on, until it returns false.
func (v view) scan(prefix, start []byte, each func(k, v []byte) bool) error {
	if start == nil {
		start = prefix
	}
	it, err := v.r.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("read the state store: %v: %w", err, graveler.Corrupt)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		b, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !each(it.Key(), b) {
			return nil
		}
	}
	return it.Error()
}

// Repository returns a repository.
func (v view) Repository(id graveler.RepositoryID) (graveler.Repository, error) {
	var m pb.Repository
	ok, err := v.message(repoKey(id), &m)
	if err == nil && !ok {
		err = notFound("repository", string(id))
	}
	return repoOf(&m), err
}

// Repositories lists all repositories by name.
func (v view) Repositories() (out []graveler.Repository, err error) {
	serr := v.scan([]byte{'r'}, nil, func(_, b []byte) bool {
		var m pb.Repository
		if err = proto.Unmarshal(b, &m); err != nil {
			return false
		}
		out = append(out, repoOf(&m))
		return true
	})
	return out, errors.Join(err, serr)
}

// Branch returns a branch.
func (v view) Branch(r graveler.RepositoryID, id graveler.BranchID) (graveler.Branch, error) {
	var m pb.Branch
	ok, err := v.message(branchKey(r, id), &m)
	if err == nil && !ok {
		err = notFound("branch", string(r)+"/@"+string(id))
	}
	return branchOf(&m), err
}

// Branches calls each for a repository's branches by name, from a name on, until it returns false.
func (v view) Branches(r graveler.RepositoryID, from string, each func(graveler.Branch) bool) error {
	prefix := within('b', string(r))
	var err error
	serr := v.scan(prefix, append(prefix[:len(prefix):len(prefix)], from...), func(_, b []byte) bool {
		var m pb.Branch
		if err = proto.Unmarshal(b, &m); err != nil {
			return false
		}
		return each(branchOf(&m))
	})
	return errors.Join(err, serr)
}

// Tag returns a tag.
func (v view) Tag(r graveler.RepositoryID, id graveler.TagID) (graveler.Tag, error) {
	t := graveler.Tag{ID: id}
	ok, err := v.get(tagKey(r, id), func(b []byte) error { t.Commit = graveler.CommitID(b); return nil })
	if err == nil && !ok {
		err = notFound("tag", string(r)+"/@"+string(id))
	}
	return t, err
}

// Tags calls each for a repository's tags by name, from a name on, until it returns false.
func (v view) Tags(r graveler.RepositoryID, from string, each func(graveler.Tag) bool) error {
	prefix := within('t', string(r))
	return v.scan(prefix, append(prefix[:len(prefix):len(prefix)], from...), func(k, b []byte) bool {
		return each(graveler.Tag{ID: graveler.TagID(k[len(prefix):]), Commit: graveler.CommitID(b)})
	})
}

// Commit returns a commit.
func (v view) Commit(r graveler.RepositoryID, id graveler.CommitID) (c graveler.Commit, err error) {
	ok, err := v.get(commitKey(r, id), func(b []byte) (err error) { c, err = committed.DecodeCommit(b); return err })
	if err == nil && !ok {
		err = notFound("commit", string(id))
	}
	return c, err
}

// Commits yields all commits of a repository, by id.
func (v view) Commits(r graveler.RepositoryID) iter.Seq2[graveler.Commit, error] {
	return func(yield func(graveler.Commit, error) bool) {
		err := v.scan(within('c', string(r)), nil, func(_, b []byte) bool {
			c, err := committed.DecodeCommit(b)
			return yield(c, err) && err == nil
		})
		if err != nil {
			yield(graveler.Commit{}, err)
		}
	}
}

// CommitByPrefix finds the one commit whose id starts with prefix.
func (v view) CommitByPrefix(r graveler.RepositoryID, prefix string) (graveler.CommitID, error) {
	var found []graveler.CommitID
	all := within('c', string(r))
	err := v.scan(append(all[:len(all):len(all)], prefix...), nil, func(k, _ []byte) bool {
		found = append(found, graveler.CommitID(k[len(all):]))
		return len(found) < 2
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", notFound("commit", prefix)
	case len(found) > 1:
		return "", fmt.Errorf("%q is the start of several commit ids; write more digits: %w", prefix, graveler.Invalid)
	}
	return found[0], nil
}

// HeadAt is where a branch stood at a time; NotFound if nothing that old is recorded.
func (v view) HeadAt(r graveler.RepositoryID, b graveler.BranchID, t time.Time) (id graveler.CommitID, err error) {
	prefix := within('h', string(r), string(b))
	err = v.scan(prefix, headKey(r, b, t), func(_, c []byte) bool {
		id = graveler.CommitID(c)
		return false
	})
	if err == nil && id == "" {
		err = notFound("branch", string(b)+" at "+t.Format(time.RFC3339))
	}
	return id, err
}

// Staged returns the record of one layer at a path, if there is one.
func (v view) Staged(t graveler.StagingToken, path string) (c graveler.Change, ok bool, err error) {
	ok, err = v.get(stagedKey(t, path), func(b []byte) (err error) { c, err = decodeRecord(path, b); return err })
	return c, ok, err
}

// StagedAround returns the records of one layer at a path, if there is one, and a cursor that stands at or behind path + "/". Close
// the cursor before the view.
func (v view) StagedAround(t graveler.StagingToken, path string) (c graveler.Change, ok bool, below graveler.Cursor, err error) {
	cur, err := v.StagedCursor(t)
	if err != nil {
		return c, false, nil, err
	}
	sc := cur.(*stagedCursor)
	if sc.SeekGE(path) && sc.path == path {
		ch, err := sc.Change()
		if err != nil {
			sc.Close()
			return c, false, nil, err
		}
		c, ok = *ch, true
	}
	return c, ok, sc, sc.err
}

// StagedCursor walks one layer. Close it before the view.
func (v view) StagedCursor(t graveler.StagingToken) (graveler.Cursor, error) {
	prefix := within('s', string(t))
	it, err := v.r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmt.Errorf("read staging: %v: %w", err, graveler.Corrupt)
	}
	return &stagedCursor{it: it, prefix: prefix}, nil
}

// Empty reports whether a layer has no record.
func (v view) Empty(t graveler.StagingToken) (bool, error) {
	empty := true
	err := v.scan(within('s', string(t)), nil, func(_, _ []byte) bool { empty = false; return false })
	return empty, err
}

// Pending is one place that names a pending content.
type Pending struct {
	Content graveler.ContentID
	Token   graveler.StagingToken
	Path    string
}

// PendingOf lists the pending records of one layer.
func (v view) PendingOf(t graveler.StagingToken) (out []Pending, err error) {
	prefix := within('q', string(t))
	err = v.scan(prefix, nil, func(k, b []byte) bool {
		out = append(out, Pending{graveler.ContentID(b), t, string(k[len(prefix):])})
		return true
	})
	return out, err
}

// PendingContents lists every content that some record names, once.
func (v view) PendingContents() (out []graveler.ContentID, err error) {
	err = v.scan([]byte{'p'}, nil, func(k, _ []byte) bool {
		id := graveler.ContentID(k[1 : 1+indexNUL(k[1:])])
		if len(out) == 0 || out[len(out)-1] != id {
			out = append(out, id)
		}
		return true
	})
	return out, err
}

// PendingToken returns a layer that has a record naming a content.
func (v view) PendingToken(id graveler.ContentID) (t graveler.StagingToken, found bool, err error) {
	prefix := within('p', string(id))
	err = v.scan(prefix, nil, func(k, _ []byte) bool {
		rest := k[len(prefix):]
		t, found = graveler.StagingToken(rest[:indexNUL(rest)]), true
		return false
	})
	return t, found, err
}

// SettledContents lists the contents of which it is remembered what they became.
func (v view) SettledContents() (out []graveler.ContentID, err error) {
	err = v.scan([]byte{'z'}, nil, func(k, _ []byte) bool {
		out = append(out, graveler.ContentID(k[1:]))
		return true
	})
	return out, err
}

// SettledAs tells what a content became, if that was not long ago.
func (v view) SettledAs(id graveler.ContentID) (engine.Settled, bool, error) {
	return v.settledAt(key('z', string(id)))
}

// BackedUp tells what a pending content was when its holder last remembered a snapshot of it.
func (v view) BackedUp(id graveler.ContentID) (engine.Settled, bool, error) {
	return v.settledAt(key('y', string(id)))
}

func (v view) settledAt(k []byte) (engine.Settled, bool, error) {
	var s pb.Settled
	ok, err := v.message(k, &s)
	return engine.Settled{
		Content: graveler.ContentID(s.Content), Address: s.Address, AddressType: graveler.AddressType(s.AddressType), Size: s.Size, ETag: s.Etag,
		Modified: time.Unix(0, s.Modified).UTC(), Snapshot: s.Snapshot,
	}, ok, err
}

// IsPending reports whether some record names a content.
func (v view) IsPending(id graveler.ContentID) (bool, error) {
	found := false
	err := v.scan(within('p', string(id)), nil, func(_, _ []byte) bool { found = true; return false })
	return found, err
}

func indexNUL(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return len(b)
}

// Bulks lists the bulk tokens that no branch has adopted.
func (v view) Bulks() (out []graveler.StagingToken, err error) {
	err = v.scan([]byte{'g'}, nil, func(k, _ []byte) bool {
		out = append(out, graveler.StagingToken(k[1:]))
		return true
	})
	return out, err
}

// Rules lists a repository's branch protection rules.
func (v view) Rules(r graveler.RepositoryID) ([]graveler.Rule, error) {
	var m pb.Rules
	if _, err := v.message(key('u', string(r)), &m); err != nil {
		return nil, err
	}
	var out []graveler.Rule
	for _, rule := range m.Rules {
		g := graveler.Rule{Pattern: rule.Pattern}
		for _, b := range rule.Block {
			g.Block = append(g.Block, graveler.Action(b))
		}
		out = append(out, g)
	}
	return out, nil
}

// Applied is the index of the last log entry that the state has.
func (v view) Applied() (index, term uint64, err error) {
	_, err = v.get(appliedKey, func(b []byte) error {
		if len(b) != 16 {
			return fmt.Errorf("applied index: %w", graveler.Corrupt)
		}
		index, term = be(b), be(b[8:])
		return nil
	})
	return index, term, err
}

type stagedCursor struct {
	it      *pebble.Iterator
	prefix  []byte
	started bool
	path    string
	change  graveler.Change
	err     error
}

func (c *stagedCursor) at(ok bool) bool {
	c.started = true
	if ok {
		c.path = string(c.it.Key()[len(c.prefix):])
	} else if err := c.it.Error(); err != nil {
		c.err = fmt.Errorf("read staging: %v: %w", err, graveler.Corrupt)
	}
	return ok
}

func (c *stagedCursor) Next() bool {
	if !c.started {
		return c.at(c.it.First())
	}
	return c.at(c.it.Next())
}

func (c *stagedCursor) SeekGE(path string) bool {
	return c.at(c.it.SeekGE(append(c.prefix[:len(c.prefix):len(c.prefix)], path...)))
}

func (c *stagedCursor) Path() string { return c.path }

func (c *stagedCursor) Change() (*graveler.Change, error) {
	b, err := c.it.ValueAndErr()
	if err == nil {
		c.change, err = decodeRecord(c.path, b)
	}
	return &c.change, err
}

// Encoded implements graveler.Encoded.
func (c *stagedCursor) Encoded() (entry []byte, pending graveler.ContentID, remove, ok bool, err error) {
	b, err := c.it.ValueAndErr()
	if err != nil {
		return nil, "", false, false, err
	}
	kind, content, entry, err := splitRecord(b)
	return entry, graveler.ContentID(content), kind == recTombstone, true, err
}

func (c *stagedCursor) Err() error   { return c.err }
func (c *stagedCursor) Close() error { return c.it.Close() }
