package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// dirent is an entry as the kernel lists it. Next is where a listing goes on after it.
type dirent struct {
	ino  uint64
	next int64
	name string
}

// getdents lists the next entries of an open directory, as many as n bytes hold.
func getdents(fd, n int) ([]dirent, error) {
	buf := make([]byte, n)
	k, err := unix.Getdents(fd, buf)
	if err != nil {
		return nil, fmt.Errorf("getdents: %w", err)
	}
	var out []dirent
	for buf = buf[:k]; len(buf) > 0; {
		// struct linux_dirent64: d_ino, d_off, d_reclen, d_type, d_name.
		if len(buf) < 19 {
			return nil, errNotDirent
		}
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < 19 || size > len(buf) {
			return nil, errNotDirent
		}
		name := buf[19:size]
		for i, b := range name {
			if b == 0 {
				name = name[:i]
				break
			}
		}
		out = append(out, dirent{binary.NativeEndian.Uint64(buf), int64(binary.NativeEndian.Uint64(buf[8:])), string(name)})
		buf = buf[size:]
	}
	return out, nil
}

// fill makes files of numbered names.
func (c *check) fill(dir string, n int) {
	for i := range n {
		fd, err := unix.Open(c.path(fmt.Sprintf("%s/f%05d", dir, i)), unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.ok(err)
		unix.Close(fd)
	}
}

// Directories.
var dirChecks = []named{
	{"telldir", func(c *check) {
		c.fill("", 300)
		c.forget()
		fd, err := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(err)
		defer unix.Close(fd)
		var all []dirent
		for {
			part, err := getdents(fd, 2000)
			c.ok(err)
			if len(part) == 0 {
				break
			}
			all = append(all, part...)
		}
		if len(all) != 302 {
			c.fatalf("%d entries", len(all))
		}
		// Back to any place, in any order.
		for _, i := range []int{250, 3, 0, 299, 100, 101, 300} {
			_, err := unix.Seek(fd, all[i].next, 0)
			c.ok(err)
			part, err := getdents(fd, 600)
			c.ok(err)
			if len(part) == 0 || part[0].name != all[i+1].name {
				c.errorf("after %s comes %v, want %s", all[i].name, part, all[i+1].name)
			}
		}
		_, err = unix.Seek(fd, all[len(all)-1].next, 0)
		c.ok(err)
		if part, err := getdents(fd, 600); len(part) != 0 || err != nil {
			c.errorf("after the end: %v %v", part, err)
		}
		// And to the start, for what is new.
		c.ok(os.WriteFile(c.path("new"), nil, 0o644))
		_, err = unix.Seek(fd, 0, 0)
		c.ok(err)
		n := 0
		for {
			part, err := getdents(fd, 8000)
			c.ok(err)
			if len(part) == 0 {
				break
			}
			n += len(part)
		}
		if n != 303 {
			c.errorf("%d entries from the start again", n)
		}
	}},
	{"change-while-listing", func(c *check) {
		c.fill("", 200)
		c.forget()
		fd, err := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(err)
		defer unix.Close(fd)
		seen := map[string]int{}
		removed := map[string]bool{}
		for round := 0; ; round++ {
			part, err := getdents(fd, 1000)
			c.ok(err)
			if len(part) == 0 {
				break
			}
			for i, e := range part {
				seen[e.name]++
				if i%2 == 0 && e.name[0] == 'f' {
					c.ok(os.Remove(c.path(e.name)))
					removed[e.name] = true
				}
			}
			c.ok(os.WriteFile(c.path(fmt.Sprintf("added%d", round)), nil, 0o644))
			c.forget()
		}
		for i := range 200 {
			if name := fmt.Sprintf("f%05d", i); seen[name] != 1 {
				c.errorf("%s was listed %d times", name, seen[name])
			}
		}
		for name, n := range seen {
			if n > 1 {
				c.errorf("%s was listed %d times", name, n)
			}
		}
		c.forget()
		for _, name := range c.names("") {
			if removed[name] {
				c.errorf("%s is still there", name)
			}
		}
	}},
	{"remove-while-listing", func(c *check) {
		c.fill("", 200)
		c.forget()
		f, err := os.Open(c.dir)
		c.ok(err)
		defer f.Close()
		for {
			names, err := f.Readdirnames(50)
			for _, name := range names {
				c.ok(os.Remove(c.path(name)))
			}
			if err != nil {
				break
			}
		}
		c.forget()
		c.list("")
	}},
	{"many-at-once", func(c *check) {
		// Eight who make, rename and remove in one directory; what is left is known.
		var wg sync.WaitGroup
		errs := make(chan error, 8)
		for w := range 8 {
			wg.Go(func() {
				var err error
				for i := 0; i < 20 && err == nil; i++ {
					a, b := c.path(fmt.Sprintf("a%d-%d", w, i)), c.path(fmt.Sprintf("b%d-%d", w, i))
					err = errors.Join(os.WriteFile(a, []byte(a), 0o644), os.Rename(a, b))
					if i%2 == 0 {
						err = errors.Join(err, os.Remove(b))
					}
				}
				errs <- err
			})
		}
		wg.Wait()
		for range 8 {
			c.ok(<-errs)
		}
		c.forget()
		var want []string
		for w := range 8 {
			for i := 1; i < 20; i += 2 {
				want = append(want, fmt.Sprintf("b%d-%d", w, i))
			}
		}
		c.list("", want...)
		c.read("b3-5", c.path("a3-5"))
	}},
	{"statfs", func(c *check) {
		c.write("f", "x", 0o644)
		for _, name := range []string{c.dir, c.path("f")} {
			var st unix.Statfs_t
			c.ok(unix.Statfs(name, &st))
			if st.Bsize <= 0 || st.Blocks == 0 || st.Bfree == 0 || st.Bavail == 0 || st.Bfree > st.Blocks || st.Bavail > st.Bfree || st.Files == 0 || st.Ffree == 0 || st.Namelen != 255 {
				c.errorf("%+v", st)
			}
		}
	}},
	{"list-with-attributes", func(c *check) {
		for i := range 100 {
			c.write(fmt.Sprintf("f%d", i), fmt.Sprintf("%0*d", i+1, 0), uint32(0o600+i%8))
		}
		c.forget()
		entries, err := os.ReadDir(c.dir)
		c.ok(err)
		if len(entries) != 100 {
			c.errorf("%d entries", len(entries))
		}
		for _, e := range entries {
			var i int
			fmt.Sscanf(e.Name(), "f%d", &i)
			st := c.stat(e.Name())
			if st.Size != int64(i+1) || st.Mode&0o7777 != uint32(0o600+i%8) {
				c.errorf("%s has size %d and mode %o", e.Name(), st.Size, st.Mode)
			}
		}
	}},
}
