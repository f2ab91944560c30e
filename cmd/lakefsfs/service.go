package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lakefsfs/lakefsfs/daemon"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func owner(fi fs.FileInfo) (uid, gid uint32) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return uint32(os.Getuid()), uint32(os.Getgid())
}

func logger(c daemon.LogConfig) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level))
	opt := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || c.Format == "auto" && term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewTextHandler(os.Stderr, opt))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, opt))
}

// serve runs a daemon until ctx ends. ready is called when everything is up.
func serve(ctx context.Context, cfg daemon.Config, ready func(*daemon.Daemon)) error {
	d, err := daemon.New(ctx, cfg, logger(cfg.Log))
	if err != nil {
		return err
	}
	ready(d)
	<-ctx.Done()
	return d.Close()
}

// configFlags are the flags that stand for configuration keys.
func configFlags(c *cobra.Command, keys ...string) func() map[string]any {
	for _, k := range daemon.Keys() {
		for _, want := range keys {
			if k.Name == want {
				c.Flags().String(strings.NewReplacer(".", "-", "_", "-").Replace(k.Name), "", k.Doc)
			}
		}
	}
	return func() map[string]any {
		out := map[string]any{}
		for _, k := range keys {
			f := c.Flags().Lookup(strings.NewReplacer(".", "-", "_", "-").Replace(k))
			if f.Changed {
				out[k] = f.Value.String()
			}
		}
		return out
	}
}

var daemonFlags = []string{"data", "listen", "namespace", "cache.memory", "cache.disk", "cache.dir", "log.level", "log.format"}

// nodeFlags are those of a daemon that works with others.
var nodeFlags = []string{
	"cluster.listen", "cluster.advertise", "cluster.join", "cluster.snapshots", "serve.listen", "serve.advertise", "serve.tokens",
	"engine.address", "engine.token_file", "tls.ca", "tls.cert", "tls.key",
}

func (a *app) upCmd() *cobra.Command {
	var dir string
	var other, syncOnClose bool
	var flags func() map[string]any
	c := cmd("up", "everything on this machine: daemon, metadata, objects, mount; Ctrl-C stops it", between(0, 0), func(ctx context.Context, _ []string) error {
		cfg, err := daemon.Load(a.config, flags())
		if err != nil {
			return err
		}
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return err
			}
			dir = filepath.Join(home, "lakefsfs")
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("mount point: %w", err)
			}
		}
		cfg.Mounts = append(cfg.Mounts, daemon.MountConfig{Dir: dir, AllowOther: other, SyncOnClose: syncOnClose})
		return serve(ctx, cfg, func(*daemon.Daemon) { fmt.Fprintln(a.out, dir) })
	})
	c.Flags().StringVar(&dir, "mount", "", "mount point (default ~/lakefsfs)")
	c.Flags().BoolVar(&other, "allow-other", false, "let other users into the mount")
	c.Flags().BoolVar(&syncOnClose, "sync-on-close", false, "close returns when the bytes survive a power cut")
	flags = configFlags(c, daemonFlags...)
	return c
}

func (a *app) daemonCmd() *cobra.Command {
	var flags func() map[string]any
	var join string
	var bootstrap bool
	c := cmd("daemon", "the service, as the configuration says", between(0, 0), func(ctx context.Context, _ []string) error {
		set := flags()
		if join != "" {
			set["cluster.join"] = join
		}
		if bootstrap {
			set["cluster.bootstrap"] = true
		}
		cfg, err := daemon.Load(a.config, set)
		if err != nil {
			return err
		}
		return serve(ctx, cfg, func(*daemon.Daemon) { a.say("listening on %s", cfg.Socket()) })
	})
	flags = configFlags(c, append(daemonFlags, nodeFlags...)...)
	c.Flags().StringVar(&join, "join", "", "join the cluster that serves clients at HOST:PORT (cluster.join)")
	c.Flags().BoolVar(&bootstrap, "bootstrap", false, "begin a cluster (cluster.bootstrap)")
	return c
}

func (a *app) mountCmd() *cobra.Command {
	var ro, other, syncOnClose bool
	c := cmd("mount [PLACE] DIR", "mount everything, a repository or a ref, through the running daemon", between(1, 2), func(ctx context.Context, args []string) error {
		r := daemon.MountRequest{ReadOnly: ro, AllowOther: other, SyncOnClose: syncOnClose}
		if len(args) == 2 {
			p, err := a.place(ctx, args[:1])
			if err != nil {
				return err
			}
			r.Place = p.String()
		}
		var err error
		if r.Dir, err = filepath.Abs(args[len(args)-1]); err != nil {
			return err
		}
		c, err := a.mounter(ctx)
		if err != nil {
			return err
		}
		info, err := c.Mount(ctx, r)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(info)
		}
		a.say("%s", info.Dir)
		return nil
	})
	c.Flags().BoolVar(&ro, "read-only", false, "refuse all changes")
	c.Flags().BoolVar(&other, "allow-other", false, "let other users in")
	c.Flags().BoolVar(&syncOnClose, "sync-on-close", false, "close returns when the bytes survive a power cut")
	return c
}

func (a *app) umountCmd() *cobra.Command {
	return cmd("umount DIR", "unmount", between(1, 1), func(ctx context.Context, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		return a.umount(ctx, dir)
	})
}

func (a *app) gcCmd() *cobra.Command {
	var dry bool
	var grace time.Duration
	c := cmd("gc REPO", "delete objects that nothing names any more", between(1, 1), func(ctx context.Context, args []string) error {
		id, err := repoID(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		rep, err := c.CollectGarbage(ctx, engine.GCRequest{Repo: id, DryRun: dry, Grace: grace})
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(map[string]any{"live": rep.Live, "kept": rep.Kept, "deleted": rep.Deleted, "bytes": rep.Bytes, "addresses": rep.Addresses, "dry_run": dry})
		}
		verb := "deleted"
		if dry {
			verb = "to delete"
		}
		a.say("%d in use, %d unused but younger than %s, %d %s (%d bytes)", rep.Live, rep.Kept, grace, rep.Deleted, verb, rep.Bytes)
		return nil
	})
	c.Flags().BoolVar(&dry, "dry-run", false, "tell, and delete nothing")
	c.Flags().DurationVar(&grace, "grace", 24*time.Hour, "keep what is younger than this")
	return c
}

func (a *app) fsckCmd() *cobra.Command {
	var data bool
	c := cmd("fsck REPO[/@REF]", "verify a repository's tables, and with --data every object", between(1, 1), func(ctx context.Context, args []string) error {
		p, err := a.place(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		bad := 0
		type problem struct {
			Level string `json:"level"`
			Place string `json:"place"`
			Text  string `json:"text"`
		}
		out := []problem{}
		for pr, err := range c.Check(ctx, engine.CheckRequest{Repo: p.Repo, Ref: p.Ref, Data: data}) {
			if err != nil {
				return err
			}
			if pr.Level == "error" {
				bad++
			}
			if a.json {
				out = append(out, problem(pr))
			} else if pr.Level == "error" {
				fmt.Fprintf(a.out, "%s: %s\n", pr.Place, pr.Text)
			} else {
				a.say("%s: %s", pr.Place, pr.Text)
			}
		}
		if a.json {
			if err := a.printJSON(out); err != nil {
				return err
			}
		}
		if bad > 0 {
			return fmt.Errorf("%d problems: %w", bad, graveler.Corrupt)
		}
		return nil
	})
	c.Flags().BoolVar(&data, "data", false, "read every object and compare its checksum")
	return c
}

func (a *app) versionCmd() *cobra.Command {
	return cmd("version", "the version", between(0, 0), func(context.Context, []string) error {
		if a.json {
			return a.printJSON(map[string]string{"version": daemon.Version})
		}
		fmt.Fprintln(a.out, "lakefsfs", daemon.Version)
		return nil
	})
}

func (a *app) doctorCmd() *cobra.Command {
	return cmd("doctor", "look for what could be wrong here", between(0, 0), func(ctx context.Context, _ []string) error {
		type check struct {
			Name string `json:"check"`
			OK   bool   `json:"ok"`
			Text string `json:"text"`
		}
		var out []check
		add := func(name string, err error, text string) {
			if err != nil {
				text = err.Error()
			}
			out = append(out, check{name, err == nil, text})
		}
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		} else {
			err = fmt.Errorf("%w; load the fuse module, and in a container pass --device /dev/fuse", err)
		}
		add("fuse device", err, "/dev/fuse opens")
		bin, err := exec.LookPath("fusermount3")
		if err != nil && os.Getuid() == 0 {
			bin, err = "not installed; root mounts without it", nil
		} else if err != nil {
			err = fmt.Errorf("fusermount3 is not installed; install fuse3")
		}
		add("fusermount3", err, bin)
		c, err := a.client()
		var cfg daemon.Config
		if err == nil {
			cfg, err = a.load()
		}
		if err == nil && !isSocket(a.address(&cfg)) {
			// Servers elsewhere tell nothing of their directories and mounts.
			var ms []engine.Member
			ms, err = c.Members(ctx)
			add("servers", err, fmt.Sprintf("%d nodes", len(ms)))
		} else {
			var s daemon.State
			if err == nil {
				s, err = c.State(ctx)
			}
			add("daemon", err, fmt.Sprintf("pid %d, data %s, %d mounts, %d exports", s.PID, s.Data, len(s.Mounts), len(s.Exports)))
			if err == nil {
				fi, err := os.Stat(s.Data)
				if err == nil && fi.Mode().Perm()&0o077 != 0 {
					err = fmt.Errorf("%s is open to other users (%o); chmod 700 it", s.Data, fi.Mode().Perm())
				}
				add("data directory", err, s.Data)
			}
		}
		if err == nil {
			repos, err := c.ListRepositories(ctx)
			add("repositories", err, fmt.Sprintf("%d", len(repos)))
			for _, r := range repos {
				odd, err := unnameable(ctx, c, r)
				text := "reachable: " + r.StorageNamespace
				if odd > 0 {
					text += fmt.Sprintf("; %d keys of @%s no file name can hold: read them with lakefsfs ls -r and cat", odd, r.DefaultBranch)
				}
				add("repository "+string(r.ID), err, text)
			}
		}
		bad := 0
		for _, ch := range out {
			if !ch.OK {
				bad++
			}
			if !a.json {
				mark := "ok  "
				if !ch.OK {
					mark = "BAD "
				}
				fmt.Fprintf(a.out, "%s %s: %s\n", mark, ch.Name, ch.Text)
			}
		}
		if a.json {
			if err := a.printJSON(out); err != nil {
				return err
			}
		}
		if bad > 0 {
			return fmt.Errorf("%d checks failed", bad)
		}
		return nil
	})
}

// unnameable counts the keys of the default branch that no path of files can name.
func unnameable(ctx context.Context, c engine.Engine, r graveler.Repository) (n int, err error) {
	for l, err := range c.List(ctx, r.ID, graveler.Ref(r.DefaultBranch), engine.ListQuery{}) {
		if err != nil {
			return n, err
		}
		for seg := range strings.SplitSeq(strings.TrimSuffix(l.Path, "/"), "/") {
			if !graveler.FileName(seg) {
				n++
				break
			}
		}
	}
	return n, nil
}
