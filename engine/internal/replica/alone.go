package replica

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/graveler"
)

const nodeID = "1"

// alone is the leader's part of a voter that has no peers. Who asks writes the log and applies on his own goroutine, with what others
// ask meanwhile in one write: a hand-over to another goroutine costs more than the write.
type alone struct {
	mu    sync.Mutex
	queue []*asked
	busy  bool

	index, term uint64 // of the last entry; changed by who is busy, under mu
	size        int64  // bytes of entries since the log was cut
	logs        []raft.Log
	refs        []*raft.Log
}

// asked is a command that somebody waits for.
type asked struct {
	data []byte
	res  Result
	turn chan bool // true: lead, false: done
}

// maxBatch bounds how many commands go into one write.
const maxBatch = 512

func (a *alone) at() (index, term uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.index, a.term
}

// do runs a command.
func (a *alone) do(r *Replica, data []byte) Result {
	me := &asked{data: data}
	a.mu.Lock()
	if a.busy {
		me.turn = make(chan bool, 1)
		a.queue = append(a.queue, me)
		a.mu.Unlock()
		if lead := <-me.turn; !lead {
			return me.res
		}
		a.mu.Lock() // a.busy is ours
	} else {
		a.busy = true
		a.queue = append(a.queue, me)
	}
	n := min(len(a.queue), maxBatch)
	batch := a.queue[:n:n]
	a.queue = a.queue[n:]
	a.mu.Unlock()

	a.run(r, batch)

	a.mu.Lock()
	if len(a.queue) > 0 {
		a.queue[0].turn <- true // it is still queued, and takes the others with it
	} else {
		a.busy, a.queue = false, nil
	}
	a.mu.Unlock()
	for _, o := range batch {
		if o != me {
			o.turn <- false
		}
	}
	return me.res
}

// run writes commands to the log, in one write, and applies them. Only who is busy calls it.
func (a *alone) run(r *Replica, batch []*asked) {
	index, term := a.index, a.term
	a.logs, a.refs = a.logs[:0], a.refs[:0]
	now := time.Now()
	size := int64(0)
	for _, o := range batch {
		index++
		a.logs = append(a.logs, raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: o.data, AppendedAt: now})
		size += int64(len(o.data))
	}
	for i := range a.logs {
		a.refs = append(a.refs, &a.logs[i])
	}
	if err := r.log.StoreLogs(a.refs); err != nil {
		for _, o := range batch {
			o.res = Result{Err: err}
		}
		return
	}
	for i, res := range r.fsm.apply(a.refs) {
		batch[i].res = res
	}
	clear(a.logs) // frees the data
	a.mu.Lock()
	a.index = index
	a.size += size
	a.mu.Unlock()
}

// lead makes this voter the leader that it is without peers: what is in the log and not in the state is applied, and the next entry has
// a term of its own, as after an election.
func (r *Replica) lead() (err error) {
	hl := hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off})
	if r.snaps, err = raft.NewFileSnapshotStoreWithLogger(r.cfg.Dir, 1, hl); err != nil {
		return fmt.Errorf("open the raft snapshots: %w", err)
	}
	applied, aterm, err := view{r.state}.Applied()
	if err != nil {
		return err
	}
	had, err := raft.HasExistingState(r.log, r.log, r.snaps)
	if err != nil {
		return fmt.Errorf("read the raft log: %w", err)
	}
	if !had {
		c := raft.DefaultConfig()
		c.LocalID, c.Logger = nodeID, hl
		addr, tr := raft.NewInmemTransport(nodeID)
		defer tr.Close()
		conf := raft.Configuration{Servers: []raft.Server{{ID: nodeID, Address: addr}}}
		if err := raft.BootstrapCluster(c, r.log, r.log, r.snaps, tr, conf); err != nil {
			return fmt.Errorf("start raft: %w", err)
		}
	}
	last, err := r.log.LastIndex()
	if err != nil {
		return err
	}
	if applied > last {
		// The state is ahead of the log. Syncs are ordered so that this can't happen; should it happen all the same (a log
		// directory lost or restored from a backup), a snapshot marker at the applied index lets the log go on from there.
		r.cfg.Logger.Warn("the state is ahead of the raft log; going on from the state", "applied", applied, "last", last)
		if err := r.mark(applied, aterm); err != nil {
			return err
		}
		if err := r.log.DeleteRange(0, last); err != nil {
			return err
		}
		last = applied
	}
	r.fsm = &fsm{r: r, applied: applied}
	r.fsm.at.Store(applied)
	r.fsm.refs.Store(2)
	var batch []*raft.Log
	for i := applied + 1; i <= last; i++ {
		l := new(raft.Log)
		if err := r.log.GetLog(i, l); err != nil {
			return fmt.Errorf("replay the raft log, entry %d: %w", i, err)
		}
		if batch = append(batch, l); len(batch) == maxBatch || i == last {
			r.fsm.apply(batch)
			if p := r.failed.Load(); p != nil {
				return *p
			}
			batch = batch[:0]
		}
	}
	term, err := r.log.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return err
	}
	term = max(term, aterm) + 1
	// As raft stores them: the term that this voter is in, and that it has voted for itself.
	for _, k := range []string{"CurrentTerm", "LastVoteTerm"} {
		if err := r.log.SetUint64([]byte(k), term); err != nil {
			return err
		}
	}
	if err := r.log.Set([]byte("LastVoteCand"), []byte(nodeID)); err != nil {
		return err
	}
	r.alone.index, r.alone.term, r.alone.size = last, term, r.log.Size()
	return nil
}

// mark notes, as a snapshot whose bytes are in the state store, how far the state is durably: the log may begin after it.
func (r *Replica) mark(index, term uint64) error {
	addr, tr := raft.NewInmemTransport(nodeID)
	defer tr.Close()
	conf := raft.Configuration{Servers: []raft.Server{{ID: nodeID, Address: addr}}}
	sink, err := r.snaps.Create(raft.SnapshotVersionMax, index, term, conf, 1, tr)
	if err != nil {
		return fmt.Errorf("mark the state: %w", err)
	}
	if _, err := sink.Write([]byte("lakefsfs state\n")); err != nil {
		sink.Cancel()
		return fmt.Errorf("mark the state: %w", err)
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("mark the state: %w", err)
	}
	return nil
}

// The log is cut when it has this many entries, or bytes, more than the state has durably.
const (
	cutEntries = 50_000
	cutBytes   = 64 << 20
	cutKept    = 1000 // entries that stay, for a node that is a little behind, if they are not large
	cutCheck   = 5 * time.Second
)

// cutLoop keeps the log bounded.
func (r *Replica) cutLoop() {
	defer r.done.Done()
	t := time.NewTicker(cutCheck)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			if err := r.cut(cutEntries, cutBytes); err != nil {
				r.cfg.Logger.Error("cut the raft log", "err", err)
			}
		}
	}
}

// cut makes the state durable and drops the log that it holds, if the log has grown to this many entries or bytes.
func (r *Replica) cut(entries uint64, bytes int64) error {
	if r.node != nil {
		return r.node.cut(entries, bytes)
	}
	first, err := r.log.FirstIndex()
	if err != nil {
		return err
	}
	r.alone.mu.Lock()
	index, term, size := r.alone.index, r.alone.term, r.alone.size
	r.alone.mu.Unlock()
	if first == 0 || index-first < entries+cutKept && size < bytes {
		return nil
	}
	if p := r.failed.Load(); p != nil {
		return *p
	}
	if err := r.state.Flush(); err != nil {
		return fmt.Errorf("flush the state store: %v: %w", err, graveler.Unavailable)
	}
	// The entry at index may be of an earlier term; its own is what a marker has to say.
	var l raft.Log
	if err := r.log.GetLog(index, &l); err == nil {
		term = l.Term
	}
	if err := r.mark(index, term); err != nil {
		return err
	}
	if kept := keptEntries(cutKept, index-first+1, r.log.Size(), bytes); index > first+kept {
		if err := r.log.DeleteRange(first, index-kept); err != nil {
			return err
		}
	}
	r.alone.mu.Lock()
	r.alone.size = max(r.alone.size-size, 0)
	r.alone.mu.Unlock()
	return nil
}
