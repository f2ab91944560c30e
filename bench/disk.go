package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// disk makes a fresh ext4 of so many bytes, mounted on dir, so that what contenders before it left on the disk doesn't count. It
// returns how to take it away. Without root, or if it is to be plain, it is a directory, and fresh is false.
func disk(ctx context.Context, dir string, size int64, plain bool) (fresh bool, remove func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, nil, err
	}
	if plain || os.Geteuid() != 0 {
		return false, func() error { return os.RemoveAll(dir) }, nil
	}
	image := dir + ".img"
	f, err := os.Create(image)
	if err != nil {
		return false, nil, err
	}
	// Allocated, or the first write of each block would pay for two file systems.
	err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
	if err == nil {
		_, err = command(ctx, "mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", image)
	}
	var dev string
	if err == nil {
		dev, err = command(ctx, "losetup", "--find", "--show", "--direct-io=on", image)
	}
	if err == nil {
		if _, err = command(ctx, "mount", "-o", "noatime", dev, dir); err != nil {
			_, e := command(context.WithoutCancel(ctx), "losetup", "--detach", dev)
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		os.Remove(image)
		if ctx.Err() == nil {
			// A container's root may not.
			fmt.Fprintf(os.Stderr, "bench: a plain directory instead of a fresh ext4: %v\n", err)
			return false, func() error { return os.RemoveAll(dir) }, nil
		}
		return false, nil, err
	}
	return true, func() error {
		ctx := context.WithoutCancel(ctx)
		_, err := command(ctx, "umount", dir)
		if err != nil {
			_, err = command(ctx, "umount", "--lazy", dir)
		}
		_, e := command(ctx, "losetup", "--detach", dev)
		return errors.Join(err, e, os.Remove(image))
	}, nil
}

// dropCaches makes the kernel forget names, attributes and pages of all file systems, as only root may.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// command runs a program and returns what it printed.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
