package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/settle"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
)

// DefaultBranch is the default branch of a repository that doesn't name one.
const DefaultBranch = "main"

// dummyAddress is written once, to prove that a namespace can be written, as lakeFS does.
const dummyAddress = "dummy"

// createRepository makes a repository.
func (e *Engine) createRepository(ctx context.Context, r engine.CreateRepository) (graveler.Repository, error) {
	if r.DefaultBranch == "" {
		r.DefaultBranch = DefaultBranch
	}
	if err := graveler.ValidateBranchID(r.DefaultBranch); err != nil {
		return graveler.Repository{}, err
	}
	if r.StorageNamespace == "" && e.cfg.DefaultNamespace != "" {
		r.StorageNamespace = strings.TrimSuffix(e.cfg.DefaultNamespace, "/") + "/" + string(r.ID)
	}
	repo, err := e.newRepository(ctx, r.ID, r.StorageNamespace, r.DefaultBranch)
	if err != nil {
		return repo, err
	}
	s, err := e.space(ctx, repo.StorageNamespace)
	if err != nil {
		return repo, err
	}
	if _, err := s.objects.Stat(ctx, dummyAddress); err == nil {
		return repo, fmt.Errorf("storage namespace %s holds a repository already; attach it with repo attach, or choose an empty place: %w", repo.StorageNamespace, graveler.Invalid)
	} else if !errors.Is(err, graveler.NotFound) {
		return repo, err
	}
	const text = "this object was written by lakefsfs to prove that the storage namespace can be written\n"
	if _, err := s.objects.Put(ctx, dummyAddress, strings.NewReader(text), object.PutOptions{Size: int64(len(text))}); err != nil {
		return repo, fmt.Errorf("storage namespace %s can't be written: %w", repo.StorageNamespace, err)
	}
	first := graveler.Commit{Message: "Repository created", Created: repo.Created, Version: 1, Generation: 1}
	first.ID = first.ComputeID()
	branch := graveler.Branch{ID: r.DefaultBranch, Commit: first.ID, Token: newToken()}
	return repo, e.rep.CreateRepository(returning(ctx, repo), repo, []graveler.Commit{first}, []graveler.Branch{branch}, nil)
}

// newRepository checks what a new repository needs.
func (e *Engine) newRepository(ctx context.Context, id graveler.RepositoryID, namespace string, b graveler.BranchID) (graveler.Repository, error) {
	if err := graveler.ValidateRepositoryID(id); err != nil {
		return graveler.Repository{}, err
	}
	if namespace == "" {
		return graveler.Repository{}, fmt.Errorf("repository %s needs a storage namespace, such as file:///srv/lake/%s or s3://bucket/%s: %w", id, id, id, graveler.Invalid)
	}
	namespace, err := object.CanonicalURL(namespace)
	if err != nil {
		return graveler.Repository{}, err
	}
	all, err := e.listRepositories(ctx)
	if err != nil {
		return graveler.Repository{}, err
	}
	for _, r := range all {
		if r.ID == id {
			return r, fmt.Errorf("repository %s: %w", id, graveler.Exists)
		}
		if r.StorageNamespace == namespace {
			return r, fmt.Errorf("storage namespace %s is repository %s's; two repositories can't share one: %w", namespace, r.ID, graveler.Exists)
		}
	}
	return graveler.Repository{ID: id, StorageNamespace: namespace, DefaultBranch: b, Created: time.Now().UTC()}, nil
}

// attachRepository takes in a namespace that was dumped.
func (e *Engine) attachRepository(ctx context.Context, r engine.AttachRepository) (graveler.Repository, error) {
	repo, err := e.newRepository(ctx, r.ID, r.StorageNamespace, r.DefaultBranch)
	if err != nil {
		return repo, err
	}
	s, err := e.space(ctx, repo.StorageNamespace)
	if err != nil {
		return repo, err
	}
	m := r.Manifest
	if m == nil {
		read, err := s.tables.ReadManifest(ctx)
		if errors.Is(err, graveler.NotFound) {
			return repo, fmt.Errorf("%s has no %s; dump the refs on the lakeFS server, or give its answer with --manifest: %w", repo.StorageNamespace, committed.ManifestAddress, graveler.NotFound)
		}
		if err != nil {
			return repo, err
		}
		m = &read
	}
	d, err := s.tables.LoadRefs(ctx, *m)
	if err != nil {
		return repo, err
	}
	if len(d.Branches) == 0 {
		return repo, fmt.Errorf("the dump has no branch: %w", graveler.Invalid)
	}
	extras, err := s.tables.ReadExtras(ctx, *m)
	if err != nil {
		return repo, err
	}
	found := false
	for i := range d.Branches {
		b := &d.Branches[i]
		b.Token, b.Sealed = newToken(), nil
		want := cmp.Or(repo.DefaultBranch, extras.DefaultBranch, DefaultBranch)
		if b.ID == want {
			repo.DefaultBranch, found = want, true
		}
	}
	if !found {
		if repo.DefaultBranch != "" {
			return repo, fmt.Errorf("the dump has no branch %q: %w", repo.DefaultBranch, graveler.NotFound)
		}
		repo.DefaultBranch = d.Branches[0].ID
	}
	return repo, e.rep.CreateRepository(returning(ctx, repo), repo, d.Commits, d.Branches, d.Tags, extras.Rules...)
}

// repository returns a repository.
func (e *Engine) repository(ctx context.Context, id graveler.RepositoryID) (graveler.Repository, error) {
	v, err := e.rep.View()
	if err != nil {
		return graveler.Repository{}, err
	}
	defer v.Close()
	return v.Repository(id)
}

// listRepositories lists all repositories.
func (e *Engine) listRepositories(ctx context.Context) ([]graveler.Repository, error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return v.Repositories()
}

// deleteRepository forgets a repository.
func (e *Engine) deleteRepository(ctx context.Context, id graveler.RepositoryID) error {
	e.empties.Delete(id)
	res, err := e.rep.DeleteRepository(ctx, id)
	e.spill.Drop(res.Orphans...)
	return err
}

// dumpRefs writes a refs dump.
func (e *Engine) dumpRefs(ctx context.Context, id graveler.RepositoryID) (graveler.RefsManifest, error) {
	v, err := e.rep.View()
	if err != nil {
		return graveler.RefsManifest{}, err
	}
	defer v.Close()
	s, err := e.spaceOf(ctx, v, id)
	if err != nil {
		return graveler.RefsManifest{}, err
	}
	var d committed.RefsDump
	for c, err := range v.Commits(id) {
		if err != nil {
			return graveler.RefsManifest{}, err
		}
		d.Commits = append(d.Commits, c)
	}
	if err := v.Branches(id, "", func(b graveler.Branch) bool { d.Branches = append(d.Branches, b); return true }); err != nil {
		return graveler.RefsManifest{}, err
	}
	if err := v.Tags(id, "", func(t graveler.Tag) bool { d.Tags = append(d.Tags, t); return true }); err != nil {
		return graveler.RefsManifest{}, err
	}
	r, err := v.Repository(id)
	if err != nil {
		return graveler.RefsManifest{}, err
	}
	x := committed.RefsExtras{DefaultBranch: r.DefaultBranch}
	if x.Rules, err = v.Rules(id); err != nil {
		return graveler.RefsManifest{}, err
	}
	m, err := s.tables.DumpRefs(ctx, d)
	if err != nil {
		return m, err
	}
	x.Of = m
	if err := s.tables.WriteExtras(ctx, x); err != nil {
		return m, err
	}
	return m, settle.SyncObjects(ctx, s.objects)
}
