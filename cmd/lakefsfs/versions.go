package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// printDiffs prints changes as they come.
func (a *app) printDiffs(seq func(yield func(graveler.Diff, error) bool)) error {
	out := []control.Change{}
	for d, err := range seq {
		if err != nil {
			return err
		}
		if a.json {
			out = append(out, control.ChangeOf(d))
		} else if err := control.WriteDiff(a.out, d); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(out)
	}
	return nil
}

func (a *app) statusCmd() *cobra.Command {
	return cmd("status [REPO/@BRANCH[/PATH]]", "what is staged on a branch", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.refPlace(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		return a.printDiffs(c.Status(ctx, p.Repo, graveler.BranchID(p.Ref), engine.DiffQuery{Prefix: under(args, p)}))
	})
}

// under is the path to look under: the one that was written, not the working directory's.
func under(args []string, p graveler.Place) string {
	if len(args) == 0 {
		return ""
	}
	return p.Path
}

func (a *app) diffCmd() *cobra.Command {
	var base bool
	c := cmd("diff [REPO/@LEFT] [@RIGHT]", "what differs between two refs; of one, from its parent, of a branch what is staged", between(0, 2), func(ctx context.Context, args []string) error {
		var right string
		if n := len(args); n == 2 || n == 1 && strings.HasPrefix(args[0], "@") {
			right, args = args[n-1], args[:n-1]
		}
		p, err := a.refPlace(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		q := engine.DiffQuery{Prefix: under(args, p), MergeBase: base}
		if right != "" {
			ref, err := otherRef(p, right)
			if err != nil {
				return err
			}
			return a.printDiffs(c.Diff(ctx, p.Repo, p.Ref, ref, q))
		}
		r, err := c.Resolve(ctx, p.Repo, p.Ref)
		if err != nil {
			return err
		}
		if r.View == graveler.Overlaid {
			return a.printDiffs(c.Status(ctx, p.Repo, r.Branch.ID, q))
		}
		return a.printDiffs(parentDiff(ctx, c, p.Repo, r.Commit, q))
	})
	c.Flags().BoolVar(&base, "merge-base", false, "from the two refs' merge base to the right one")
	return c
}

// otherRef reads a second ref beside a place: main, @main, or repo/@main of the same repository.
func otherRef(p graveler.Place, s string) (graveler.Ref, error) {
	if o, err := graveler.ParsePlace(s); err == nil && o.Ref != "" {
		if o.Repo != p.Repo {
			return "", usagef("%s and %s are of two repositories", p, o)
		}
		return o.Ref, nil
	}
	return graveler.Ref(strings.TrimPrefix(s, "@")), nil
}

func parentDiff(ctx context.Context, c engine.Engine, repo graveler.RepositoryID, cm graveler.Commit, q engine.DiffQuery) func(func(graveler.Diff, error) bool) {
	if len(cm.Parents) == 0 {
		return func(func(graveler.Diff, error) bool) {}
	}
	return c.Diff(ctx, repo, graveler.Ref(cm.Parents[0]), graveler.Ref(cm.ID), q)
}

func (a *app) logCmd() *cobra.Command {
	var limit int
	var first, oneline bool
	c := cmd("log [REPO/@REF[/PATH]]", "commits, newest first; with a path, those that changed it", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.refPlace(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		out := []control.Commit{}
		for cm, err := range c.Log(ctx, p.Repo, p.Ref, engine.LogQuery{Path: under(args, p), Limit: limit, FirstParent: first}) {
			if err != nil {
				return err
			}
			switch {
			case a.json:
				out = append(out, control.CommitOf(cm))
			case oneline:
				line, _, _ := strings.Cut(cm.Message, "\n")
				fmt.Fprintf(a.out, "%.12s %s\n", cm.ID, line)
			default:
				if err := control.WriteCommit(a.out, cm); err != nil {
					return err
				}
			}
		}
		if a.json {
			return a.printJSON(out)
		}
		return nil
	})
	c.Flags().IntVarP(&limit, "max-count", "n", 0, "at most so many")
	c.Flags().BoolVar(&first, "first-parent", false, "follow first parents alone")
	c.Flags().BoolVar(&oneline, "oneline", false, "a line each")
	return c
}

func (a *app) showCmd() *cobra.Command {
	return cmd("show [REPO/@REF]", "a commit and what it changed", between(0, 1), func(ctx context.Context, args []string) error {
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
		if a.json {
			out := struct {
				control.Commit
				Changes []control.Change `json:"changes"`
			}{control.CommitOf(r.Commit), []control.Change{}}
			for d, err := range parentDiff(ctx, c, p.Repo, r.Commit, engine.DiffQuery{}) {
				if err != nil {
					return err
				}
				out.Changes = append(out.Changes, control.ChangeOf(d))
			}
			return a.printJSON(out)
		}
		if err := control.WriteCommit(a.out, r.Commit); err != nil {
			return err
		}
		return a.printDiffs(parentDiff(ctx, c, p.Repo, r.Commit, engine.DiffQuery{}))
	})
}

func (a *app) printCommit(cm graveler.Commit, p graveler.Place) error {
	if a.json {
		return a.printJSON(control.CommitOf(cm))
	}
	if a.quiet {
		fmt.Fprintln(a.out, cm.ID)
		return nil
	}
	line, _, _ := strings.Cut(cm.Message, "\n")
	a.say("[%s/@%s %.12s] %s", p.Repo, p.Ref, cm.ID, line)
	return nil
}

func metaFlag(pairs []string) (map[string]string, error) {
	m := map[string]string{}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usagef("metadata %q: write it as key=value", p)
		}
		m[k] = v
	}
	return m, nil
}

func (a *app) commitCmd() *cobra.Command {
	var message, file string
	var meta []string
	var empty bool
	c := cmd("commit [REPO/@BRANCH]", "make what is staged a commit", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.refPlace(ctx, args)
		if err != nil {
			return err
		}
		if file != "" {
			b, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("message: %w", err)
			}
			message = strings.TrimRight(string(b), "\n")
		}
		if message == "" {
			return usagef("a commit needs a message: -m \"...\"")
		}
		m, err := metaFlag(meta)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		cm, err := c.Commit(ctx, engine.CommitRequest{Repo: p.Repo, Branch: graveler.BranchID(p.Ref), Message: message, Committer: committer(), Metadata: m, AllowEmpty: empty})
		if err != nil {
			return err
		}
		return a.printCommit(cm, p)
	})
	c.Flags().StringVarP(&message, "message", "m", "", "message")
	c.Flags().StringVarP(&file, "file", "F", "", "file that holds the message")
	c.Flags().StringArrayVar(&meta, "meta", nil, "metadata, key=value; may be repeated")
	c.Flags().BoolVar(&empty, "allow-empty", false, "commit even if nothing changed")
	return c
}

func (a *app) mergeCmd() *cobra.Command {
	var message, strategy string
	var meta []string
	var empty bool
	c := cmd("merge [REPO/@BRANCH] SOURCE", "merge a ref into a branch", between(1, 2), func(ctx context.Context, args []string) error {
		source := args[len(args)-1]
		p, err := a.refPlace(ctx, args[:len(args)-1])
		if err != nil {
			return err
		}
		s, ok := map[string]graveler.MergeStrategy{"": graveler.MergeDefault, "default": graveler.MergeDefault, "dest-wins": graveler.DestWins, "source-wins": graveler.SourceWins}[strategy]
		if !ok {
			return usagef("merge strategy %q: give dest-wins or source-wins", strategy)
		}
		m, err := metaFlag(meta)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		ref, err := otherRef(p, source)
		if err != nil {
			return err
		}
		cm, err := c.Merge(ctx, engine.MergeRequest{Repo: p.Repo, Source: ref, Dest: graveler.BranchID(p.Ref), Message: message, Committer: committer(), Metadata: m, Strategy: s, AllowEmpty: empty})
		if err != nil {
			return err
		}
		return a.printCommit(cm, p)
	})
	c.Flags().StringVarP(&message, "message", "m", "", "message")
	c.Flags().StringVar(&strategy, "strategy", "", "who wins a conflict: dest-wins or source-wins")
	c.Flags().StringArrayVar(&meta, "meta", nil, "metadata, key=value; may be repeated")
	c.Flags().BoolVar(&empty, "allow-empty", false, "make a merge commit even if the branch has all of the source")
	return c
}

func (a *app) pickCmd(name string) *cobra.Command {
	var message string
	var parent int
	short := map[string]string{"revert": "commit the inverse of a commit", "cherry-pick": "commit the change that a commit made elsewhere"}[name]
	c := cmd(name+" [REPO/@BRANCH] COMMIT", short, between(1, 2), func(ctx context.Context, args []string) error {
		p, err := a.refPlace(ctx, args[:len(args)-1])
		if err != nil {
			return err
		}
		ref, err := otherRef(p, args[len(args)-1])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		r := engine.PickRequest{Repo: p.Repo, Branch: graveler.BranchID(p.Ref), Ref: ref, Parent: parent, Message: message, Committer: committer()}
		var cm graveler.Commit
		if name == "revert" {
			cm, err = c.Revert(ctx, r)
		} else {
			cm, err = c.CherryPick(ctx, r)
		}
		if err != nil {
			return err
		}
		return a.printCommit(cm, p)
	})
	c.Flags().StringVarP(&message, "message", "m", "", "message")
	c.Flags().IntVar(&parent, "parent", 0, "of a merge commit: the parent that the change is taken against, from 1")
	return c
}
