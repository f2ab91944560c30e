package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Who may do what.
var rightChecks = []named{
	{"read-and-write", func(c *check) {
		users := map[string]user{"root": root, "owner": one, "group": two, "other": nobody}
		for _, m := range []struct {
			mode        uint32
			read, write string // who may, besides root
		}{{0o600, "owner", "owner"}, {0o640, "owner group", "owner"}, {0o664, "owner group other", "owner group"}, {0o606, "owner other", "owner other"},
			{0o060, "group", "group"}, {0o000, "", ""}, {0o444, "owner group other", ""}} {
			name := fmt.Sprintf("f%o", m.mode)
			c.write(name, "secret", 0o600)
			c.ok(os.Chown(c.path(name), int(one.uid), both))
			c.ok(unix.Chmod(c.path(name), m.mode))
			for who, u := range users {
				want := func(list string) unix.Errno {
					if who == "root" || slices.Contains(strings.Fields(list), who) {
						return 0
					}
					return unix.EACCES
				}
				answer, err := c.asks(u, "rights", c.path(name))
				c.ok(err)
				for i, did := range strings.Fields(answer) {
					what, number, _ := strings.Cut(did, ":")
					n, _ := strconv.Atoi(number)
					c.errno(fmt.Sprintf("%s of a file of mode %o by %s", what, m.mode, who), unix.Errno(n), want([]string{m.read, m.write, m.write, m.read}[i]))
				}
			}
		}
	}},
	{"directory-rights", func(c *check) {
		for _, d := range []struct {
			mode               uint32
			list, find, change unix.Errno
		}{{0o755, 0, 0, unix.EACCES}, {0o777, 0, 0, 0}, {0o711, unix.EACCES, 0, unix.EACCES}, {0o744, 0, unix.EACCES, unix.EACCES},
			{0o733, unix.EACCES, 0, 0}, {0o700, unix.EACCES, unix.EACCES, unix.EACCES}} {
			name := fmt.Sprintf("d%o", d.mode)
			c.mkdir(name, 0o700, 0, 0)
			c.write(name+"/f", "content", 0o644)
			c.write(name+"/victim", "", 0o644)
			c.ok(unix.Chmod(c.path(name), d.mode))
			what := func(did string) string { return fmt.Sprintf("%s in a directory of mode %o", did, d.mode) }
			c.errno(what("list"), c.as(one, "list", c.path(name)), d.list)
			c.errno(what("stat"), c.as(one, "stat", c.path(name+"/f")), d.find)
			_, err := c.asks(one, "read", c.path(name+"/f"))
			c.errno(what("read"), err, d.find)
			c.errno(what("create"), c.as(one, "create", c.path(name+"/new"), "644"), d.change)
			c.errno(what("mkdir"), c.as(one, "mkdir", c.path(name+"/newdir"), "755"), d.change)
			c.errno(what("symlink"), c.as(one, "symlink", c.path(name+"/newlink"), "x"), d.change)
			c.errno(what("rename"), c.as(one, "rename", c.path(name+"/victim"), c.path(name+"/moved")), d.change)
			if d.change == 0 {
				c.ok(os.Rename(c.path(name+"/moved"), c.path(name+"/victim")))
			}
			c.errno(what("unlink"), c.as(one, "unlink", c.path(name+"/victim")), d.change)
		}
	}},
	{"sticky-directory", func(c *check) {
		c.mkdir("d", 0o1777, 0, 0)
		c.ok(c.as(one, "create", c.path("d/f"), "666"))
		c.ok(c.as(two, "create", c.path("d/g"), "666"))
		c.errno("another's file removed", c.as(two, "unlink", c.path("d/f")), unix.EPERM, unix.EACCES)
		c.errno("another's file renamed", c.as(two, "rename", c.path("d/f"), c.path("d/h")), unix.EPERM, unix.EACCES)
		c.errno("another's file renamed over", c.as(two, "rename", c.path("d/g"), c.path("d/f")), unix.EPERM, unix.EACCES)
		c.ok(c.as(one, "rename", c.path("d/f"), c.path("d/h")))
		c.ok(c.as(one, "unlink", c.path("d/h")))
		c.ok(os.Remove(c.path("d/g")))
	}},
	{"only-the-owner", func(c *check) {
		c.write("f", "content", 0o666)
		c.ok(os.Chown(c.path("f"), int(one.uid), int(one.gid)))
		f := c.path("f")
		c.errno("chmod", c.as(two, "chmod", f, "777"), unix.EPERM)
		c.errno("given away", c.as(one, "chown", f, fmt.Sprint(two.uid), "-1"), unix.EPERM)
		c.errno("taken", c.as(two, "chown", f, fmt.Sprint(two.uid), "-1"), unix.EPERM)
		c.errno("given to a foreign group", c.as(one, "chown", f, "-1", fmt.Sprint(two.gid)), unix.EPERM)
		c.errno("times set", c.as(two, "utime", f, "1000000000000000000"), unix.EPERM)
		c.ok(c.as(two, "touch", f)) // to now: who may write may do that
		c.ok(c.as(one, "utime", f, "1000000000000000000"))
		c.ok(c.as(one, "chown", f, "-1", fmt.Sprint(both)))
		c.ok(c.as(one, "chmod", f, "600"))
		c.errno("touched", c.as(two, "touch", f), unix.EACCES)
		c.forget()
		if st := c.stat("f"); st.Uid != one.uid || st.Gid != both || st.Mode&0o7777 != 0o600 || st.Mtim.Sec != 1000000000 {
			c.errorf("%+v", st)
		}
	}},
	{"open-is-enough", func(c *check) {
		// NFS has no open: the owner goes on to read and write whatever the mode says.
		c.ok(c.as(one, "create", c.path("readonly"), "400"))
		c.ok(c.as(one, "create", c.path("nothing"), "0"))
		c.forget()
		c.read("readonly", "written")
		c.read("nothing", "written")
		c.mode("nothing", 0)
		c.errno("opened again to write", c.as(one, "append", c.path("readonly"), "x"), unix.EACCES)
		_, err := c.asks(one, "read", c.path("nothing"))
		c.errno("opened again to read", err, unix.EACCES)
	}},
}
