package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// arena is where the contenders are: their disks, servers and mounts.
type arena struct {
	*plan
	work, bin   string
	workloadBin string
	contenders  []*contender
	plainDisks  bool // some disk is not a fresh ext4
	missing     []string

	undo []func() error // in reverse order
}

// close takes everything down.
func (a *arena) close() error {
	var errs []error
	for _, c := range a.contenders {
		c.sys.stop()
	}
	for _, f := range slices.Backward(a.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// build builds the programs of the contest.
func (a *arena) build(ctx context.Context) error {
	a.workloadBin = filepath.Join(a.work, "workload")
	const here = "github.com/lakefsfs/lakefsfs/bench/"
	for _, name := range []string{"workload", "loopback"} {
		if _, err := command(ctx, "go", "build", "-o", filepath.Join(a.work, name), here+name); err != nil {
			return err
		}
	}
	_, err := command(ctx, a.bin, "version")
	if err != nil {
		return fmt.Errorf("%w (make build)", err)
	}
	return nil
}

// disk gives a contender its own.
func (a *arena) disk(ctx context.Context, name string, mib int) (string, error) {
	dir := filepath.Join(a.work, name)
	fresh, remove, err := disk(ctx, dir, int64(mib)<<20, a.plain)
	if err != nil {
		return "", fmt.Errorf("disk of %s: %w", name, err)
	}
	a.plainDisks = a.plainDisks || !fresh
	a.undo = append(a.undo, remove)
	return dir, nil
}

// add starts a contender. Its system may have been started for another one.
func (a *arena) add(ctx context.Context, c *contender) error {
	started := slices.ContainsFunc(a.contenders, func(o *contender) bool { return o.sys == c.sys && c.sys != system(plain{}) })
	a.contenders = append(a.contenders, c)
	if started {
		return nil
	}
	err := c.sys.start(ctx)
	if err == nil {
		return nil
	}
	if a.only == "" && ctx.Err() == nil && slices.Contains([]string{"rclone", "juicefs"}, c.name) {
		// Somebody else's program, which nobody asked for by name: the others can do without it.
		fmt.Fprintf(os.Stderr, "bench: %s is left out: %v\n", c.name, err)
		c.sys.stop()
		a.contenders = a.contenders[:len(a.contenders)-1]
		a.missing = append(a.missing, c.name)
		return nil
	}
	return fmt.Errorf("%s: %w", c.name, err)
}

func (a *arena) wants(names ...string) bool {
	if a.only == "" {
		return true
	}
	return slices.ContainsFunc(strings.Split(a.only, ","), func(n string) bool { return slices.Contains(names, n) })
}

// enter lets all contenders in.
func (a *arena) enter(ctx context.Context) error {
	near := (a.rounds+1)*a.big + 1024 // MiB: a big file of each round, the trees, and room
	far := (a.rounds+1)*a.s3Big + 1536
	log := func(name string) string { return filepath.Join(a.work, name+".log") }
	if a.wants("ext4") {
		dir, err := a.disk(ctx, "e", near)
		if err != nil {
			return err
		}
		if err := a.add(ctx, &contender{name: "ext4", about: "the disk itself", sys: plain{}, dir: func() string { return dir }, writes: true}); err != nil {
			return err
		}
	}
	for _, k := range []struct{ name, about, disk, flag string }{
		{"loopback", "ext4 through FUSE", "l", "-passthrough=false"},
		{"passthrough", "ext4 through FUSE, the kernel reading and writing files by itself", "p", "-passthrough"},
	} {
		if !a.wants(k.name) || a.only == "" && k.name == "passthrough" {
			continue
		}
		dir, err := a.disk(ctx, k.disk, near)
		if err != nil {
			return err
		}
		l := &loopback{bin: filepath.Join(a.work, "loopback"), flag: k.flag, below: filepath.Join(dir, "tree"), mnt: filepath.Join(a.work, k.disk+"-m"), log: log(k.name)}
		if err := a.add(ctx, &contender{name: k.name, about: k.about, sys: l, dir: func() string { return l.mnt }, writes: true}); err != nil {
			return err
		}
	}
	if a.wants("branch") {
		l, err := a.lakefsfs(ctx, "b", near, nil)
		if err != nil {
			return err
		}
		if err := a.add(ctx, &contender{name: "branch", about: "lakefsfs, file:// store, repo/@main", sys: l, dir: l.branch, writes: true}); err != nil {
			return err
		}
	}
	if a.wants("commit", "mount") {
		l, err := a.lakefsfs(ctx, "c", near, nil)
		if err != nil {
			return err
		}
		if a.wants("commit") {
			if err := a.add(ctx, &contender{name: "commit", about: "lakefsfs, file:// store, repo/@<commit>", sys: l, dir: l.commit}); err != nil {
				return err
			}
		}
		if a.wants("mount") {
			if err := a.add(ctx, &contender{name: "mount", about: "lakefsfs, file:// store, one commit mounted by itself", sys: l, dir: l.single}); err != nil {
				return err
			}
		}
	}
	return a.enterFar(ctx, far, log)
}

// enterFar lets in those whose store is an S3 server behind the proxy.
func (a *arena) enterFar(ctx context.Context, mib int, log func(string) string) error {
	if !a.wants("s3 branch", "s3 mount", "rclone", "juicefs") {
		return nil
	}
	gw := tool("versitygw")
	if gw == "" {
		a.missing = append(a.missing, "versitygw, an S3 server: make deps")
		return nil
	}
	// One disk for all servers.
	store, err := a.disk(ctx, "s", 2*mib)
	if err != nil {
		return err
	}
	if a.wants("s3 branch") {
		b, err := a.bucket(gw, store, "branch")
		if err != nil {
			return err
		}
		l, err := a.lakefsfs(ctx, "sb", mib, b)
		if err != nil {
			return err
		}
		if err := a.add(ctx, &contender{name: "s3 branch", about: "lakefsfs, S3, repo/@main", sys: l, dir: l.branch, s3: b, writes: true}); err != nil {
			return err
		}
	}
	if a.wants("s3 mount") {
		b, err := a.bucket(gw, store, "mount")
		if err != nil {
			return err
		}
		l, err := a.lakefsfs(ctx, "sm", mib, b)
		if err != nil {
			return err
		}
		if err := a.add(ctx, &contender{name: "s3 mount", about: "lakefsfs, S3, one commit mounted by itself", sys: l, dir: l.single, s3: b}); err != nil {
			return err
		}
	}
	for _, name := range []string{"rclone", "juicefs"} {
		if !a.wants(name) {
			continue
		}
		bin := tool(name)
		if bin == "" {
			a.missing = append(a.missing, name)
			continue
		}
		b, err := a.bucket(gw, store, name)
		if err != nil {
			return err
		}
		dir, err := a.disk(ctx, name[:1], mib)
		if err != nil {
			return err
		}
		mnt := filepath.Join(a.work, name[:1]+"-m")
		c := &contender{name: name, about: name + " mount, S3", dir: func() string { return mnt }, s3: b, writes: true}
		if name == "rclone" {
			c.sys = &rclone{bin: bin, cache: filepath.Join(dir, "cache"), mnt: mnt, log: log(name), s3: b}
		} else {
			c.sys = &juicefs{bin: bin, data: filepath.Join(dir, "data"), mnt: mnt, log: log(name), s3: b}
		}
		if err := a.add(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (a *arena) lakefsfs(ctx context.Context, name string, mib int, s3 *bucket) (*lakefsfs, error) {
	dir, err := a.disk(ctx, name, mib)
	if err != nil {
		return nil, err
	}
	return &lakefsfs{bin: a.bin, data: filepath.Join(dir, "d"), mnt: filepath.Join(a.work, name+"-m"), log: filepath.Join(a.work, name+".log"), s3: s3}, nil
}

// bucket starts an S3 server with one bucket, and a proxy before it: each contender's requests are counted by themselves.
func (a *arena) bucket(gw, store, name string) (*bucket, error) {
	dir := filepath.Join(store, name)
	if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	server, err := spawn(filepath.Join(a.work, "s3-"+name+".log"), nil, false, gw, "--port", addr, "--access", s3Key, "--secret", s3Secret, "--quiet", "posix", dir)
	if err != nil {
		return nil, err
	}
	if err := server.until(func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}); err != nil {
		return nil, err
	}
	px, err := newProxy(addr, a.delay)
	if err != nil {
		server.end()
		return nil, err
	}
	b := &bucket{proxy: px, name: name, server: server}
	a.undo = append(a.undo, func() error { b.close(); return nil })
	return b, nil
}

// machine says where and what was measured.
func (a *arena) machine(ctx context.Context) string {
	var u unix.Utsname
	unix.Uname(&u)
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	version, _ := command(ctx, a.bin, "version")
	s := []string{fmt.Sprintf("%s, %d × %s, Linux %s, %s, lakefsfs %s", time.Now().Format(time.DateOnly), runtime.NumCPU(), cpu, unix.ByteSliceToString(u.Release[:]), runtime.Version(), strings.TrimPrefix(version, "lakefsfs "))}
	if bin := tool("rclone"); bin != "" {
		if out, err := exec.CommandContext(ctx, bin, "version").Output(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			s = append(s, first)
		}
	}
	if a.plainDisks {
		s = append(s, "on plain directories of one disk, not on a fresh ext4 each")
	}
	if a.keepCaches || os.Geteuid() != 0 {
		s = append(s, "kernel caches are kept, so that cold is no more than just started")
	}
	for _, m := range a.missing {
		s = append(s, "not here: "+m)
	}
	return strings.Join(s, "; ")
}
