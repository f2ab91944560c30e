package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

const repo graveler.RepositoryID = "repo"

func create(t *testing.T, e engine.Engine) {
	t.Helper()
	if _, err := e.CreateRepository(t.Context(), engine.CreateRepository{ID: repo}); err != nil {
		t.Fatal(err)
	}
}

func commits(t *testing.T, e engine.Engine) (out []string) {
	t.Helper()
	for c, err := range e.Log(t.Context(), repo, "main", engine.LogQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c.Message)
	}
	slices.Reverse(out)
	return out[1:]
}

func commit(ctx context.Context, e engine.Engine, message string) error {
	_, err := e.Commit(ctx, engine.CommitRequest{Repo: repo, Branch: "main", Message: message, AllowEmpty: true})
	return err
}

// A client that knows one node finds the one that leads, follows it, and asks nobody else meanwhile.
func TestFollowsTheLeader(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 3, e)
	ns.leader.Store(2)
	c := dial(t, ns.addrs(0), DialOptions{Insecure: true})
	create(t, c)
	var want []string
	for lead := range 3 {
		ns.leader.Store(int32(lead))
		for i := range 20 {
			want = append(want, fmt.Sprint(lead, i))
			if err := commit(t.Context(), c, want[len(want)-1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := commits(t, e); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if n := ns.list[1].calls.Load(); n > 25 {
		t.Errorf("%d calls at a node that led for 20", n)
	}
	// Nobody leads for a while.
	ns.leader.Store(-1)
	time.AfterFunc(200*time.Millisecond, func() { ns.leader.Store(1) })
	if err := commit(t.Context(), c, "late"); err != nil {
		t.Error(err)
	}
}

// Each change is made once, whenever the connection breaks.
func TestMadeOnce(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 2, e)
	c := dial(t, ns.addrs(0, 1), DialOptions{Insecure: true})
	create(t, c)
	var n atomic.Int64
	for _, x := range ns.list {
		x.cutting(func(method string, after bool) bool {
			return method == pb.Versions_Commit_FullMethodName && n.Add(1)%3 == 0
		})
	}
	stop := make(chan struct{})
	moving := make(chan struct{})
	go func() {
		defer close(moving)
		for i := int32(0); ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(7 * time.Millisecond):
				ns.leader.Store(i % 2)
			}
		}
	}()
	var wg sync.WaitGroup
	const workers, each = 6, 25
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				if err := commit(t.Context(), c, fmt.Sprintf("%d %02d", w, i)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	close(stop)
	<-moving
	got := commits(t, e)
	if len(got) != workers*each {
		t.Errorf("%d commits of %d", len(got), workers*each)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != workers*each {
		t.Error("a commit was made twice")
	}
}

// On a socket of a daemon that runs alone a change whose answer is lost isn't repeated, and said to be in doubt.
func TestDoubtOnASocket(t *testing.T) {
	e := openLocal(t)
	x := &node{all: &nodes{t: t}}
	path := socket(t)
	x.conns = conns{Listener: listen(t, "unix", path), open: map[net.Conn]struct{}{}}
	x.Server = serveNode(t, x, e)
	c := dial(t, "unix://"+path, DialOptions{})
	create(t, c)
	if id := c.numbers.session.id; id != 0 {
		t.Errorf("session %d on a socket", id)
	}
	x.cutting(func(method string, after bool) bool { return method == pb.Versions_Commit_FullMethodName && after })
	err := commit(t.Context(), c, "one")
	if !errors.Is(err, engine.ErrInDoubt) || graveler.KindOf(err) != graveler.Unavailable {
		t.Error(err)
	}
	x.cutting(nil)
	if got := commits(t, c); !slices.Equal(got, []string{"one"}) {
		t.Errorf("%q", got)
	}
	// A connection that broke while nothing was asked costs nothing.
	for i := range 20 {
		x.conns.cutAll()
		if err := commit(t.Context(), c, fmt.Sprint(i)); err != nil && !errors.Is(err, engine.ErrInDoubt) {
			t.Error(err)
		}
	}
}

// A session that has ended is replaced, unless a change of it is in doubt.
func TestSessionEnds(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 1, e)
	x := ns.list[0]
	c := dial(t, x.addr, DialOptions{Insecure: true})
	create(t, c)
	forget := func() {
		c.numbers.mu.Lock()
		c.numbers.session.id = 1 << 50
		c.numbers.mu.Unlock()
	}
	forget()
	if err := commit(t.Context(), c, "one"); err != nil {
		t.Error(err)
	}
	forget()
	first := true
	x.cutting(func(method string, after bool) bool {
		is := method == pb.Versions_Commit_FullMethodName && after && first
		first = first && !is
		return is
	})
	if err := commit(t.Context(), c, "two"); !errors.Is(err, engine.ErrInDoubt) || !strings.Contains(err.Error(), "session") {
		t.Error(err)
	}
	if err := commit(t.Context(), c, "three"); err != nil {
		t.Error(err)
	}
	if got := commits(t, c); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("%q", got)
	}
}

// Streams go on where they broke.
func TestStreamsGoOn(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 2, e)
	c := dial(t, ns.addrs(0, 1), DialOptions{Insecure: true})
	create(t, c)
	var cs []graveler.Change
	for i := range 3000 {
		cs = append(cs, graveler.Change{Path: fmt.Sprintf("d%02d/%05d", i%50, i)})
	}
	if err := e.Stage(t.Context(), repo, "main", cs); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, err := e.CreateBranch(t.Context(), engine.CreateBranch{Repo: repo, ID: graveler.BranchID(fmt.Sprintf("b%03d", i))}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.CreateTag(t.Context(), repo, graveler.TagID(fmt.Sprintf("t%03d", i)), "main"); err != nil {
			t.Fatal(err)
		}
		if err := commit(t.Context(), e, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Stage(t.Context(), repo, "main", cs[:1500]); err != nil {
		t.Fatal(err)
	}
	var cuts atomic.Int64
	for _, x := range ns.list {
		x.sent = func(method string) bool {
			if rand.IntN(8) == 0 {
				cuts.Add(1)
				return true
			}
			return false
		}
	}
	all := func(e engine.Engine) string {
		t.Helper()
		var b strings.Builder
		for _, q := range []engine.ListQuery{{}, {Delimiter: "/"}, {Prefix: "d1", Limit: 700}} {
			for l, err := range e.List(t.Context(), repo, "main", q) {
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&b, l.Path, l.Prefix)
			}
		}
		for _, q := range []engine.LogQuery{{}, {Limit: 70}} {
			for x, err := range e.Log(t.Context(), repo, "main", q) {
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&b, x.ID)
			}
		}
		for d, err := range e.Diff(t.Context(), repo, "b000", "main", engine.DiffQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, d.Type, d.Path)
		}
		for d, err := range e.Status(t.Context(), repo, "main", engine.DiffQuery{Limit: 1000}) {
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, d.Type, d.Path)
		}
		bs, err := e.ListBranches(t.Context(), repo, engine.RefQuery{})
		if err != nil {
			t.Fatal(err)
		}
		ts, err := e.ListTags(t.Context(), repo, engine.RefQuery{Limit: 90})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, bs, ts)
		return b.String()
	}
	want, got := all(e), all(c)
	if want != got {
		t.Errorf("%d bytes of %d", len(got), len(want))
	}
	if cuts.Load() < 5 {
		t.Errorf("%d cuts", cuts.Load())
	}
}

// An object is read on when the connection breaks, and written again if its bytes can be read again.
func TestObjectsGoOn(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 2, e)
	c := dial(t, ns.addrs(0, 1), DialOptions{Insecure: true})
	create(t, c)
	st, err := c.Objects(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("0123456789abcdef", 200_000)
	var breaks atomic.Int64
	breaks.Store(1)
	for _, x := range ns.list {
		x.seen = func(_ context.Context, method string, _ any) {
			if method == pb.Objects_PutObject_FullMethodName && breaks.Add(-1) >= 0 {
				x.conns.cutAll()
			}
		}
	}
	info, err := st.Put(t.Context(), "data/a", strings.NewReader(text), putOptions(len(text)))
	if err != nil || info.Size != int64(len(text)) {
		t.Fatal(info, err)
	}
	breaks.Store(1)
	if _, err := st.Put(t.Context(), "data/b", io.MultiReader(strings.NewReader(text)), putOptions(-1)); graveler.KindOf(err) != graveler.Unavailable {
		t.Errorf("bytes that can't be read again: %v", err)
	}
	var n atomic.Int64
	for _, x := range ns.list {
		x.sent = func(string) bool { return n.Add(1)%3 == 0 }
	}
	b := make([]byte, len(text)+5)
	k, err := st.ReadAt(t.Context(), objectAt("data/a", info.Size), b, 0)
	if err != io.EOF || string(b[:k]) != text {
		t.Errorf("%d %v", k, err)
	}
}

// A watch goes on where it broke, and tells each event once.
func TestWatchGoesOn(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 2, e)
	c := dial(t, ns.addrs(0, 1), DialOptions{Insecure: true})
	create(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const changes = 400
	read := func(e engine.Engine) <-chan []string {
		out := make(chan []string, 1)
		seq := e.Watch(ctx, 0)
		go func() {
			var got []string
			for ev, err := range seq {
				if err != nil {
					t.Error(err)
					break
				}
				if ev.Lost {
					t.Error("events were lost")
				}
				got = append(got, fmt.Sprint(ev.Index, ev.Type, ev.Paths))
				if slices.Equal(ev.Paths, []string{"last"}) {
					break
				}
			}
			out <- got
		}()
		return out
	}
	direct, far := read(e), read(c)
	for i := range changes {
		if i%10 == 5 {
			ns.list[i/10%2].conns.cutAll()
		}
		if err := e.Stage(ctx, repo, "main", []graveler.Change{{Path: fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			if err := commit(ctx, e, "x"); err != nil { // of several events
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	if err := e.Stage(ctx, repo, "main", []graveler.Change{{Path: "last"}}); err != nil {
		t.Fatal(err)
	}
	want, got := <-direct, <-far
	if !slices.Equal(want, got) {
		t.Errorf("%d events of %d: %q, want %q", len(got), len(want), got, want)
	}
}

// A watcher that doesn't take its events is told that some are lost, and keeps nobody waiting.
func TestSlowWatcher(t *testing.T) {
	q := &queue{there: make(chan struct{}, 1)}
	for i := range 3 * maxQueued {
		q.put(engine.Event{Type: engine.HeadMoved, Index: uint64(i + 1)})
	}
	es, ended, err := q.take()
	if len(es) > maxQueued || !es[0].Lost || ended || err != nil || es[len(es)-1].Index != 3*maxQueued {
		t.Errorf("%d events, lost %v, ended %v %v", len(es), es[0].Lost, ended, err)
	}
	for _, e := range es[1:] {
		if e.Lost {
			t.Fatal("lost twice")
		}
	}
}

// A server whose process stands still is left for another.
func TestServerThatStandsStill(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 1, e)
	still := listen(t, "tcp", "127.0.0.1:0")
	var stopped atomic.Bool
	go func() { // passes bytes on, until it stands still
		for {
			a, err := still.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", ns.list[0].addr)
			if err != nil {
				return
			}
			pass := func(to, from net.Conn) {
				buf := make([]byte, 1<<16)
				for {
					n, err := from.Read(buf)
					if err != nil {
						to.Close()
						return
					}
					for stopped.Load() {
						time.Sleep(10 * time.Millisecond)
						if t.Context().Err() != nil {
							to.Close()
							return
						}
					}
					to.Write(buf[:n])
				}
			}
			go pass(b, a)
			go pass(a, b)
		}
	}()
	c := dial(t, still.Addr().String(), DialOptions{Insecure: true})
	create(t, c)
	stopped.Store(true)
	c.pool.mu.Lock()
	p, err := newPeer(ns.list[0].addr, &c.opt)
	if err != nil {
		t.Fatal(err)
	}
	c.pool.peers = append(c.pool.peers, p)
	c.pool.mu.Unlock()
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if err := commit(ctx, c, fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if got := commits(t, e); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("%q", got)
	}
}

// When no server answers, the error says which were tried.
func TestGivesUp(t *testing.T) {
	a, b := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	addrs := []string{a.Addr().String(), b.Addr().String()}
	a.Close()
	b.Close()
	c := dial(t, strings.Join(addrs, ","), DialOptions{Insecure: true, RetryFor: 300 * time.Millisecond})
	for name, err := range map[string]error{
		"read":   second(c.ListRepositories(t.Context())),
		"change": commit(t.Context(), c, "x"),
	} {
		if graveler.KindOf(err) != graveler.Unavailable || !strings.Contains(err.Error(), addrs[0]) || !strings.Contains(err.Error(), addrs[1]) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, engine.ErrInDoubt) {
			t.Errorf("%s was never sent: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Repository(ctx, repo); graveler.KindOf(err) != graveler.Timeout {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// Every call has a deadline where it is served.
func TestDeadlines(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 1, e)
	var mu sync.Mutex
	seen := map[string]bool{}
	ns.list[0].seen = func(ctx context.Context, method string, _ any) {
		mu.Lock()
		defer mu.Unlock()
		seen[method] = true
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > days {
			t.Errorf("%s has no deadline", method)
		}
	}
	c := dial(t, ns.list[0].addr, DialOptions{Insecure: true})
	create(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.Watch(ctx, 0)
	commits(t, c)
	for range c.List(ctx, repo, "main", engine.ListQuery{}) {
	}
	if err := c.Stage(ctx, repo, "main", []graveler.Change{{Path: "x"}}); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 6 {
		t.Errorf("%v", seen)
	}
}

// A server that has too much to do says so, and its clients wait.
func TestBusy(t *testing.T) {
	e := openLocal(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, e, ServerOptions{Calls: 2, Watches: 1, Bytes: 1 << 20})
	c := dial(t, l.Addr().String(), DialOptions{Insecure: true})
	create(t, c)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 5 {
				if err := c.Stage(t.Context(), repo, "main", []graveler.Change{{Path: fmt.Sprint(i, "/", j)}}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	n := 0
	for _, err := range c.List(t.Context(), repo, "main", engine.ListQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 200 {
		t.Errorf("%d paths", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.Watch(ctx, 0)
	cc, err := c.pool.peers[0].conn()
	if err != nil {
		t.Fatal(err)
	}
	in, err := pb.NewChangesClient(cc).Watch(ctx, &pb.WatchRequest{})
	if err == nil {
		_, err = in.Recv()
	}
	if e, ok := answered(err); !ok || !e.busy {
		t.Errorf("a second watch of one: %v", err)
	}
	// A stage of more than the server takes at a time is refused until the caller's time is up.
	var cs []graveler.Change
	for i := range 20_000 {
		cs = append(cs, graveler.Change{Path: fmt.Sprintf("%d/%s", i, strings.Repeat("x", 1000))})
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.Stage(ctx, repo, "main", cs); err == nil {
		t.Error("20 MB were taken where 1 MiB is")
	}
}

// The line of a holder is found again, at whoever leads.
func TestHolderFollows(t *testing.T) {
	e := openLocal(t)
	ns := newNodes(t, 2, e)
	c := dial(t, ns.addrs(0, 1), DialOptions{Insecure: true, RetryFor: 5 * time.Second})
	create(t, c)
	ns.leader.Store(1)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Hold(t.Context(), "holder", func(ctx context.Context, contents []graveler.ContentID) ([]engine.Settled, error) {
			return nil, fmt.Errorf("no room: %w", graveler.NoSpace)
		})
	}()
	if err := e.Stage(t.Context(), repo, "main", []graveler.Change{{Path: "f", Entry: graveler.Entry{Pending: "holder-1"}}}); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := e.Secure(t.Context(), []graveler.ContentID{"holder-1"})
		if err != nil && strings.Contains(err.Error(), "no room") {
			break
		}
		if time.Now().After(late) {
			t.Fatal(err)
		}
	}
	for _, x := range ns.list {
		x.conns.cutAll()
	}
	select {
	case err := <-ended:
		if graveler.KindOf(err) != graveler.Unavailable {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Hold doesn't notice that its line broke")
	}
}
