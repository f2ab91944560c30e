package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// check is one check that runs: a directory of its own, and what has been found wrong.
type check struct {
	dir    string
	second string // the same directory by another client; "" if there is none
	local  bool   // it isn't NFS: no silly names, no other client
	wrong  []string
}

// named is a check by its name.
type named struct {
	name string
	run  func(*check)
}

func all() []named {
	return slices.Concat(modeChecks, rightChecks, timeChecks, linkChecks, nameChecks, renameChecks, removeChecks, dataChecks, dirChecks, clientChecks)
}

func checkCommand(args []string) error {
	flags := flag.NewFlagSet("check", flag.ExitOnError)
	second := flags.String("second", "", "the same directory, mounted by another client")
	only := flags.String("only", "", "names of checks, by comma")
	local := flags.Bool("local", false, "a file system that isn't NFS")
	flags.Parse(args)
	if flags.NArg() != 1 {
		return errors.New("check which directory?")
	}
	unix.Umask(0)
	work := filepath.Join(flags.Arg(0), fmt.Sprintf("battery.%d", os.Getpid()))
	if err := os.Mkdir(work, 0o777); err != nil {
		return err
	}
	ran, failed := 0, 0
	for _, n := range all() {
		if !selected(*only, n.name) {
			continue
		}
		c := &check{dir: filepath.Join(work, n.name), local: *local}
		if *second != "" {
			c.second = filepath.Join(*second, filepath.Base(work), n.name)
		}
		ran++
		if !runCheck(n, c) {
			failed++
		}
	}
	if ran == 0 {
		return errors.New("there are no such checks")
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d", errFailed, failed, ran)
	}
	// All of it goes, whatever has been left there.
	return os.RemoveAll(work)
}

// runCheck runs a check and prints its lines.
func runCheck(n named, c *check) bool {
	fmt.Printf("RUN\t%s\n", n.name)
	began := time.Now()
	func() {
		defer func() {
			if r := recover(); r != nil && r != (stop{}) {
				c.wrong = append(c.wrong, fmt.Sprintf("%v %s", r, debug.Stack()))
			}
		}()
		c.ok(os.Mkdir(c.dir, 0o777))
		n.run(c)
	}()
	took := time.Since(began).Round(10 * time.Millisecond)
	if len(c.wrong) == 0 {
		fmt.Printf("PASS\t%s\t%s\n", n.name, took)
		return true
	}
	fmt.Printf("FAIL\t%s\t%s\n", n.name, c.why())
	return false
}

// why is what was wrong, in one line of text, whatever bytes names have.
func (c *check) why() string {
	s := strconv.QuoteToASCII(strings.ReplaceAll(strings.Join(c.wrong, "; "), "\n", " | "))
	return strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`)
}

// stop ends a check that can't go on.
type stop struct{}

func (c *check) errorf(format string, a ...any) { c.wrong = append(c.wrong, fmt.Sprintf(format, a...)) }

func (c *check) fatalf(format string, a ...any) {
	c.errorf(format, a...)
	panic(stop{})
}

// ok ends the check if there is an error.
func (c *check) ok(err error) {
	if err != nil {
		c.fatalf("%v%s", err, where())
	}
}

// errno wants one of some errors.
func (c *check) errno(what string, err error, want ...unix.Errno) {
	for _, w := range want {
		if w == 0 && (err == nil || err == unix.Errno(0)) || w != 0 && errors.Is(err, w) {
			return
		}
	}
	var names []string
	for _, w := range want {
		names = append(names, errnoName(w))
	}
	c.errorf("%s: %v, want %s", what, err, strings.Join(names, " or "))
}

func errnoName(e unix.Errno) string {
	if e == 0 {
		return "success"
	}
	return unix.ErrnoName(e)
}

// where is the line of the check that is running.
func where() string {
	for line := range strings.SplitSeq(string(debug.Stack()), "\n") {
		if strings.Contains(line, ".go:") && !strings.Contains(line, "/check.go:") && !strings.Contains(line, "/runtime/") {
			f, _, _ := strings.Cut(filepath.Base(strings.TrimSpace(line)), " ")
			return " (" + f + ")"
		}
	}
	return ""
}

func (c *check) path(name string) string { return filepath.Join(c.dir, name) }

// other is path by the other client.
func (c *check) other(name string) string { return filepath.Join(c.second, name) }

// write makes a file with a content and a mode.
func (c *check) write(name, content string, mode uint32) {
	c.ok(os.WriteFile(c.path(name), []byte(content), 0o600))
	c.ok(unix.Chmod(c.path(name), mode))
}

// mkdir makes a directory with a mode and an owner.
func (c *check) mkdir(name string, mode uint32, uid, gid int) {
	c.ok(os.Mkdir(c.path(name), 0o700))
	c.ok(os.Chown(c.path(name), uid, gid))
	c.ok(unix.Chmod(c.path(name), mode))
}

// read wants a content.
func (c *check) read(name, want string) {
	b, err := os.ReadFile(c.path(name))
	if err != nil || string(b) != want {
		c.errorf("%s is %.60q, %v; want %.60q%s", name, b, err, want, where())
	}
}

func (c *check) stat(name string) unix.Stat_t {
	var st unix.Stat_t
	if err := unix.Lstat(c.path(name), &st); err != nil {
		c.fatalf("stat %s: %v%s", name, err, where())
	}
	return st
}

func (c *check) mode(name string, want uint32) {
	if got := c.stat(name).Mode & 0o7777; got != want {
		c.errorf("%s has mode %o, want %o%s", name, got, want, where())
	}
}

func (c *check) gone(names ...string) {
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Lstat(c.path(name), &st); !errors.Is(err, unix.ENOENT) {
			c.errorf("%s is there: %v%s", name, err, where())
		}
	}
}

// names lists a directory, sorted.
func (c *check) names(dir string) []string {
	f, err := os.Open(c.path(dir))
	c.ok(err)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	c.ok(err)
	slices.Sort(names)
	return names
}

func (c *check) list(dir string, want ...string) {
	want = slices.Sorted(slices.Values(want))
	if got := c.names(dir); !slices.Equal(got, want) {
		c.errorf("%q has %.300q, want %.300q%s", dir, got, want, where())
	}
}

// forget makes the kernel forget what it knows and nobody holds, so that the server is asked. All that was written has to be there first.
func (c *check) forget() {
	unix.Sync()
	c.ok(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
}
