package vfs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Of an object store a small file costs the time of a request, whatever its size. So while the files of a directory are read in
// the order of their names, those to come are fetched into the store's cache at the same time, by one goroutine that follows
// what was read. Nothing waits for it: what it can't keep up with, it doesn't learn of.

const (
	aheadFile    = 1 << 20 // bytes; a larger file's transfer costs more than its request
	aheadFetches = 24      // at a time: fewer than a cache does, so that others find a place
	aheadRuns    = 32      // readers that are followed at a time
	aheadListed  = 64      // directories of which it is known that they were just listed
	aheadWatched = 8       // names after one that was read, of which one must be read next for its reader to be followed
	aheadFirst   = 16      // files to be ahead of a reader by at first; it doubles with each file
	aheadMost    = 128
	aheadBehind  = 32 // names passed by that still belong to a run: several readers share one, not quite in order
)

// ahead fetches small files before they are opened.
type ahead struct {
	f     *FS
	limit int64 // bytes fetched and not opened yet, of all runs
	seen  chan sighting

	// Of the one goroutine.
	runs   []*run  // the last used first
	listed []place // the last first
	bytes  int64   // of limit
	fetch  func(st object.Store, e graveler.Entry)
}

// sighting tells that a file was read, or that a directory was listed: then path ends in a slash or is empty.
type sighting struct {
	v    *version
	path string
}

// place is a directory.
type place struct {
	repo graveler.RepositoryID
	ref  graveler.Ref
	dir  string // "" or ends in a slash
}

func (s *sighting) place() place {
	return place{s.v.repo, s.v.ref, s.path[:strings.LastIndexByte(s.path, '/')+1]}
}

// run is a reader, or several that share the work, going through a directory.
type run struct {
	place
	names  []upcoming // listed, by path
	pos    int        // how many of names were read or passed by
	window int        // files to be ahead by; 0 while it isn't known whether the reader goes on
	end    bool       // nothing is listed after names
}

type upcoming struct {
	path    string
	entry   graveler.Entry
	wanted  bool  // a small file on the object store
	fetched int64 // bytes of limit
}

func newAhead(f *FS, limit int64) *ahead {
	return &ahead{f: f, limit: limit, seen: make(chan sighting, 256)}
}

// read tells that a file's first bytes are read from an object store.
func (a *ahead) read(n *node, e *graveler.Entry, st object.Store) {
	if _, local := st.(object.Local); local || a.limit <= 0 || n.kind != kindFile || e.Pending != "" {
		return
	}
	a.tell(sighting{n.v, a.f.pathOf(n)})
}

// list tells that a directory is listed from its start.
func (a *ahead) list(n *node) {
	if a.limit <= 0 || n.kind != kindDir {
		return
	}
	path := a.f.pathOf(n)
	if path != "" {
		path += "/"
	}
	a.tell(sighting{n.v, path})
}

func (a *ahead) tell(s sighting) {
	select {
	case a.seen <- s:
	default:
	}
}

// follow works until ctx ends, and returns when nothing of it is under way.
func (a *ahead) follow(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, aheadFetches)
	a.fetch = func(st object.Store, e graveler.Entry) {
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				return
			}
			// The cache fetches it whole. An error shows when the file is read.
			_, _ = st.ReadAt(ctx, object.Of(&e), make([]byte, 1), 0)
		})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-a.seen:
			if s.path == "" || strings.HasSuffix(s.path, "/") {
				a.noteListed(s.place())
			} else {
				a.noteRead(ctx, &s)
			}
		}
	}
}

func (a *ahead) noteListed(p place) {
	a.listed = slices.DeleteFunc(a.listed, func(q place) bool { return q == p })
	a.listed = slices.Insert(a.listed, 0, p)
	a.listed = a.listed[:min(len(a.listed), aheadListed)]
}

func (a *ahead) noteRead(ctx context.Context, s *sighting) {
	p := s.place()
	for at, r := range a.runs {
		if r.place != p {
			continue
		}
		i, found := slices.BinarySearchFunc(r.names, s.path, func(u upcoming, path string) int { return cmp.Compare(u.path, path) })
		if !found {
			continue
		}
		copy(a.runs[1:at+1], a.runs[:at])
		a.runs[0] = r
		if i < r.pos {
			return
		}
		a.pass(r, i+1)
		r.window = min(max(aheadFirst, 2*r.window), aheadMost)
		a.goOn(ctx, r)
		return
	}
	r := &run{place: p}
	after := s.path
	first := slices.Contains(a.listed, p)
	if first {
		after = p.dir // from the directory's first name on: is the file among those?
	}
	if !a.extend(ctx, r, after, aheadWatched) {
		return
	}
	if i := slices.IndexFunc(r.names, func(u upcoming) bool { return u.path == s.path }); first && i >= 0 {
		a.pass(r, i+1)
		r.window = aheadFirst
	} else if first {
		r.names, r.end = nil, false
		if !a.extend(ctx, r, s.path, aheadWatched) {
			return
		}
	}
	a.runs = slices.Insert(a.runs, 0, r)
	for len(a.runs) > aheadRuns {
		a.drop()
	}
	if r.window > 0 {
		a.goOn(ctx, r)
	}
}

// drop forgets the run that was used the longest time ago.
func (a *ahead) drop() {
	last := len(a.runs) - 1
	a.pass(a.runs[last], len(a.runs[last].names))
	a.runs = a.runs[:last]
}

// pass moves a run on to a name.
func (a *ahead) pass(r *run, pos int) {
	for i := r.pos; i < pos; i++ {
		a.bytes -= r.names[i].fetched
		r.names[i].fetched = 0
	}
	r.pos = pos
}

// goOn fetches what a run's window has.
func (a *ahead) goOn(ctx context.Context, r *run) {
	if missing := r.window - (len(r.names) - r.pos); !r.end && missing >= r.window/2 {
		if old := r.pos - aheadBehind; old > 0 {
			r.names = slices.Delete(r.names, 0, old)
			r.pos -= old
		}
		if !a.extend(ctx, r, r.names[len(r.names)-1].path, missing) {
			return
		}
	}
	st, err := a.f.objects(ctx, r.repo)
	if err != nil {
		return
	}
	for i := r.pos; i < len(r.names); i++ {
		u := &r.names[i]
		if !u.wanted {
			continue
		}
		for a.bytes+u.entry.Size > a.limit && len(a.runs) > 1 && a.runs[len(a.runs)-1] != r {
			a.drop() // what it had fetched was not opened for the longest time
		}
		if a.bytes+u.entry.Size > a.limit {
			return
		}
		u.wanted, u.fetched = false, u.entry.Size
		a.bytes += u.fetched
		a.fetch(st, u.entry)
		u.entry = graveler.Entry{}
	}
}

// extend lists the next names of a run, and reports whether that could be done.
func (a *ahead) extend(ctx context.Context, r *run, after string, n int) bool {
	got := 0
	for l, err := range a.f.eng.List(ctx, r.repo, r.ref, engine.ListQuery{Prefix: r.dir, After: after, Delimiter: "/", Limit: n}) {
		if err != nil {
			return false
		}
		got++
		u := upcoming{path: strings.Clone(l.Path)} // not the whole table that it may be a piece of
		if !l.Prefix && l.Entry.Pending == "" && l.Entry.Size > 0 && l.Entry.Size <= aheadFile {
			u.entry, u.wanted = l.Entry, true
		}
		r.names = append(r.names, u)
	}
	r.end = got < n
	return true
}
