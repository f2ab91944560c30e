package chaos

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// echo listens at an address of its own and sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return lis.Addr().String()
}

func newTestNet(t *testing.T, who string) (*Net, net.Conn) {
	t.Helper()
	n := NewNet(1, func(net.Addr, net.Addr) string { return who })
	t.Cleanup(n.Close)
	at := freeAddr(t)
	if err := n.Front("b", at, echo(t)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return n, c
}

func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("heard %q, %v; want %q", b, err, want)
	}
}

// silent fails if anything is heard for a while.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	b := make([]byte, 10)
	if n, err := c.Read(b); n > 0 || !os.IsTimeout(err) {
		t.Fatalf("heard %q, %v over a cut link", b[:n], err)
	}
}

// Each direction is cut by itself, what was sent meanwhile arrives in the end, and a broken connection ends.
func TestCut(t *testing.T) {
	for _, w := range []way{{"a", "b"}, {"b", "a"}} {
		n, c := newTestNet(t, "a")
		say(t, c, "one")
		hear(t, c, "one")
		n.Set(w.from, w.to, Shape{Cut: true})
		n.Set("x", "b", Shape{Cut: true})
		say(t, c, "two")
		silent(t, c)
		n.Heal(false)
		hear(t, c, "two")
		n.Set(w.from, w.to, Shape{Cut: true})
		say(t, c, "three")
		n.Heal(true)
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if b, err := io.ReadAll(c); err == nil || os.IsTimeout(err) || len(b) > 0 {
			t.Errorf("a connection that was reset: %q, %v", b, err)
		}
	}
}

// Links of others are left alone.
func TestCutOther(t *testing.T) {
	n, c := newTestNet(t, "a")
	n.Set("c", "b", Shape{Cut: true})
	n.Set("b", "c", Shape{Cut: true})
	say(t, c, "one")
	hear(t, c, "one")
}

// Bytes are delayed at least as long as said, keep their order, and lost pieces come later.
func TestSlow(t *testing.T) {
	n, c := newTestNet(t, "a")
	n.Set("a", "b", Shape{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond, LossOneIn: 3})
	var want bytes.Buffer
	begin := time.Now()
	for i := range 30 {
		b := bytes.Repeat([]byte{byte(i)}, 100)
		want.Write(b)
		say(t, c, string(b))
		time.Sleep(time.Millisecond)
	}
	hear(t, c, want.String())
	if d := time.Since(begin); d < 50*time.Millisecond {
		t.Errorf("arrived after %s", d)
	}
	n.Set("a", "b", Shape{ResetOneIn: 1})
	say(t, c, "gone")
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(c); err == nil || os.IsTimeout(err) {
		t.Errorf("a connection that loses all: %v", err)
	}
}

// The end of a stream passes, unless the link is cut.
func TestEnd(t *testing.T) {
	n, c := newTestNet(t, "a")
	say(t, c, "one")
	hear(t, c, "one")
	n.Set("b", "a", Shape{Cut: true})
	c.(*net.TCPConn).CloseWrite()
	silent(t, c)
	n.Heal(false)
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other end's close is seen as %v", err)
	}
}

// The process at the other end of a connection is found.
func TestOwner(t *testing.T) {
	lis, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	cmd := exec.Command("bash", "-c", "exec 3<>/dev/tcp/127.77.0.1/"+port+"; read -u 3")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	c, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pids := []int{1, cmd.Process.Pid, os.Getpid()}
	if pid, err := ownerOf(c.RemoteAddr(), c.LocalAddr(), pids); err != nil || pid != cmd.Process.Pid {
		t.Errorf("%d, %v; want %d", pid, err, cmd.Process.Pid)
	}
	if pid, err := ownerOf(c.RemoteAddr(), c.LocalAddr(), []int{1 << 30}); err != nil || pid != -1 {
		t.Errorf("of none: %d, %v", pid, err)
	}
}
