package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// readOnlyCommand checks that nothing of a directory can be changed, root or not, where the mount itself would let it: the server must
// refuse. The directory holds a file f, a directory d with a file in it, and a symbolic link l.
func readOnlyCommand(args []string) error {
	if len(args) != 1 {
		return errors.New("which directory?")
	}
	dir := args[0]
	at := func(name string) string { return filepath.Join(dir, name) }
	checks := []struct {
		name string
		do   func() error
		// asked is set where the client asks for rights first: the answer can only be that there is none to write.
		asked bool
	}{
		{"create", func() error { _, err := os.OpenFile(at("new"), os.O_CREATE|os.O_WRONLY, 0o644); return err }, false},
		{"exclusive", func() error {
			_, err := os.OpenFile(at("new"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			return err
		}, false},
		{"write", func() error { return appendTo(at("f"), "x") }, true},
		{"truncate", func() error { return os.Truncate(at("f"), 0) }, true},
		{"mkdir", func() error { return os.Mkdir(at("new"), 0o755) }, false},
		{"symlink", func() error { return os.Symlink("x", at("new")) }, false},
		{"mkfifo", func() error { return unix.Mkfifo(at("new"), 0o600) }, false},
		{"link", func() error { return os.Link(at("f"), at("new")) }, false},
		{"rename", func() error { return os.Rename(at("f"), at("new")) }, false},
		{"rename-over", func() error { return unix.Rename(at("f"), at("d/f")) }, false},
		{"unlink", func() error { return unix.Unlink(at("f")) }, false},
		{"rmdir", func() error { return unix.Rmdir(at("d")) }, false},
		{"chmod", func() error { return os.Chmod(at("f"), 0o600) }, false},
		{"chown", func() error { return os.Lchown(at("f"), 1, 1) }, false},
		{"utimes", func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, at("f"), nil, 0) }, false},
		{"access", func() error { return unix.Access(at("f"), unix.W_OK) }, true},
	}
	failed := 0
	for _, k := range checks {
		fmt.Printf("RUN\t%s\n", k.name)
		c := &check{}
		want := []unix.Errno{unix.EROFS}
		if k.asked {
			want = append(want, unix.EACCES)
		}
		c.errno(k.name, k.do(), want...)
		if len(c.wrong) > 0 {
			failed++
			fmt.Printf("FAIL\t%s\t%s\n", k.name, c.why())
			continue
		}
		fmt.Printf("PASS\t%s\n", k.name)
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d", errFailed, failed, len(checks))
	}
	return nil
}
