package local

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
)

// importAll stages entries that point at objects under a URL.
func (e *Engine) importAll(ctx context.Context, r engine.ImportRequest, progress func(int64)) (int64, error) {
	source, err := object.CanonicalURL(r.Source)
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(source, "mem:") {
		return 0, fmt.Errorf("import %s: objects in memory don't last: %w", source, graveler.Invalid)
	}
	dest := strings.TrimSuffix(r.Dest, "/")
	var changes []graveler.Change
	for o, err := range object.ListURL(ctx, source, object.Options{}) {
		if err != nil {
			return 0, fmt.Errorf("import %s: %w", source, err)
		}
		url, to := source, dest
		if o.Address == "" {
			if to == "" || strings.HasSuffix(r.Dest, "/") {
				to = strings.TrimPrefix(to+"/"+path.Base(source), "/")
			}
		} else {
			url = strings.TrimSuffix(source, "/") + "/" + o.Address
			to = strings.TrimPrefix(dest+"/"+o.Address, "/")
		}
		if err := graveler.ValidatePath(to); err != nil {
			return 0, err
		}
		etag := o.MD5
		if etag == "" {
			// No checksum is known without reading. This can't be taken for one, and changes with the object.
			etag = fmt.Sprintf("import-%d-%d", o.Size, o.Modified.UnixNano())
		}
		changes = append(changes, graveler.Change{Path: to, Entry: graveler.Entry{
			Address: url, AddressType: graveler.AddressFull, Size: o.Size, ETag: etag, Modified: o.Modified,
		}})
		if progress != nil && len(changes)%1000 == 0 {
			progress(int64(len(changes)))
		}
	}
	if len(changes) == 0 {
		return 0, fmt.Errorf("import %s: there is no object: %w", source, graveler.NotFound)
	}
	mu := e.staging(r.Repo, r.Branch)
	mu.Lock()
	defer mu.Unlock()
	if err := e.stageAll(returning(ctx, int64(len(changes))), r.Repo, r.Branch, changes); err != nil {
		return 0, err
	}
	if progress != nil {
		progress(int64(len(changes)))
	}
	return int64(len(changes)), nil
}

// live is what a repository names: tables by id, objects by address.
type live struct {
	tables  map[string]bool
	objects map[string]bool
}

func (l *live) entry(en *graveler.Entry) {
	if en.Pending == "" && en.AddressType != graveler.AddressFull && !strings.Contains(en.Address, "://") {
		l.objects[en.Address] = true
	}
}

// metarange marks a metarange with all it holds. Each range is read once.
func (l *live) metarange(ctx context.Context, s *committed.Store, id graveler.MetaRangeID, entries bool) error {
	if id == "" || l.tables[string(id)] {
		return nil
	}
	rs, err := s.Ranges(ctx, id)
	if err != nil {
		return err
	}
	l.tables[string(id)] = true
	for _, r := range rs {
		if l.tables[string(r.ID)] {
			continue
		}
		l.tables[string(r.ID)] = true
		if !entries {
			continue
		}
		if err := s.RangeEntries(ctx, r.ID, func(_ string, en *graveler.Entry) error { l.entry(en); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// collectGarbage deletes what nothing names.
func (e *Engine) collectGarbage(ctx context.Context, r engine.GCRequest) (engine.GCReport, error) {
	var rep engine.GCReport
	if r.Grace == 0 {
		r.Grace = 24 * time.Hour
	}
	if r.Grace < 0 {
		return rep, fmt.Errorf("a grace period of %s: %w", r.Grace, graveler.Invalid)
	}
	// Objects are listed first: what is written after that is not in the list, and what was written before is either named in
	// the view taken now or younger than the grace period.
	sp, err := e.openSpace(ctx, r.Repo)
	if err != nil {
		return rep, err
	}
	before := time.Now().Add(-r.Grace)
	var found []object.Info
	for _, prefix := range []string{object.DataPrefix, "_lakefs/"} {
		for o, err := range sp.objects.List(ctx, prefix) {
			if err != nil {
				return rep, err
			}
			found = append(found, o)
		}
	}
	l, err := e.mark(ctx, sp, r.Repo)
	if err == nil {
		err = e.rep.Verify(ctx) // what is named was read from the newest state
	}
	if err != nil {
		return rep, err
	}
	rep.Live = int64(len(l.objects) + len(l.tables))
	for _, o := range found {
		id, isTable := strings.CutPrefix(o.Address, "_lakefs/")
		switch {
		case isTable && (len(id) != 64 || l.tables[id]), l.objects[o.Address], o.Address == emptyAddress:
			continue
		case !o.Modified.Before(before):
			rep.Kept++
			continue
		}
		if !r.DryRun {
			if ctx.Err() != nil { // the lead is lost, too
				return rep, context.Cause(ctx)
			}
			if err := sp.objects.Delete(ctx, o.Address); err != nil {
				return rep, err
			}
		}
		rep.Deleted++
		rep.Bytes += o.Size
		if len(rep.Addresses) < 1000 {
			rep.Addresses = append(rep.Addresses, o.Address)
		}
	}
	return rep, nil
}

func (e *Engine) openSpace(ctx context.Context, repo graveler.RepositoryID) (*space, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return e.spaceOf(ctx, v, repo)
}

// mark finds all that a repository names: by its commits, its staging, and the last refs dump.
func (e *Engine) mark(ctx context.Context, sp *space, repo graveler.RepositoryID) (*live, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	l := &live{tables: map[string]bool{}, objects: map[string]bool{}}
	for c, err := range v.Commits(repo) {
		if err == nil {
			err = l.metarange(ctx, sp.tables, c.MetaRange, true)
		}
		if err != nil {
			return nil, err
		}
	}
	var tokens []graveler.StagingToken
	err = v.Branches(repo, "", func(b graveler.Branch) bool {
		tokens = append(append(tokens, b.Token), b.Sealed...)
		return true
	})
	if err != nil {
		return nil, err
	}
	bulks, err := v.Bulks()
	if err != nil {
		return nil, err
	}
	for _, t := range append(tokens, bulks...) {
		if err := e.markLayer(v, t, l); err != nil {
			return nil, err
		}
	}
	m, err := sp.tables.ReadManifest(ctx)
	if errors.Is(err, graveler.NotFound) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	for _, id := range []graveler.MetaRangeID{m.Commits, m.Branches, m.Tags} {
		if err := l.metarange(ctx, sp.tables, id, false); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (e *Engine) markLayer(v *replica.View, t graveler.StagingToken, l *live) error {
	c, err := v.StagedCursor(t)
	if err != nil {
		return err
	}
	defer c.Close()
	for c.Next() {
		ch, err := c.Change()
		if err != nil {
			return err
		}
		if ch.Remove {
			continue
		}
		if ch.Entry.Pending != "" {
			// What it began as may be named by nothing else any more. Who holds it elsewhere names that as the entry's address.
			if engine.HolderOf(ch.Entry.Pending) != "" {
				if ch.Entry.Address != "" {
					l.entry(&graveler.Entry{Address: ch.Entry.Address, AddressType: ch.Entry.AddressType})
				}
				s, ok, err := v.BackedUp(ch.Entry.Pending)
				if err != nil {
					return err
				}
				if ok {
					l.entry(&graveler.Entry{Address: s.Address, AddressType: s.AddressType})
				}
				continue
			}
			base, ok, err := e.spill.BaseOf(ch.Entry.Pending)
			if err != nil {
				return err
			}
			if ok {
				l.entry(&graveler.Entry{Address: base.Address, AddressType: base.Type})
			}
		}
		l.entry(&ch.Entry)
	}
	return c.Err()
}

// check verifies a repository.
func (e *Engine) check(ctx context.Context, r engine.CheckRequest) iter.Seq2[engine.Problem, error] {
	return func(yield func(engine.Problem, error) bool) {
		c := &checker{e: e, r: r, yield: yield, seen: map[string]bool{}}
		if err := c.run(ctx); err != nil && !errors.Is(err, errStop) {
			yield(engine.Problem{}, err)
		}
	}
}

var errStop = errors.New("stop")

type checker struct {
	e       *Engine
	r       engine.CheckRequest
	sp      *space
	yield   func(engine.Problem, error) bool
	seen    map[string]bool
	tables  int
	objects int
	bytes   int64
}

func (c *checker) say(level, place, text string) error {
	if !c.yield(engine.Problem{Level: level, Place: place, Text: text}, nil) {
		return errStop
	}
	return nil
}

func (c *checker) run(ctx context.Context) error {
	v, err := c.e.rep.View()
	if err != nil {
		return err
	}
	defer v.Close()
	if c.sp, err = c.e.spaceOf(ctx, v, c.r.Repo); err != nil {
		return err
	}
	var commits []graveler.Commit
	if c.r.Ref != "" {
		res, err := resolve(v, c.r.Repo, c.r.Ref)
		if err != nil {
			return err
		}
		commits = append(commits, res.Commit)
	} else {
		for cm, err := range v.Commits(c.r.Repo) {
			if err != nil {
				return err
			}
			commits = append(commits, cm)
		}
		if err := c.staging(ctx, v); err != nil {
			return err
		}
	}
	for i := range commits {
		if err := c.commit(ctx, &commits[i]); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("%d commits, %d tables verified", len(commits), c.tables)
	if c.r.Data {
		text += fmt.Sprintf(", %d objects of %d bytes read", c.objects, c.bytes)
	}
	return c.say("info", string(c.r.Repo), text)
}

// staging checks that the bytes of what is staged are there.
func (c *checker) staging(ctx context.Context, v *replica.View) error {
	var err error
	berr := v.Branches(c.r.Repo, "", func(b graveler.Branch) bool {
		for _, t := range append([]graveler.StagingToken{b.Token}, b.Sealed...) {
			var ps []replica.Pending
			if ps, err = v.PendingOf(t); err != nil {
				return false
			}
			for _, p := range ps {
				if engine.HolderOf(p.Content) != "" {
					continue // its holder's
				}
				if _, serr := c.e.spill.Stat(p.Content); serr != nil {
					if named, nerr := c.e.stillPending(p.Content); nerr != nil || !named {
						continue
					}
					place := graveler.Place{Repo: c.r.Repo, Ref: graveler.Ref(b.ID), Path: p.Path}
					if err = c.say("error", place.String(), "its bytes are missing from the spill directory"); err != nil {
						return false
					}
				}
			}
		}
		return true
	})
	return errors.Join(berr, err)
}

func (c *checker) commit(ctx context.Context, cm *graveler.Commit) error {
	place := graveler.Place{Repo: c.r.Repo, Ref: graveler.Ref(cm.ID)}.String()
	if got := cm.ComputeID(); got != cm.ID {
		if err := c.say("error", place, fmt.Sprintf("its fields give the id %s", got)); err != nil {
			return err
		}
	}
	if cm.MetaRange == "" || c.seen[string(cm.MetaRange)] {
		return nil
	}
	c.seen[string(cm.MetaRange)] = true
	if ok, err := c.table(ctx, place, string(cm.MetaRange)); err != nil || !ok {
		return err
	}
	rs, err := c.sp.tables.Ranges(ctx, cm.MetaRange)
	if err != nil {
		return c.say("error", place, err.Error())
	}
	for _, r := range rs {
		if c.seen[string(r.ID)] {
			continue
		}
		c.seen[string(r.ID)] = true
		if ok, err := c.table(ctx, place, string(r.ID)); err != nil {
			return err
		} else if !ok || !c.r.Data {
			continue
		}
		err := c.sp.tables.RangeEntries(ctx, r.ID, func(p string, en *graveler.Entry) error { return c.data(ctx, place+"/"+p, en) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) table(ctx context.Context, place, id string) (bool, error) {
	c.tables++
	err := c.sp.tables.VerifyTable(ctx, id)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	}
	return false, c.say("error", place, err.Error())
}

// data reads an object and compares it with its entry.
func (c *checker) data(ctx context.Context, place string, en *graveler.Entry) error {
	o := object.Of(en)
	o.Fresh = true
	if c.seen["object "+o.Address] {
		return nil
	}
	c.seen["object "+o.Address] = true
	c.objects++
	h := md5.New()
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := c.sp.objects.ReadAt(ctx, o, buf, off)
		h.Write(buf[:n])
		off += int64(n)
		c.bytes += int64(n)
		if err == io.EOF || err == nil && off == en.Size {
			if off != en.Size {
				return c.say("error", place, fmt.Sprintf("its object has %d bytes, its entry says %d", off, en.Size))
			}
			if sum := hex.EncodeToString(h.Sum(nil)); o.MD5 != "" && sum != o.MD5 {
				return c.say("error", place, fmt.Sprintf("its object's MD5 is %s, its entry says %s", sum, o.MD5))
			}
			return nil
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return c.say("error", place, err.Error())
		}
	}
}
