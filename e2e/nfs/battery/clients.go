package main

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Two clients of one export: who opens sees what another has closed. Without a second one these check the same of one.
var clientChecks = []named{
	{"close-to-open", func(c *check) {
		if c.second == "" {
			return
		}
		for i := range 10 {
			want := "round " + itoa(i)
			from, to := c.path("f"), c.other("f")
			if i%2 == 1 {
				from, to = to, from
			}
			time.Sleep(tick) // a server may tell a change by its time alone
			c.ok(os.WriteFile(from, []byte(want), 0o666))
			b, err := os.ReadFile(to)
			if string(b) != want {
				c.errorf("the other client reads %q, %v; want %q", b, err, want)
			}
		}
		c.ok(os.Truncate(c.path("f"), 2))
		if b, err := os.ReadFile(c.other("f")); string(b) != "ro" {
			c.errorf("truncated: %q %v", b, err)
		}
		c.ok(os.Rename(c.path("f"), c.path("g")))
		c.forget()
		if b, err := os.ReadFile(c.other("g")); string(b) != "ro" {
			c.errorf("renamed: %q %v", b, err)
		}
		if _, err := os.Stat(c.other("f")); !errors.Is(err, unix.ENOENT) {
			c.errorf("the old name: %v", err)
		}
	}},
	{"stale", func(c *check) {
		if c.second == "" {
			return
		}
		c.write("f", "content", 0o644)
		f, err := os.Open(c.other("f"))
		c.ok(err)
		defer f.Close()
		c.ok(os.Remove(c.path("f"))) // the other client doesn't know that we have it open
		c.write("f", "a new file of the name", 0o644)
		var st unix.Stat_t
		// What the client knows of the file holds for a while; then it asks.
		for i := 0; i < 300; i++ {
			c.forget()
			if err = unix.Fstat(int(f.Fd()), &st); err != nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		c.errno("stat of a file that is no more", err, unix.ESTALE)
		_, err = io.ReadAll(f)
		c.errno("read of it", err, unix.ESTALE)
		b, err := os.ReadFile(c.other("f"))
		if string(b) != "a new file of the name" {
			c.errorf("%q %v", b, err)
		}
	}},
	{"rename-by-another", func(c *check) {
		if c.second == "" {
			return
		}
		c.mkdir("d", 0o755, 0, 0)
		c.write("d/f", "content", 0o644)
		f, err := os.OpenFile(c.other("d/f"), os.O_RDWR, 0)
		c.ok(err)
		defer f.Close()
		c.ok(os.Rename(c.path("d/f"), c.path("g")))
		c.ok(os.Rename(c.path("d"), c.path("e")))
		c.forget()
		b, err := io.ReadAll(f)
		if string(b) != "content" {
			c.errorf("%q %v", b, err)
		}
		_, err = f.WriteString(" and more")
		c.ok(err)
		c.ok(f.Sync())
		c.forget()
		c.read("g", "content and more")
	}},
}
