package edge

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Stat returns the entry at exactly a path.
func (e *Engine) Stat(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (en graveler.Entry, err error) {
	if f, err := e.frozen(ctx, repo, ref); err != nil {
		return en, err
	} else if f != nil {
		return f.stat(ctx, repo, ref, path)
	}
	err = e.settled(func() (bool, error) {
		if en, err = e.Engine.Stat(ctx, repo, ref, path); err != nil {
			return false, err
		}
		return e.fill(ctx, &en)
	})
	return en, err
}

// Lookup tells what a path is.
func (e *Engine) Lookup(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, path string) (f graveler.Found, err error) {
	if fr, err := e.frozen(ctx, repo, ref); err != nil {
		return f, err
	} else if fr != nil {
		return fr.lookup(ctx, path)
	}
	err = e.settled(func() (bool, error) {
		if f, err = e.Engine.Lookup(ctx, repo, ref, path); err != nil {
			return false, err
		}
		if f.HasObject {
			if ok, err := e.fill(ctx, &f.Object); !ok || err != nil {
				return ok, err
			}
		}
		if f.HasMarker {
			return e.fill(ctx, &f.Marker)
		}
		return true, nil
	})
	return f, err
}

// settled looks again as long as what is found was settled before it could be filled.
func (e *Engine) settled(look func() (bool, error)) error {
	for range 10 {
		if ok, err := look(); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("the bytes of a staged file are missing from the spill directory: %w", graveler.Corrupt)
}

// fill completes a pending entry: of what is held here, from its spill file; of what is held elsewhere, with the object that its holder
// makes of it now. False if it has been settled, or replaced, since it was looked up.
func (e *Engine) fill(ctx context.Context, en *graveler.Entry) (bool, error) {
	switch {
	case en.Pending == "":
		return true, nil
	case engine.HolderOf(en.Pending) == e.cfg.Holder:
		return e.fillOwn(en), nil
	}
	got, err := e.Secure(ctx, []graveler.ContentID{en.Pending})
	if err != nil || len(got) == 0 {
		return false, err
	}
	got[0].Fill(en)
	return true, nil
}

func (e *Engine) fillOwn(en *graveler.Entry) bool {
	info, err := e.spill.Stat(en.Pending)
	if err != nil {
		return false
	}
	en.Address, en.AddressType, en.Size = "", 0, info.Size
	en.ShowMtime(info.Mtime)
	return true
}

var keepSeed = maphash.MakeSeed()

// Keep makes the bytes of a content that is held here, as they are now, survive the loss of this machine.
func (e *Engine) Keep(ctx context.Context, id graveler.ContentID) error {
	if engine.HolderOf(id) != e.cfg.Holder {
		return nil
	}
	// One at a time, or an older snapshot could be remembered last.
	mu := &e.keeping[maphash.Comparable(keepSeed, id)%uint64(len(e.keeping))]
	mu.Lock()
	defer mu.Unlock()
	got, err := e.settler.Secure(ctx, []graveler.ContentID{id})
	if err != nil || len(got) == 0 || !got[0].Snapshot {
		return err
	}
	return e.Engine.Settle(ctx, got)
}

// listBatch is how many entries of a listing are filled together.
const listBatch = 256

// List yields entries. What is held by a machine that doesn't answer is listed as it was staged.
func (e *Engine) List(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref, q engine.ListQuery) iter.Seq2[graveler.Listed, error] {
	return func(yield func(graveler.Listed, error) bool) {
		if f, err := e.frozen(ctx, repo, ref); err != nil {
			yield(graveler.Listed{}, err)
			return
		} else if f != nil {
			f.list(ctx, q)(yield)
			return
		}
		var batch []graveler.Listed
		held := false // the batch has entries that are pending elsewhere
		flush := func() bool {
			if held {
				e.fillHeld(ctx, batch)
			}
			for _, l := range batch {
				if !yield(l, nil) {
					return false
				}
			}
			batch, held = batch[:0], false
			return true
		}
		for l, err := range e.Engine.List(ctx, repo, ref, q) {
			if err != nil {
				if flush() {
					yield(graveler.Listed{}, err)
				}
				return
			}
			if id := l.Entry.Pending; id != "" && engine.HolderOf(id) != e.cfg.Holder {
				held = true
			} else if id != "" && !e.fillOwn(&l.Entry) {
				en, err := e.Stat(ctx, repo, ref, l.Path)
				switch {
				case errors.Is(err, graveler.NotFound) && !l.Prefix:
					continue // removed since it was listed
				case err == nil:
					l.Entry = en
				}
			}
			if batch = append(batch, l); len(batch) == listBatch || !held && len(batch) == 1 {
				if !flush() {
					return
				}
			}
		}
		flush()
	}
}

// fillHeld completes the entries of a batch that are pending elsewhere, as far as it can.
func (e *Engine) fillHeld(ctx context.Context, batch []graveler.Listed) {
	var ids []graveler.ContentID
	for _, l := range batch {
		if id := l.Entry.Pending; id != "" && engine.HolderOf(id) != e.cfg.Holder {
			ids = append(ids, id)
		}
	}
	got, err := e.Secure(ctx, ids)
	if err != nil {
		e.log.Warn("files that another machine holds are listed as they were staged", "files", len(ids), "err", err)
		return
	}
	as := make(map[graveler.ContentID]*engine.Settled, len(got))
	for i := range got {
		as[got[i].Content] = &got[i]
	}
	for i := range batch {
		if s := as[batch[i].Entry.Pending]; s != nil {
			s.Fill(&batch[i].Entry)
		}
	}
}

// Stage applies changes to a branch's staging. What is pending on a content that began as an object names that too: it must not be
// collected while the content needs it.
func (e *Engine) Stage(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, changes []graveler.Change) error {
	copied := false
	for i := range changes {
		id := changes[i].Entry.Pending
		if changes[i].Remove || id == "" || engine.HolderOf(id) != e.cfg.Holder {
			continue
		}
		base, ok, err := e.spill.BaseOf(id)
		if err != nil && !errors.Is(err, graveler.NotFound) {
			return err
		}
		if !ok {
			continue
		}
		if !copied {
			changes, copied = slices.Clone(changes), true
		}
		changes[i].Entry.Address, changes[i].Entry.AddressType = base.Address, base.Type
	}
	return e.Engine.Stage(ctx, repo, branch, changes)
}
