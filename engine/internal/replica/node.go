package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// node is the part of a replica that is one of several: raft, and what goes with it.
type node struct {
	r     *Replica
	cfg   *ClusterConfig
	id    raft.ServerID
	raft  *raft.Raft
	store *logStore
	marks *marks
	net   *network
	trans *raft.NetworkTransport
	done  sync.WaitGroup

	stop    context.Context // ends with the node
	end     context.CancelFunc
	stopped <-chan struct{} // stop's

	leads chan bool            // raft's word of each change
	lead  atomic.Pointer[lead] // of this node; nil while it has none, or isn't ready to serve
	moved sync.Mutex           // guards changed
	news  chan struct{}        // closed when lead changes

	cluster   atomic.Pointer[string] // see name; nil while it isn't known
	receiving atomic.Int64           // states that are arriving
	came      atomic.Int64           // when bytes of one did last, in nanoseconds of the steady clock

	mu    sync.Mutex
	moves map[raft.ServerID]raft.ServerAddress // what nodes said of their addresses, where the configuration says otherwise yet
	seen  map[raft.ServerID]*sighting          // of the others, kept by the leader
	kept  atomic.Int64                         // bytes of the log after it was cut
	feed  feeding
	quit  sync.Once
	over  raft.Future
}

// lead is one time of leading.
type lead struct {
	term  uint64
	ctx   context.Context
	end   context.CancelCauseFunc
	check *verifier
}

var (
	errLeadMoved = fmt.Errorf("the lead of the cluster changed meanwhile: %w", &engine.NotLeader{})
	errHanding   = fmt.Errorf("the lead of the cluster is being handed over: %w", &engine.NotLeader{})
)

const (
	// maxEntry bounds the size of a command; more goes in several.
	maxEntry = 48 << 20
	// logTrailing is how many entries stay in the log of a node for others that are behind.
	logTrailing = 10_000
)

// startNode starts raft on what is in the directory.
func (r *Replica) startNode(id string, marks *marks) (err error) {
	applied, _, err := view{r.state}.Applied()
	if err != nil {
		return err
	}
	// A mark that is ahead of the log is that of a state that arrived whole: the log before it is of no use.
	last, err := r.log.LastIndex()
	if err != nil {
		return err
	}
	if applied > last {
		if err := r.aheadOfLog(marks, applied, last); err != nil {
			return err
		}
	}
	if m := marks.last; m != nil && m.Index > applied {
		// Its entries are behind the mark, so they never come again.
		found := uint64(0)
		for i := applied + 1; i <= m.Index && i <= last; i++ {
			var l raft.Log
			if err := r.log.GetLog(i, &l); err != nil {
				return fmt.Errorf("the state has entries up to %d and is marked to have them up to %d: %v: %w", applied, m.Index, err, graveler.Corrupt)
			}
			if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
				found = i
			}
		}
		if found != 0 {
			return fmt.Errorf("the state has entries up to %d and is marked to have them up to %d; restore the directory from a backup, or let the node join anew: %w", applied, m.Index, graveler.Corrupt)
		}
	}
	r.fsm = &fsm{r: r, applied: applied}
	r.fsm.at.Store(applied)
	r.fsm.refs.Store(2)
	n := &node{
		r: r, cfg: r.cfg.Cluster, id: raft.ServerID(id), marks: marks, store: &logStore{Log: r.log, r: r},
		leads: make(chan bool, 64), news: make(chan struct{}),
		moves: map[raft.ServerID]raft.ServerAddress{}, seen: map[raft.ServerID]*sighting{},
	}
	n.stop, n.end = context.WithCancel(context.Background())
	n.stopped = n.stop.Done()
	r.node = n
	logger := raftLogger(r.cfg.Logger)
	if n.net, err = n.listen(); err != nil {
		return err
	}
	n.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.net, MaxPool: 4, Timeout: 10 * time.Second, Logger: logger, ServerAddressProvider: n, MsgpackUseNewTimeFormat: true,
	})
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NotifyCh = n.id, logger, n.leads
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = n.cfg.Heartbeat, n.cfg.Heartbeat, n.cfg.Heartbeat
	c.CommitTimeout = min(n.cfg.Heartbeat/10, 20*time.Millisecond)
	c.MaxAppendEntries, c.BatchApplyCh = maxBatch, true
	c.ShutdownOnRemove, c.NoSnapshotRestoreOnStart, c.NoLegacyTelemetry = false, true, true
	// Snapshots are marks, which cutLoop asks for.
	c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = 24*time.Hour, 1<<62, logTrailing
	if err := n.startRaft(c); err != nil {
		n.end()
		n.trans.Close()
		n.net.Close()
		return err
	}
	n.store.started.Store(true)
	n.net.serve()
	n.done.Add(2)
	go n.leadLoop()
	go n.careLoop()
	return nil
}

// startRaft is raft.NewRaft, which panics where it can't read an entry.
func (n *node) startRaft(c *raft.Config) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("start raft: %v: %w", p, graveler.Corrupt)
		}
	}()
	n.raft, err = raft.NewRaft(c, n.r.fsm, n.store, n.store, n.marks, n.trans)
	if err != nil {
		return fmt.Errorf("start raft: %v: %w", err, graveler.Corrupt)
	}
	return nil
}

// aheadOfLog goes on from a state whose entries the log doesn't have: the state came from the leader, or the log was lost.
func (r *Replica) aheadOfLog(marks *marks, applied, last uint64) error {
	v := view{r.state}
	conf, at, err := v.Settings()
	if err != nil {
		return err
	}
	if m := marks.last; m == nil || m.Index < applied {
		if m != nil && m.ConfigurationIndex > at {
			conf, at = m.Configuration, m.ConfigurationIndex
		}
		if len(conf.Servers) == 0 {
			return fmt.Errorf("the state is ahead of the raft log, and doesn't know the members of the cluster: %w", graveler.Corrupt)
		}
		_, term, err := v.Applied()
		if err != nil {
			return err
		}
		if err := r.state.Flush(); err != nil {
			return fmt.Errorf("flush the state store: %v: %w", err, graveler.Unavailable)
		}
		if err := marks.set(&raft.SnapshotMeta{Version: 1, Index: applied, Term: term, Configuration: conf, ConfigurationIndex: at}); err != nil {
			return err
		}
	}
	if last == 0 {
		return nil
	}
	r.cfg.Logger.Info("the state is ahead of the raft log; going on from the state", "applied", applied, "last", last)
	return r.log.DeleteRange(0, last)
}

// fail stops the replica, for good: what it says from then on is why.
func (r *Replica) fail(err error) {
	if !r.failed.CompareAndSwap(nil, &err) {
		return
	}
	r.cfg.Logger.Error("the metadata store stops; restart the daemon when the cause is gone", "err", err)
	if r.node != nil {
		r.node.shutdown()
	}
}

// shutdown stops raft, and doesn't wait.
func (n *node) shutdown() {
	n.quit.Do(func() {
		if n.raft != nil {
			n.over = n.raft.Shutdown()
		}
		n.end()
		n.net.Close()
	})
}

// close stops raft and waits for all that goes with it.
func (n *node) close() {
	n.shutdown()
	if n.over != nil {
		n.over.Error()
	}
	n.trans.Close()
	n.net.wait()
	n.done.Wait()
}

// leading is the present lead, nil if this node doesn't lead or isn't ready to.
func (n *node) leading() *lead {
	if l := n.lead.Load(); l != nil && l.ctx.Err() == nil {
		return l
	}
	return nil
}

func (n *node) setLead(l *lead) {
	n.moved.Lock()
	defer n.moved.Unlock()
	n.lead.Store(l)
	close(n.news)
	n.news = make(chan struct{})
}

// leadLoop follows raft's word of the lead.
func (n *node) leadLoop() {
	defer n.done.Done()
	var now *lead
	var ready chan struct{} // closed when the preparation of now has ended
	lose := func() {
		if now == nil {
			return
		}
		n.setLead(nil)
		now.end(errLeadMoved)
		<-ready
		now.check.close()
		now = nil
	}
	defer lose()
	for {
		select {
		case <-n.stopped:
			return
		case leads := <-n.leads:
			lose()
			if !leads {
				continue
			}
			now = &lead{term: n.raft.CurrentTerm()}
			now.ctx, now.end = context.WithCancelCause(n.stop)
			now.check = newVerifier(n, now)
			ready = make(chan struct{})
			go func(l *lead, ready chan struct{}) {
				defer close(ready)
				n.prepare(l)
			}(now, ready)
		}
	}
}

// prepare does what comes between winning an election and serving.
func (n *node) prepare(l *lead) {
	log := n.r.cfg.Logger.With("node", n.id, "term", l.term)
	ctx := context.WithValue(l.ctx, leadKey{}, l)
	for {
		err := n.await(l.ctx, n.raft.Barrier(0))
		if err == nil {
			// A command of this term: the state knows who leads, and that it has all that came before.
			_, err = n.propose(ctx, &pb.Command{Op: &pb.Command_SetNode{SetNode: n.self()}})
		}
		if err == nil {
			err = n.r.nameCluster(ctx)
		}
		if err == nil {
			err = n.cfg.OnLead(ctx)
		}
		if l.ctx.Err() != nil || n.raft.CurrentTerm() != l.term {
			return
		}
		if err == nil {
			break
		}
		log.Error("this node can't lead the cluster", "err", err)
		n.raft.LeadershipTransfer() // to one that can, if there is one
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(2 * n.cfg.Heartbeat):
		}
	}
	log.Info("this node leads the cluster")
	n.setLead(l)
	n.care(l)
}

// await waits for a future of raft.
func (n *node) await(ctx context.Context, f raft.Future) error {
	ch := make(chan error, 1)
	go func() { ch <- f.Error() }()
	select {
	case err := <-ch:
		return n.wrap(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.stopped:
		return n.gone()
	}
}

// gone is why a node that has stopped doesn't answer. Another node may.
func (n *node) gone() error {
	if p := n.r.failed.Load(); p != nil {
		return fmt.Errorf("this node has stopped: %v: %w", *p, graveler.Unavailable)
	}
	return errClosed
}

// wrap says what raft's errors mean.
func (n *node) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return n.notLeader()
	case errors.Is(err, raft.ErrLeadershipLost):
		return fmt.Errorf("the lead of the cluster was lost meanwhile: %w", engine.ErrInDoubt)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errHanding
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%v: %w", n.gone(), engine.ErrInDoubt)
	case isNoSpace(err):
		return fmt.Errorf("%v: %w", err, graveler.NoSpace)
	}
	return fmt.Errorf("%v: %w", err, engine.ErrInDoubt)
}

// notLeader is the error of who asks this node for what it may not answer.
func (n *node) notLeader() error {
	if n.r.failed.Load() != nil {
		return n.gone()
	}
	_, id := n.raft.LeaderWithID()
	if id == "" || id == n.id {
		return &engine.NotLeader{}
	}
	v, err := n.r.Peek()
	if err != nil {
		return err
	}
	defer v.Close()
	rec, err := v.Node(string(id))
	if err != nil {
		return err
	}
	return &engine.NotLeader{Leader: rec.GetServe()}
}

type leadKey struct{}

// leadOf is the lead under which the operation of a context began.
func leadOf(ctx context.Context) *lead {
	l, _ := ctx.Value(leadKey{}).(*lead)
	return l
}

// Begin begins an operation of the engine that only the leader may do. The context that it returns ends with the lead; what is proposed
// under it counts only while the same lead lasts. With read, the state has everything that anybody was told is done before Begin was called.
// end must be called. On a replica alone it does nothing. An operation within another is part of that.
func (r *Replica) Begin(ctx context.Context, read bool) (_ context.Context, end func(), err error) {
	n := r.node
	if n == nil || leadOf(ctx) != nil {
		return ctx, func() {}, nil
	}
	l, err := n.awaitLead(ctx)
	if err != nil {
		return ctx, nil, err
	}
	if read {
		if err := l.check.verify(ctx); err != nil {
			return ctx, nil, err
		}
	}
	octx, cancel := context.WithCancelCause(context.WithValue(ctx, leadKey{}, l))
	stop := context.AfterFunc(l.ctx, func() { cancel(errLeadMoved) })
	return octx, func() { stop(); cancel(nil) }, nil
}

// Verify reports, within an operation that began without read, whether what it has read since was the newest state.
func (r *Replica) Verify(ctx context.Context) error {
	l := leadOf(ctx)
	if r.node == nil || l == nil {
		return nil
	}
	return l.check.verify(ctx)
}

// Lost is the error of an operation that ended because the lead did, nil if it goes on.
func (r *Replica) Lost(ctx context.Context) error {
	if l := leadOf(ctx); l != nil && l.ctx.Err() != nil {
		return errLeadMoved
	}
	return nil
}

// Leads reports whether this replica takes changes now: it is alone, or the leader.
func (r *Replica) Leads() bool { return r.node == nil || r.node.leading() != nil }

// Applied is the index of the last log entry in the state.
func (r *Replica) Applied() uint64 { return r.fsm.at.Load() }

// Alone reports whether the replica is one without a cluster.
func (r *Replica) Alone() bool { return r.node == nil }

// awaitLead is the present lead. A node that has just won an election is waited for, while it prepares.
func (n *node) awaitLead(ctx context.Context) (*lead, error) {
	if l := n.leading(); l != nil {
		return l, nil
	}
	limit := time.NewTimer(10 * n.cfg.Heartbeat)
	defer limit.Stop()
	for {
		n.moved.Lock()
		news := n.news
		n.moved.Unlock()
		if l := n.leading(); l != nil {
			return l, nil
		}
		if n.stop.Err() != nil {
			return nil, n.gone()
		}
		if n.raft.State() != raft.Leader {
			return nil, n.notLeader()
		}
		// A lead that is lost before it is ready makes no news: it is looked again.
		again := time.NewTimer(n.cfg.Heartbeat / 5)
		select {
		case <-news:
		case <-again.C:
		case <-n.stopped:
		case <-limit.C:
			return nil, &engine.NotLeader{}
		case <-ctx.Done():
			again.Stop()
			return nil, context.Cause(ctx)
		}
		again.Stop()
	}
}

// propose runs a command through raft.
func (n *node) propose(ctx context.Context, cmd *pb.Command) (Result, error) {
	l := leadOf(ctx)
	if l == nil {
		if l = n.leading(); l == nil {
			return Result{}, n.notLeader()
		}
	}
	if l.ctx.Err() != nil {
		return Result{}, errLeadMoved
	}
	cmd.Term = l.term
	if cmd.Version > 0 {
		if err := n.allKnow(cmd.Version); err != nil {
			return Result{}, err
		}
	}
	data, err := proto.Marshal(cmd)
	if err != nil {
		return Result{}, fmt.Errorf("encode command: text that is not UTF-8: %w", graveler.Invalid)
	}
	if len(data) > maxEntry {
		return Result{}, fmt.Errorf("a change of %d bytes is too large for one step: %w", len(data), graveler.TooLarge)
	}
	type answer struct {
		res Result
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		f := n.raft.Apply(data, 0)
		if err := f.Error(); err != nil {
			ch <- answer{err: n.wrap(err)}
			return
		}
		res := f.Response().(Result)
		if res.Err != nil && n.r.failed.Load() != nil {
			res.Err = fmt.Errorf("%v: %w", res.Err, engine.ErrInDoubt) // it is in the log
		}
		ch <- answer{res, res.Err}
	}()
	select {
	case a := <-ch:
		return a.res, a.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("%v: %w", context.Cause(ctx), engine.ErrInDoubt)
	case <-n.stopped:
		return Result{}, fmt.Errorf("%v: %w", n.gone(), engine.ErrInDoubt)
	}
}

// allKnow refuses what some member can't apply.
func (n *node) allKnow(version uint32) error {
	v, err := n.r.Peek()
	if err != nil {
		return err
	}
	defer v.Close()
	for _, s := range n.servers() {
		rec, err := v.Node(string(s.ID))
		if err != nil {
			return err
		}
		if rec.GetCommand() < version {
			return fmt.Errorf("node %s runs lakefsfs %s, which can't apply what this needs (commands of version %d); upgrade it first: %w",
				s.ID, orWord(rec.GetVersion(), "of an unknown version"), version, graveler.Unavailable)
		}
	}
	return nil
}

func orWord(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// servers is the newest configuration.
func (n *node) servers() []raft.Server { return n.raft.GetConfiguration().Configuration().Servers }

// cut has raft mark the state, and drop the log that it holds, if the log has grown by this many entries or bytes. While another node takes
// in a state that this one has sent, what it will need next stays, within a bound.
func (n *node) cut(entries uint64, bytes int64) error {
	first, err := n.r.log.FirstIndex()
	if err != nil {
		return err
	}
	at, size := n.r.fsm.at.Load(), n.r.log.Size()
	if first == 0 || at < first+entries+logTrailing && size < bytes+n.kept.Load() || size < logMost && n.feeds() {
		return nil
	}
	if p := n.r.failed.Load(); p != nil {
		return *p
	}
	last, err := n.r.log.LastIndex()
	if err != nil {
		return err
	}
	c := n.raft.ReloadableConfig()
	c.TrailingLogs = keptEntries(logTrailing, last-first+1, size, bytes)
	if err := n.raft.ReloadConfig(c); err != nil {
		return fmt.Errorf("mark the state: %w", err)
	}
	if err := n.await(n.stop, n.raft.Snapshot()); err != nil && n.stop.Err() == nil {
		return fmt.Errorf("mark the state: %w", err)
	}
	n.kept.Store(n.r.log.Size())
	return nil
}
