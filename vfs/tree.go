package vfs

import (
	"context"
	"fmt"
	"strings"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// resolve finds the version of a ref expression.
func (f *FS) resolve(ctx context.Context, repo graveler.RepositoryID, ref graveler.Ref) (*version, error) {
	r, err := f.eng.Resolve(ctx, repo, ref)
	if err != nil {
		return nil, err
	}
	switch r.View {
	case graveler.Overlaid:
		return newVersion(version{repo: repo, ref: graveler.Ref(r.Branch.ID), writable: true, commit: r.Commit}), nil
	case graveler.StagedOnly:
		return nil, fmt.Errorf("%s/@%s: staged changes alone are no directory: %w", repo, ref, graveler.NotFound)
	}
	e, err := graveler.ParseRef(ref)
	if err != nil {
		return nil, err
	}
	return newVersion(version{repo: repo, ref: graveler.Ref(r.Commit.ID), commit: r.Commit, moves: len(e.Mods) > 0}), nil
}

// lookupTop finds a repository.
func (f *FS) lookupTop(ctx context.Context, n *node, name string) (*node, error) {
	if graveler.ValidateRepositoryID(graveler.RepositoryID(name)) != nil {
		return nil, graveler.NotFound
	}
	if _, err := f.eng.Repository(ctx, graveler.RepositoryID(name)); err != nil {
		return nil, err
	}
	return f.child(n, name, kindRepo, nil, 0), nil
}

// lookupRef finds a ref of a repository.
func (f *FS) lookupRef(ctx context.Context, n *node, name string) (*node, error) {
	ref, ok := strings.CutPrefix(name, "@")
	if !ok {
		return nil, graveler.NotFound
	}
	v, err := f.resolve(ctx, n.repo, graveler.Ref(ref))
	if err != nil {
		if graveler.KindOf(err) == graveler.Invalid {
			return nil, graveler.NotFound // no such name, as anywhere
		}
		return nil, err
	}
	return f.child(n, name, kindDir, v, 0), nil
}

// listTop lists the names of a directory above the versions.
func (f *FS) listTop(ctx context.Context, n *node) ([]DirEntry, error) {
	var out []DirEntry
	if n.kind == kindTop {
		repos, err := f.eng.ListRepositories(ctx)
		for _, r := range repos {
			out = append(out, DirEntry{Name: string(r.ID), Dir: true})
		}
		return out, err
	}
	branches, err := f.eng.ListBranches(ctx, n.repo, engine.RefQuery{})
	if err != nil {
		return nil, err
	}
	for _, b := range branches {
		out = append(out, DirEntry{Name: "@" + string(b.ID), Dir: true})
	}
	tags, err := f.eng.ListTags(ctx, n.repo, engine.RefQuery{})
	for _, t := range tags {
		out = append(out, DirEntry{Name: "@" + string(t.ID), Dir: true})
	}
	return out, err
}

// mkdirTop makes a repository or a branch.
func (f *FS) mkdirTop(ctx context.Context, n *node, name string) (*node, error) {
	if f.cfg.ReadOnly {
		return nil, graveler.ReadOnly
	}
	if n.kind == kindTop {
		if _, err := f.eng.CreateRepository(ctx, engine.CreateRepository{ID: graveler.RepositoryID(name)}); err != nil {
			return nil, err
		}
		return f.lookupTop(ctx, n, name)
	}
	return f.branch(ctx, n, name, "")
}

// branch makes a branch from a ref, the default branch if that is "".
func (f *FS) branch(ctx context.Context, n *node, name string, from graveler.Ref) (*node, error) {
	if f.cfg.ReadOnly {
		return nil, graveler.ReadOnly
	}
	id, ok := strings.CutPrefix(name, "@")
	if !ok {
		return nil, fmt.Errorf("%q: a branch's directory is named @ and its name: %w", name, graveler.Invalid)
	}
	if _, err := f.eng.CreateBranch(ctx, engine.CreateBranch{Repo: n.repo, ID: graveler.BranchID(id), Source: from}); err != nil {
		return nil, err
	}
	return f.lookupRef(ctx, n, name)
}

// rmdirTop removes a branch.
func (f *FS) rmdirTop(ctx context.Context, n *node, name string) error {
	id, ok := strings.CutPrefix(name, "@")
	if f.cfg.ReadOnly || n.kind == kindTop || !ok {
		return fmt.Errorf("%q: remove a repository with lakefsfs repo delete: %w", name, graveler.Denied)
	}
	if err := f.eng.DeleteBranch(ctx, n.repo, graveler.BranchID(id), false); err != nil {
		return err
	}
	f.mu.Lock()
	if c := n.children[name]; c != nil {
		f.cut(c, dentry{n, name})
	}
	f.mu.Unlock()
	return nil
}

// renameTop renames a branch.
func (f *FS) renameTop(ctx context.Context, from *node, oldName string, to *node, newName string) error {
	a, ok1 := strings.CutPrefix(oldName, "@")
	b, ok2 := strings.CutPrefix(newName, "@")
	if f.cfg.ReadOnly || from != to || from.kind != kindRepo || !ok1 || !ok2 {
		return fmt.Errorf("rename %q to %q: only branches can be renamed here: %w", oldName, newName, graveler.Denied)
	}
	if err := f.eng.RenameBranch(ctx, from.repo, graveler.BranchID(a), graveler.BranchID(b)); err != nil {
		return err
	}
	f.mu.Lock()
	if c := from.children[oldName]; c != nil {
		f.cut(c, dentry{from, oldName})
	}
	f.mu.Unlock()
	return nil
}
