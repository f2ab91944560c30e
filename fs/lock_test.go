package fs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holder is another process that takes locks one after another.
type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func hold(t *testing.T, file string, locks ...string) *holder {
	t.Helper()
	h := &holder{cmd: other(t, "lock", append([]string{file}, locks...)...)}
	h.cmd.Stderr = nil
	h.in, _ = h.cmd.StdinPipe()
	out, _ := h.cmd.StdoutPipe()
	h.out = bufio.NewReader(out)
	ok(t, "start", h.cmd.Start())
	return h
}

// got waits until the next lock is decided, and returns how.
func (h *holder) got(t *testing.T) string {
	t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatal("the process that locks ended:", err)
	}
	return strings.TrimSpace(line)
}

func (h *holder) next() { io.WriteString(h.in, "\n") }

func (h *holder) end() {
	h.in.Close()
	h.cmd.Wait()
}

// Locks keep other processes out, on one mount and between mounts.
func TestLocks(t *testing.T) {
	m := mount(t)
	second := m.another(t, "repo/@main")
	write(t, m.path("f"), "x")
	for _, place := range []string{m.path("f"), filepath.Join(second, "f")} {
		try := func(args ...string) syscall.Errno {
			t.Helper()
			return exits(t, other(t, "trylock", append([]string{place}, args...)...))
		}
		want := func(what string, got, want syscall.Errno) {
			t.Helper()
			if got != want {
				t.Errorf("%s, %s: %v, want %v", place, what, got, want)
			}
		}
		for _, kind := range []string{"flock", "fcntl"} {
			h := hold(t, m.path("f"), kind, "r", "0", "0", kind, "w", "0", "0", kind, "u", "0", "0")
			h.got(t)
			want(kind+" read beside read", try(kind, "r", "0", "0"), 0)
			want(kind+" write beside read", try(kind, "w", "0", "0"), syscall.EAGAIN)
			h.next()
			h.got(t)
			want(kind+" read beside write", try(kind, "r", "0", "0"), syscall.EAGAIN)
			h.next()
			h.got(t)
			want(kind+" write after unlock", try(kind, "w", "0", "0"), 0)
			h.end()
		}
		h := hold(t, m.path("f"), "fcntl", "w", "10", "10", "fcntl", "u", "12", "2")
		h.got(t)
		want("before the range", try("fcntl", "w", "0", "10"), 0)
		want("behind the range", try("fcntl", "w", "20", "0"), 0)
		want("into the range", try("fcntl", "r", "15", "1"), syscall.EAGAIN)
		want("flock beside fcntl", try("flock", "w", "0", "0"), 0)
		h.next()
		h.got(t)
		want("in the gap", try("fcntl", "w", "12", "2"), 0)
		want("right of the gap", try("fcntl", "w", "14", "1"), syscall.EAGAIN)
		want("left of the gap", try("fcntl", "w", "11", "1"), syscall.EAGAIN)
		// A process that is killed has no locks any more.
		h.cmd.Process.Kill()
		h.cmd.Wait()
		for try("fcntl", "w", "0", "0") != 0 {
			time.Sleep(time.Millisecond)
		}
		// One who waits gets the lock when it is given back.
		a := hold(t, m.path("f"), "fcntl", "w", "0", "1", "fcntl", "u", "0", "1")
		a.got(t)
		b := hold(t, place, "fcntl", "w", "0", "1")
		a.next()
		a.got(t)
		if got := b.got(t); got != "<nil>" {
			t.Errorf("%s: the one who waits got %s", place, got)
		}
		a.end()
		b.end()
		// Two who wait for each other: one of them is told.
		a = hold(t, m.path("f"), "fcntl", "w", "0", "1", "fcntl", "w", "1", "1")
		b = hold(t, m.path("f"), "fcntl", "w", "1", "1", "fcntl", "w", "0", "1")
		a.got(t)
		b.got(t)
		a.next()
		b.next()
		told := make(chan string, 2)
		for _, h := range []*holder{a, b} {
			go func() {
				line, _ := h.out.ReadString('\n')
				told <- line
			}()
		}
		if got := <-told; !strings.Contains(got, "deadlock") {
			t.Errorf("of two who wait for each other one was told %q", got)
		}
		a.end()
		b.end()
		// A signal ends a wait.
		a = hold(t, m.path("f"), "flock", "w", "0", "0")
		a.got(t)
		b = hold(t, place, "flock", "w", "0", "0")
		time.Sleep(50 * time.Millisecond)
		b.cmd.Process.Kill()
		b.cmd.Wait()
		a.end()
	}
}

// Writers that append at the same time, from processes on two mounts, lose nothing.
func TestAppend(t *testing.T) {
	for _, opt := range []Options{{}, {NoPassthrough: true}} {
		m := mountWith(t, opt)
		second := m.another(t, "repo/@main")
		write(t, m.path("log"), "")
		var cmds []*exec.Cmd
		for i := range 4 {
			file := m.path("log")
			if i%2 == 1 {
				file = filepath.Join(second, "log")
			}
			c := other(t, "append", file, fmt.Sprint("writer", i), "200")
			ok(t, "start", c.Start())
			cmds = append(cmds, c)
		}
		for _, c := range cmds {
			ok(t, "append", c.Wait())
		}
		next := map[string]int{}
		for line := range strings.Lines(read(t, m.path("log"))) {
			who, n, _ := strings.Cut(strings.TrimSpace(line), " ")
			if k, err := strconv.Atoi(n); err != nil || k != next[who] {
				t.Fatalf("line %q, want %s %d", line, who, next[who])
			}
			next[who]++
		}
		for i := range 4 {
			if who := fmt.Sprint("writer", i); next[who] != 200 {
				t.Errorf("%s has %d lines", who, next[who])
			}
		}
		if err := os.Truncate(m.path("log"), 0); err != nil {
			t.Error(err)
		}
	}
}
