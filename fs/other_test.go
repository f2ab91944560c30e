package fs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programs are what tests run in another process: a page fault of the process that serves the mount would hold up its garbage
// collector, which the answer to it may need; and users and locks are of processes.
var programs = map[string]func(args []string) error{
	"mapped":  mapped,
	"lock":    lockAndWait,
	"trylock": tryLock,

	"trylock-read": func(args []string) error {
		fd, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer fd.Close()
		return setLock(fd, args[1:], false)
	},
	"append": appendLines,
	"fsx":    fsxProgram,
}

const programVar = "LAKEFSFS_TEST_PROGRAM"

func TestMain(m *testing.M) {
	name := os.Getenv(programVar)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := programs[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, name, err)
		if no, ok := err.(syscall.Errno); ok {
			os.Exit(int(no)) // for exits
		}
		os.Exit(255)
	}
	os.Exit(0)
}

// other prepares a program in another process. It is killed when the test ends.
func other(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), programVar+"="+program)
	c.Stderr = os.Stderr
	c.WaitDelay = 10 * time.Second
	return c
}

// exits runs a command and returns the errno that a program ended with.
func exits(t *testing.T, c *exec.Cmd) syscall.Errno {
	t.Helper()
	c.Stderr = nil
	err := c.Run()
	if err == nil {
		return 0
	}
	if x, ok := err.(*exec.ExitError); ok && x.ExitCode() > 0 && x.ExitCode() < 255 {
		return syscall.Errno(x.ExitCode())
	}
	t.Fatalf("%v: %v", c.Args[1:], err)
	return 0
}

// mapped checks a file through a mapping, and writes through it.
func mapped(args []string) error {
	fd, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fd.Close()
	fi, err := fd.Stat()
	if err != nil {
		return err
	}
	mm, err := unix.Mmap(int(fd.Fd()), 0, int(fi.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(mm); hex.EncodeToString(sum[:]) != args[1] {
		return fmt.Errorf("the mapping differs")
	}
	copy(mm[1<<20:], "mapped")
	if err := unix.Msync(mm, unix.MS_SYNC); err != nil {
		return err
	}
	return unix.Munmap(mm)
}

// setLock takes a lock that is written as "flock" or "fcntl", "r" or "w", start and length.
func setLock(fd *os.File, args []string, wait bool) error {
	if args[0] == "flock" {
		how := map[string]int{"r": unix.LOCK_SH, "w": unix.LOCK_EX, "u": unix.LOCK_UN}[args[1]]
		if !wait {
			how |= unix.LOCK_NB
		}
		return unix.Flock(int(fd.Fd()), how)
	}
	start, _ := strconv.ParseInt(args[2], 10, 64)
	n, _ := strconv.ParseInt(args[3], 10, 64)
	typ := map[string]int16{"r": unix.F_RDLCK, "w": unix.F_WRLCK, "u": unix.F_UNLCK}[args[1]]
	cmd := unix.F_SETLK
	if wait {
		cmd = unix.F_SETLKW
	}
	return unix.FcntlFlock(fd.Fd(), cmd, &unix.Flock_t{Type: typ, Start: start, Len: n})
}

// lockAndWait takes the locks that its arguments after the file say, waiting for each, prints a line after each, and goes on after
// each line of input.
func lockAndWait(args []string) error {
	fd, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fd.Close()
	line := make([]byte, 1)
	for rest := args[1:]; len(rest) >= 4; rest = rest[4:] {
		err := setLock(fd, rest, true)
		fmt.Printf("%v\n", err)
		if _, err := os.Stdin.Read(line); err != nil {
			return nil
		}
	}
	return nil
}

// tryLock takes one lock, without waiting.
func tryLock(args []string) error {
	fd, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return setLock(fd, args[1:], false)
}

// appendLines appends numbered lines.
func appendLines(args []string) error {
	fd, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(args[2])
	for i := range n {
		if _, err := fmt.Fprintf(fd, "%s %d\n", args[1], i); err != nil {
			return err
		}
	}
	return fd.Close()
}
