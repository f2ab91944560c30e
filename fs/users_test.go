package fs

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// as runs a shell command as an ordinary user.
func as(t *testing.T, uid, gid uint32, dir, script string) error {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", `cd "$0" && `+script, dir)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := c.CombinedOutput()
	if len(out) > 0 {
		t.Logf("%s: %s", script, out)
	}
	return err
}

// Two ordinary users and root on a mount that lets others in.
func TestUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become other users")
	}
	m := mountWith(t, Options{AllowOther: true})
	const ann, bob, staff = 4001, 4002, 4100
	if as(t, ann, staff, "/", "ls "+m.dir) != nil {
		t.Skip("other users can't reach the directory for temporary files")
	}
	can := func(who uint32, dir, script string) {
		t.Helper()
		if err := as(t, who, staff, m.path(dir), script); err != nil {
			t.Errorf("%d can't %s: %v", who, script, err)
		}
	}
	cannot := func(who uint32, dir, script string) {
		t.Helper()
		if as(t, who, staff, m.path(dir), script+" 2>/dev/null") == nil {
			t.Errorf("%d can %s", who, script)
		}
	}
	cannot(ann, "", "touch f")
	ok(t, "mkdir", os.Mkdir(m.path("shared"), 0))
	ok(t, "chmod", unix.Chmod(m.path("shared"), 0o1777))
	can(ann, "shared", "echo text >a && chmod 640 a && mkdir d && ln a d/a")
	m.states(t, func(state string) {
		st := lstat(t, m.path("shared/a"))
		if st.Uid != ann || st.Gid != staff || st.Mode&0o7777 != 0o640 {
			t.Errorf("%s: uid %d gid %d mode %o", state, st.Uid, st.Gid, st.Mode)
		}
		can(bob, "shared", "cat a >/dev/null")
		cannot(bob, "shared", "echo more >>a")
		cannot(bob, "shared", "chmod 666 a")
		cannot(bob, "shared", "touch -d 2001-01-01 a")
		cannot(bob, "shared", "rm -f a")     // the directory is sticky
		cannot(bob, "shared", "mv a b")      // and so are names
		cannot(bob, "shared", "touch d/new") // Ann's directory
		cannot(ann, "shared", "chown 4002 a")
		can(ann, "shared", "chgrp 4100 a")
	})
	// A set-group-id directory hands on its group, and to directories the bit.
	ok(t, "mkdir", os.Mkdir(m.path("group"), 0))
	ok(t, "chown", os.Chown(m.path("group"), ann, 4200))
	ok(t, "chmod", unix.Chmod(m.path("group"), 0o2777))
	can(bob, "group", "touch f && mkdir d")
	if st := lstat(t, m.path("group/f")); st.Gid != 4200 || st.Mode&unix.S_ISGID != 0 {
		t.Errorf("gid %d mode %o", st.Gid, st.Mode)
	}
	if st := lstat(t, m.path("group/d")); st.Gid != 4200 || st.Mode&unix.S_ISGID == 0 {
		t.Errorf("gid %d mode %o", st.Gid, st.Mode)
	}
	// What makes a program run as its owner goes when somebody else writes, or it gets another owner.
	mode := func(what string, want uint32) {
		t.Helper()
		if st := lstat(t, m.path("shared/prog")); st.Mode&0o7777 != want {
			t.Errorf("%s: mode %o, want %o", what, st.Mode&0o7777, want)
		}
	}
	set := func() {
		t.Helper()
		ok(t, "chown", os.Chown(m.path("shared/prog"), ann, staff))
		ok(t, "chmod", unix.Chmod(m.path("shared/prog"), 0o6777))
		mode("chmod", 0o6777)
	}
	write(t, m.path("shared/prog"), "text")
	m.states(t, func(state string) {
		set()
		can(bob, "shared", "echo more >>prog")
		mode(state+", a write", 0o777)
		set()
		can(bob, "shared", "truncate -s 1 prog")
		mode(state+", a truncate", 0o777)
		set()
		can(bob, "shared", ": >prog")
		mode(state+", an open that truncates", 0o777)
		set()
		ok(t, "chown", os.Chown(m.path("shared/prog"), bob, staff))
		mode(state+", a change of owner", 0o777)
		set()
		write(t, m.path("shared/prog"), "by root")
		mode(state+", a write by root", 0o6777)
	})
}
