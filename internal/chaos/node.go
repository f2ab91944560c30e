package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Node is one process of a cluster, with what belongs to it.
type Node struct {
	Name   string
	Data   string // its data directory
	Socket string // of its data directory, for those on its machine
	Peer   string // HOST:PORT that others are told to reach it at
	Serve  string // HOST:PORT that clients are told to reach it at
	Direct string // HOST:PORT that it serves clients at, behind the network
	Log    string // file of what it says
	Disk   *Disk  // nil if its data lies on the machine's own disk

	bin   string
	env   []string
	begin string // how it becomes a node of the cluster: LAKEFSFS_CLUSTER_…
	again string // and how it does with another, empty disk

	mu      sync.Mutex
	cmd     *exec.Cmd     // nil if it doesn't run
	done    chan struct{} // closed when cmd has ended
	ending  bool          // by us
	paused  bool
	crashes []string // times that it ended by itself
}

// Start starts the process, if it doesn't run. It doesn't wait until it serves.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.bin, "daemon")
	cmd.Env = append(append(os.Environ(), n.env...), n.begin, ClockEnv+"="+n.clock())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we end it in order
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	done := make(chan struct{})
	n.cmd, n.done, n.ending, n.paused = cmd, done, false, false
	go func() {
		err := cmd.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.ending {
			n.crashes = append(n.crashes, fmt.Sprintf("%s ended by itself at %s: %v", n.Name, time.Now().Format("15:04:05.000"), err))
		}
		n.cmd = nil
		close(done)
	}()
	return nil
}

// Crashes tells when the process ended by itself since the last call.
func (n *Node) Crashes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.crashes
	n.crashes = nil
	return out
}

// Running tells whether the process runs, stopped or not.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

// Pid is the process's, 0 if it doesn't run.
func (n *Node) Pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// signal sends a signal, and if it ends the process waits until it is gone.
func (n *Node) signal(sig syscall.Signal, ends bool) error {
	n.mu.Lock()
	if n.cmd == nil {
		n.mu.Unlock()
		return nil
	}
	n.ending = n.ending || ends
	err := n.cmd.Process.Signal(sig)
	if ends && n.paused && sig != syscall.SIGKILL {
		n.cmd.Process.Signal(syscall.SIGCONT)
	}
	done := n.done
	n.mu.Unlock()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if err != nil || !ends {
		return err
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		n.mu.Lock()
		if n.cmd != nil {
			n.cmd.Process.Kill()
		}
		n.mu.Unlock()
		<-done
		return fmt.Errorf("%s doesn't end within a minute of signal %s", n.Name, sig)
	}
	return nil
}

// Kill is kill -9.
func (n *Node) Kill() error { return n.signal(syscall.SIGKILL, true) }

// Stop ends the process in order.
func (n *Node) Stop() error { return n.signal(syscall.SIGTERM, true) }

// Pause stops the process where it is; Resume lets it go on.
func (n *Node) Pause() error {
	n.mu.Lock()
	n.paused = true
	n.mu.Unlock()
	return n.signal(syscall.SIGSTOP, false)
}

// Resume lets a paused process go on.
func (n *Node) Resume() error {
	n.mu.Lock()
	n.paused = false
	n.mu.Unlock()
	return n.signal(syscall.SIGCONT, false)
}

// Wipe takes all that a node that doesn't run has, as a new disk does. Started again it is a new node.
func (n *Node) Wipe() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return fmt.Errorf("%s runs", n.Name)
	}
	n.begin = n.again
	return os.RemoveAll(n.Data)
}

// Options of a Cluster.
type Options struct {
	Nodes   int
	Dir     string   // for all that it keeps; short, since sockets lie in it
	Bin     string   // the built program
	FaultFS string   // the built command faultfs: each node gets a Disk; "" is none
	Disk    int64    // bytes of each
	Network bool     // each node is reached through the fronts of a Net
	Env     []string // LAKEFSFS_… of every node
	Seed    uint64
}

// Cluster is some nodes and what is between them.
type Cluster struct {
	Nodes []*Node
	Net   *Net // nil without Network
	Dir   string
}

// New prepares a cluster: disks, network and addresses. No process runs yet.
func New(o Options) (_ *Cluster, err error) {
	c := &Cluster{Dir: o.Dir}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if o.Network {
		c.Net = NewNet(o.Seed, c.who)
	}
	prefix, err := loopback()
	if err != nil {
		return nil, err
	}
	for i := 1; i <= o.Nodes; i++ {
		name := fmt.Sprintf("n%d", i)
		dir := filepath.Join(o.Dir, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		n := &Node{Name: name, Data: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "s"), Log: filepath.Join(dir, "log"), bin: o.Bin}
		c.Nodes = append(c.Nodes, n)
		if o.FaultFS != "" {
			if n.Disk, err = NewDisk(o.FaultFS, dir, o.Disk); err != nil {
				return nil, err
			}
			n.Data = filepath.Join(n.Disk.Dir, "data")
		}
		peer, serve := fmt.Sprintf("%s.%d:7001", prefix, i), fmt.Sprintf("%s.%d:7002", prefix, i)
		n.Peer, n.Serve, n.Direct = peer, serve, serve
		if o.Network {
			n.Peer, n.Serve = fmt.Sprintf("%s.%d:7001", prefix, 100+i), fmt.Sprintf("%s.%d:7002", prefix, 100+i)
			if err := c.Net.Front(name, n.Peer, peer); err != nil {
				return nil, err
			}
			if err := c.Net.Front(name, n.Serve, serve); err != nil {
				return nil, err
			}
		}
		n.env = append([]string{
			"LAKEFSFS_DATA=" + n.Data,
			"LAKEFSFS_LISTEN=unix://" + n.Socket,
			"LAKEFSFS_CLUSTER_LISTEN=" + peer,
			"LAKEFSFS_CLUSTER_ADVERTISE=" + n.Peer,
			"LAKEFSFS_SERVE_LISTEN=" + serve,
			"LAKEFSFS_SERVE_ADVERTISE=" + n.Serve,
			"LAKEFSFS_TLS_INSECURE=true",
			"LAKEFSFS_CACHE_DISK=0",
			"LAKEFSFS_CACHE_MEMORY=16777216",
		}, o.Env...)
		n.begin = "LAKEFSFS_CLUSTER_BOOTSTRAP=true"
		if i > 1 {
			n.begin = "LAKEFSFS_CLUSTER_JOIN=" + c.Nodes[0].Serve
		}
	}
	for i, n := range c.Nodes {
		n.again = "LAKEFSFS_CLUSTER_JOIN=" + c.Nodes[(i+1)%len(c.Nodes)].Serve
	}
	return c, nil
}

// loopback finds the first three bytes of addresses that nobody else on the machine uses.
func loopback() (string, error) {
	for range 100 {
		p := fmt.Sprintf("127.%d.%d", 2+rand.IntN(250), rand.IntN(256))
		lis, err := net.Listen("tcp", p+".1:7001")
		if err == nil {
			lis.Close()
			return p, nil
		}
	}
	return "", errors.New("no loopback address is free")
}

// who tells the node at the other end of a connection to a front.
func (c *Cluster) who(client, front net.Addr) string {
	var pids []int
	names := map[int]string{}
	for _, n := range c.Nodes {
		if pid := n.Pid(); pid != 0 {
			pids = append(pids, pid)
			names[pid] = n.Name
		}
	}
	if pid, err := ownerOf(client, front, pids); err == nil && pid != -1 {
		return names[pid]
	}
	return Clients
}

// Node finds a node by its name.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Serve lists the addresses that clients are told to reach nodes at.
func (c *Cluster) Serve() (addrs []string) {
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Serve)
	}
	return addrs
}

// Close ends all processes and takes disks and network away. Files stay where they are.
func (c *Cluster) Close() {
	for _, n := range c.Nodes {
		n.Kill()
	}
	if c.Net != nil {
		c.Net.Close()
	}
	for _, n := range c.Nodes {
		if n.Disk != nil {
			n.Disk.Close()
		}
	}
}

// Wait polls until ready is true or ctx ends.
func Wait(ctx context.Context, ready func() bool) error {
	for !ready() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
