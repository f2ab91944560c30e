package main

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/internal/nfsvm/wire"
)

// serve runs what the host asks for, until there is no host any more. What programs leave behind becomes a child of this process, and
// isn't waited for: the guest doesn't live long.
func serve(host, token string) error {
	failed := make(chan error, 1)
	var wait func()
	wait = func() {
		conn, err := dial(host)
		if err != nil {
			failed <- err
			return
		}
		defer conn.Close()
		if err := gob.NewEncoder(conn).Encode(wire.Hello{Token: token}); err != nil {
			failed <- err
			return
		}
		var r wire.Request
		if err := gob.NewDecoder(conn).Decode(&r); err != nil {
			failed <- fmt.Errorf("no request: %w", err)
			return
		}
		go wait()
		run(conn, r)
	}
	go wait()
	return <-failed
}

// dial tries for a while: the first packets may come before the card is ready.
func dial(host string) (conn net.Conn, err error) {
	for range 100 {
		if conn, err = net.DialTimeout("tcp4", host, 5*time.Second); err == nil {
			return conn, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, err
}

// frames sends what programs print. Its two writers share one connection.
type frames struct {
	mu  sync.Mutex
	enc *gob.Encoder
}

func (f *frames) send(frame wire.Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.enc.Encode(frame)
}

type stream struct {
	*frames
	frame func([]byte) wire.Frame
}

func (s stream) Write(p []byte) (int, error) { return len(p), s.send(s.frame(p)) }

// run runs one program and tells all of it.
func run(conn net.Conn, r wire.Request) {
	out := &frames{enc: gob.NewEncoder(conn)}
	cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
	cmd.Dir = r.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Stdin = bytes.NewReader(r.Stdin)
	cmd.Stdout = stream{out, func(p []byte) wire.Frame { return wire.Frame{Stdout: p} }}
	cmd.Stderr = stream{out, func(p []byte) wire.Frame { return wire.Frame{Stderr: p} }}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A server that a script leaves behind keeps the output open; what has been printed by its end is enough.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		out.send(wire.Frame{Stderr: []byte(err.Error() + "\n"), Done: true, Code: 127})
		return
	}
	go func() {
		// The host says nothing more: this returns when it has gone.
		conn.Read(make([]byte, 1))
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}()
	err := cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		out.send(wire.Frame{Stderr: []byte(err.Error() + "\n")})
	}
	out.send(wire.Frame{Done: true, Code: code})
}
