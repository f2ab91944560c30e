package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lakefsfs/lakefsfs/daemon"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// The daemons of this machine are the one with the user's data directory, and one for each cluster that something here is mounted of,
// with a data directory in servers/ of the former.

// isSocket reports whether a server's address is a socket of this machine, not that of a server elsewhere.
func isSocket(addr string) bool { return strings.HasPrefix(addr, "unix://") }

// serversDir is where the daemons that mount from servers elsewhere have their data.
func serversDir(cfg *daemon.Config) string { return filepath.Join(cfg.Data, "servers") }

// dataFor is the data directory of the daemon that mounts from a server elsewhere: the same for the same servers in any order.
func dataFor(cfg *daemon.Config, server string) string {
	names := strings.Split(server, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	slices.Sort(names)
	names = slices.Compact(names)
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, names[0])
	// Short, since a socket's path must be.
	sum := sha256.Sum256([]byte(strings.Join(names, ",")))
	return filepath.Join(serversDir(cfg), fmt.Sprintf("%.32s-%x", clean, sum[:4]))
}

// sockets lists the sockets of this machine's daemons that may be there, the one that is asked by default first.
func (a *app) sockets() ([]string, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	var out []string
	if addr := a.address(&cfg); isSocket(addr) {
		out = append(out, addr)
	}
	if addr := cfg.Socket(); !slices.Contains(out, addr) {
		out = append(out, addr)
	}
	more, err := filepath.Glob(filepath.Join(serversDir(&cfg), "*", "lakefsfs.sock"))
	for _, path := range more {
		out = append(out, "unix://"+path)
	}
	return out, err
}

// here calls fn with each daemon of this machine that answers, until it returns true.
func (a *app) here(ctx context.Context, fn func(c daemon.Client, s daemon.State) bool) error {
	addrs, err := a.sockets()
	if err != nil {
		return err
	}
	var none error
	for _, addr := range addrs {
		c, err := a.dial(addr)
		if err != nil {
			return err
		}
		s, err := c.State(ctx)
		if errors.Is(err, graveler.Unavailable) {
			if none == nil {
				none = err
			}
			c.Close()
			continue
		}
		if err != nil {
			c.Close()
			return err
		}
		none = errAnswered
		if fn(c, s) {
			return nil
		}
	}
	if errors.Is(none, errAnswered) {
		return nil
	}
	return none
}

var errAnswered = errors.New("a daemon answered")

// mounter is the daemon that mounts from where a server address leads: the one at a socket, or for a server elsewhere one of this
// machine, which it starts if need be.
func (a *app) mounter(ctx context.Context) (daemon.Client, error) {
	cfg, err := a.load()
	if err != nil {
		return daemon.Client{}, err
	}
	addr := a.address(&cfg)
	if isSocket(addr) {
		return a.client()
	}
	data := dataFor(&cfg, addr)
	socket := "unix://" + filepath.Join(data, "lakefsfs.sock")
	c, err := a.dial(socket)
	if err != nil {
		return c, err
	}
	if _, err := c.State(ctx); err == nil {
		return c, nil
	} else if !errors.Is(err, graveler.Unavailable) {
		return c, err
	}
	// What this command was told of the servers is in its flags and environment; the daemon gets both.
	more, err := a.credentialArgs()
	if err != nil {
		return c, err
	}
	return c, startDaemon(ctx, c, data, append([]string{"--data", data, "--engine-address", addr}, more...))
}

// umount unmounts a directory, whichever daemon of this machine has mounted it.
func (a *app) umount(ctx context.Context, dir string) error {
	var done bool
	var result error
	err := a.here(ctx, func(c daemon.Client, s daemon.State) bool {
		if !slices.ContainsFunc(s.Mounts, func(m daemon.MountInfo) bool { return m.Dir == dir }) {
			return false
		}
		done, result = true, c.Unmount(ctx, dir)
		return true
	})
	if done || err != nil {
		return errors.Join(err, result)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.Unmount(ctx, dir) // which says that it isn't mounted
}
