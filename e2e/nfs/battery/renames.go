package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Renames.
var renameChecks = []named{
	{"rename", func(c *check) {
		c.write("a", "content of a", 0o644)
		c.write("b", "content of b", 0o644)
		c.mkdir("d", 0o755, 0, 0)
		c.ok(os.Rename(c.path("a"), c.path("d/a")))
		c.gone("a")
		c.ok(os.Rename(c.path("b"), c.path("d/a")))
		c.forget()
		c.gone("a", "b")
		c.read("d/a", "content of b")
		c.ok(os.Rename(c.path("d/a"), c.path("d/a")))
		c.mkdir("e", 0o755, 0, 0)
		c.ok(unix.Rename(c.path("d"), c.path("e"))) // over an empty directory
		c.forget()
		c.read("e/a", "content of b")
		c.list("", "e")
	}},
	{"rename-errors", func(c *check) {
		c.mkdir("full", 0o755, 0, 0)
		c.write("full/f", "", 0o644)
		c.mkdir("empty", 0o755, 0, 0)
		c.write("f", "", 0o644)
		for _, r := range []struct {
			from, to string
			want     []unix.Errno
		}{
			{"empty", "full", []unix.Errno{unix.ENOTEMPTY, unix.EEXIST}},
			{"empty", "f", []unix.Errno{unix.ENOTDIR}},
			{"f", "empty", []unix.Errno{unix.EISDIR}},
			{"full", "full/sub", []unix.Errno{unix.EINVAL}},
			{"nothing", "new", []unix.Errno{unix.ENOENT}},
			{"f", "nothing/new", []unix.Errno{unix.ENOENT}},
			{"f", "f/new", []unix.Errno{unix.ENOTDIR}},
		} {
			c.errno(r.from+" to "+r.to, unix.Rename(c.path(r.from), c.path(r.to)), r.want...)
		}
		c.forget()
		c.list("", "full", "empty", "f")
	}},
	{"rename-of-open-file", func(c *check) {
		c.write("a", "content", 0o644)
		f, err := os.OpenFile(c.path("a"), os.O_RDWR, 0)
		c.ok(err)
		defer f.Close()
		c.mkdir("d", 0o755, 0, 0)
		c.ok(os.Rename(c.path("a"), c.path("d/b")))
		c.forget()
		b, err := io.ReadAll(f)
		if string(b) != "content" {
			c.errorf("%q %v", b, err)
		}
		_, err = f.WriteAt([]byte("CON"), 0)
		c.ok(err)
		c.ok(f.Sync())
		c.forget()
		c.read("d/b", "CONtent")
	}},
	{"rename-over-open-file", func(c *check) {
		c.write("old", "old content", 0o644)
		c.write("new", "new content", 0o644)
		f, err := os.Open(c.path("old"))
		c.ok(err)
		c.ok(os.Rename(c.path("new"), c.path("old")))
		c.forget()
		b, err := io.ReadAll(f)
		if string(b) != "old content" {
			c.errorf("who has it open reads %q, %v", b, err)
		}
		c.read("old", "new content")
		c.ok(f.Close())
		c.list("", "old")
	}},
	{"rename-of-directory-in-use", func(c *check) {
		c.mkdir("d", 0o755, 0, 0)
		c.mkdir("d/in", 0o755, 0, 0)
		c.write("d/in/f", "content", 0o644)
		f, err := os.OpenFile(c.path("d/in/f"), os.O_RDWR, 0)
		c.ok(err)
		defer f.Close()
		cwd, err := unix.Open(c.path("d/in"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(err)
		defer unix.Close(cwd)
		c.ok(os.Rename(c.path("d"), c.path("e")))
		c.forget()
		b, err := io.ReadAll(f)
		if string(b) != "content" {
			c.errorf("the open file: %q %v", b, err)
		}
		_, err = f.WriteString(" and more")
		c.ok(err)
		c.ok(f.Sync())
		fd, err := unix.Openat(cwd, "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.ok(err)
		c.ok(unix.Close(fd))
		c.ok(unix.Mkdirat(cwd, "sub", 0o755))
		c.ok(unix.Renameat(cwd, "new", cwd, "newer"))
		c.forget()
		c.list("e/in", "f", "newer", "sub")
		c.read("e/in/f", "content and more")
		c.gone("d")
	}},
}
