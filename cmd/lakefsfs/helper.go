package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lakefsfs/lakefsfs/daemon"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// isMountHelper tells by the program's name that mount(8) runs it: mount -t fuse lakefs DIR runs "lakefs DIR -o OPTS",
// mount -t fuse.lakefs PLACE DIR runs "lakefs PLACE DIR -o OPTS", and mount -t lakefs PLACE DIR runs "/sbin/mount.lakefs PLACE DIR
// -o OPTS".
func isMountHelper(name string) bool {
	return name == "lakefs" || name == "mount.lakefs" || name == "mount.fuse.lakefs"
}

// generic are mount options that the kernel or mount(8) means, and that need nothing of us.
var generic = []string{"rw", "suid", "dev", "exec", "auto", "async", "atime", "noatime", "relatime", "norelatime", "diratime", "nodiratime",
	"defaults", "_netdev", "nofail", "user", "users", "owner", "group", "nosuid", "nodev", "noexec", "noauto", "loud", "silent", "default_permissions"}

// helped is what mount(8) asks for.
type helped struct {
	daemon.MountRequest
	data, server, ca, token string
}

// helperArgs reads what mount(8) passes.
func helperArgs(args []string) (r helped, err error) {
	var pos []string
	var opts []string
	for i := 0; i < len(args); i++ {
		switch s := args[i]; {
		case s == "-o" && i+1 < len(args):
			i++
			opts = append(opts, strings.Split(args[i], ",")...)
		case strings.HasPrefix(s, "-o"):
			opts = append(opts, strings.Split(s[2:], ",")...)
		case s == "-t" && i+1 < len(args):
			i++
		case s == "-n" || s == "-s" || s == "-v" || s == "-f":
		case strings.HasPrefix(s, "-"):
			return r, usagef("option %q is not known", s)
		default:
			pos = append(pos, s)
		}
	}
	switch len(pos) {
	case 1:
		r.Dir = pos[0]
	case 2:
		r.Place, r.Dir = pos[0], pos[1]
	default:
		return r, usagef("give [PLACE] DIR -o OPTIONS")
	}
	if slices.Contains([]string{"lakefs", "none", "lakefsfs", "all"}, r.Place) {
		r.Place = "" // a source that means nothing: everything
	}
	for _, o := range opts {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "ro":
			r.ReadOnly = true
		case "allow_other":
			r.AllowOther = true
		case "sync_on_close", "sync":
			r.SyncOnClose = true
		case "data":
			r.data = value
		case "server":
			r.server = strings.ReplaceAll(value, "+", ",") // a comma ends the option
		case "ca":
			r.ca = value
		case "token_file":
			r.token = value
		case "", "fsname", "subtype", "x-systemd.automount", "x-mount.mkdir":
		default:
			if !slices.Contains(generic, name) && !strings.HasPrefix(name, "x-") {
				return r, usagef("mount option %q is not known; ours are ro, allow_other, sync_on_close, data=DIR, server=unix:///SOCKET or HOST:PORT+HOST:PORT, ca=FILE, token_file=FILE", o)
			}
		}
	}
	if r.Dir, err = filepath.Abs(r.Dir); err != nil {
		return r, err
	}
	return r, nil
}

// mountHelper mounts for mount(8): through the running daemon, or one that it starts.
func mountHelper(ctx context.Context, _ string, args []string) error {
	r, err := helperArgs(args)
	if err != nil {
		return err
	}
	a := &app{out: os.Stdout, server: r.server, ca: r.ca, token: r.token, quiet: true, config: os.Getenv("LAKEFSFS_CONFIG")}
	if os.Getenv("HOME") == "" {
		os.Setenv("HOME", "/root") // mount(8) of an fstab line at boot has no environment
	}
	if r.server != "" {
		c, err := a.mounter(ctx)
		if err != nil {
			return err
		}
		_, err = c.Mount(ctx, r.MountRequest)
		return err
	}
	flags, args := map[string]any{}, []string{}
	if r.data != "" {
		flags["data"], args = r.data, []string{"--data", r.data}
	}
	cfg, err := daemon.Load(a.config, flags)
	if err != nil {
		return err
	}
	if r.data != "" {
		a.server = cfg.Socket()
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	_, err = c.State(ctx)
	if errors.Is(err, graveler.Unavailable) {
		if err := startDaemon(ctx, c, cfg.Data, args); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	_, err = c.Mount(ctx, r.MountRequest)
	return err
}

// startDaemon starts a daemon in a session of its own and waits until it answers. data is its data directory, by args or configuration.
func startDaemon(ctx context.Context, c daemon.Client, data string, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(data, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p := exec.Command(exe, append([]string{"daemon"}, args...)...)
	p.Args[0] = "lakefsfs" // by our own name it is the helper again
	p.Stdout, p.Stderr, p.Dir = log, log, "/"
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- p.Wait() }()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, err := c.State(ctx); err == nil {
			return nil
		}
		select {
		case err := <-exited:
			return fmt.Errorf("the daemon ended at its start (%v); %s tells why: %w", err, log.Name(), graveler.Unavailable)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("the daemon does not answer; %s may tell why: %w", log.Name(), graveler.Timeout)
}
