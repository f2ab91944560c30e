// Command loopback mounts a directory over FUSE and adds nothing: each request becomes the same system call below. What a measure
// takes there and doesn't take on the directory itself is what FUSE costs any file system of go-fuse's.
//
//	loopback [flags] DIRECTORY MOUNTPOINT
//
// It prints the mount point when it is ready, and unmounts at SIGINT or SIGTERM.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	timeout := flag.Duration("timeout", time.Second, "how long the kernel keeps names and attributes; libfuse's default")
	passthrough := flag.Bool("passthrough", false, "let the kernel read and write the files below by itself")
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(flag.Arg(0), flag.Arg(1), *timeout, *passthrough); err != nil {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		os.Exit(1)
	}
}

func serve(dir, mnt string, timeout time.Duration, passthrough bool) error {
	root, err := gofs.NewLoopbackRoot(dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	opt := gofs.Options{
		EntryTimeout:    &timeout,
		AttrTimeout:     &timeout,
		NullPermissions: true,
		MountOptions:    gofuse.MountOptions{FsName: dir, Name: "loopback"},
	}
	if !passthrough {
		opt.DisabledCapabilities = gofuse.CAP_PASSTHROUGH // go-fuse takes it where it may, as root
	}
	srv, err := gofs.Mount(mnt, root, &opt)
	if err != nil {
		return fmt.Errorf("mount on %s: %w", mnt, err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		srv.Wait()
		close(ended)
	}()
	fmt.Println(mnt)
	for {
		select {
		case <-ended:
			return nil
		case <-stop:
			// Busy is not the end: the next signal tries again.
			if err := srv.Unmount(); err != nil {
				fmt.Fprintln(os.Stderr, "loopback: unmount:", err)
			}
		}
	}
}
