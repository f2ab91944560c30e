// Command agent is the first process of the tests' virtual machine: it brings the guest up, and runs there what the host asks for.
// See package wire for how they talk.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := boot(); err != nil {
		// The console is what the host shows if nothing else comes.
		fmt.Fprintln(os.Stderr, "agent:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	for _, m := range []struct{ dir, kind, opts string }{{"/dev", "devtmpfs", ""}, {"/proc", "proc", ""}, {"/sys", "sysfs", ""}} {
		os.MkdirAll(m.dir, 0o755)
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.opts); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := insertModules("/modules"); err != nil {
		return err
	}
	programs, err := filepath.Glob("/programs/*")
	if err != nil {
		return err
	}
	if err := enterDisk("/dev/vda", "/disk", programs); err != nil {
		return err
	}
	for _, m := range []struct{ dir, kind, opts string }{{"/run", "tmpfs", "mode=755"}, {"/tmp", "tmpfs", "mode=1777"}, {"/dev/shm", "tmpfs", "mode=1777"}} {
		os.MkdirAll(m.dir, 0o755)
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.opts); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	os.MkdirAll("/run/rpcbind", 0o755)
	os.Symlink("/proc/self/fd", "/dev/fd")
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	os.Setenv("HOME", "/root")
	os.Setenv("LC_ALL", "C.UTF-8")
	unix.Sethostname([]byte("guest"))
	if err := network("lo", [4]byte{127, 0, 0, 1}, 8); err != nil {
		return err
	}
	// qemu's user network: the host's loopback is 10.0.2.2. There is no route to anywhere else.
	if err := network("eth0", [4]byte{10, 0, 2, 15}, 24); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	word := map[string]string{}
	for w := range strings.FieldsSeq(string(line)) {
		k, v, _ := strings.Cut(w, "=")
		word[k] = v
	}
	return serve(word["nfsvm.host"], word["nfsvm.token"])
}

// insertModules loads the kernel's modules of a directory, in the order of their names.
func insertModules(dir string) error {
	names, err := filepath.Glob(dir + "/*.ko")
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// enterDisk makes the file system of a block device the root, and takes programs along.
func enterDisk(device, dir string, programs []string) error {
	for i := 0; ; i++ {
		if _, err := os.Stat(device); err == nil {
			break
		}
		if i == 500 {
			return fmt.Errorf("there is no %s", device)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	for _, m := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(m, dir+m, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m, err)
		}
	}
	for _, p := range programs {
		b, err := os.ReadFile(p)
		if err == nil {
			err = os.WriteFile(dir+"/usr/bin/"+filepath.Base(p), b, 0o755)
		}
		if err != nil {
			return err
		}
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// network gives an interface its address and brings it up.
func network(name string, addr [4]byte, bits int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mask := ^uint32(0) << (32 - bits)
	ioctl := func(request uint, fill func(*unix.Ifreq) error) error {
		r, err := unix.NewIfreq(name)
		if err == nil {
			err = fill(r)
		}
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, request, r); err != nil {
			return fmt.Errorf("network %s: %w", name, err)
		}
		return nil
	}
	if err := ioctl(unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr[:]) }); err != nil {
		return err
	}
	if err := ioctl(unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error {
		return r.SetInet4Addr([]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)})
	}); err != nil {
		return err
	}
	return ioctl(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return nil
	})
}
