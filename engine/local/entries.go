package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/look"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// version is one resolved ref of a view, ready to be read.
type version struct {
	v      *replica.View
	s      *space
	layers []graveler.StagingToken // newest first; none for a commit
	meta   graveler.MetaRangeID
	noBase bool // of what is staged alone
}

func (e *Engine) version(ctx context.Context, v *replica.View, repo graveler.RepositoryID, ref graveler.Ref) (*version, graveler.Resolved, error) {
	m, err := e.meaning(ctx, v, repo, ref)
	if err != nil {
		return nil, graveler.Resolved{}, err
	}
	ver := &version{v: v, s: m.space, meta: m.resolved.Commit.MetaRange, noBase: m.resolved.View == graveler.StagedOnly}
	for i := range m.layers {
		l := &m.layers[i]
		// A layer that has had a record is looked into from then on: it goes when the branch changes, and so does the meaning.
		if !l.used.Load() {
			if empty, err := v.Empty(l.token); err != nil {
				return nil, m.resolved, err
			} else if empty {
				continue
			}
			l.used.Store(true)
		}
		ver.layers = append(ver.layers, l.token)
	}
	return ver, m.resolved, nil
}

// meaning is what a ref expression means in a state of the refs.
type meaning struct {
	refs     uint64 // the state's number
	resolved graveler.Resolved
	space    *space
	layers   []layer // newest first
}

type layer struct {
	token graveler.StagingToken
	used  atomic.Bool
}

type refKey struct {
	repo graveler.RepositoryID
	ref  graveler.Ref
}

// maxMeanings bounds how many meanings are kept.
const maxMeanings = 1024

func (e *Engine) meaning(ctx context.Context, v *replica.View, repo graveler.RepositoryID, ref graveler.Ref) (*meaning, error) {
	key := refKey{repo, ref}
	if v.Refs() != 0 {
		e.meant.RLock()
		m := e.meanings[key]
		e.meant.RUnlock()
		if m != nil && m.refs == v.Refs() {
			return m, nil
		}
	}
	r, err := resolve(v, repo, ref)
	if err != nil {
		return nil, err
	}
	s, err := e.spaceOf(ctx, v, repo)
	if err != nil {
		return nil, err
	}
	m := &meaning{refs: v.Refs(), resolved: r, space: s}
	if r.View != graveler.Committed {
		m.layers = make([]layer, 1+len(r.Branch.Sealed))
		m.layers[0].token = r.Branch.Token
		for i, t := range r.Branch.Sealed {
			m.layers[i+1].token = t
		}
	}
	// What an expression with a time means may change although no ref does.
	if x, err := graveler.ParseRef(ref); m.refs != 0 && err == nil && len(x.Mods) == 0 {
		e.meant.Lock()
		if e.meanings == nil || len(e.meanings) >= maxMeanings {
			e.meanings = map[refKey]*meaning{}
		}
		e.meanings[key] = m
		e.meant.Unlock()
	}
	return m, nil
}

// get returns the entry at a path.
func (w *version) get(ctx context.Context, path string) (graveler.Entry, bool, error) {
	for _, t := range w.layers {
		c, ok, err := w.v.Staged(t, path)
		if err != nil || ok {
			return c.Entry, ok && !c.Remove, err
		}
	}
	if w.noBase {
		return graveler.Entry{}, false, nil
	}
	en, err := w.s.tables.Get(ctx, w.meta, path)
	if errors.Is(err, graveler.NotFound) {
		return en, false, nil
	}
	return en, err == nil, err
}

// staged walks the layers, tombstones included.
func (w *version) staged() (graveler.Cursor, error) {
	var cs []graveler.Cursor
	for _, t := range w.layers {
		c, err := w.v.StagedCursor(t)
		if err != nil {
			closeAll(cs)
			return nil, err
		}
		cs = append(cs, c)
	}
	if len(cs) == 0 {
		return graveler.SliceCursor(nil), nil
	}
	return graveler.Overlay(cs...), nil
}

// cursor walks what the version shows.
func (w *version) cursor(ctx context.Context) (graveler.Cursor, error) {
	c, err := w.raw(ctx)
	if err != nil || len(w.layers) == 0 {
		return c, err
	}
	return graveler.Visible(c), nil
}

// raw is cursor with the tombstones: a look at one directory need not pass over those of others.
func (w *version) raw(ctx context.Context) (graveler.Cursor, error) {
	top, err := w.staged()
	if err != nil || w.noBase {
		return top, err
	}
	base, err := w.s.tables.Cursor(ctx, w.meta)
	if err != nil {
		top.Close()
		return nil, err
	}
	if len(w.layers) == 0 {
		return base, nil
	}
	return graveler.Overlay(top, base), nil
}

func closeAll(cs []graveler.Cursor) {
	for _, c := range cs {
		c.Close()
	}
}

// fill completes a pending entry from its spill file; one that is held elsewhere stays as it was staged. False if the content was settled since the view was taken.
func (e *Engine) fill(en *graveler.Entry) bool {
	if en.Pending == "" || engine.HolderOf(en.Pending) != "" {
		return true
	}
	info, err := e.spill.Stat(en.Pending)
	if err != nil {
		return false
	}
	en.Size = info.Size
	en.ShowMtime(info.Mtime)
	return true
}

var errMoved = errors.New("settled meanwhile")

// peek runs a read of a few records until nothing that it met was settled in between, and no ref changed. It costs no snapshot.
func (e *Engine) peek(read func(v *replica.View) error) error {
	for try := 0; ; try++ {
		v, err := e.rep.Peek()
		if err == nil && (try > 3 || v.Refs() == 0) {
			v.Close()
			v, err = e.rep.View()
		}
		if err != nil {
			return err
		}
		err = read(v)
		same := v.Unchanged()
		v.Close()
		if same && !errors.Is(err, errMoved) {
			return err
		}
		if same && try > 10 {
			return fmt.Errorf("the bytes of a staged file are missing from the spill directory: %w", graveler.Corrupt)
		}
	}
}

// stat returns the entry at exactly a path.
func (e *Engine) stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (en graveler.Entry, err error) {
	err = e.peek(func(v *replica.View) error {
		w, _, err := e.version(ctx, v, repo, ref)
		if err != nil {
			return err
		}
		var ok bool
		if en, ok, err = w.get(ctx, path); err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%s: %w", graveler.Place{Repo: repo, Ref: ref, Path: path}, graveler.NotFound)
		}
		if !e.fill(&en) {
			return errMoved
		}
		return nil
	})
	return en, err
}

// lookup tells what a path is.
func (e *Engine) lookup(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (f graveler.Found, err error) {
	err = e.peek(func(v *replica.View) error {
		f = graveler.Found{}
		w, _, err := e.version(ctx, v, repo, ref)
		if err != nil {
			return err
		}
		if path == "" {
			f.HasPrefix = true
			return nil
		}
		if err := w.lookup(ctx, path, &f); err != nil {
			return err
		}
		if f.HasObject && !e.fill(&f.Object) || f.HasMarker && !e.fill(&f.Marker) {
			return errMoved
		}
		return nil
	})
	return f, err
}

// lookup finds what a path is. Each staged layer costs one iterator.
func (w *version) lookup(ctx context.Context, path string, f *graveler.Found) error {
	var below []graveler.Cursor
	defer func() { closeAll(below) }()
	known := false
	for _, t := range w.layers {
		c, ok, cur, err := w.v.StagedAround(t, path)
		if err != nil {
			return err
		}
		below = append(below, cur)
		if ok && !known {
			known, f.HasObject, f.Object = true, !c.Remove, c.Entry
		}
	}
	if !w.noBase {
		if !known {
			en, err := w.s.tables.Get(ctx, w.meta, path)
			if err != nil && !errors.Is(err, graveler.NotFound) {
				return err
			}
			f.HasObject, f.Object = err == nil, en
		}
		base, err := w.s.tables.Cursor(ctx, w.meta)
		if err != nil {
			return err
		}
		below = append(below, base)
	}
	if len(below) == 0 {
		return nil
	}
	return look.Below(graveler.Overlay(below...), path, f)
}

// cuts is Cuts's.
func (e *Engine) cuts(ctx context.Context, repo graveler.RepositoryID, commit graveler.CommitID) (cuts []string, err error) {
	err = e.peek(func(v *replica.View) error {
		w, _, err := e.version(ctx, v, repo, graveler.Ref(commit))
		if err != nil {
			return err
		}
		rs, err := w.s.tables.Ranges(ctx, w.meta)
		if err != nil {
			return err
		}
		cuts = make([]string, len(rs))
		for i := range rs {
			cuts[i] = rs[i].MaxKey
		}
		return nil
	})
	return cuts, err
}

// list is List's.
func (e *Engine) list(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.ListQuery, yield func(graveler.Listed, error) bool) error {
	v, err := e.rep.View()
	if err != nil {
		return err
	}
	defer v.Close()
	w, _, err := e.version(ctx, v, repo, ref)
	if err != nil {
		return err
	}
	c, err := w.cursor(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return look.List(ctx, c, q, func(l graveler.Listed) (counts, more bool) {
		if !e.fill(&l.Entry) {
			en, err := e.stat(ctx, repo, ref, l.Path)
			switch {
			case errors.Is(err, graveler.NotFound) && !l.Prefix:
				return false, true // removed since the view was taken
			case err == nil:
				l.Entry = en
			}
		}
		return true, yield(l, nil)
	})
}

// stage applies changes to a branch's staging.
func (e *Engine) stage(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, changes []graveler.Change) error {
	if len(changes) == 0 {
		return nil
	}
	for i := range changes {
		c := &changes[i]
		if err := graveler.ValidatePath(c.Path); err != nil {
			return err
		}
		if !c.Remove && c.Entry.Pending == "" && c.Entry.Address == "" && c.Entry.Size != 0 {
			return fmt.Errorf("stage %q: an entry of %d bytes needs an address: %w", c.Path, c.Entry.Size, graveler.Invalid)
		}
	}
	changes, err := e.nameEmpty(ctx, repo, changes)
	if err != nil {
		return err
	}
	mu := e.staging(repo, branch)
	mu.RLock()
	res, err := e.rep.Stage(ctx, repo, branch, changes)
	mu.RUnlock()
	if len(res.Orphans) > 0 {
		e.spill.Drop(res.Orphans...)
	}
	return err
}

// emptyAddress is one object of no bytes, which all entries without bytes name: directory markers, links and the like. lakeFS
// wants every entry to name an object.
const emptyAddress = object.DataPrefix + "lakefsfs-empty"

// nameEmpty gives entries without bytes their object, in a copy of changes if there is any.
func (e *Engine) nameEmpty(ctx context.Context, repo graveler.RepositoryID, changes []graveler.Change) ([]graveler.Change, error) {
	copied := false
	for i := range changes {
		en := &changes[i].Entry
		if changes[i].Remove || en.Pending != "" || en.Address != "" {
			continue
		}
		if !copied {
			changes, copied = slices.Clone(changes), true
			if err := e.emptyObject(ctx, repo); err != nil {
				return nil, err
			}
			en = &changes[i].Entry
		}
		en.Address, en.AddressType = emptyAddress, graveler.AddressRelative
	}
	return changes, nil
}

// emptyObject makes the object of no bytes, once.
func (e *Engine) emptyObject(ctx context.Context, repo graveler.RepositoryID) error {
	if _, ok := e.empties.Load(repo); ok {
		return nil
	}
	sp, err := e.openSpace(ctx, repo)
	if err != nil {
		return err
	}
	if _, err := sp.objects.Stat(ctx, emptyAddress); errors.Is(err, graveler.NotFound) {
		if _, err := sp.objects.Put(ctx, emptyAddress, strings.NewReader(""), object.PutOptions{}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	e.empties.Store(repo, true)
	return nil
}

// reset drops what is staged.
func (e *Engine) reset(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, path string) error {
	cm := e.committing(repo, branch)
	cm.Lock()
	defer cm.Unlock()
	mu := e.staging(repo, branch)
	mu.Lock()
	defer mu.Unlock()
	res, err := e.rep.ResetStaging(ctx, repo, branch, strings.TrimSuffix(path, "/"), newToken())
	e.spill.Drop(res.Orphans...)
	return err
}

// bulkFrom is how many changes go into one Stage; more are staged in a token of their own, and adopted.
const bulkFrom = 4000

// stageAll stages any number of changes in one atomic step. Called with the branch's staging lock held for writing.
func (e *Engine) stageAll(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, changes []graveler.Change) error {
	if len(changes) <= bulkFrom {
		res, err := e.rep.Stage(ctx, repo, branch, changes)
		e.spill.Drop(res.Orphans...)
		return err
	}
	token := newToken()
	return e.adopt(ctx, repo, branch, token, e.rep.StageBulk(ctx, token, changes))
}

// adopt makes a bulk token's records a branch's, or drops them if there was an error.
func (e *Engine) adopt(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, token graveler.StagingToken, err error) error {
	var res replica.Result
	if err == nil {
		res, err = e.rep.AdoptToken(ctx, repo, branch, token)
	}
	e.spill.Drop(res.Orphans...)
	if err == nil && !res.Known {
		return nil
	}
	res, derr := e.rep.DropToken(context.WithoutCancel(ctx), token)
	e.spill.Drop(res.Orphans...)
	return errors.Join(err, derr)
}
