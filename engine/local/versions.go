package local

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/engine/internal/settle"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

// newCommit makes a commit over its parents.
func newCommit(committer, message string, metadata map[string]string, mr graveler.MetaRangeID, parents ...graveler.Commit) graveler.Commit {
	c := graveler.Commit{
		Committer: committer, Message: message, Metadata: metadata, MetaRange: mr, Created: time.Now().UTC(), Version: 1, Generation: 1,
	}
	for _, p := range parents {
		c.Parents = append(c.Parents, p.ID)
		c.Generation = max(c.Generation, p.Generation+1)
	}
	c.ID = c.ComputeID()
	return c
}

// committer names nobody in particular where no name is given.
func committer(s string) string {
	if s == "" {
		return "lakefsfs"
	}
	return s
}

func checkMessage(message string, metadata map[string]string) error {
	if strings.TrimSpace(message) == "" {
		return fmt.Errorf("a commit needs a message: %w", graveler.Invalid)
	}
	if !graveler.ValidUTF8(message) {
		return fmt.Errorf("the commit message is not UTF-8: %w", graveler.Invalid)
	}
	for k, v := range metadata {
		if k == "" || !graveler.ValidUTF8(k) || !graveler.ValidUTF8(v) {
			return fmt.Errorf("commit metadata %q=%q: keys are not empty, and both are UTF-8: %w", k, v, graveler.Invalid)
		}
	}
	return nil
}

// commit makes what is staged on a branch a commit. Writers go on meanwhile, in a layer above the sealed ones that are being
// committed. A kill at any point leaves those layers sealed, still shown, and taken up by the next commit.
func (e *Engine) commit(ctx context.Context, r engine.CommitRequest) (graveler.Commit, error) {
	if err := checkMessage(r.Message, r.Metadata); err != nil {
		return graveler.Commit{}, err
	}
	mu := e.committing(r.Repo, r.Branch)
	mu.Lock()
	defer mu.Unlock()
	if err := e.rep.Seal(ctx, r.Repo, r.Branch, newToken()); err != nil {
		return graveler.Commit{}, err
	}
	v, err := e.rep.View()
	if err != nil {
		return graveler.Commit{}, err
	}
	b, err := v.Branch(r.Repo, r.Branch)
	if err == nil {
		// Refused early, not after the work.
		err = v.Allowed(r.Repo, b.ID, graveler.BlockCommit)
	}
	var sp *space
	if err == nil {
		sp, err = e.spaceOf(ctx, v, r.Repo)
	}
	v.Close()
	if err != nil {
		return graveler.Commit{}, err
	}
	snaps, keep, err := e.settleLayers(ctx, b.Sealed)
	if err != nil {
		return graveler.Commit{}, err
	}
	if v, err = e.rep.View(); err != nil {
		return graveler.Commit{}, err
	}
	defer v.Close()
	head, err := v.Commit(r.Repo, b.Commit)
	if err != nil {
		return graveler.Commit{}, err
	}
	w := &version{v: v, s: sp, layers: b.Sealed}
	changes, err := w.staged()
	if err != nil {
		return graveler.Commit{}, err
	}
	defer changes.Close()
	mr, _, err := sp.tables.Apply(ctx, head.MetaRange, &settledCursor{Cursor: changes, snaps: snaps})
	if errors.Is(err, graveler.NothingToDo) {
		if !r.AllowEmpty {
			return graveler.Commit{}, fmt.Errorf("%s/@%s has nothing staged that differs from its head: %w", r.Repo, r.Branch, err)
		}
		mr, err = head.MetaRange, nil
	}
	if err != nil {
		return graveler.Commit{}, err
	}
	if err := settle.SyncObjects(ctx, sp.objects); err != nil {
		return graveler.Commit{}, err
	}
	c := newCommit(committer(r.Committer), r.Message, r.Metadata, mr, head)
	err = e.advance(returning(ctx, c), replica.Advance{Repo: r.Repo, Branch: r.Branch, Expect: head.ID, Commit: c, Drop: b.Sealed, Keep: keep})
	return c, err
}

func (e *Engine) advance(ctx context.Context, a replica.Advance) error {
	res, err := e.rep.AdvanceBranch(ctx, a)
	if err != nil {
		return err
	}
	e.spill.Drop(res.Orphans...)
	return e.rep.Sync(ctx)
}

// settledCursor shows files that are being written as the snapshots that were taken of them.
type settledCursor struct {
	graveler.Cursor
	snaps map[graveler.ContentID]engine.Settled
}

func (c *settledCursor) Change() (*graveler.Change, error) {
	ch, err := c.Cursor.Change()
	if err != nil || ch.Remove || ch.Entry.Pending == "" {
		return ch, err
	}
	s, ok := c.snaps[ch.Entry.Pending]
	if !ok {
		return nil, fmt.Errorf("%q is still being written: %w", ch.Path, graveler.Conflict)
	}
	s.Fill(&ch.Entry)
	return ch, nil
}

// history is Log's.
func (e *Engine) history(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.LogQuery, yield func(graveler.Commit, error) bool) error {
	v, err := e.rep.View()
	if err != nil {
		return err
	}
	defer v.Close()
	r, err := resolve(v, repo, ref)
	if err != nil {
		return err
	}
	sp, err := e.spaceOf(ctx, v, repo)
	if err != nil {
		return err
	}
	n := 0
	for c, err := range graveler.LogWalk(refStore{v, repo}, r.Commit.ID, q.FirstParent) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if q.Path != "" {
			touched, err := touches(ctx, v, sp, repo, &c, strings.TrimSuffix(q.Path, "/"))
			if err != nil {
				return err
			}
			if !touched {
				continue
			}
		}
		if !yield(c, nil) {
			return nil
		}
		if n++; q.Limit > 0 && n == q.Limit {
			return nil
		}
	}
	return nil
}

// touches reports whether a commit changed a path, or anything under it, against every parent.
func touches(ctx context.Context, v *replica.View, sp *space, repo graveler.RepositoryID, c *graveler.Commit, path string) (bool, error) {
	parents := []graveler.MetaRangeID{}
	for _, id := range c.Parents {
		p, err := v.Commit(repo, id)
		if err != nil {
			return false, err
		}
		parents = append(parents, p.MetaRange)
	}
	if len(parents) == 0 {
		parents = append(parents, "")
	}
	for _, p := range parents {
		d, err := sp.tables.Diff(ctx, p, c.MetaRange)
		if err != nil {
			return false, err
		}
		differs := d.SeekGE(path) && d.Path() == path || d.SeekGE(path+"/") && strings.HasPrefix(d.Path(), path+"/")
		if err := d.Err(); err != nil || !differs {
			return false, err
		}
	}
	return true, nil
}

// diff is Diff's.
func (e *Engine) diff(ctx context.Context, repo graveler.RepositoryID, left, right graveler.Ref, q engine.DiffQuery, yield func(graveler.Diff, error) bool) error {
	v, err := e.rep.View()
	if err != nil {
		return err
	}
	defer v.Close()
	l, lr, err := e.version(ctx, v, repo, left)
	if err != nil {
		return err
	}
	r, rr, err := e.version(ctx, v, repo, right)
	if err != nil {
		return err
	}
	if lr.View == graveler.StagedOnly || rr.View == graveler.StagedOnly {
		return fmt.Errorf("diff of %q and %q: staged changes alone are no version; use status: %w", left, right, graveler.Invalid)
	}
	if q.MergeBase {
		base, err := graveler.MergeBase(refStore{v, repo}, lr.Commit.ID, rr.Commit.ID)
		if err != nil {
			return err
		}
		l = &version{v: v, s: l.s, meta: base.MetaRange}
	}
	d, err := l.s.tables.Diff(ctx, l.meta, r.meta)
	if err != nil {
		return err
	}
	// Paths that may differ: those that the commits differ in, and those staged on either side.
	lc, err := l.staged()
	if err != nil {
		return err
	}
	defer lc.Close()
	rc, err := r.staged()
	if err != nil {
		return err
	}
	defer rc.Close()
	c := graveler.Overlay(lc, rc, diffPaths{d})
	start := q.Prefix
	if q.After >= start && q.After != "" {
		start = q.After + "\x00"
	}
	n := 0
	for ok := c.SeekGE(start); ok && strings.HasPrefix(c.Path(), q.Prefix); ok = c.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		out := graveler.Diff{Path: c.Path()}
		var had, has bool
		if out.Left, had, err = l.get(ctx, out.Path); err != nil {
			return err
		}
		if out.Right, has, err = r.get(ctx, out.Path); err != nil {
			return err
		}
		switch {
		case !had && !has:
			continue
		case !had:
			out.Type = graveler.Added
		case !has:
			out.Type = graveler.Removed
		default:
			same, err := e.same(ctx, &out.Left, &out.Right)
			if err != nil {
				return fmt.Errorf("%q: %w", out.Path, err)
			}
			if same {
				continue
			}
			out.Type = graveler.Modified
		}
		e.fill(&out.Left)
		e.fill(&out.Right)
		if !yield(out, nil) {
			return nil
		}
		if n++; q.Limit > 0 && n == q.Limit {
			return nil
		}
	}
	return c.Err()
}

// diffPaths shows a DiffCursor's paths as a cursor.
type diffPaths struct{ *committed.DiffCursor }

func (d diffPaths) Change() (*graveler.Change, error) { return &graveler.Change{Path: d.Path()}, nil }
func (d diffPaths) Close() error                      { return nil }

// same compares two entries by identity. A pending one's bytes are read only where its size doesn't tell.
func (e *Engine) same(ctx context.Context, a, b *graveler.Entry) (bool, error) {
	if a.Pending != "" && a.Pending == b.Pending {
		return string(a.Identity()) == string(b.Identity()), nil
	}
	if b.Another(a) {
		return false, nil
	}
	x, y := *a, *b
	for _, en := range []*graveler.Entry{&x, &y} {
		if en.Pending == "" {
			continue
		}
		if engine.HolderOf(en.Pending) != "" {
			// What it is now is known when its holder has put it on the object store; if that can't be had, it is as changed as it was staged.
			got, err := e.secure(ctx, []graveler.ContentID{en.Pending})
			if err != nil && !errors.Is(err, graveler.Unavailable) {
				return false, err
			}
			if err != nil || len(got) == 0 {
				return false, nil
			}
			en.Metadata = maps.Clone(en.Metadata) // the caller's entry has it too
			got[0].Fill(en)
			continue
		}
		info, err := e.spill.Stat(en.Pending)
		if errors.Is(err, graveler.NotFound) {
			return false, nil // settled meanwhile; as changed as it was staged
		}
		if err != nil {
			return false, err
		}
		en.Size = info.Size
		if _, ok := en.Metadata[graveler.MetaMtime]; ok {
			en.Metadata = maps.Clone(en.Metadata)
			en.SetMtime(info.Mtime)
		}
	}
	if x.Size != y.Size {
		return false, nil
	}
	for _, en := range []*graveler.Entry{&x, &y} {
		if en.Pending == "" {
			continue
		}
		sum, err := e.sum(ctx, en.Pending)
		if err != nil {
			return false, err
		}
		en.ETag = sum
	}
	return string(x.Identity()) == string(y.Identity()), nil
}

// sum is the MD5 of a spilled content.
func (e *Engine) sum(ctx context.Context, id graveler.ContentID) (string, error) {
	f, err := e.spill.OpenFile(id, false)
	if errors.Is(err, graveler.NotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := md5.New()
	buf := make([]byte, 256<<10)
	for off := int64(0); ; {
		n, err := f.ReadAt(ctx, buf, off)
		h.Write(buf[:n])
		off += int64(n)
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// mergeBase returns the best common ancestor.
func (e *Engine) mergeBase(ctx context.Context, repo graveler.RepositoryID, a, b graveler.Ref) (graveler.Commit, error) {
	v, err := e.rep.View()
	if err != nil {
		return graveler.Commit{}, err
	}
	defer v.Close()
	ra, err := resolve(v, repo, a)
	if err != nil {
		return graveler.Commit{}, err
	}
	rb, err := resolve(v, repo, b)
	if err != nil {
		return graveler.Commit{}, err
	}
	return graveler.MergeBase(refStore{v, repo}, ra.Commit.ID, rb.Commit.ID)
}
