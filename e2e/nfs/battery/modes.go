package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Modes, owners and kinds of files.
var modeChecks = []named{
	{"mode-bits", func(c *check) {
		c.write("f", "", 0o644)
		c.mkdir("d", 0o755, 0, 0)
		for _, m := range []uint32{0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o777, 0o640, 0} {
			for _, name := range []string{"f", "d"} {
				c.ok(unix.Chmod(c.path(name), m))
				c.mode(name, m)
				c.forget()
				c.mode(name, m)
			}
		}
	}},
	{"create-mode", func(c *check) {
		for _, m := range []int{0o666, 0o640, 0o400, 0, 0o755} {
			for _, flags := range []int{unix.O_CREAT | unix.O_WRONLY, unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY} {
				name := fmt.Sprintf("f%o-%x", m, flags)
				fd, err := unix.Open(c.path(name), flags, uint32(m))
				c.ok(err)
				c.ok(unix.Close(fd))
				c.mode(name, uint32(m))
			}
			c.ok(unix.Mkdir(c.path(fmt.Sprintf("d%o", m)), uint32(m)))
			c.mode(fmt.Sprintf("d%o", m), uint32(m))
		}
		old := unix.Umask(0o027)
		fd, err := unix.Open(c.path("masked"), unix.O_CREAT|unix.O_WRONLY, 0o666)
		unix.Umask(old)
		c.ok(err)
		c.ok(unix.Close(fd))
		c.forget()
		c.mode("masked", 0o640)
	}},
	{"owner-of-created", func(c *check) {
		c.ok(c.as(one, "create", c.path("f"), "644"))
		c.ok(c.as(one, "mkdir", c.path("d"), "755"))
		c.ok(c.as(one, "symlink", c.path("l"), "f"))
		c.ok(c.as(one, "mkfifo", c.path("p"), "600"))
		c.ok(c.as(two, "create", c.path("g"), "600"))
		c.forget()
		for name, u := range map[string]user{"f": one, "d": one, "l": one, "p": one, "g": two} {
			if st := c.stat(name); st.Uid != u.uid || st.Gid != u.gid {
				c.errorf("%s belongs to %d:%d, want %d:%d", name, st.Uid, st.Gid, u.uid, u.gid)
			}
		}
		c.read("f", "written")
	}},
	{"setgid-directory", func(c *check) {
		c.mkdir("d", 0o2777, 0, both)
		c.ok(c.as(one, "create", c.path("d/f"), "644"))
		c.ok(c.as(one, "mkdir", c.path("d/d"), "755"))
		c.ok(c.as(one, "symlink", c.path("d/l"), "f"))
		c.forget()
		for _, name := range []string{"d/f", "d/d", "d/l"} {
			if st := c.stat(name); st.Uid != one.uid || st.Gid != both {
				c.errorf("%s belongs to %d:%d, want %d:%d", name, st.Uid, st.Gid, one.uid, both)
			}
		}
		c.mode("d/d", 0o2755)
	}},
	{"chown", func(c *check) {
		c.write("f", "", 0o644)
		c.ok(os.Symlink("f", c.path("l")))
		c.ok(os.Lchown(c.path("f"), 12, 34))
		c.ok(os.Lchown(c.path("l"), 4000000000, 4000000001))
		c.ok(os.Lchown(c.path("f"), -1, 35))
		c.forget()
		if st := c.stat("f"); st.Uid != 12 || st.Gid != 35 {
			c.errorf("f belongs to %d:%d, want 12:35", st.Uid, st.Gid)
		}
		if st := c.stat("l"); st.Uid != 4000000000 || st.Gid != 4000000001 {
			c.errorf("l belongs to %d:%d", st.Uid, st.Gid)
		}
	}},
	{"setuid-is-lost", func(c *check) {
		for i, lose := range []func(name string) error{
			func(name string) error { return c.as(one, "append", name, "x") },
			func(name string) error { return c.as(one, "chown", name, "-1", fmt.Sprint(both)) },
		} {
			name := fmt.Sprint("f", i)
			c.write(name, "content", 0o600)
			c.ok(os.Chown(c.path(name), int(one.uid), int(one.gid)))
			c.ok(unix.Chmod(c.path(name), 0o6777))
			c.mode(name, 0o6777)
			c.ok(lose(c.path(name)))
			c.forget()
			c.mode(name, 0o777)
		}
		// Who isn't of the file's group can't make it set-group-id.
		c.write("g", "", 0o600)
		c.ok(os.Chown(c.path("g"), int(one.uid), int(nobody.gid)))
		c.ok(c.as(one, "chmod", c.path("g"), "2755"))
		c.forget()
		c.mode("g", 0o755)
	}},
	{"kinds", func(c *check) {
		c.ok(unix.Mkfifo(c.path("fifo"), 0o640))
		c.ok(unix.Mknod(c.path("socket"), unix.S_IFSOCK|0o600, 0))
		c.ok(unix.Mknod(c.path("char"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		c.ok(unix.Mknod(c.path("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 300))))
		c.errno("a device by a user", c.as(one, "mkdev", c.path("no")), unix.EPERM, unix.EACCES)
		c.ok(os.Symlink("x", c.path("link")))
		c.forget()
		for name, kind := range map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK, "char": unix.S_IFCHR, "block": unix.S_IFBLK, "link": unix.S_IFLNK} {
			if st := c.stat(name); st.Mode&unix.S_IFMT != kind {
				c.errorf("%s has mode %o", name, st.Mode)
			}
		}
		if st := c.stat("block"); unix.Major(st.Rdev) != 7 || unix.Minor(st.Rdev) != 300 {
			c.errorf("block is device %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		c.mode("fifo", 0o640)
	}},
}
