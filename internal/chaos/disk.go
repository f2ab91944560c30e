package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a node's disk: a small file system in memory of its own, under a FUSE pass-through that can fail and lose power.
type Disk struct {
	Dir  string // where it is mounted
	base string // the small file system
	mu   sync.Mutex
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// NewDisk mounts a disk of so many bytes in a directory. It takes root, and faultfs, the built command.
func NewDisk(faultfs, dir string, size int64) (_ *Disk, err error) {
	d := &Disk{Dir: filepath.Join(dir, "disk"), base: filepath.Join(dir, "base")}
	for _, p := range []string{d.Dir, d.base} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return nil, err
		}
	}
	if err := unix.Mount("lakefsfs-chaos", d.base, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return nil, fmt.Errorf("mount a small disk: %w", err)
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	d.cmd = exec.Command(faultfs, d.base, d.Dir)
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return nil, err
	}
	if _, err := d.out.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("faultfs did not come up: %w", err)
	}
	return d, nil
}

// tell tells faultfs something, and returns its answer.
func (d *Disk) tell(what string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := fmt.Fprintln(d.in, what); err != nil {
		return "", fmt.Errorf("faultfs: %s: %w", what, err)
	}
	line, err := d.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("faultfs: %s: %w", what, err)
	}
	got, ok := strings.CutPrefix(strings.TrimSpace(line), "ok")
	if !ok {
		return "", fmt.Errorf("faultfs: %s: %s", what, strings.TrimSpace(line))
	}
	return strings.TrimSpace(got), nil
}

// FailSync lets every fsync fail, or none.
func (d *Disk) FailSync(fail bool) error {
	_, err := d.tell(map[bool]string{true: "fsync eio", false: "fsync ok"}[fail])
	return err
}

// FailWrite lets every write fail, or none.
func (d *Disk) FailWrite(fail bool) error {
	_, err := d.tell(map[bool]string{true: "write eio", false: "write ok"}[fail])
	return err
}

// Failed counts the fsyncs and writes that failed.
func (d *Disk) Failed() (syncs, writes int64, err error) {
	s, err := d.tell("counts")
	if err == nil {
		_, err = fmt.Sscan(s, &syncs, &writes)
	}
	return syncs, writes, err
}

// Loss is what a power cut took.
type Loss struct {
	Names, Files int
	Bytes        int64
}

// Cut loses what wasn't synced. Who had files open was killed before; the kernel may still be closing them.
func (d *Disk) Cut(seed uint64) (l Loss, err error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := d.tell(fmt.Sprintf("cut %d", seed))
		if err == nil {
			_, err = fmt.Sscan(s, &l.Names, &l.Files, &l.Bytes)
			return l, err
		}
		if !strings.Contains(err.Error(), "files are open") || time.Now().After(end) {
			return l, err
		}
	}
}

func (d *Disk) filler() string { return filepath.Join(d.base, "filler") }

// Fill takes all room but so many bytes, as another program on the machine would.
func (d *Disk) Fill(leave int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.base, &st); err != nil {
		return err
	}
	free := int64(st.Bavail) * st.Bsize
	if free <= leave {
		return nil
	}
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, fi.Size(), free-leave); err != nil && !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("fill the disk: %w", err)
	}
	return nil
}

// Free gives the room back.
func (d *Disk) Free() error {
	if err := os.Remove(d.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Close unmounts it; what was on it is gone.
func (d *Disk) Close() {
	if d.cmd != nil {
		d.in.Close()
		done := make(chan struct{})
		go func() {
			d.cmd.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			d.cmd.Process.Kill()
			<-done
		}
	}
	unix.Unmount(d.Dir, unix.MNT_DETACH)
	unix.Unmount(d.base, unix.MNT_DETACH)
}
