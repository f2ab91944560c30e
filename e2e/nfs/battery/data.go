package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Contents.
var dataChecks = []named{
	{"write-and-read", func(c *check) {
		// Not of whole pages, and more than a request takes.
		data := noise(1, 5<<20+321)
		f, err := os.OpenFile(c.path("f"), os.O_RDWR|os.O_CREATE, 0o644)
		c.ok(err)
		defer f.Close()
		for off := 0; off < len(data); off += 77777 {
			_, err := f.WriteAt(data[off:min(off+77777, len(data))], int64(off))
			c.ok(err)
		}
		c.ok(f.Sync())
		c.forget()
		got, err := os.ReadFile(c.path("f"))
		c.ok(err)
		if !bytes.Equal(got, data) {
			c.errorf("%d bytes of sum %x, want %d of %x", len(got), sha256.Sum256(got), len(data), sha256.Sum256(data))
		}
		if st := c.stat("f"); st.Size != int64(len(data)) || st.Blocks*512 < st.Size/2 {
			c.errorf("size %d in %d blocks", st.Size, st.Blocks)
		}
	}},
	{"exclusive-create", func(c *check) {
		open := func() error {
			fd, err := unix.Open(c.path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o640)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
		c.ok(open())
		c.errno("again", open(), unix.EEXIST)
		c.forget()
		c.errno("when all is forgotten", open(), unix.EEXIST)
		c.mode("f", 0o640)
		// One of many wins.
		for round := range 5 {
			name := c.path("lock" + itoa(round))
			var won sync.Map
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
					if err == nil {
						won.Store(i, true)
						unix.Close(fd)
					} else if err != unix.EEXIST {
						won.Store(err.Error(), true)
					}
				})
			}
			wg.Wait()
			var winners []any
			won.Range(func(k, _ any) bool { winners = append(winners, k); return true })
			if len(winners) != 1 {
				c.errorf("won by %v", winners)
			}
		}
	}},
	{"append", func(c *check) {
		c.write("f", "", 0o666)
		var wg sync.WaitGroup
		errs := make(chan error, 4)
		for w := range 4 {
			wg.Go(func() {
				f, err := os.OpenFile(c.path("f"), os.O_WRONLY|os.O_APPEND, 0)
				for i := 0; i < 100 && err == nil; i++ {
					_, err = fmt.Fprintf(f, "%d %04d\n", w, i)
				}
				errs <- errors.Join(err, f.Close())
			})
		}
		wg.Wait()
		for range 4 {
			c.ok(<-errs)
		}
		c.forget()
		b, err := os.ReadFile(c.path("f"))
		c.ok(err)
		next := [4]int{}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
			var w, i int
			if _, err := fmt.Sscanf(line, "%d %d", &w, &i); err != nil || w > 3 || next[w] != i {
				c.fatalf("the line %q: %v", line, err)
			}
			next[w]++
		}
		if next != [4]int{100, 100, 100, 100} {
			c.errorf("lines of each: %v", next)
		}
	}},
	{"truncate", func(c *check) {
		data := noise(2, 100000)
		c.write("f", string(data), 0o644)
		size := func(n int64) {
			if st := c.stat("f"); st.Size != n {
				c.errorf("size %d, want %d", st.Size, n)
			}
		}
		c.ok(os.Truncate(c.path("f"), 5000))
		c.forget()
		size(5000)
		c.ok(os.Truncate(c.path("f"), 70000))
		c.forget()
		size(70000)
		// What was cut off doesn't come back.
		c.read("f", string(data[:5000])+strings.Repeat("\x00", 65000))
		f, err := os.OpenFile(c.path("f"), os.O_RDWR, 0)
		c.ok(err)
		c.ok(f.Truncate(3))
		_, err = f.WriteAt([]byte("end"), 10)
		c.ok(err)
		c.ok(f.Close())
		c.forget()
		c.read("f", string(data[:3])+"\x00\x00\x00\x00\x00\x00\x00end")
		f, err = os.OpenFile(c.path("f"), os.O_WRONLY|os.O_TRUNC, 0)
		c.ok(err)
		c.ok(f.Close())
		c.forget()
		size(0)
		c.errno("of a directory", os.Truncate(c.dir, 0), unix.EISDIR)
		c.errno("below nothing", unix.Truncate(c.path("f"), -1), unix.EINVAL)
	}},
	{"sparse", func(c *check) {
		f, err := os.OpenFile(c.path("f"), os.O_RDWR|os.O_CREATE, 0o644)
		c.ok(err)
		defer f.Close()
		const far = 5 << 30
		_, err = f.WriteAt([]byte("far"), far)
		c.ok(err)
		c.ok(f.Sync())
		c.forget()
		st := c.stat("f")
		if st.Size != far+3 || st.Blocks > 1<<20 {
			c.errorf("size %d in %d blocks", st.Size, st.Blocks)
		}
		b := make([]byte, 8192)
		n, err := f.ReadAt(b, far-4096)
		if n != 4099 || err != io.EOF || string(b[4096:n]) != "far" || !allZero(b[:4096]) {
			c.errorf("%d bytes at the end: %v", n, err)
		}
		if n, err := f.ReadAt(b, 1<<31); n != len(b) || err != nil || !allZero(b) {
			c.errorf("the hole: %d %v", n, err)
		}
		c.ok(f.Truncate(1 << 40))
		c.forget()
		if st := c.stat("f"); st.Size != 1<<40 {
			c.errorf("size %d", st.Size)
		}
		c.ok(os.Remove(c.path("f"))) // or a server that stores what is written would read it all
	}},
	{"mmap", func(c *check) {
		f, err := os.OpenFile(c.path("f"), os.O_RDWR|os.O_CREATE, 0o644)
		c.ok(err)
		defer f.Close()
		c.ok(f.Truncate(1 << 20))
		m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.ok(err)
		copy(m[5000:], "mapped")
		copy(m[1<<20-3:], "end")
		c.ok(unix.Msync(m, unix.MS_SYNC))
		c.ok(unix.Munmap(m))
		c.forget()
		b, err := os.ReadFile(c.path("f"))
		c.ok(err)
		if len(b) != 1<<20 || string(b[5000:5006]) != "mapped" || string(b[1<<20-3:]) != "end" || !allZero(b[6000:1<<20-3]) {
			c.errorf("%d bytes, and not those mapped", len(b))
		}
	}},
	{"direct", func(c *check) {
		fd, err := unix.Open(c.path("f"), unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT, 0o644)
		c.ok(err)
		defer unix.Close(fd)
		m, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
		c.ok(err)
		defer unix.Munmap(m)
		want := noise(3, len(m))
		copy(m, want)
		n, err := unix.Pwrite(fd, m, 4096)
		if n != len(m) || err != nil {
			c.fatalf("write: %d %v", n, err)
		}
		clear(m)
		n, err = unix.Pread(fd, m, 4096)
		if n != len(m) || err != nil || !bytes.Equal(m, want) {
			c.errorf("read: %d %v", n, err)
		}
		if st := c.stat("f"); st.Size != int64(len(m))+4096 {
			c.errorf("size %d", st.Size)
		}
	}},
	{"two-descriptors", func(c *check) {
		a, err := os.OpenFile(c.path("f"), os.O_RDWR|os.O_CREATE, 0o644)
		c.ok(err)
		defer a.Close()
		b, err := os.Open(c.path("f"))
		c.ok(err)
		defer b.Close()
		for i := range 20 {
			_, err := a.WriteAt([]byte(fmt.Sprintf("%04d", i)), int64(i*4))
			c.ok(err)
			got := make([]byte, 4)
			if _, err := b.ReadAt(got, int64(i*4)); err != nil || string(got) != fmt.Sprintf("%04d", i) {
				c.fatalf("%q %v", got, err)
			}
		}
	}},
	{"run-a-program", func(c *check) {
		self, err := os.ReadFile("/usr/bin/true")
		c.ok(err)
		c.ok(os.WriteFile(c.path("true"), self, 0o755))
		c.forget()
		if out, err := exec.Command(c.path("true")).CombinedOutput(); err != nil {
			c.errorf("%v: %s", err, out)
		}
		c.ok(os.Chmod(c.path("true"), 0o644))
		c.errno("without the right", exec.Command(c.path("true")).Run(), unix.EACCES)
	}},
	{"local-locks", func(c *check) {
		f, err := os.OpenFile(c.path("f"), os.O_RDWR|os.O_CREATE, 0o644)
		c.ok(err)
		defer f.Close()
		g, err := os.OpenFile(c.path("f"), os.O_RDWR, 0)
		c.ok(err)
		defer g.Close()
		c.ok(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		c.errno("locked twice", unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN)
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 1, Len: 5}
		c.ok(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock))
	}},
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
