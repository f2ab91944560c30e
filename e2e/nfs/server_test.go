package nfs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/internal/nfsvm"
	"github.com/lakefsfs/lakefsfs/internal/nfsvm/wire"
)

// server is a daemon that exports everything, and shows it by FUSE too.
type server struct {
	t    *testing.T
	dir  string // of all that is its
	mnt  string // FUSE
	port int
	up   *exec.Cmd
	log  *os.File
}

// newServer starts a daemon with a repository. It ends with the test.
func newServer(t *testing.T) *server {
	t.Helper()
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "lfn")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, mnt: dir + "/mnt", port: freePort(t)}
	if s.log, err = os.Create(dir + "/log"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop(syscall.SIGTERM)
		if t.Failed() {
			b, _ := os.ReadFile(s.log.Name())
			t.Logf("the daemon's log:\n%s", b[max(0, len(b)-4000):])
		}
		s.log.Close()
		os.RemoveAll(dir)
	})
	if err := os.Mkdir(s.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("data: %s/data\nmounts: [{dir: %s}]\nnfs: {listen: '127.0.0.1:%d'}\nexports:\n- {path: /, squash: none}\n", dir, s.mnt, s.port)
	if err := os.WriteFile(dir+"/config.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ok("repo", "create", "repo")
	return s
}

// freePort returns a port that nobody listens on: a server that starts again needs the same.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start starts the daemon, and returns when it serves.
func (s *server) start() {
	s.t.Helper()
	s.up = exec.Command(bin, "daemon", "--config", s.dir+"/config.yaml")
	s.up.Stderr = s.log
	// A test that runs out of time ends without its cleanup.
	s.up.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.up.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.up.Start(); err != nil {
		s.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "listening") {
		b, _ := os.ReadFile(s.log.Name())
		s.t.Fatalf("the daemon said %q: %v\n%s", line, err, b)
	}
}

// stop ends the daemon by a signal.
func (s *server) stop(sig os.Signal) {
	if s.up != nil {
		s.up.Process.Signal(sig)
		s.up.Wait()
		s.up = nil
	}
}

// run runs lakefsfs.
func (s *server) run(args ...string) (string, error) {
	c := exec.Command(bin, append([]string{"--server", "unix://" + s.dir + "/data/lakefsfs.sock"}, args...)...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("lakefsfs %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return string(out), err
}

// ok is run of what must work.
func (s *server) ok(args ...string) string {
	s.t.Helper()
	out, err := s.run(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// commit commits the branch main and returns the commit's id.
func (s *server) commit() string {
	s.t.Helper()
	var c struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(s.ok("commit", "repo/@main", "-m", "test", "--json")), &c); err != nil || c.ID == "" {
		s.t.Fatal(err)
	}
	return c.ID
}

// at is a path of the branch main in the FUSE mount.
func (s *server) at(name string) string { return filepath.Join(s.mnt, "repo/@main", name) }

// mount mounts a place of the server in a guest.
func (g *guest) server(s *server, place, dir, opts string) {
	g.t.Helper()
	g.mount("10.0.2.2", s.port, "/"+place, dir, opts)
}

// restartedUnder kills the daemon some times with kill -9, and starts it again, while a client works: it goes on after a pause, and all
// that was acknowledged is there.
func (s *server) restartedUnder(g *guest, kills int, work string) {
	s.t.Helper()
	type end struct {
		nfsvm.Result
		err error
	}
	ended := make(chan end)
	go func() {
		r, err := g.vm.Run(g.ctx, wire.Request{Argv: []string{"battery", "model", fmt.Sprint(time.Now().UnixNano() % 1e6), work, "/mnt/one/model"}})
		ended <- end{r, err}
	}()
	for range kills {
		// In the midst of work: when something new has come.
		before := s.entries("model")
		for i := 0; s.entries("model") < before+5 && i < 500; i++ {
			time.Sleep(20 * time.Millisecond)
		}
		s.stop(syscall.SIGKILL)
		s.start()
	}
	r := <-ended
	if r.err != nil || r.Code != 0 {
		s.t.Errorf("under %d kills: %v, exit %d: %s", kills, r.err, r.Code, r.Output())
	}
	s.t.Logf("under %d kills: %s", kills, r.Output())
}

// entries counts the files below a directory of the branch, by FUSE.
func (s *server) entries(name string) (n int) {
	filepath.WalkDir(s.at(name), func(string, os.DirEntry, error) error { n++; return nil })
	return n
}

// The battery on a branch, with two clients; then the branch is committed over NFS, and nothing of the commit can be changed.
func TestServer(t *testing.T) {
	t.Parallel()
	g, s := newGuest(t), newServer(t)
	g.server(s, "repo/@main", "/mnt/one", "rw")
	g.server(s, "repo/@main", "/mnt/two", "nosharecache")
	g.check("battery", "check", "-second", "/mnt/two", "/mnt/one")

	g.ok("/mnt/one", "rm -rf battery.* && mkdir -p d && echo content >f && echo more >d/f && ln -s f l && ln f hard")
	head := strings.TrimSpace(g.ok("/mnt/one", "echo 'by NFS' >.lakefs/commit && cat .lakefs/head"))
	if log := s.ok("log", "repo/@main", "--oneline"); !strings.Contains(log, "by NFS") || !strings.HasPrefix(log, head[:6]) {
		t.Errorf("head %s, log %s", head, log)
	}
	g.server(s, "repo/@"+head, "/mnt/commit", "rw")
	g.check("readonly", "readonly", "/mnt/commit")
	if got := g.ok("/mnt/commit", "cat f d/f l hard; ls -A; stat -c %h f"); got != "content\nmore\ncontent\ncontent\nd\nf\nhard\nl\n2\n" {
		t.Errorf("the commit has %q", got)
	}
	// A commit's files stay while the branch goes on.
	g.ok("/mnt/one", "echo changed >f && rm -r d")
	if got := g.ok("/mnt/commit", "echo 3 >/proc/sys/vm/drop_caches && cat f d/f"); got != "content\nmore\n" {
		t.Errorf("the commit has %q", got)
	}
	// What one shows the other does, in both ways, at the next open.
	for i := range 5 {
		if err := os.WriteFile(s.at("shared"), fmt.Appendf(nil, "by FUSE %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := g.ok("/mnt/one", "cat shared"); got != fmt.Sprintf("by FUSE %d", i) {
			t.Errorf("over NFS: %q", got)
		}
		g.ok("/mnt/one", fmt.Sprintf("echo by NFS %d >shared", i))
		if b, err := os.ReadFile(s.at("shared")); string(b) != fmt.Sprintf("by NFS %d\n", i) {
			t.Errorf("by FUSE: %q %v", b, err)
		}
	}
	s.restartedUnder(g, 2, "20s")
	if got := g.ok("/", "df --output=size,avail /mnt/one | tail -1"); strings.Contains(got, " 0") {
		t.Errorf("df: %s", got)
	}
}
