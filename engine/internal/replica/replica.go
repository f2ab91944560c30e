// Package replica keeps the mutable state of the engine, repositories, refs and staging, in a Pebble store that changes only by
// commands through a raft log. One voter today; nothing here knows that it is alone.
//
//	DIR/log        Pebble: raft's log and votes. Every append reaches the kernel before it is acknowledged, the disk on Sync
//	DIR/state      Pebble: the state, see keys.go. It has no log of its own: raft's is its log, from the applied index on
//	DIR/snapshots  raft's markers of how much of the log the state holds durably
package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Config of a replica.
type Config struct {
	Dir       string
	SyncEvery time.Duration // the log is made durable at least this often; 0 is 200 ms
	Logger    *slog.Logger
	// OnEvent is told of each change, after it is applied, in order. It must not block.
	OnEvent func(engine.Event)
	// MinFree is the room that must be left on the disk for a proposal to be taken; 0 is 32 MiB. The stores then never meet
	// a full disk, which they would not survive.
	MinFree uint64
	// OnFull is called when there is too little room for a command that makes room: it frees a reserve, if there is one.
	OnFull func()
}

// Replica is the replicated state.
type Replica struct {
	cfg   Config
	fs    *walFS
	logs  *pebble.DB
	state *pebble.DB
	raft  *raft.Raft
	tr    *raft.InmemTransport
	fsm   *fsm
	stop  chan struct{}
	done  sync.WaitGroup

	closing  sync.RWMutex // held for reading while the stores are in use
	closed   bool
	checked  atomic.Int64 // when the room on the disk was last looked at, and was enough
	failed   atomic.Pointer[error]
	lockFile io.Closer
}

const nodeID = "1"

// Open opens, or makes, the replica under cfg.Dir. Unavailable if another process has it.
func Open(cfg Config) (_ *Replica, err error) {
	if cfg.SyncEvery == 0 {
		cfg.SyncEvery = 200 * time.Millisecond
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = 32 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnFull == nil {
		cfg.OnFull = func() {}
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(engine.Event) {}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the metadata directory: %w", err)
	}
	lock, err := vfs.Default.Lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("%s is in use by another lakefsfs process; stop it, or choose another data directory: %w", cfg.Dir, graveler.Unavailable)
	}
	r := &Replica{cfg: cfg, fs: newWALFS(vfs.Default), stop: make(chan struct{}), lockFile: lock}
	defer func() {
		if err != nil {
			r.release()
		}
	}()
	if err := r.room(true); err != nil {
		return nil, err
	}
	if err := r.openStores(); err != nil {
		return nil, err
	}
	if err := r.openRaft(); err != nil {
		return nil, err
	}
	r.done.Add(1)
	go r.syncLoop()
	return r, nil
}

func (r *Replica) openStores() (err error) {
	logger := pebbleLogger{r.cfg.Logger}
	r.logs, err = pebble.Open(filepath.Join(r.cfg.Dir, "log"), &pebble.Options{
		FS: r.fs, Logger: logger, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 16 << 20, CacheSize: 1 << 20,
	})
	if err != nil {
		return fmt.Errorf("open the raft log: %v: %w", err, graveler.Corrupt)
	}
	opt := &pebble.Options{
		FS: vfs.Default, Logger: logger, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 32 << 20, CacheSize: 32 << 20, DisableWAL: true,
		// The state must never hold durably what the log does not: after a power cut the log would give its indices again.
		EventListener: &pebble.EventListener{FlushBegin: func(pebble.FlushInfo) {
			if err := r.fs.sync(); err != nil {
				r.cfg.Logger.Error("sync the raft log", "err", err)
			}
		}},
	}
	r.state, err = pebble.Open(filepath.Join(r.cfg.Dir, "state"), opt)
	if err != nil {
		return fmt.Errorf("open the state store: %v: %w", err, graveler.Corrupt)
	}
	return nil
}

func (r *Replica) openRaft() error {
	logStore := &raftLog{db: r.logs, fs: r.fs}
	hl := hclog.New(&hclog.LoggerOptions{Name: "raft", Output: slogWriter{r.cfg.Logger}, Level: hclog.Error, DisableTime: true})
	snaps, err := raft.NewFileSnapshotStoreWithLogger(r.cfg.Dir, 1, hl)
	if err != nil {
		return fmt.Errorf("open the raft snapshots: %w", err)
	}
	c := raft.DefaultConfig()
	c.LocalID = nodeID
	c.Logger = hl
	// A lone voter waits for nobody; these are how long it takes to see that.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	c.CommitTimeout = 5 * time.Millisecond
	c.MaxAppendEntries = 512
	c.BatchApplyCh = true
	c.SnapshotInterval = 30 * time.Second
	c.SnapshotThreshold = 50_000
	c.TrailingLogs = 1000
	c.NoSnapshotRestoreOnStart = true
	r.fsm = &fsm{r: r}
	applied, term, err := view{r.state}.Applied()
	if err != nil {
		return err
	}
	r.fsm.applied = applied
	addr, tr := raft.NewInmemTransport(nodeID)
	r.tr = tr
	conf := raft.Configuration{Servers: []raft.Server{{ID: nodeID, Address: addr}}}
	had, err := raft.HasExistingState(logStore, logStore, snaps)
	if err != nil {
		return fmt.Errorf("read the raft log: %w", err)
	}
	last, err := logStore.LastIndex()
	if err != nil {
		return fmt.Errorf("read the raft log: %w", err)
	}
	if had && applied > last {
		// The state is ahead of the log. Syncs are ordered so that this can't happen; should it happen all the same (a log
		// directory lost or restored from a backup), a snapshot marker at the applied index makes raft go on from there.
		r.cfg.Logger.Warn("the state is ahead of the raft log; going on from the state", "applied", applied, "last", last)
		sink, err := snaps.Create(raft.SnapshotVersionMax, applied, term, conf, 1, tr)
		if err != nil {
			return fmt.Errorf("mark the state: %w", err)
		}
		if err := sink.Close(); err != nil {
			return fmt.Errorf("mark the state: %w", err)
		}
		if err := logStore.DeleteRange(0, last); err != nil {
			return err
		}
	}
	if !had {
		if err := raft.BootstrapCluster(c, logStore, logStore, snaps, tr, conf); err != nil {
			return fmt.Errorf("start raft: %w", err)
		}
	}
	if r.raft, err = raft.NewRaft(c, r.fsm, logStore, logStore, snaps, tr); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	// Ready when a barrier of this term has been applied: all of the log is then in the state.
	deadline := time.Now().Add(time.Minute)
	for {
		err := r.raft.Barrier(time.Second).Error()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("raft did not become ready: %v: %w", err, graveler.Unavailable)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *Replica) syncLoop() {
	defer r.done.Done()
	t := time.NewTicker(r.cfg.SyncEvery)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			if err := r.fs.sync(); err != nil {
				r.cfg.Logger.Error("sync the raft log", "err", err)
			}
		}
	}
}

// room refuses work while the disk is nearly full. What makes room itself has most of the reserve, and what OnFull frees.
func (r *Replica) room(makes bool) error {
	now := time.Now().UnixMilli()
	if now-r.checked.Load() < 50 {
		return nil
	}
	need := r.cfg.MinFree
	if makes {
		need /= 8
	}
	for try := 0; ; try++ {
		var st unix.Statfs_t
		if err := unix.Statfs(r.cfg.Dir, &st); err != nil {
			return fmt.Errorf("look for room in %s: %w", r.cfg.Dir, err)
		}
		free := st.Bavail * uint64(st.Bsize)
		if free >= r.cfg.MinFree {
			r.checked.Store(now)
		}
		if free >= need {
			return nil
		}
		if !makes || try > 0 {
			return fmt.Errorf("the disk of %s has %d MiB left, and %d are kept in reserve; make room: %w", r.cfg.Dir, free>>20, r.cfg.MinFree>>20, graveler.NoSpace)
		}
		r.cfg.OnFull()
	}
}

// makesRoom reports whether a command can free spilled bytes.
func makesRoom(cmd *pb.Command) bool {
	switch op := cmd.Op.(type) {
	case *pb.Command_Stage:
		for _, c := range op.Stage.Changes {
			if c.Remove {
				return true
			}
		}
		return false
	case *pb.Command_ResetStaging, *pb.Command_DeleteBranch, *pb.Command_DeleteRepository, *pb.Command_DropToken, *pb.Command_SetHead, *pb.Command_ForgetSettled, *pb.Command_Settle:
		return true
	}
	return false
}

// propose runs one command through the log and returns what it did. Once it returns, the command survives kill -9.
func (r *Replica) propose(ctx context.Context, cmd *pb.Command) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return Result{}, errClosed
	}
	if p := r.failed.Load(); p != nil {
		return Result{}, *p
	}
	if err := r.room(makesRoom(cmd)); err != nil {
		return Result{}, err
	}
	cmd.Origin = engine.OriginOf(ctx)
	data, err := proto.Marshal(cmd)
	if err != nil {
		return Result{}, fmt.Errorf("encode command: text that is not UTF-8: %w", graveler.Invalid)
	}
	for {
		f := r.raft.Apply(data, 0)
		switch err := f.Error(); {
		case err == nil:
			res := f.Response().(Result)
			return res, res.Err
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			// A lone voter elects itself again at once. Commands are idempotent, so one whose outcome isn't known is sent again.
			select {
			case <-ctx.Done():
				return Result{}, ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		case errors.Is(err, raft.ErrRaftShutdown):
			return Result{}, errClosed
		default:
			return Result{}, fmt.Errorf("write the raft log: %v: %w", err, graveler.Unavailable)
		}
	}
}

var errClosed = fmt.Errorf("the metadata store is closed: %w", graveler.Unavailable)

// View returns the present state: everything that Propose acknowledged, and nothing that changes later. Close it soon.
func (r *Replica) View() (*View, error) {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return nil, errClosed
	}
	s := r.state.NewSnapshot()
	return &View{view: view{s}, snap: s}, nil
}

// Sync makes all acknowledged commands survive a power cut.
func (r *Replica) Sync(ctx context.Context) error {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return errClosed
	}
	if err := r.fs.sync(); err != nil {
		return fmt.Errorf("sync the raft log: %w", err)
	}
	return nil
}

// Close syncs and closes. All views must be closed before.
func (r *Replica) Close() error {
	r.closing.Lock()
	if r.closed {
		r.closing.Unlock()
		return nil
	}
	r.closed = true
	r.closing.Unlock()
	close(r.stop)
	r.done.Wait()
	return r.release()
}

func (r *Replica) release() error {
	var errs []error
	if r.raft != nil {
		errs = append(errs, r.raft.Shutdown().Error())
	}
	if r.tr != nil {
		errs = append(errs, r.tr.Close())
	}
	if r.state != nil {
		errs = append(errs, r.state.Flush(), r.state.Close())
	}
	if r.logs != nil {
		errs = append(errs, r.fs.sync(), r.logs.Close())
	}
	if r.lockFile != nil {
		errs = append(errs, r.lockFile.Close())
	}
	return errors.Join(errs...)
}

// Status tells how the replica stands, for people.
type Status struct {
	Node, Leader string
	State        string
	Applied      uint64
	LastLog      uint64
	Term         string
}

// Status returns how the replica stands.
func (r *Replica) Status() Status {
	_, leader := r.raft.LeaderWithID()
	return Status{Node: nodeID, Leader: string(leader), State: r.raft.State().String(), Applied: r.raft.AppliedIndex(), LastLog: r.raft.LastIndex(), Term: r.raft.Stats()["term"]}
}

type pebbleLogger struct{ l *slog.Logger }

func (p pebbleLogger) Infof(string, ...any) {}
func (p pebbleLogger) Errorf(f string, a ...any) {
	p.l.Error("pebble: " + fmt.Sprintf(f, a...))
}

// Fatalf is called where Pebble can't go on, as on a failed write of its log. Nothing that was acknowledged is lost by a stop.
func (p pebbleLogger) Fatalf(f string, a ...any) {
	p.l.Error("pebble: " + fmt.Sprintf(f, a...))
	panic("pebble: " + fmt.Sprintf(f, a...))
}

type slogWriter struct{ l *slog.Logger }

func (w slogWriter) Write(p []byte) (int, error) {
	w.l.Warn(string(p))
	return len(p), nil
}
