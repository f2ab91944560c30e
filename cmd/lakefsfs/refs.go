package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
)

func repoID(arg string) (graveler.RepositoryID, error) {
	p, err := graveler.ParsePlace(arg)
	if err != nil {
		return "", usageError{err}
	}
	if p.Ref != "" {
		return "", usagef("%s: name a repository alone", arg)
	}
	return p.Repo, nil
}

func (a *app) printRepo(r graveler.Repository) error {
	if a.json {
		return a.printJSON(control.RepoOf(r))
	}
	a.say("%s\t%s\t@%s", r.ID, r.StorageNamespace, r.DefaultBranch)
	return nil
}

func (a *app) repoCmd() *cobra.Command {
	var namespace, branch, manifest string
	create := cmd("create NAME", "make a repository", between(1, 1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		ns, err := absNamespace(namespace)
		if err != nil {
			return err
		}
		r, err := c.CreateRepository(ctx, engine.CreateRepository{ID: graveler.RepositoryID(args[0]), StorageNamespace: ns, DefaultBranch: graveler.BranchID(branch), Committer: committer()})
		if err != nil {
			return err
		}
		return a.printRepo(r)
	})
	create.Flags().StringVar(&namespace, "storage-namespace", "", "URL that its objects go to; the daemon's default place if not given")
	create.Flags().StringVar(&branch, "default-branch", "", "name of its first branch (default main)")
	attach := cmd("attach NAME", "take in a namespace that lakeFS or lakefsfs wrote and refs-dumped", between(1, 1), func(ctx context.Context, args []string) error {
		if namespace == "" {
			return usagef("repo attach needs --storage-namespace URL")
		}
		ns, err := absNamespace(namespace)
		if err != nil {
			return err
		}
		r := engine.AttachRepository{ID: graveler.RepositoryID(args[0]), StorageNamespace: ns, DefaultBranch: graveler.BranchID(branch)}
		if manifest != "" {
			b, err := os.ReadFile(manifest)
			if err != nil {
				return fmt.Errorf("manifest: %w", err)
			}
			m, err := committed.ParseManifest(b)
			if err != nil {
				return fmt.Errorf("%s: %w", manifest, err)
			}
			r.Manifest = &m
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		repo, err := c.AttachRepository(ctx, r)
		if err != nil {
			return err
		}
		return a.printRepo(repo)
	})
	attach.Flags().StringVar(&namespace, "storage-namespace", "", "URL of the namespace")
	attach.Flags().StringVar(&manifest, "manifest", "", "file with the refs dump's answer; the namespace's own if not given")
	attach.Flags().StringVar(&branch, "default-branch", "", "its default branch (default main)")
	list := cmd("list", "list repositories", between(0, 0), func(ctx context.Context, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		rs, err := c.ListRepositories(ctx)
		if err != nil {
			return err
		}
		if a.json {
			out := []control.Repo{}
			for _, r := range rs {
				out = append(out, control.RepoOf(r))
			}
			return a.printJSON(out)
		}
		for _, r := range rs {
			fmt.Fprintf(a.out, "%s\t%s\n", r.ID, r.StorageNamespace)
		}
		return nil
	})
	show := cmd("show NAME", "show a repository", between(1, 1), func(ctx context.Context, args []string) error {
		id, err := repoID(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		r, err := c.Repository(ctx, id)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(control.RepoOf(r))
		}
		fmt.Fprintf(a.out, "repository        %s\nstorage namespace %s\ndefault branch    %s\ncreated           %s\n", r.ID, r.StorageNamespace, r.DefaultBranch, r.Created.Format("2006-01-02 15:04:05Z07:00"))
		return nil
	})
	del := cmd("delete NAME", "forget a repository; its objects stay", between(1, 1), func(ctx context.Context, args []string) error {
		id, err := repoID(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.DeleteRepository(ctx, id)
	})
	dump := cmd("dump NAME", "write a refs dump into the namespace, and print its manifest", between(1, 1), func(ctx context.Context, args []string) error {
		id, err := repoID(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		m, err := c.DumpRefs(ctx, id)
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(m, "", " ")
		if err == nil {
			_, err = fmt.Fprintf(a.out, "%s\n", b)
		}
		return err
	})
	return group("repo", "repositories", create, list, show, del, attach, dump)
}

// absNamespace completes a directory's path to a URL.
func absNamespace(ns string) (string, error) {
	if ns == "" {
		return "", nil
	}
	u, err := object.CanonicalURL(ns)
	if err != nil {
		return "", usageError{err}
	}
	return u, nil
}

// named reads repo/@name.
func named(arg string) (graveler.RepositoryID, string, error) {
	p, err := graveler.ParsePlace(arg)
	if err == nil && (p.Ref == "" || p.Path != "") {
		err = fmt.Errorf("%q: write it as repo/@name", arg)
	}
	if err != nil {
		return "", "", usageError{err}
	}
	return p.Repo, string(p.Ref), nil
}

func (a *app) printBranch(b graveler.Branch) error {
	if a.json {
		return a.printJSON(control.BranchOf(b))
	}
	a.say("@%s\t%s", b.ID, b.Commit)
	return nil
}

// sourceRef takes a ref with or without its @ or its repository.
func sourceRef(repo graveler.RepositoryID, s string) graveler.Ref {
	s = strings.TrimPrefix(s, string(repo)+"/")
	return graveler.Ref(strings.TrimPrefix(s, "@"))
}

func (a *app) branchCmd() *cobra.Command {
	var source, to string
	var hidden, force, yes, all bool
	create := cmd("create REPO/@NAME", "make a branch", between(1, 1), func(ctx context.Context, args []string) error {
		repo, name, err := named(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		b, err := c.CreateBranch(ctx, engine.CreateBranch{Repo: repo, ID: graveler.BranchID(name), Source: sourceRef(repo, source), Hidden: hidden})
		if err != nil {
			return err
		}
		return a.printBranch(b)
	})
	create.Flags().StringVar(&source, "source", "", "ref to begin from; the default branch if not given")
	create.Flags().BoolVar(&hidden, "hidden", false, "leave it out of listings")
	list := cmd("list REPO", "list branches", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.place(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		bs, err := c.ListBranches(ctx, p.Repo, engine.RefQuery{Hidden: all})
		if err != nil {
			return err
		}
		if a.json {
			out := []control.Branch{}
			for _, b := range bs {
				out = append(out, control.BranchOf(b))
			}
			return a.printJSON(out)
		}
		for _, b := range bs {
			fmt.Fprintf(a.out, "@%s\t%s\n", b.ID, b.Commit)
		}
		return nil
	})
	list.Flags().BoolVarP(&all, "all", "a", false, "hidden ones too")
	show := cmd("show REPO/@NAME", "show a branch", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.refPlace(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		r, err := c.Resolve(ctx, p.Repo, p.Ref)
		if err != nil {
			return err
		}
		if r.View != graveler.Overlaid {
			return fmt.Errorf("%s is no branch: %w", p, graveler.NotFound)
		}
		if a.json {
			return a.printJSON(control.BranchOf(r.Branch))
		}
		fmt.Fprintf(a.out, "@%s\t%s\n", r.Branch.ID, r.Branch.Commit)
		return nil
	})
	del := cmd("delete REPO/@NAME", "remove a branch", between(1, 1), func(ctx context.Context, args []string) error {
		repo, name, err := named(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.DeleteBranch(ctx, repo, graveler.BranchID(name), force)
	})
	del.Flags().BoolVar(&force, "force", false, "even with staged changes, which are lost")
	rename := cmd("rename REPO/@OLD NEW", "rename a branch", between(2, 2), func(ctx context.Context, args []string) error {
		repo, name, err := named(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.RenameBranch(ctx, repo, graveler.BranchID(name), graveler.BranchID(sourceRef(repo, args[1])))
	})
	reset := cmd("reset REPO/@NAME[/PATH]", "drop what is staged, or with --to move the branch to a commit", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.refPlace(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		if to == "" {
			return c.Reset(ctx, p.Repo, graveler.BranchID(p.Ref), p.Path)
		}
		if p.Path != "" {
			return usagef("--to moves a whole branch; leave out %q", p.Path)
		}
		b, err := c.SetHead(ctx, p.Repo, graveler.BranchID(p.Ref), sourceRef(p.Repo, to), yes)
		if err != nil {
			return err
		}
		return a.printBranch(b)
	})
	reset.Flags().StringVar(&to, "to", "", "ref to move the branch to")
	reset.Flags().BoolVar(&yes, "drop", false, "with --to: drop what is staged too")
	return group("branch", "branches", create, list, show, del, rename, reset, a.protectCmd())
}

func (a *app) protectCmd() *cobra.Command {
	var block []string
	var remove, list bool
	c := cmd("protect REPO[/@PATTERN]", "protect the branches that match a pattern, or list the rules", between(1, 1), func(ctx context.Context, args []string) error {
		repo, pattern, _ := strings.Cut(strings.TrimPrefix(args[0], "lakefs://"), "/")
		pattern = strings.TrimPrefix(pattern, "@")
		id, err := repoID(repo)
		if err != nil {
			return err
		}
		cl, err := a.client()
		if err != nil {
			return err
		}
		rules, err := cl.Rules(ctx, id)
		if err != nil {
			return err
		}
		if pattern == "" || list {
			if a.json {
				out := []map[string]any{}
				for _, r := range rules {
					out = append(out, map[string]any{"pattern": r.Pattern, "block": r.Block})
				}
				return a.printJSON(out)
			}
			for _, r := range rules {
				fmt.Fprintf(a.out, "%s\t%v\n", r.Pattern, r.Block)
			}
			return nil
		}
		var next []graveler.Rule
		for _, r := range rules {
			if r.Pattern != pattern {
				next = append(next, r)
			}
		}
		if remove {
			if len(next) == len(rules) {
				return fmt.Errorf("no rule for %q: %w", pattern, graveler.NotFound)
			}
		} else {
			rule := graveler.Rule{Pattern: pattern}
			for _, b := range block {
				rule.Block = append(rule.Block, graveler.Action(b))
			}
			next = append(next, rule)
		}
		return cl.SetRules(ctx, id, next)
	})
	c.Flags().StringSliceVar(&block, "block", []string{"staging", "commit", "delete"}, "what to block: staging, commit, delete")
	c.Flags().BoolVar(&remove, "remove", false, "remove the rule")
	c.Flags().BoolVar(&list, "list", false, "list the rules")
	return c
}

func (a *app) tagCmd() *cobra.Command {
	create := cmd("create REPO/@NAME REF", "make a tag", between(1, 2), func(ctx context.Context, args []string) error {
		repo, name, err := named(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		ref := graveler.Ref("")
		if len(args) == 2 {
			ref = sourceRef(repo, args[1])
		} else {
			r, err := c.Repository(ctx, repo)
			if err != nil {
				return err
			}
			ref = graveler.Ref(r.DefaultBranch)
		}
		t, err := c.CreateTag(ctx, repo, graveler.TagID(name), ref)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(control.TagOf(t))
		}
		a.say("@%s\t%s", t.ID, t.Commit)
		return nil
	})
	list := cmd("list REPO", "list tags", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.place(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		ts, err := c.ListTags(ctx, p.Repo, engine.RefQuery{})
		if err != nil {
			return err
		}
		if a.json {
			out := []control.Tag{}
			for _, t := range ts {
				out = append(out, control.TagOf(t))
			}
			return a.printJSON(out)
		}
		for _, t := range ts {
			fmt.Fprintf(a.out, "@%s\t%s\n", t.ID, t.Commit)
		}
		return nil
	})
	show := cmd("show REPO/@NAME", "show a tag", between(1, 1), func(ctx context.Context, args []string) error {
		repo, name, err := named(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		r, err := c.Resolve(ctx, repo, graveler.Ref(name))
		if err != nil {
			return err
		}
		if r.Tag == "" {
			return fmt.Errorf("%s is no tag: %w", args[0], graveler.NotFound)
		}
		if a.json {
			return a.printJSON(control.Tag{ID: name, Commit: string(r.Commit.ID)})
		}
		fmt.Fprintf(a.out, "@%s\t%s\n", name, r.Commit.ID)
		return nil
	})
	del := cmd("delete REPO/@NAME", "remove a tag", between(1, 1), func(ctx context.Context, args []string) error {
		repo, name, err := named(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.DeleteTag(ctx, repo, graveler.TagID(name))
	})
	return group("tag", "tags", create, list, show, del)
}
