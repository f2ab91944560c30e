package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that serves until it is ended.
type process struct {
	cmd  *exec.Cmd
	log  string // file of what it says
	done chan struct{}
}

// spawn starts a program. Where ready is set it is up when it has printed a line; else see mounted and listening.
func spawn(log string, env []string, ready bool, name string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we end it in order
	var out io.ReadCloser
	if ready {
		p.cmd.Stdout = nil
		if out, err = p.cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if ready {
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
			return nil, fmt.Errorf("%s did not come up: %s", filepath.Base(name), p.said())
		}
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// said is the end of what the process said.
func (p *process) said() string {
	b, _ := os.ReadFile(p.log)
	return strings.TrimSpace(string(b[max(0, len(b)-1000):]))
}

// until waits for what makes the process ready, or fails when it ends before.
func (p *process) until(ready func() bool) error {
	for give := time.Now().Add(30 * time.Second); time.Now().Before(give); time.Sleep(20 * time.Millisecond) {
		if ready() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", filepath.Base(p.cmd.Path), p.said())
		default:
		}
	}
	p.end()
	return fmt.Errorf("%s is not ready after 30 s: %s", filepath.Base(p.cmd.Path), p.said())
}

// end asks the process to end, and makes it after a minute. It may be called twice, and on none.
func (p *process) end() {
	if p == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// mounted tells whether something is mounted on dir.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	return unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

// unmount takes away what a process that was killed may have left on dir.
func unmount(dir string) {
	if mounted(dir) || unix.Access(dir, unix.F_OK) == unix.ENOTCONN {
		if unix.Unmount(dir, unix.MNT_DETACH) != nil {
			exec.Command("fusermount3", "-u", "-z", dir).Run()
		}
	}
}

// tool finds a program in .tools/bin of this repository, where make puts them, or on PATH; "" if there is none.
func tool(name string) string {
	if here, err := filepath.Abs(filepath.Join(".tools/bin", name)); err == nil && unix.Access(here, unix.X_OK) == nil {
		return here
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}
