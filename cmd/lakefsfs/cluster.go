package main

import (
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lakefsfs/lakefsfs/daemon"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func (a *app) clusterCmd() *cobra.Command {
	return group("cluster", "the machines that keep the metadata",
		a.clusterStatusCmd(), a.clusterBootstrapCmd(), a.clusterAddCmd(), a.clusterRemoveCmd(), a.clusterPromoteCmd(), a.clusterLeaderCmd(),
		a.clusterSnapshotCmd(), a.clusterRestoreCmd(), a.certsCmd())
}

// member is a node as --json prints it.
type member struct {
	ID      string `json:"id"`
	Peer    string `json:"peer"`
	Serve   string `json:"serve"`
	Version string `json:"version"`
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	Self    bool   `json:"self"`
	Applied uint64 `json:"applied"`
	Contact string `json:"contact,omitempty"` // since the leader last heard of it
}

func memberOf(m engine.Member) member {
	out := member{ID: m.ID, Peer: m.Peer, Serve: m.Serve, Version: m.Version, Voter: m.Voter, Leader: m.Leader, Self: m.Self, Applied: m.Applied}
	if m.Contact >= 0 {
		out.Contact = m.Contact.Round(time.Millisecond).String()
	}
	return out
}

func (a *app) clusterStatusCmd() *cobra.Command {
	return cmd("status", "the nodes, and how they stand", between(0, 0), func(ctx context.Context, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		members, err := a.members(ctx, c)
		if err != nil {
			return err
		}
		// A daemon of this machine tells of itself too.
		state, err := c.State(ctx)
		own := err == nil
		if a.json {
			out := struct {
				*daemon.State
				Members []member `json:"members"`
			}{Members: []member{}}
			if own {
				out.State = &state
			}
			for _, m := range members {
				out.Members = append(out.Members, memberOf(m))
			}
			return a.printJSON(out)
		}
		if len(members) == 1 && members[0].Peer == "" {
			if own {
				fmt.Fprintf(a.out, "data      %s\npid       %d\n", state.Data, state.PID)
			}
			fmt.Fprintf(a.out, "metadata  on one machine alone\napplied   %d\n", members[0].Applied)
			a.exports(state)
			return nil
		}
		w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NODE\tROLE\tPEERS AT\tCLIENTS AT\tAPPLIED\tHEARD OF\tVERSION")
		voters, heard := 0, 0
		for _, m := range members {
			role := "learner"
			switch {
			case m.Leader:
				role = "leader"
			case m.Voter:
				role = "voter"
			}
			id := m.ID
			if m.Self {
				id += " *"
			}
			contact, applied := "-", "-"
			if m.Contact >= 0 {
				contact = m.Contact.Round(time.Millisecond).String() + " ago"
			}
			if m.Applied > 0 {
				applied = fmt.Sprint(m.Applied)
			}
			if m.Voter {
				voters++
				if m.Leader || m.Contact >= 0 && m.Contact < 5*time.Second {
					heard++
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", id, role, m.Peer, m.Serve, applied, contact, m.Version)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if spare := heard - (voters/2 + 1); spare >= 0 && voters > 1 {
			a.say("%d of %d voters are heard of: it goes on if %d more fail", heard, voters, spare)
		}
		a.exports(state)
		return nil
	})
}

// exports tells what NFS clients can mount of this machine's daemon.
func (a *app) exports(s daemon.State) {
	for _, e := range s.Exports {
		mode := ""
		if e.ReadOnly {
			mode = ", read-only"
		}
		a.say("export    %s at %s%s", e.Path, e.Address, mode)
	}
}

// members are the nodes as the leader sees them, if one can be asked: it alone knows how the others do.
func (a *app) members(ctx context.Context, c daemon.Client) ([]engine.Member, error) {
	members, err := c.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if !m.Leader || m.Self || m.Serve == "" {
			continue
		}
		l, err := a.dial(m.Serve)
		if err != nil {
			return members, nil
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(ctx, leaderPatience)
		defer cancel()
		if told, err := l.Members(ctx); err == nil {
			return told, nil
		}
	}
	return members, nil
}

// leaderPatience is how long the leader is waited for when the nodes are listed: it may be what is wrong.
const leaderPatience = 3 * time.Second

func (a *app) clusterBootstrapCmd() *cobra.Command {
	var data string
	c := cmd("bootstrap", "let the daemon of a data directory begin a cluster at its next start", between(0, 0), func(_ context.Context, _ []string) error {
		flags := map[string]any{}
		if data != "" {
			flags["data"] = data
		}
		cfg, err := daemon.Load(a.config, flags)
		if err != nil {
			return err
		}
		if err := daemon.AllowBootstrap(cfg.Data); err != nil {
			return err
		}
		a.say("the daemon of %s begins a cluster when it is started with cluster.listen set; what the directory holds is the cluster's then", cfg.Data)
		return nil
	})
	c.Flags().StringVar(&data, "data", "", "the daemon's data directory")
	return c
}

func (a *app) clusterAddCmd() *cobra.Command {
	var serve string
	c := cmd("add ID HOST:PORT", "add a node by hand, or tell its new address; nodes started with --join add themselves", between(2, 2), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.AddMember(ctx, engine.Member{ID: args[0], Peer: args[1], Serve: serve})
	})
	c.Flags().StringVar(&serve, "serve", "", "HOST:PORT that clients reach it at")
	return c
}

func (a *app) clusterRemoveCmd() *cobra.Command {
	return cmd("remove ID", "remove a node, dead or alive; it has to be added again to come back", between(1, 1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.RemoveMember(ctx, args[0])
	})
}

func (a *app) clusterPromoteCmd() *cobra.Command {
	return cmd("promote ID", "make a node a voter", between(1, 1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.Promote(ctx, args[0])
	})
}

func (a *app) clusterLeaderCmd() *cobra.Command {
	return cmd("leader [ID]", "tell which node leads, or hand the lead to a node", between(0, 1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			return c.TransferLeadership(ctx, args[0])
		}
		members, err := c.Members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.Leader {
				if a.json {
					return a.printJSON(memberOf(m))
				}
				fmt.Fprintln(a.out, m.ID, m.Serve)
				return nil
			}
		}
		return fmt.Errorf("no node leads: %w", graveler.Unavailable)
	})
}

func (a *app) clusterSnapshotCmd() *cobra.Command {
	return cmd("snapshot", "store the metadata on the object store now", between(0, 0), func(ctx context.Context, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		s, err := c.Snapshot(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(map[string]any{"url": s.URL, "index": s.Index, "taken": s.Taken, "tables": s.Tables, "uploaded": s.Uploaded, "bytes": s.Bytes})
		}
		a.say("%s: up to change %d, %d files of %d bytes, %d of them new", s.URL, s.Index, s.Tables, s.Bytes, s.Uploaded)
		return nil
	})
}

func (a *app) clusterRestoreCmd() *cobra.Command {
	var from, id, data string
	var list bool
	c := cmd("restore --from URL --data DIR", "make a data directory for a new cluster from a snapshot, after the old one is lost", between(0, 0), func(ctx context.Context, _ []string) error {
		if from == "" || data == "" && !list {
			return usagef("give --from, the URL that snapshots went to, and --data, an empty directory")
		}
		if list {
			return a.listSnapshots(ctx, from)
		}
		r, err := daemon.Restore(ctx, from, id, data)
		if err != nil {
			return err
		}
		if a.json {
			pending := []map[string]string{}
			for _, p := range r.Pending {
				pending = append(pending, map[string]string{"machine": string(p.Holder), "place": graveler.Place{Repo: p.Repo, Ref: graveler.Ref(p.Branch), Path: p.Path}.String()})
			}
			return a.printJSON(map[string]any{
				"snapshot": r.ID, "index": r.Snapshot.Index, "taken": r.Snapshot.Taken, "of": r.Of, "cluster": r.Cluster, "version": r.Version, "pending": pending,
			})
		}
		a.say("restored snapshot %s of cluster %s, as it was at %s (change %d)", r.ID, r.Of, r.Snapshot.Taken.Local().Format(time.DateTime), r.Snapshot.Index)
		a.say("what could be missing: every change after that time, and the bytes of %d files that were on one machine's disk alone then; they come with the machine if it lives", len(r.Pending))
		for i, p := range r.Pending {
			if i == 20 {
				a.say("... and %d more (--json has them all)", len(r.Pending)-i)
				break
			}
			a.say("  %s, on machine %s", graveler.Place{Repo: p.Repo, Ref: graveler.Ref(p.Branch), Path: p.Path}, cmp.Or(string(p.Holder), "that led"))
		}
		a.say("start lakefsfs daemon --data %s with cluster.listen to go on, and join new nodes with empty directories", data)
		return nil
	})
	c.Flags().StringVar(&from, "from", "", "storage URL that snapshots went to (cluster.snapshots)")
	c.Flags().StringVar(&data, "data", "", "data directory to make")
	c.Flags().StringVar(&id, "snapshot", "", "another snapshot than the newest one, as --list names them")
	c.Flags().BoolVar(&list, "list", false, "list the snapshots, and restore none")
	return c
}

func (a *app) listSnapshots(ctx context.Context, url string) error {
	all, err := daemon.Snapshots(ctx, url)
	if err != nil {
		return err
	}
	if a.json {
		out := []map[string]any{}
		for _, s := range all {
			out = append(out, map[string]any{"snapshot": s.ID, "cluster": s.Cluster, "index": s.Index, "stored": s.Modified})
		}
		return a.printJSON(out)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SNAPSHOT\tCHANGE\tSTORED")
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\n", s.ID, s.Index, s.Modified.Local().Format(time.DateTime))
	}
	return w.Flush()
}
