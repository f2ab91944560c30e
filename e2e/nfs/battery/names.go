package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Names.
var nameChecks = []named{
	{"every-byte", func(c *check) {
		var want []string
		for b := 0; b < 256; b += 4 {
			name := []byte{byte(b), byte(b + 1), byte(b + 2), byte(b + 3)}
			want = append(want, strings.NewReplacer("\x00", "", "/", "").Replace(string(name)))
		}
		want = append(want, "...", " ", "a\nb", "-rf", "ü€𝄞", "u\u0308", "\xff\xfe", "@name", "a", "\t", "\\", "\xc3")
		for i, name := range want {
			c.ok(os.WriteFile(c.dir+"/"+name, []byte(itoa(i)), 0o644))
		}
		c.forget()
		c.list("", want...)
		c.forget()
		for i, name := range want {
			c.read(name, itoa(i))
		}
		for _, name := range want {
			c.ok(os.Remove(c.dir + "/" + name))
		}
		c.list("")
	}},
	{"long-names", func(c *check) {
		longest := strings.Repeat("ü", 127) + "x" // 255 bytes
		c.write(longest, "content", 0o644)
		c.ok(os.Mkdir(c.path(strings.Repeat("d", 255)), 0o755))
		c.forget()
		c.read(longest, "content")
		c.ok(os.Rename(c.path(longest), c.path(strings.Repeat("y", 255))))
		tooLong := strings.Repeat("z", 256)
		_, err := os.Create(c.path(tooLong))
		c.errno("create", err, unix.ENAMETOOLONG)
		c.errno("mkdir", os.Mkdir(c.path(tooLong), 0o755), unix.ENAMETOOLONG)
		c.errno("rename", os.Rename(c.path(strings.Repeat("y", 255)), c.path(tooLong)), unix.ENAMETOOLONG)
		_, err = os.Stat(c.path(tooLong))
		c.errno("stat", err, unix.ENAMETOOLONG)
	}},
	{"deep", func(c *check) {
		dir := c.dir
		for i := range 60 {
			dir = filepath.Join(dir, "level"+itoa(i))
		}
		c.ok(os.MkdirAll(dir, 0o755))
		c.ok(os.WriteFile(dir+"/f", []byte("down"), 0o644))
		c.forget()
		b, err := os.ReadFile(dir + "/f")
		if string(b) != "down" {
			c.errorf("%q %v", b, err)
		}
		// A handle deep down finds its way up after all above was forgotten and renamed.
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(err)
		defer unix.Close(fd)
		c.ok(os.Rename(c.path("level0"), c.path("renamed")))
		c.forget()
		var up, want unix.Stat_t
		c.ok(unix.Fstatat(fd, strings.Repeat("../", 59), &up, 0))
		c.ok(unix.Stat(c.path("renamed"), &want))
		if up.Ino != want.Ino {
			c.errorf("up from below is number %d, want %d", up.Ino, want.Ino)
		}
		c.ok(os.RemoveAll(c.path("renamed")))
	}},
	{"missing", func(c *check) {
		c.write("f", "", 0o644)
		_, err := os.Open(c.path("nothing"))
		c.errno("open", err, unix.ENOENT)
		_, err = os.Open(c.path("f/below"))
		c.errno("below a file", err, unix.ENOTDIR)
		_, err = os.Create(c.path("nothing/f"))
		c.errno("create in nothing", err, unix.ENOENT)
		c.errno("mkdir over a name", os.Mkdir(c.path("f"), 0o755), unix.EEXIST)
		c.errno("unlink", unix.Unlink(c.path("nothing")), unix.ENOENT)
		c.errno("truncate", os.Truncate(c.path("nothing"), 0), unix.ENOENT)
		_, err = os.Create(c.dir)
		c.errno("create over a directory", err, unix.EISDIR)
		// What wasn't there and comes to be is seen.
		c.ok(os.WriteFile(c.path("nothing"), []byte("something"), 0o644))
		c.read("nothing", "something")
	}},
}
