package nfs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// How the file of a handle is found that is not in memory: after a restart, on another node, or since it was evicted.

// finder is what is known of where a version's directories are, by number. What it says is verified; it may be out of date.
type finder struct {
	mu   sync.Mutex
	dirs map[uint64]string

	// What the last scan found: files by number, and the directories that they are in.
	files []place
	at    []string

	scanning sync.Mutex
	last     time.Time // when the last scan began
	took     time.Duration
	names    *vfs.Names // tells whether anything changed since
}

// find returns the vfs node that a handle names, with one lookup of it.
func (t *tree) find(ctx context.Context, h *handle) (vfs.NodeID, error) {
	switch h.form {
	case formTop:
		if t.place.Repo != "" {
			return 0, statusStale
		}
		return t.fs.Parent(ctx, vfs.RootID)
	case formRepo:
		repo, err := t.repoOf(ctx, h.repo)
		if err != nil {
			return 0, err
		}
		return t.repoNode(ctx, repo)
	}
	var v version
	var err error
	if h.form == formBranch {
		v, err = t.branchOf(ctx, h.branch)
	} else {
		v, err = t.commitOf(ctx, h)
	}
	if err != nil {
		return 0, err
	}
	root, err := t.rootOf(ctx, v)
	if err != nil {
		return 0, err
	}
	id, err := t.within(ctx, v, root, h)
	t.fs.Forget(root, 1)
	if err != nil || h.ctl == ctlNone {
		return id, err
	}
	ctl, err := t.control(ctx, id, h.ctl)
	t.fs.Forget(id, 1)
	return ctl, err
}

// control finds a control directory, or a file in it.
func (t *tree) control(ctx context.Context, dir vfs.NodeID, ctl uint16) (vfs.NodeID, error) {
	id, _, err := t.fs.Lookup(ctx, dir, vfs.ControlName)
	if err != nil || ctl == ctlDir {
		return id, err
	}
	defer t.fs.Forget(id, 1)
	names, err := t.fs.NamesAfter(ctx, id, "")
	if err != nil {
		return 0, err
	}
	for i := range names.Entries {
		name := names.Entries[i].Name
		if ctl == ctlObject && name == vfs.ObjectName || ctl >= ctlFirst && ctlHash(name) == ctl {
			id, _, err := t.fs.Lookup(ctx, id, name)
			return id, err
		}
	}
	return 0, statusStale
}

// each yields the names of a directory.
func (t *tree) each(ctx context.Context, id vfs.NodeID, yield func(e *vfs.DirEntry) bool) error {
	for after := ""; ; {
		names, err := t.fs.NamesAfter(ctx, id, after)
		if err != nil {
			return err
		}
		for i := range names.Entries {
			if e := &names.Entries[i]; e.Name != "" && !yield(e) {
				return nil
			}
		}
		if names.End {
			return nil
		}
		after = names.Next
	}
}

func (t *tree) repoOf(ctx context.Context, hash uint64) (graveler.RepositoryID, error) {
	if t.place.Repo != "" {
		if repoHash(t.place.Repo) == hash {
			return t.place.Repo, nil
		}
		return "", statusStale
	}
	var found graveler.RepositoryID
	err := t.each(ctx, vfs.RootID, func(e *vfs.DirEntry) bool {
		if id := graveler.RepositoryID(e.Name); repoHash(id) == hash {
			found = id
		}
		return found == ""
	})
	if err == nil && found == "" {
		err = statusStale
	}
	return found, err
}

// repoNode returns the node of a repository, with one lookup.
func (t *tree) repoNode(ctx context.Context, repo graveler.RepositoryID) (vfs.NodeID, error) {
	switch {
	case t.place.Ref != "":
		return 0, statusStale
	case t.place.Repo == repo:
		return t.fs.Parent(ctx, vfs.RootID)
	case t.place.Repo != "":
		return 0, statusStale
	}
	id, _, err := t.fs.Lookup(ctx, vfs.RootID, string(repo))
	return id, err
}

// branchOf finds the branch that a handle's hash is of.
func (t *tree) branchOf(ctx context.Context, hash uint64) (version, error) {
	t.mu.Lock()
	v, ok := t.refs[hash]
	t.mu.Unlock()
	if ok {
		return v, nil
	}
	root, err := t.fs.Identity(vfs.RootID)
	if err != nil {
		return v, err
	}
	if root.Form == vfs.FormDir {
		if root.Branch && branchHash(root.Repo, root.Ref) == hash {
			return version{root.Repo, root.Ref}, nil
		}
		return v, statusStale
	}
	repos := []graveler.RepositoryID{t.place.Repo}
	if t.place.Repo == "" {
		repos = nil
		if err := t.each(ctx, vfs.RootID, func(e *vfs.DirEntry) bool {
			repos = append(repos, graveler.RepositoryID(e.Name))
			return true
		}); err != nil {
			return v, err
		}
	}
	for _, repo := range repos {
		id, err := t.repoNode(ctx, repo)
		if err != nil {
			return v, err
		}
		err = t.each(ctx, id, func(e *vfs.DirEntry) bool {
			ref := graveler.Ref(strings.TrimPrefix(e.Name, "@"))
			if branchHash(repo, ref) == hash {
				v, ok = version{repo, ref}, true
			}
			return !ok
		})
		t.fs.Forget(id, 1)
		if err != nil {
			return v, err
		}
		if ok {
			t.learn(hash, v)
			return v, nil
		}
	}
	return v, statusStale
}

// learn keeps which branch a hash is of.
func (t *tree) learn(hash uint64, v version) {
	t.mu.Lock()
	t.refs[hash] = v
	t.mu.Unlock()
}

// commitOf finds the commit that a handle's prefix is of.
func (t *tree) commitOf(ctx context.Context, h *handle) (version, error) {
	repo, err := t.repoOf(ctx, h.repo)
	if err != nil {
		return version{}, err
	}
	i, err := t.fs.Identity(vfs.RootID)
	if err != nil {
		return version{}, err
	}
	if i.Form != vfs.FormDir {
		ref := graveler.Ref(fmt.Sprintf("%x", h.commit))
		id, err := t.repoNode(ctx, repo)
		if err != nil {
			return version{}, err
		}
		defer t.fs.Forget(id, 1)
		root, _, err := t.fs.Lookup(ctx, id, "@"+string(ref))
		if err != nil {
			return version{}, err
		}
		defer t.fs.Forget(root, 1)
		if i, err = t.fs.Identity(root); err != nil {
			return version{}, err
		}
	}
	if i.Branch || commitPrefix(i.Ref) != h.commit {
		return version{}, statusStale
	}
	return version{repo, i.Ref}, nil
}

// rootOf returns the root of a version, with one lookup. All names that lead to a commit have one root, that of its id.
func (t *tree) rootOf(ctx context.Context, v version) (vfs.NodeID, error) {
	if t.place.Ref != "" {
		i, err := t.fs.Identity(vfs.RootID)
		if err != nil {
			return 0, err
		}
		if i.Repo != v.repo || i.Ref != v.ref {
			return 0, statusStale
		}
		return t.fs.Parent(ctx, vfs.RootID)
	}
	repo, err := t.repoNode(ctx, v.repo)
	if err != nil {
		return 0, err
	}
	defer t.fs.Forget(repo, 1)
	id, _, err := t.fs.Lookup(ctx, repo, "@"+string(v.ref))
	return id, err
}

// walk goes down a path, and returns what is there with one lookup.
func (t *tree) walk(ctx context.Context, from vfs.NodeID, path string) (vfs.NodeID, error) {
	id, err := from, error(nil)
	for rest, more := path, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		next, _, lerr := t.fs.Lookup(ctx, id, name)
		if id != from {
			t.fs.Forget(id, 1)
		}
		if id, err = next, lerr; err != nil {
			return 0, err
		}
	}
	return id, nil
}

// within finds what a handle names in a version.
func (t *tree) within(ctx context.Context, v version, root vfs.NodeID, h *handle) (vfs.NodeID, error) {
	if h.form == formBranch && h.number == 0 || h.form == formCommit && h.path == [12]byte{} {
		return t.again(root)
	}
	if h.form == formCommit {
		return t.inCommit(ctx, v, root, h)
	}
	f := t.finder(v)
	for _, look := range []func() (string, bool, error){
		func() (string, bool, error) { return f.dir(h.number) },
		func() (string, bool, error) { return t.inHome(ctx, f, root, v, h) },
		func() (string, bool, error) { return t.scan(ctx, f, v, root, h) },
	} {
		path, ok, err := look()
		if err != nil {
			return 0, err
		}
		if !ok {
			continue
		}
		id, err := t.walk(ctx, root, path)
		if k := graveler.KindOf(err); err != nil && (k == graveler.NotFound || k == graveler.NotDir) {
			continue
		} else if err != nil {
			return 0, err
		}
		if i, err := t.fs.Identity(id); err == nil && i.Number == h.number && !i.Gone {
			return id, nil
		}
		t.fs.Forget(id, 1)
	}
	return 0, statusStale
}

// again counts one lookup more of a node.
func (t *tree) again(id vfs.NodeID) (vfs.NodeID, error) { return id, t.fs.Keep(id) }

func (t *tree) finder(v version) *finder {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.finders[v]
	if f == nil {
		f = &finder{dirs: map[uint64]string{}}
		t.finders[v] = f
	}
	return f
}

// learnDir notes where a directory is.
func (f *finder) learnDir(number uint64, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.dirs) < maxDirs {
		f.dirs[number] = path
	}
}

// maxDirs bounds the directories of a version whose place is known without a scan of it.
const maxDirs = 1 << 20

func (f *finder) dir(number uint64) (string, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.dirs[number]
	return p, ok, nil
}

// inHome looks for a number in the directory that its handle tells.
func (t *tree) inHome(ctx context.Context, f *finder, root vfs.NodeID, v version, h *handle) (string, bool, error) {
	home, ok := "", h.home == 0
	if !ok {
		home, ok, _ = f.dir(h.home)
	}
	if !ok {
		return "", false, nil
	}
	return t.inDir(ctx, root, v, home, h.number)
}

// inDir looks for a number in a directory.
func (t *tree) inDir(ctx context.Context, root vfs.NodeID, v version, home string, number uint64) (string, bool, error) {
	dir := root
	if home != "" {
		var err error
		if dir, err = t.walk(ctx, root, home); err != nil {
			return "", false, nil
		}
		defer t.fs.Forget(dir, 1)
	}
	name, found, err := t.large.find(ctx, t, dirKey{v, home}, dir, number)
	if graveler.KindOf(err) == graveler.NotDir {
		err = nil
	}
	return strings.TrimPrefix(home+"/"+name, "/"), found, err
}

// scan looks for a number in the whole version, and learns where everything is. One scan is made at a time; to be asked for deleted
// files must not keep the server from its work, so there is another only after ten times the time of the last.
func (t *tree) scan(ctx context.Context, f *finder, v version, root vfs.NodeID, h *handle) (string, bool, error) {
	f.scanning.Lock()
	defer f.scanning.Unlock()
	if f.names == nil || !t.fs.Fresh(f.names) {
		if wait := 10*f.took - time.Since(f.last); !f.last.IsZero() && wait > 0 {
			if wait > scanPatience {
				return "", false, statusJukebox
			}
			select { // those who wait for the lock meanwhile will have the result too
			case <-time.After(wait):
			case <-ctx.Done():
				return "", false, ctx.Err()
			}
		}
		if err := t.learnAll(ctx, f, v, root); err != nil {
			return "", false, err
		}
	}
	if p, ok, _ := f.dir(h.number); ok {
		return p, true, nil
	}
	home, ok := f.homeOf(h.number)
	if !ok {
		return "", false, nil
	}
	return t.inDir(ctx, root, v, home, h.number)
}

// scanPatience is how long a request waits until a scan may be made; one that would have to wait longer is told to come again.
const scanPatience = 2 * time.Second

// learnAll reads a whole version.
func (t *tree) learnAll(ctx context.Context, f *finder, v version, root vfs.NodeID) error {
	names, err := t.fs.NamesAfter(ctx, root, "")
	if err != nil {
		return err
	}
	f.last = time.Now()
	dirs, at, files := map[uint64]string{}, []string{""}, []place{}
	err = t.fs.Scan(ctx, v.repo, v.ref, func(n vfs.Numbered) bool {
		if n.Dir {
			dirs[n.Number] = n.Path
			return true
		}
		dir := ""
		if i := strings.LastIndexByte(n.Path, '/'); i > 0 {
			dir = n.Path[:i]
		}
		if at[len(at)-1] != dir {
			at = append(at, dir) // more than once where its files are not all together
		}
		files = append(files, place{n.Number, uint32(len(at) - 1)})
		return true
	})
	f.took = time.Since(f.last)
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b place) int { return cmp.Compare(a.number, b.number) })
	f.mu.Lock()
	f.dirs, f.at, f.files = dirs, at, files
	f.mu.Unlock()
	f.names = names
	return nil
}

// place is the directory that a file was in, as an index of finder.at.
type place struct {
	number uint64
	dir    uint32
}

func (f *finder) homeOf(number uint64) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, ok := slices.BinarySearchFunc(f.files, number, func(p place, n uint64) int { return cmp.Compare(p.number, n) })
	if !ok {
		return "", false
	}
	return f.at[f.files[i].dir], true
}
