package main

import (
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Removals.
var removeChecks = []named{
	{"rmdir-errors", func(c *check) {
		c.mkdir("full", 0o755, 0, 0)
		c.write("full/f", "", 0o644)
		c.write("f", "", 0o644)
		c.errno("a full one", unix.Rmdir(c.path("full")), unix.ENOTEMPTY, unix.EEXIST)
		c.errno("a file", unix.Rmdir(c.path("f")), unix.ENOTDIR)
		c.errno("nothing", unix.Rmdir(c.path("nothing")), unix.ENOENT)
		c.errno("itself", unix.Rmdir(c.dir+"/full/."), unix.EINVAL)
		c.errno("a directory as a file", unix.Unlink(c.path("full")), unix.EISDIR, unix.EPERM)
		c.forget()
		c.list("", "f", "full")
		c.ok(os.Remove(c.path("full/f")))
		c.ok(unix.Rmdir(c.path("full")))
		c.forget()
		c.list("", "f")
	}},
	{"unlink-of-open-file", func(c *check) {
		c.mkdir("d", 0o755, 0, 0)
		c.write("d/f", "content", 0o644)
		f, err := os.OpenFile(c.path("d/f"), os.O_RDWR, 0)
		c.ok(err)
		c.ok(os.Remove(c.path("d/f")))
		c.gone("d/f")
		c.forget()
		b, err := io.ReadAll(f)
		if string(b) != "content" {
			c.errorf("%q %v", b, err)
		}
		_, err = f.WriteString(" and more")
		c.ok(err)
		c.ok(f.Sync())
		c.forget()
		b = make([]byte, 100)
		n, _ := f.ReadAt(b, 0)
		if string(b[:n]) != "content and more" {
			c.errorf("after writing: %q", b[:n])
		}
		c.write("d/f", "another", 0o644) // the name is free
		if !c.local {
			var silly int
			for _, name := range c.names("d") {
				if strings.HasPrefix(name, ".nfs") {
					silly++
				}
			}
			if silly != 1 {
				c.errorf("%q", c.names("d"))
			}
		}
		c.ok(f.Close())
		// The client removes it in its own time.
		for i := 0; len(c.names("d")) > 1 && i < 200; i++ {
			time.Sleep(20 * time.Millisecond)
		}
		c.list("d", "f")
		c.read("d/f", "another")
	}},
	{"removed-directory", func(c *check) {
		c.mkdir("d", 0o755, 0, 0)
		fd, err := unix.Open(c.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(err)
		defer unix.Close(fd)
		c.ok(unix.Rmdir(c.path("d")))
		_, err = unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.errno("create in it", err, unix.ENOENT, unix.ESTALE)
		// A new one of its name is another one.
		c.mkdir("d", 0o755, 0, 0)
		_, err = unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.errno("create in the old one", err, unix.ENOENT, unix.ESTALE)
		c.list("d")
	}},
	{"remove-tree", func(c *check) {
		for i := range 10 {
			d := "t/" + itoa(i)
			c.ok(os.MkdirAll(c.path(d), 0o755))
			for j := range 20 {
				c.ok(os.WriteFile(c.path(d+"/"+itoa(j)), []byte("x"), 0o644))
			}
		}
		c.forget()
		c.ok(os.RemoveAll(c.path("t")))
		c.forget()
		c.list("")
	}},
}
