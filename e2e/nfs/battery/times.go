package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tick is longer than the steps of a file system's clock.
const tick = 30 * time.Millisecond

// Times.
var timeChecks = []named{
	{"times-set", func(c *check) {
		c.write("f", "x", 0o644)
		c.mkdir("d", 0o755, 0, 0)
		c.ok(os.Symlink("f", c.path("l")))
		for _, sec := range []int64{1, 1234567890, 1<<31 + 5, 1<<32 - 2} {
			for _, name := range []string{"f", "d", "l"} {
				a, m := unix.Timespec{Sec: sec, Nsec: 111111111}, unix.Timespec{Sec: sec, Nsec: 123456789}
				c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path(name), []unix.Timespec{a, m}, unix.AT_SYMLINK_NOFOLLOW))
				c.forget()
				if st := c.stat(name); st.Mtim != m || (name == "f" && st.Atim != a) {
					c.errorf("%s: mtime %d.%09d atime %d.%09d, want %d", name, st.Mtim.Sec, st.Mtim.Nsec, st.Atim.Sec, st.Atim.Nsec, sec)
				}
			}
		}
	}},
	{"times-left-alone", func(c *check) {
		c.write("f", "x", 0o644)
		past := unix.Timespec{Sec: 1000000000}
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), []unix.Timespec{past, past}, 0))
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_OMIT}}, 0))
		c.forget()
		if st := c.stat("f"); st.Mtim != past || st.Atim.Sec < 1500000000 {
			c.errorf("mtime %v atime %v", st.Mtim, st.Atim)
		}
		// chmod, chown, link and rename leave the time of the content.
		c.ok(unix.Chmod(c.path("f"), 0o600))
		c.ok(os.Chown(c.path("f"), 5, 5))
		c.ok(os.Link(c.path("f"), c.path("g")))
		c.ok(os.Rename(c.path("f"), c.path("h")))
		c.forget()
		if st := c.stat("h"); st.Mtim != past {
			c.errorf("mtime %v", st.Mtim)
		}
	}},
	{"ctime-moves", func(c *check) {
		c.write("f", "content", 0o644)
		for _, change := range []struct {
			what string
			do   func() error
		}{
			{"chmod", func() error { return unix.Chmod(c.path("f"), 0o600) }},
			{"the same chmod", func() error { return unix.Chmod(c.path("f"), 0o600) }},
			{"chown", func() error { return os.Chown(c.path("f"), 7, 7) }},
			{"utimes", func() error { return os.Chtimes(c.path("f"), time.Unix(1e9, 0), time.Unix(1e9, 0)) }},
			{"link", func() error { return os.Link(c.path("f"), c.path("g")) }},
			{"unlink", func() error { return os.Remove(c.path("g")) }},
			{"truncate", func() error { return os.Truncate(c.path("f"), 3) }},
			{"write", func() error { return appendTo(c.path("f"), "more") }},
		} {
			c.forget()
			before := c.stat("f").Ctim
			time.Sleep(tick)
			c.ok(change.do())
			c.forget()
			after := c.stat("f").Ctim
			if after.Nano() <= before.Nano() {
				c.errorf("%s: %d after %d", change.what, after.Nano(), before.Nano())
			}
			if now := time.Now(); after.Nano() > now.Add(time.Hour).UnixNano() || after.Nano() < now.Add(-time.Hour).UnixNano() {
				c.errorf("%s: ctime isn't the time of the change", change.what)
			}
		}
	}},
	{"mtime-moves", func(c *check) {
		c.write("f", "content", 0o644)
		c.mkdir("d", 0o755, 0, 0)
		moves := func(what, name string, do func() error) {
			c.forget()
			before := c.stat(name)
			time.Sleep(tick)
			c.ok(do())
			c.forget()
			if after := c.stat(name); after.Mtim.Nano() <= before.Mtim.Nano() || after.Ctim.Nano() <= before.Ctim.Nano() {
				c.errorf("%s: mtime %d after %d, ctime %d after %d", what, after.Mtim.Nano(), before.Mtim.Nano(), after.Ctim.Nano(), before.Ctim.Nano())
			}
		}
		moves("write", "f", func() error { return appendTo(c.path("f"), "x") })
		moves("truncate", "f", func() error { return os.Truncate(c.path("f"), 2) })
		moves("create", "d", func() error { return os.WriteFile(c.path("d/f"), nil, 0o644) })
		moves("mkdir", "d", func() error { return os.Mkdir(c.path("d/d"), 0o755) })
		moves("symlink", "d", func() error { return os.Symlink("x", c.path("d/l")) })
		moves("link", "d", func() error { return os.Link(c.path("f"), c.path("d/g")) })
		moves("rename", "d", func() error { return os.Rename(c.path("d/g"), c.path("d/h")) })
		moves("rename out", "d", func() error { return os.Rename(c.path("d/f"), c.path("g")) })
		moves("rename in", "d", func() error { return os.Rename(c.path("g"), c.path("d/f")) })
		moves("unlink", "d", func() error { return os.Remove(c.path("d/f")) })
		moves("rmdir", "d", func() error { return os.Remove(c.path("d/d")) })
	}},
	{"times-of-a-tree", func(c *check) {
		// As tar and rsync do: the directory's times come after what is in it.
		past := time.Unix(1111111111, 222222222)
		c.mkdir("d", 0o755, 0, 0)
		c.mkdir("d/e", 0o755, 0, 0)
		f, err := os.OpenFile(c.path("d/e/f"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		c.ok(err)
		_, err = f.WriteString("content")
		c.ok(err)
		tv := []unix.Timespec{{Nsec: unix.UTIME_NOW}, unix.NsecToTimespec(past.UnixNano())}
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+itoa(int(f.Fd())), tv, 0)) // before it is closed
		c.ok(unix.Fchmod(int(f.Fd()), 0o444))
		c.ok(f.Close())
		c.ok(os.Chtimes(c.path("d/e"), past, past))
		c.ok(os.Chtimes(c.path("d"), past, past))
		c.forget()
		for _, name := range []string{"d", "d/e", "d/e/f"} {
			if st := c.stat(name); st.Mtim.Nano() != past.UnixNano() {
				c.errorf("%s: mtime %d, want %d", name, st.Mtim.Nano(), past.UnixNano())
			}
		}
		c.mode("d/e/f", 0o444)
	}},
}

func appendTo(name, s string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(s); err != nil {
		return err
	}
	return f.Close()
}
