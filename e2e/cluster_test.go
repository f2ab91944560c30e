package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nodes are the daemons of a cluster, each with its own directory, as on machines of their own; clients are this user's commands.
type nodes struct {
	t   *testing.T
	dir string
	all []*node
	env []string // of clients
}

type node struct {
	n           *nodes
	name        string
	peer, serve string
	conf        string
	proc        *exec.Cmd
}

// freePort is a port that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newNodes(t *testing.T, n int) *nodes {
	t.Helper()
	dir, err := os.MkdirTemp("", "lfs")
	if err != nil {
		t.Fatal(err)
	}
	c := &nodes{t: t, dir: dir}
	t.Cleanup(func() {
		// The client's daemon too: its mounts go with it.
		if out, err := exec.Command("pkill", "-TERM", "-f", dir).CombinedOutput(); err != nil && len(out) > 0 {
			t.Logf("stop the daemons: %s", out)
		}
		for _, nd := range c.all {
			nd.wait()
		}
		if t.Failed() {
			logs, _ := filepath.Glob(dir + "/*.log")
			for _, name := range logs {
				b, _ := os.ReadFile(name)
				t.Logf("%s:\n%s", name, b[max(0, len(b)-3000):])
			}
		}
		for range 100 {
			if os.RemoveAll(dir) == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	c.cmd("cluster", "certs", dir+"/certs", "127.0.0.1")
	tokens := "token-of-the-team team rw\ntoken-of-the-reader reader ro\ntoken-of-the-nodes nodes admin\n"
	if err := os.WriteFile(dir+"/tokens", []byte(tokens), 0o600); err != nil {
		t.Fatal(err)
	}
	for range n {
		c.add()
	}
	var serve []string
	for _, nd := range c.all {
		serve = append(serve, nd.serve)
	}
	c.env = []string{
		"LAKEFSFS_SERVER=" + strings.Join(serve, ","), "LAKEFSFS_CA=" + dir + "/certs/ca.crt", "LAKEFSFS_TOKEN=token-of-the-nodes", "XDG_DATA_HOME=" + dir + "/home",
	}
	return c
}

// add configures another node and starts it. The first begins the cluster.
func (c *nodes) add() *node {
	c.t.Helper()
	nd := &node{n: c, name: fmt.Sprintf("n%d", len(c.all)+1), peer: freePort(c.t), serve: freePort(c.t)}
	how := "bootstrap: true"
	if len(c.all) > 0 {
		how = "join: " + c.all[0].serve
	}
	nd.conf = fmt.Sprintf(`
data: %[1]s/%[2]s
namespace: file://%[1]s/objects
cluster:
  listen: %[3]s
  snapshots: file://%[1]s/snapshots
  %[4]s
serve:
  listen: %[5]s
  tokens: %[1]s/tokens
tls:
  ca: %[1]s/certs/ca.crt
  cert: %[1]s/certs/127.0.0.1.crt
  key: %[1]s/certs/127.0.0.1.key
`, c.dir, nd.name, nd.peer, how, nd.serve)
	if err := os.WriteFile(c.dir+"/"+nd.name+".yaml", []byte(nd.conf), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.all = append(c.all, nd)
	nd.start()
	return nd
}

func (nd *node) start() {
	nd.n.t.Helper()
	log, err := os.OpenFile(nd.n.dir+"/"+nd.name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		nd.n.t.Fatal(err)
	}
	defer log.Close()
	nd.proc = exec.Command(bin, "daemon", "--config", nd.n.dir+"/"+nd.name+".yaml")
	nd.proc.Stdout, nd.proc.Stderr = log, log
	if err := nd.proc.Start(); err != nil {
		nd.n.t.Fatal(err)
	}
}

func (nd *node) kill() {
	nd.proc.Process.Kill()
	nd.wait()
}

func (nd *node) wait() {
	if nd.proc != nil {
		nd.proc.Wait()
		nd.proc = nil
	}
}

// try runs a command of a client.
func (c *nodes) try(env []string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Env = append(append(os.Environ(), c.env...), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (c *nodes) cmd(args ...string) string {
	c.t.Helper()
	out, errs, code := c.try(nil, args...)
	if code != 0 {
		c.t.Fatalf("lakefsfs %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

type clusterMember struct {
	ID, Peer, Serve     string
	Voter, Leader, Self bool
	Applied             uint64
}

func (c *nodes) members() []clusterMember {
	c.t.Helper()
	out, _, code := c.try(nil, "cluster", "status", "--json")
	var s struct{ Members []clusterMember }
	if code != 0 || json.Unmarshal([]byte(out), &s) != nil {
		return nil
	}
	return s.Members
}

// until waits for the members to be as they should.
func (c *nodes) until(what string, ok func(ms []clusterMember) bool) []clusterMember {
	c.t.Helper()
	var ms []clusterMember
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ms = c.members(); ok(ms) {
			return ms
		}
	}
	c.t.Fatalf("%s: the members are %+v", what, ms)
	return nil
}

func voters(n int) func(ms []clusterMember) bool {
	return func(ms []clusterMember) bool {
		v, l := 0, 0
		for _, m := range ms {
			if m.Voter {
				v++
			}
			if m.Leader {
				l++
			}
		}
		return v == n && len(ms) == n && l == 1
	}
}

func (c *nodes) leader() *node {
	c.t.Helper()
	ms := c.until("a leader", func(ms []clusterMember) bool {
		for _, m := range ms {
			if m.Leader {
				return true
			}
		}
		return false
	})
	for _, m := range ms {
		for _, nd := range c.all {
			if m.Leader && m.Peer == nd.peer { // a node that has just started doesn't know where others serve
				return nd
			}
		}
	}
	c.t.Fatalf("the leader is none of the nodes: %+v", ms)
	return nil
}

// A team's cluster from its first start to its loss and restoration, as docs/cluster.md tells it.
func TestCluster(t *testing.T) {
	c := newNodes(t, 3)
	c.until("three voters", voters(3))
	c.cmd("repo", "create", "sales")

	// Who may what.
	if _, errs, code := c.try([]string{"LAKEFSFS_TOKEN=token-of-the-reader"}, "branch", "create", "sales/@no"); code == 0 || !strings.Contains(errs, "reader") {
		t.Errorf("a reader makes a branch: exit code %d, %s", code, errs)
	}
	if _, errs, code := c.try([]string{"LAKEFSFS_TOKEN=nobody-knows-this-token"}, "branch", "list", "sales"); code == 0 || !strings.Contains(errs, "token") {
		t.Errorf("an unknown token: exit code %d, %s", code, errs)
	}
	if _, errs, code := c.try([]string{"LAKEFSFS_CA=" + c.dir + "/tokens"}, "branch", "list", "sales"); code == 0 || !strings.Contains(errs, "certificate") {
		t.Errorf("without the authority: exit code %d, %s", code, errs)
	}

	// A mount on a machine that keeps no metadata goes on while leaders die.
	mnt := c.dir + "/mnt"
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(c.cmd("mount", "sales/@main", mnt)); got != mnt {
		t.Fatalf("mount printed %q", got)
	}
	src := makeTree(t, filepath.Join(c.dir, "src"), 300)
	for round := range 2 {
		to := fmt.Sprintf("%s/round%d", mnt, round)
		copied := make(chan error, 1)
		go func() {
			out, err := exec.Command("cp", "-a", src, to).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			copied <- err
		}()
		lead := c.leader()
		lead.kill()
		if err := <-copied; err != nil {
			t.Fatalf("cp through the death of a leader: %v", err)
		}
		lead.start()
		if out, err := exec.Command("diff", "-r", src, to).CombinedOutput(); err != nil {
			t.Fatalf("the copy differs: %v\n%s", err, out)
		}
		cmd := exec.Command(bin, "commit", "-m", fmt.Sprintf("round %d", round))
		cmd.Dir, cmd.Env = mnt, append(os.Environ(), c.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("commit inside the mount: %v\n%s", err, out)
		}
	}
	if out, err := exec.Command("diff", "-r", src, mnt+"/round0").CombinedOutput(); err != nil {
		t.Fatalf("what was committed differs: %v\n%s", err, out)
	}
	if log := c.cmd("log", "sales/@main"); !strings.Contains(log, "round 0") || !strings.Contains(log, "round 1") {
		t.Errorf("the log is %s", log)
	}

	// Another machine, which is a node, sees the same.
	sock := "unix://" + c.all[1].n.dir + "/n2/lakefsfs.sock"
	if ls := c.cmd("--server", sock, "ls", "sales/@main"); ls != "round0/\nround1/\n" {
		t.Errorf("by a node's socket the branch has %q", ls)
	}

	// A fourth node comes, one goes for good.
	c.until("three voters again", voters(3))
	c.add()
	ms := c.until("four voters", voters(4))
	gone := c.all[2]
	gone.kill()
	for _, m := range ms {
		if m.Serve == gone.serve {
			c.cmd("cluster", "remove", m.ID)
		}
	}
	c.until("three voters without the one that is gone", voters(3))

	// All nodes are lost; the metadata is on the object store.
	if err := os.WriteFile(mnt+"/staged", []byte("staged\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	syncFile(t, mnt+"/staged")
	if err := exec.Command(bin, "umount", mnt).Run(); err == nil {
		t.Log("unmounted by a user who is told nothing of the cluster")
	} else {
		c.cmd("umount", mnt)
	}
	c.cmd("cluster", "snapshot")
	for _, nd := range c.all {
		if nd.proc != nil {
			nd.kill()
		}
	}
	out := c.cmd("cluster", "restore", "--from", "file://"+c.dir+"/snapshots", "--data", c.dir+"/restored")
	if !strings.Contains(out, "what could be missing") {
		t.Errorf("restore says %q", out)
	}
	first := c.all[0]
	first.conf = strings.ReplaceAll(strings.Replace(first.conf, "bootstrap: true", "heartbeat: 500ms", 1), c.dir+"/n1\n", c.dir+"/restored\n")
	if err := os.WriteFile(c.dir+"/n1.yaml", []byte(first.conf), 0o600); err != nil {
		t.Fatal(err)
	}
	first.start()
	c.until("the restored node leads", voters(1))
	if got := c.cmd("cat", "sales/@main/staged"); got != "staged\n" {
		t.Errorf("after the restoration %q is staged", got)
	}
	if log := c.cmd("log", "sales/@main"); !strings.Contains(log, "round 1") {
		t.Errorf("after the restoration the log is %s", log)
	}
	if got := c.cmd("cat", "sales/@main/round1/"+firstFile(t, src)); got == "" {
		t.Error("after the restoration a committed file is empty")
	}
}

// makeTree makes a directory of small files.
func makeTree(t *testing.T, dir string, n int) string {
	t.Helper()
	for i := range n {
		d := fmt.Sprintf("%s/d%d", dir, i%7)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", d, i), bytes.Repeat([]byte(fmt.Sprintln(i)), 1+i%500), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func firstFile(t *testing.T, dir string) string {
	t.Helper()
	all, err := filepath.Glob(dir + "/*/*")
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(dir, all[0])
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

func syncFile(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
