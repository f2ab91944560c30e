package main

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Hard and symbolic links, and numbers.
var linkChecks = []named{
	{"hard-links", func(c *check) {
		c.write("a", "content", 0o640)
		c.mkdir("d", 0o755, 0, 0)
		c.ok(os.Link(c.path("a"), c.path("d/b")))
		c.ok(os.Link(c.path("d/b"), c.path("c")))
		c.forget()
		a := c.stat("a")
		for _, name := range []string{"a", "d/b", "c"} {
			if st := c.stat(name); st.Nlink != 3 || st.Ino != a.Ino {
				c.errorf("%s has %d links and number %d, want 3 and %d", name, st.Nlink, st.Ino, a.Ino)
			}
		}
		c.ok(appendTo(c.path("d/b"), " and more"))
		c.forget()
		c.read("a", "content and more")
		c.read("c", "content and more")
		c.ok(os.Remove(c.path("a")))
		c.ok(os.Rename(c.path("c"), c.path("e")))
		c.forget()
		if st := c.stat("d/b"); st.Nlink != 2 || st.Ino != a.Ino {
			c.errorf("two are left, of %d links, number %d", st.Nlink, st.Ino)
		}
		c.read("e", "content and more")
		c.errno("over a name", os.Link(c.path("e"), c.path("d/b")), unix.EEXIST)
		c.errno("of a directory", os.Link(c.path("d"), c.path("f")), unix.EPERM)
		c.errno("of nothing", os.Link(c.path("nothing"), c.path("f")), unix.ENOENT)
		// A rename of one name over another of the same file does nothing.
		c.ok(unix.Rename(c.path("e"), c.path("d/b")))
		c.list("", "d", "e")
		c.ok(os.Remove(c.path("e")))
		c.forget()
		if st := c.stat("d/b"); st.Nlink != 1 {
			c.errorf("one is left, of %d links", st.Nlink)
		}
	}},
	{"link-to-symlink", func(c *check) {
		c.ok(os.Symlink("target", c.path("l")))
		c.ok(unix.Linkat(unix.AT_FDCWD, c.path("l"), unix.AT_FDCWD, c.path("m"), 0))
		c.forget()
		if l, m := c.stat("l"), c.stat("m"); l.Ino != m.Ino || m.Nlink != 2 {
			c.errorf("numbers %d and %d, %d links", l.Ino, m.Ino, m.Nlink)
		}
		if got, err := os.Readlink(c.path("m")); got != "target" {
			c.errorf("%q %v", got, err)
		}
	}},
	{"symlinks", func(c *check) {
		long := strings.Repeat("a-long-way/", 90)
		for name, target := range map[string]string{"plain": "f", "dangling": "/no/where", "long": long, "odd": "a b\n\xff", "up": "../.."} {
			c.ok(os.Symlink(target, c.path(name)))
			c.forget()
			if got, err := os.Readlink(c.path(name)); got != target {
				c.errorf("%s leads to %.40q, %v; want %.40q", name, got, err, target)
			}
			st := c.stat(name)
			if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size != int64(len(target)) {
				c.errorf("%s has mode %o and size %d", name, st.Mode, st.Size)
			}
		}
		c.errno("over a name", os.Symlink("x", c.path("plain")), unix.EEXIST)
		c.write("f", "content", 0o644)
		c.read("plain", "content")
		_, err := os.Stat(c.path("dangling"))
		c.errno("through nothing", err, unix.ENOENT)
		_, err = os.OpenFile(c.path("dangling"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		c.errno("exclusively through a link", err, unix.EEXIST)
		c.ok(os.Symlink("y", c.path("x")))
		c.ok(os.Symlink("x", c.path("y")))
		_, err = os.Stat(c.path("x"))
		c.errno("in a circle", err, unix.ELOOP)
		_, err = os.Readlink(c.path("f"))
		c.errno("readlink of a file", err, unix.EINVAL)
	}},
	{"numbers", func(c *check) {
		c.mkdir("d", 0o755, 0, 0)
		c.write("d/f", "x", 0o644)
		seen := map[uint64]string{}
		before := map[string]uint64{}
		for _, name := range []string{"", "d", "d/f"} {
			st := c.stat(name)
			if st.Ino == 0 || seen[st.Ino] != "" {
				c.errorf("%q has number %d, as has %q", name, st.Ino, seen[st.Ino])
			}
			seen[st.Ino] = name
			before[name] = st.Ino
		}
		for name, ino := range c.entries("") {
			want := before[name]
			if name == "." {
				want = before[""]
			}
			if name != ".." && ino != want {
				c.errorf("the listing gives %s number %d, stat %d", name, ino, want)
			}
		}
		var up unix.Stat_t
		c.ok(unix.Stat(c.dir+"/d/..", &up))
		if up.Ino != before[""] {
			c.errorf("d/.. has number %d, want %d", up.Ino, before[""])
		}
		c.ok(os.Rename(c.path("d/f"), c.path("g")))
		c.ok(os.Rename(c.path("d"), c.path("e")))
		c.forget()
		if c.stat("g").Ino != before["d/f"] || c.stat("e").Ino != before["d"] {
			c.errorf("a rename changes the number")
		}
	}},
	{"links-of-directories", func(c *check) {
		c.mkdir("d", 0o755, 0, 0)
		for i, want := range []uint64{2, 3, 4} {
			// 1 is the way to say that it isn't counted.
			if st := c.stat("d"); uint64(st.Nlink) != want && st.Nlink != 1 {
				c.errorf("a directory of %d others has %d links", i, st.Nlink)
			}
			c.mkdir("d/"+itoa(i), 0o755, 0, 0)
			c.write("d/f"+itoa(i), "", 0o644)
			c.forget()
		}
	}},
}

// entries lists a directory with the numbers that the listing tells.
func (c *check) entries(dir string) map[string]uint64 {
	fd, err := unix.Open(c.path(dir), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.ok(err)
	defer unix.Close(fd)
	all := map[string]uint64{}
	for {
		part, err := getdents(fd, 32<<10)
		c.ok(err)
		if len(part) == 0 {
			return all
		}
		for _, e := range part {
			if _, twice := all[e.name]; twice {
				c.errorf("%q is listed twice", e.name)
			}
			all[e.name] = e.ino
		}
	}
}

var errNotDirent = errors.New("the kernel returned no directory entry")
