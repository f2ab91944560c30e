package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/daemon"
	"github.com/lakefsfs/lakefsfs/engine/remote"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// app is what the commands share.
type app struct {
	out    io.Writer
	json   bool
	quiet  bool
	server string
	config string
	ca     string // PEM file of the authorities that servers' certificates are of
	token  string // file with the token of this client
	cli    *daemon.Client
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "lakefsfs", Short: "Git for data, as a file system",
		Long: "lakefsfs mounts versioned repositories as directories: repo/@main is a writable branch, repo/@<commit> and tags are frozen\n" +
			"history. Start everything on this machine with lakefsfs up.\n\nA place is written as it stands in the mount, repo/@ref/path; inside a mounted directory it can be left out.",
		SilenceErrors: true, SilenceUsage: true, Version: daemon.Version,
	}
	p := root.PersistentFlags()
	p.BoolVar(&a.json, "json", false, "print JSON")
	p.BoolVarP(&a.quiet, "quiet", "q", false, "print nothing but errors and what was asked for")
	p.StringVar(&a.server, "server", "", "the daemon's socket, unix:///path, or servers elsewhere, HOST:PORT,... (LAKEFSFS_SERVER)")
	p.StringVar(&a.ca, "ca", os.Getenv("LAKEFSFS_CA"), "PEM file of the authorities of servers elsewhere (LAKEFSFS_CA)")
	p.StringVar(&a.token, "token-file", os.Getenv("LAKEFSFS_TOKEN_FILE"), "file with the token for servers elsewhere (LAKEFSFS_TOKEN_FILE; or LAKEFSFS_TOKEN, the token itself)")
	p.StringVar(&a.config, "config", os.Getenv("LAKEFSFS_CONFIG"), "configuration file (LAKEFSFS_CONFIG)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.upCmd(), a.daemonCmd(), a.mountCmd(), a.umountCmd(), a.repoCmd(), a.branchCmd(), a.tagCmd())
	root.AddCommand(a.statusCmd(), a.diffCmd(), a.logCmd(), a.showCmd(), a.commitCmd(), a.mergeCmd(), a.pickCmd("revert"), a.pickCmd("cherry-pick"))
	root.AddCommand(a.lsCmd(), a.catCmd(), a.statCmd(), a.cpCmd(), a.rmCmd(), a.importCmd())
	root.AddCommand(a.gcCmd(), a.fsckCmd(), a.clusterCmd(), a.doctorCmd(), a.versionCmd())
	return root
}

// client finds the daemon: --server, LAKEFSFS_SERVER, the configuration, the default socket.
func (a *app) client() (daemon.Client, error) {
	if a.cli != nil {
		return *a.cli, nil
	}
	cfg, err := a.load()
	if err != nil {
		return daemon.Client{}, err
	}
	c, err := a.dial(a.address(&cfg))
	if err != nil {
		return c, err
	}
	a.cli = &c
	return c, nil
}

// load reads the configuration, which is needed for addresses alone if they aren't given.
func (a *app) load() (daemon.Config, error) { return daemon.Load(a.config, nil) }

// address is where the daemon, or the servers, are asked.
func (a *app) address(cfg *daemon.Config) string {
	if a.server != "" {
		return a.server
	}
	if addr := os.Getenv("LAKEFSFS_SERVER"); addr != "" {
		return addr
	}
	return cfg.Socket()
}

// dial returns a client of an address. It doesn't connect yet.
func (a *app) dial(addr string) (daemon.Client, error) {
	var opt remote.DialOptions
	if !isSocket(addr) {
		cfg, err := a.load()
		if err != nil {
			return daemon.Client{}, err
		}
		if opt, err = cfg.DialOptions(); err != nil {
			return daemon.Client{}, err
		}
		if a.ca != "" {
			opt.CA = a.ca
		}
		if a.token != "" {
			opt.TokenFile, opt.Token = a.token, ""
		}
	}
	c, err := remote.Dial(addr, opt)
	if err != nil {
		return daemon.Client{}, usageError{err}
	}
	return daemon.Client{Client: c}, nil
}

// credentialArgs are the flags of a daemon that asks servers as this command does.
func (a *app) credentialArgs() (args []string, err error) {
	for _, f := range [][2]string{{"--tls-ca", a.ca}, {"--engine-token-file", a.token}} {
		if f[1] == "" {
			continue
		}
		path, err := filepath.Abs(f[1]) // the daemon runs in another directory
		if err != nil {
			return nil, err
		}
		args = append(args, f[0], path)
	}
	return args, nil
}

// place reads a place, or finds the one that the working directory is in.
func (a *app) place(ctx context.Context, args []string) (graveler.Place, error) {
	if len(args) > 0 {
		p, err := graveler.ParsePlace(args[0])
		if err != nil {
			return p, usageError{err}
		}
		return p, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return graveler.Place{}, err
	}
	return a.placeOf(ctx, dir)
}

// placeOf is the place that a directory of a mount shows.
func (a *app) placeOf(ctx context.Context, dir string) (graveler.Place, error) {
	none := func() (graveler.Place, error) {
		return graveler.Place{}, usagef("say which place is meant, as repo/@ref/path: %s is in no mount of lakefsfs", dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.FUSE_SUPER_MAGIC {
		return none()
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	best := -1
	var found string
	err := a.here(ctx, func(c daemon.Client, s daemon.State) bool {
		mine := false
		for _, m := range s.Mounts {
			root := m.Dir
			if real, err := filepath.EvalSymlinks(root); err == nil {
				root = real
			}
			rel, err := filepath.Rel(root, dir)
			if err != nil || rel == ".." || strings.HasPrefix(rel, "../") || len(root) <= best {
				continue
			}
			best, mine = len(root), true
			if rel == "." {
				rel = ""
			}
			found = strings.Trim(m.Place+"/"+rel, "/")
		}
		if mine && a.server == "" {
			a.cli = &c // whose mount it is knows the place
		}
		return false
	})
	if err != nil {
		return graveler.Place{}, err
	}
	if found == "" {
		return none()
	}
	p, err := graveler.ParsePlace(found)
	if err != nil {
		return none()
	}
	return p, nil
}

func needRef(p graveler.Place) (graveler.Place, error) {
	if p.Ref == "" {
		return p, usagef("%s: name a ref, as %s/@main", p, p.Repo)
	}
	return p, nil
}

// branchPlace is a place on a branch.
func (a *app) refPlace(ctx context.Context, args []string) (graveler.Place, error) {
	p, err := a.place(ctx, args)
	if err != nil {
		return p, err
	}
	return needRef(p)
}

func committer() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return control.Committer(uint32(os.Getuid()))
}

// printJSON prints v as JSON.
func (a *app) printJSON(v any) error {
	b, err := control.JSON(v)
	if err == nil {
		_, err = a.out.Write(b)
	}
	return err
}

// say prints a line that --quiet leaves out.
func (a *app) say(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.out, format+"\n", args...)
	}
}

// atMost takes from min to max arguments.
func between(lo, hi int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < lo:
			return usagef("%s needs more: %s", c.CommandPath(), c.UseLine())
		case hi >= 0 && len(args) > hi:
			return usagef("%s takes no %q: %s", c.CommandPath(), args[hi], c.UseLine())
		}
		return nil
	}
}

func group(use, short string, cmds ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: between(0, -1), RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s has no command %q", c.CommandPath(), args[0])
		}
		c.SetOut(os.Stdout)
		return c.Help()
	}}
	g.AddCommand(cmds...)
	return g
}

func cmd(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(c *cobra.Command, args []string) error { return run(c.Context(), args) }}
}
