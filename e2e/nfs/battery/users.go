package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// user is who does something.
type user struct {
	uid, gid uint32
	groups   []uint32
}

// Two ordinary users who share a group, and one who is nobody's friend.
var (
	root   = user{0, 0, nil}
	one    = user{1001, 1001, []uint32{2000}}
	two    = user{1002, 1002, []uint32{2000}}
	nobody = user{65534, 65534, nil}
)

const both = 2000 // the group of one and two

// as does something as somebody, in a process of its own, and returns its error.
func (c *check) as(u user, op string, args ...string) error {
	_, err := c.asks(u, op, args...)
	return err
}

// asks is as of what has an answer.
func (c *check) asks(u user, op string, args ...string) (string, error) {
	cmd := exec.Command("/proc/self/exe", append([]string{"do", op}, args...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		c.fatalf("%s %q as %d: %v: %s%s", op, args, u.uid, err, errs.Bytes(), where())
	}
	line, answer, _ := strings.Cut(string(out), "\n")
	n, err := strconv.Atoi(line)
	c.ok(err)
	if n == 0 {
		return answer, nil
	}
	return answer, fmt.Errorf("%s %s as %d: %w", op, strings.Join(args, " "), u.uid, unix.Errno(n))
}

// doCommand does one thing, and prints the number of its error, 0 if there is none, and then the answer.
func doCommand(args []string) error {
	unix.Umask(0)
	answer, err := do(args[0], args[1:])
	var errno unix.Errno
	if err != nil && !errors.As(err, &errno) {
		return err
	}
	fmt.Printf("%d\n%s", int(errno), answer)
	return nil
}

func do(op string, args []string) (answer string, err error) {
	number := func(s string, base int) int {
		n, err := strconv.ParseInt(s, base, 64)
		if err != nil {
			panic(err)
		}
		return int(n)
	}
	name := args[0]
	switch op {
	case "read":
		b, err := os.ReadFile(name)
		return string(b), err
	case "list":
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		_, err = f.Readdirnames(-1) // names alone: more would take the right to search
		return "", err
	case "append":
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return "", err
		}
		_, err = f.WriteString(args[1])
		return "", errors.Join(err, f.Close())
	case "create": // NAME MODE: the file is written to whatever the mode allows, since it is open
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, uint32(number(args[1], 8)))
		if err != nil {
			return "", err
		}
		_, err = unix.Write(fd, []byte("written"))
		return "", errors.Join(err, unix.Fsync(fd), unix.Close(fd))
	case "mkdir":
		err = unix.Mkdir(name, uint32(number(args[1], 8)))
	case "mkfifo":
		err = unix.Mkfifo(name, uint32(number(args[1], 8)))
	case "mkdev":
		err = unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	case "symlink":
		err = unix.Symlink(args[1], name)
	case "link":
		err = unix.Link(name, args[1])
	case "rename":
		err = unix.Rename(name, args[1])
	case "unlink":
		err = unix.Unlink(name)
	case "rmdir":
		err = unix.Rmdir(name)
	case "stat":
		var st unix.Stat_t
		err = unix.Stat(name, &st)
	case "chmod":
		err = unix.Chmod(name, uint32(number(args[1], 8)))
	case "chown":
		err = unix.Lchown(name, number(args[1], 10), number(args[2], 10))
	case "truncate":
		err = unix.Truncate(name, int64(number(args[1], 10)))
	case "touch": // now
		err = unix.UtimesNanoAt(unix.AT_FDCWD, name, nil, 0)
	case "utime":
		t := unix.NsecToTimespec(int64(number(args[1], 10)))
		err = unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{t, t}, 0)
	case "rights": // what may be done with a file's bytes: words of an act, a colon and the error's number
		var acts []string
		for _, act := range [][]string{{"read", name}, {"append", name, "x"}, {"truncate", name, "6"}, {"access", name, "4"}} {
			_, err := do(act[0], act[1:])
			var errno unix.Errno
			if err != nil && !errors.As(err, &errno) {
				return "", err
			}
			acts = append(acts, fmt.Sprintf("%s:%d", act[0], int(errno)))
		}
		return strings.Join(acts, " "), nil
	case "access":
		err = unix.Access(name, uint32(number(args[1], 10)))
	default:
		return "", fmt.Errorf("nobody knows how to %s", op)
	}
	return "", err
}
