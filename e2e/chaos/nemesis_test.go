package chaos

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	harness "github.com/lakefsfs/lakefsfs/internal/chaos"
)

// nemesis does to a cluster what happens to clusters. One goroutine uses it.
type nemesis struct {
	c      *harness.Cluster
	l      *ledger
	r      *rand.Rand
	leader func(ctx context.Context) string                    // name of the node that leads, "" if none is known
	hand   func(ctx context.Context) error                     // asks the leader to hand over the lead
	remove func(ctx context.Context, node *harness.Node) error // takes a node out of the cluster
	clocks bool                                                // the program's clock can be moved
	say    func(format string, args ...any)

	mu     sync.Mutex // guards the fields below
	counts map[string]int
	lost   harness.Loss
	hurt   map[string]bool // nodes whose disk failed: they may end by themselves

	wiped *harness.Node // waits for the others to be well, to be replaced
}

// fault is one kind of thing that happens. It returns what puts it right again; nil if it couldn't be done here.
type fault struct {
	name string
	do   func(ctx context.Context, n *nemesis) (heal func() error, err error)
}

// run lets things happen until ctx ends, and then puts all right.
func (n *nemesis) run(ctx context.Context) {
	for ctx.Err() == nil {
		var heals []func() error
		for again := true; again; again = n.r.IntN(4) == 0 && len(heals) < 3 {
			f := faults[n.r.IntN(len(faults))]
			heal, err := f.do(ctx, n)
			if err != nil {
				n.l.violation("the harness can't do %q: %v", f.name, err)
			}
			if heal == nil {
				continue
			}
			n.count(f.name)
			n.say("%s", f.name)
			heals = append(heals, heal)
			if n.r.IntN(2) == 0 {
				pause(ctx, n.between(0, time.Second))
			}
		}
		if len(heals) == 0 {
			continue
		}
		pause(ctx, n.between(200*time.Millisecond, 4*time.Second))
		n.mend(heals)
		pause(ctx, n.between(100*time.Millisecond, 2500*time.Millisecond))
	}
}

// mend puts right what was done, in some order, and starts what ended.
func (n *nemesis) mend(heals []func() error) {
	n.r.Shuffle(len(heals), func(i, j int) { heals[i], heals[j] = heals[j], heals[i] })
	for _, heal := range heals {
		if err := heal(); err != nil {
			n.l.violation("the harness can't mend: %v", err)
		}
	}
	replaced := n.wiped
	for _, node := range n.c.Nodes {
		if node == replaced {
			continue
		}
		for _, crash := range node.Crashes() {
			if n.isHurt(node) {
				n.count("a node that ended itself when its disk failed")
			} else {
				n.l.violation("%s\n%s", crash, tail(node.Log, 2000))
			}
		}
		if err := node.Start(); err != nil {
			n.l.violation("the harness can't start %s: %v", node.Name, err)
		}
	}
	n.mu.Lock()
	clear(n.hurt)
	n.mu.Unlock()
	if n.wiped = nil; replaced != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := n.remove(ctx, replaced); err != nil {
			n.l.violation("%s, which lost its disk, can't be removed: %v", replaced.Name, err)
		}
		if err := replaced.Start(); err != nil {
			n.l.violation("the harness can't start %s: %v", replaced.Name, err)
		}
		// More than one that hasn't caught up, and the cluster stands still until it has.
		if _, err := caughtUp(ctx, n.c); err != nil {
			n.l.violation("%s got a new disk: %v\n%s", replaced.Name, err, tail(replaced.Log, 2000))
		}
	}
}

func tail(file string, n int) string {
	b, _ := os.ReadFile(file)
	return string(b[max(0, len(b)-n):])
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (n *nemesis) between(a, b time.Duration) time.Duration {
	return a + time.Duration(n.r.Int64N(int64(b-a)))
}

func (n *nemesis) count(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[what]++
}

func (n *nemesis) hurts(node *harness.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hurt[node.Name] = true
}

func (n *nemesis) isHurt(node *harness.Node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hurt[node.Name]
}

// any is one node by chance.
func (n *nemesis) any() *harness.Node { return n.c.Nodes[n.r.IntN(len(n.c.Nodes))] }

// theLeader is the node that leads, or any if none is known to.
func (n *nemesis) theLeader(ctx context.Context) *harness.Node {
	if node := n.c.Node(n.leader(ctx)); node != nil {
		return node
	}
	return n.any()
}

// follower is a node that doesn't lead.
func (n *nemesis) follower(ctx context.Context) *harness.Node {
	l := n.leader(ctx)
	for {
		if node := n.any(); node.Name != l {
			return node
		}
	}
}

// some are so many nodes by chance.
func (n *nemesis) some(k int) []*harness.Node {
	all := slices.Clone(n.c.Nodes)
	n.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:k]
}

func (n *nemesis) majority() int { return len(n.c.Nodes)/2 + 1 }

// kill kills nodes, and does something to each while it is dead.
func (n *nemesis) kill(nodes []*harness.Node, dead func(*harness.Node) error) (func() error, error) {
	for _, node := range nodes {
		if err := node.Kill(); err != nil {
			return nil, err
		}
	}
	return func() error {
		for _, node := range nodes {
			if node.Running() || node == n.wiped {
				continue // another fault's end started it, or will
			}
			if dead != nil {
				if err := dead(node); err != nil {
					return err
				}
			}
			if err := node.Start(); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// powerless takes what a dead node hadn't synced.
func (n *nemesis) powerless(node *harness.Node) error {
	if node.Disk == nil {
		return nil
	}
	l, err := node.Disk.Cut(n.r.Uint64())
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost.Names += l.Names
	n.lost.Files += l.Files
	n.lost.Bytes += l.Bytes
	return err
}

// torn appends to the newest segment of a dead node's log what a write that was not finished leaves.
func (n *nemesis) torn(node *harness.Node) error {
	newest := ""
	err := filepath.WalkDir(node.Data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && len(e.Name()) == len("00000000000000000001.log") && strings.HasSuffix(e.Name(), ".log") && filepath.Base(path) > filepath.Base(newest) {
			newest = path
		}
		return err
	})
	if err != nil || newest == "" {
		return err
	}
	f, err := os.OpenFile(newest, os.O_APPEND|os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1+n.r.IntN(5000))
	for i := range b {
		b[i] = byte(n.r.Uint32())
	}
	if n.r.IntN(2) == 0 { // a record's head, and less than its length says
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 0x4c465357), uint32(len(b)+100))
		b = append(b, make([]byte, n.r.IntN(60))...)
	}
	_, err = f.Write(b)
	return err
}

// cut cuts the ways between two sets of names, there, back or both, and heals them: what was under way arrives late, or is lost.
func (n *nemesis) cut(a, b []string, there, back bool) func() error {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				continue
			}
			if there {
				n.c.Net.Set(x, y, harness.Shape{Cut: true})
			}
			if back {
				n.c.Net.Set(y, x, harness.Shape{Cut: true})
			}
		}
	}
	reset := n.r.IntN(2) == 0
	return func() error {
		n.c.Net.Heal(reset)
		return nil
	}
}

func names(nodes []*harness.Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out
}

func (n *nemesis) others(node *harness.Node) (out []string) {
	for _, o := range n.c.Nodes {
		if o != node {
			out = append(out, o.Name)
		}
	}
	return out
}

// shape gives all ways, or those of one node, a shape.
func (n *nemesis) shape(of string, s func() harness.Shape) func() error {
	all := append(names(n.c.Nodes), harness.Clients)
	for _, x := range all {
		for _, y := range all {
			if x != y && (of == "" || of == x || of == y) {
				n.c.Net.Set(x, y, s())
			}
		}
	}
	return func() error {
		n.c.Net.Heal(false)
		return nil
	}
}

// disk hurts a node's disk. In the end the power is taken from it too: what failed is gone, whatever the node took it for.
func (n *nemesis) disk(node *harness.Node, on, off func() error, powerless bool) (func() error, error) {
	if node.Disk == nil {
		return nil, nil
	}
	n.hurts(node)
	if err := on(); err != nil {
		return nil, err
	}
	return func() error {
		if powerless {
			if err := node.Kill(); err != nil {
				return err
			}
		}
		if err := off(); err != nil {
			return err
		}
		if powerless {
			if err := n.powerless(node); err != nil {
				return err
			}
		}
		if node == n.wiped {
			return nil
		}
		return node.Start()
	}, nil
}

// either is the leader, or a follower.
func (n *nemesis) either(ctx context.Context) *harness.Node {
	if n.r.IntN(2) == 0 {
		return n.theLeader(ctx)
	}
	return n.follower(ctx)
}

var faults = []fault{
	{"kill -9 of the leader", func(ctx context.Context, n *nemesis) (func() error, error) {
		return n.kill([]*harness.Node{n.theLeader(ctx)}, nil)
	}},
	{"kill -9 of a follower", func(ctx context.Context, n *nemesis) (func() error, error) {
		return n.kill([]*harness.Node{n.follower(ctx)}, nil)
	}},
	{"kill -9 of a majority", func(_ context.Context, n *nemesis) (func() error, error) {
		return n.kill(n.some(n.majority()), nil)
	}},
	{"kill -9 of all", func(_ context.Context, n *nemesis) (func() error, error) {
		return n.kill(n.c.Nodes, nil)
	}},
	{"torn last write", func(ctx context.Context, n *nemesis) (func() error, error) {
		return n.kill([]*harness.Node{n.either(ctx)}, n.torn)
	}},
	{"power cut of the leader", func(ctx context.Context, n *nemesis) (func() error, error) {
		return n.onDisks(func() (func() error, error) { return n.kill([]*harness.Node{n.theLeader(ctx)}, n.powerless) })
	}},
	{"power cut of a majority", func(_ context.Context, n *nemesis) (func() error, error) {
		return n.onDisks(func() (func() error, error) { return n.kill(n.some(n.majority()), n.powerless) })
	}},
	{"power cut of all", func(_ context.Context, n *nemesis) (func() error, error) {
		return n.onDisks(func() (func() error, error) { return n.kill(n.c.Nodes, n.powerless) })
	}},
	{"restart in order", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.either(ctx)
		if err := node.Stop(); err != nil {
			return nil, err
		}
		return func() error {
			if node == n.wiped {
				return nil
			}
			return node.Start()
		}, nil
	}},
	{"SIGSTOP of the leader", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.theLeader(ctx)
		return node.Resume, node.Pause()
	}},
	{"SIGSTOP of a follower", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.follower(ctx)
		return node.Resume, node.Pause()
	}},
	{"leader cut off from nodes", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.theLeader(ctx)
		return n.cut([]string{node.Name}, n.others(node), true, true), nil
	}},
	{"leader cut off from nodes and clients", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.theLeader(ctx)
		return n.cut([]string{node.Name}, append(n.others(node), harness.Clients), true, true), nil
	}},
	{"partition of two halves", func(_ context.Context, n *nemesis) (func() error, error) {
		half := names(n.some(n.majority() - 1))
		var rest []string
		for _, node := range n.c.Nodes {
			if !slices.Contains(half, node.Name) {
				rest = append(rest, node.Name)
			}
		}
		return n.cut(half, rest, true, true), nil
	}},
	{"one-way: leader is not heard", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.theLeader(ctx)
		return n.cut([]string{node.Name}, n.others(node), true, false), nil
	}},
	{"one-way: leader hears nobody", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.theLeader(ctx)
		return n.cut([]string{node.Name}, n.others(node), false, true), nil
	}},
	{"one-way: between two nodes", func(_ context.Context, n *nemesis) (func() error, error) {
		two := names(n.some(2))
		return n.cut(two[:1], two[1:], true, false), nil
	}},
	{"ring: each hears its neighbours alone", func(_ context.Context, n *nemesis) (func() error, error) {
		if len(n.c.Nodes) < 5 {
			return nil, nil
		}
		ring := names(n.some(len(n.c.Nodes)))
		heal := func() error { return nil }
		for i, x := range ring {
			for d := 2; d <= len(ring)-2; d++ {
				heal = n.cut([]string{x}, []string{ring[(i+d)%len(ring)]}, true, false)
			}
		}
		return heal, nil
	}},
	{"clients cut off from the leader", func(ctx context.Context, n *nemesis) (func() error, error) {
		return n.cut([]string{harness.Clients}, []string{n.theLeader(ctx).Name}, true, true), nil
	}},
	{"one-way: no answer of the leader to clients", func(ctx context.Context, n *nemesis) (func() error, error) {
		return n.cut([]string{n.theLeader(ctx).Name}, []string{harness.Clients}, true, false), nil
	}},
	{"slow links", func(_ context.Context, n *nemesis) (func() error, error) {
		return n.shape("", func() harness.Shape {
			return harness.Shape{Delay: n.between(1, 60*time.Millisecond), Jitter: n.between(1, 40*time.Millisecond)}
		}), nil
	}},
	{"slow leader", func(ctx context.Context, n *nemesis) (func() error, error) {
		return n.shape(n.theLeader(ctx).Name, func() harness.Shape {
			return harness.Shape{Delay: n.between(50*time.Millisecond, 400*time.Millisecond), Jitter: 50 * time.Millisecond}
		}), nil
	}},
	{"lossy links", func(_ context.Context, n *nemesis) (func() error, error) {
		return n.shape("", func() harness.Shape { return harness.Shape{LossOneIn: 5 + n.r.IntN(50)} }), nil
	}},
	{"links that break", func(_ context.Context, n *nemesis) (func() error, error) {
		return n.shape("", func() harness.Shape { return harness.Shape{ResetOneIn: 20 + n.r.IntN(400), LossOneIn: 50} }), nil
	}},
	{"full disk", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.either(ctx)
		if node.Disk == nil {
			return nil, nil
		}
		leave := int64(n.r.IntN(128 << 10))
		return n.disk(node, func() error { return node.Disk.Fill(leave) }, node.Disk.Free, false)
	}},
	{"failing fsync", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.either(ctx)
		if node.Disk == nil {
			return nil, nil
		}
		return n.disk(node, func() error { return node.Disk.FailSync(true) }, func() error { return node.Disk.FailSync(false) }, true)
	}},
	{"failing writes", func(ctx context.Context, n *nemesis) (func() error, error) {
		node := n.either(ctx)
		if node.Disk == nil {
			return nil, nil
		}
		return n.disk(node, func() error { return node.Disk.FailWrite(true) }, func() error { return node.Disk.FailWrite(false) }, true)
	}},
	{"a disk lost, its node replaced", func(ctx context.Context, n *nemesis) (func() error, error) {
		if n.wiped != nil || n.r.IntN(2) == 0 {
			return nil, nil
		}
		node := n.either(ctx)
		if err := node.Kill(); err != nil {
			return nil, err
		}
		n.wiped = node
		return func() error { return nil }, node.Wipe()
	}},
	{"lead handed over", func(ctx context.Context, n *nemesis) (func() error, error) {
		if err := n.hand(ctx); err != nil {
			return nil, nil // nobody led, or nobody could take it
		}
		return func() error { return nil }, nil
	}},
	{"clock jump", func(ctx context.Context, n *nemesis) (func() error, error) {
		if !n.clocks {
			return nil, nil
		}
		node := n.either(ctx)
		d := n.between(-time.Hour, time.Hour)
		if n.r.IntN(4) == 0 {
			d *= 24 * 400
		}
		err := node.SetClock(d)
		return func() error {
			if n.r.IntN(2) == 0 {
				return nil // it stays
			}
			return node.SetClock(0)
		}, err
	}},
}

// onDisks is for what takes a Disk under each node.
func (n *nemesis) onDisks(do func() (func() error, error)) (func() error, error) {
	if n.c.Nodes[0].Disk == nil {
		return nil, nil
	}
	return do()
}

// logs looks for what no log may have.
func (n *nemesis) logs() {
	for _, node := range n.c.Nodes {
		b, err := os.ReadFile(node.Log)
		if err != nil {
			n.l.violation("the harness: %v", err)
		}
		b = bytes.ReplaceAll(b, []byte("\npanic: pebble: "), nil) // how a store ends whose disk failed; mend judges whether it had
		for _, bad := range []string{"\npanic: ", "\nfatal error: ", "DATA RACE", "internal error"} {
			if i := bytes.Index(b, []byte(bad)); i >= 0 {
				n.l.violation("%s said:\n%s", node.Name, b[i:min(len(b), i+3000)])
			}
		}
	}
}

// report tells what was done.
func (n *nemesis) report() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	sum := 0
	for _, k := range slices.Sorted(maps.Keys(n.counts)) {
		fmt.Fprintf(&b, "%6d  %s\n", n.counts[k], k)
		sum += n.counts[k]
	}
	fmt.Fprintf(&b, "%6d  in all; power cuts took %d names, and %d bytes of %d files\n", sum, n.lost.Names, n.lost.Bytes, n.lost.Files)
	return b.String()
}
