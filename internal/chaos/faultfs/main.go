// Command faultfs mounts a directory over FUSE, as a disk that can fail and lose power. It knows what was synced, in the strict sense of
// POSIX: bytes by fsync of their file, names by fsync of their directory.
//
//	faultfs DIRECTORY MOUNTPOINT
//
// It prints the mount point when it is ready, and then does what it is told on standard input, a line each, which it answers with ok or
// with what went wrong:
//
//	fsync eio|ok     let every fsync fail, or none; what wasn't synced when one failed is never synced again
//	write eio|ok     let every write fail, or none
//	cut SEED         take power away: of what wasn't synced some is lost; nothing may be open
//	counts           fsyncs and writes that failed
//
// It unmounts and ends when its input does.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: faultfs DIRECTORY MOUNTPOINT")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "faultfs:", err)
		os.Exit(1)
	}
}

func serve(dir, mnt string) error {
	d, err := newDisk(filepath.Join(dir, "root"), filepath.Join(dir, "trash"))
	if err != nil {
		return err
	}
	root, err := gofs.NewLoopbackRoot(d.root)
	if err != nil {
		return fmt.Errorf("directory %s: %w", d.root, err)
	}
	srv, err := gofs.Mount(mnt, wrap(root, d), &gofs.Options{
		NullPermissions: true,
		MountOptions: gofuse.MountOptions{
			FsName: dir, Name: "faultfs", DisabledCapabilities: gofuse.CAP_PASSTHROUGH, // each write must be seen
			DirectMountStrict: os.Getuid() == 0, MaxWrite: 1 << 20,
		},
	})
	if err != nil {
		return fmt.Errorf("mount on %s: %w", mnt, err)
	}
	// Ctrl-C goes to the whole group: who started us ends us, in order.
	signal.Ignore(os.Interrupt)
	fmt.Println(mnt)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		out, err := d.do(strings.Fields(in.Text()))
		if err != nil {
			out = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Println(out)
	}
	if srv.Unmount() != nil {
		unix.Unmount(mnt, unix.MNT_DETACH)
	}
	return nil
}

func (d *disk) do(words []string) (string, error) {
	switch strings.Join(words, " ") {
	case "fsync eio":
		d.fsyncFails.Store(true)
		return "ok", nil
	case "fsync ok":
		d.fsyncFails.Store(false)
		return "ok", nil
	case "write eio":
		d.writeFails.Store(true)
		return "ok", nil
	case "write ok":
		d.writeFails.Store(false)
		return "ok", nil
	case "counts":
		return fmt.Sprintf("ok %d %d", d.failedSyncs.Load(), d.failedWrites.Load()), nil
	}
	if len(words) == 2 && words[0] == "cut" {
		seed, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return "", err
		}
		lost, err := d.cut(seed)
		return "ok " + lost.String(), err
	}
	return "", fmt.Errorf("what is %q: %w", words, syscall.EINVAL)
}
