// Package replica keeps the mutable state of the engine, repositories, refs and staging, in a Pebble store that changes only by
// commands through a raft log.
//
// A replica is alone, or a node of a cluster. One that is alone is a voter without peers: its own append is a majority, so the log is written
// and applied on the goroutine that asks, see alone.go; what lies on disk is what a raft node would have written, and can become the first
// node of a cluster. A node runs raft over the same log, see node.go, and each append is durable before it counts.
//
//	DIR/raft       raft's log and votes. Every append reaches the kernel before it is acknowledged, the disk on Sync
//	DIR/state      Pebble: the state, see keys.go. It has no log of its own: raft's is its log, from the applied index on
//	DIR/snapshots  of a replica alone: raft's markers of how much of the log the state holds durably
//	DIR/mark       of a node: the same, with the configuration of the cluster
//	DIR/node       of a node: its identity
package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica/wal"
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
	// Cluster makes the replica a node of a cluster; nil is one alone.
	Cluster *ClusterConfig
}

// Replica is the replicated state.
type Replica struct {
	cfg   Config
	log   *wal.Log
	state *states
	snaps *raft.FileSnapshotStore
	fsm   *fsm
	alone alone
	node  *node // nil of one alone
	stop  chan struct{}
	done  sync.WaitGroup

	closing  sync.RWMutex // held for reading while the stores are in use
	closed   bool
	checked  atomic.Int64 // when the room on the disk was last looked at, and was enough
	failed   atomic.Pointer[error]
	lockFile io.Closer
}

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
	if cfg.Cluster != nil {
		c := *cfg.Cluster
		if err := c.check(); err != nil {
			return nil, err
		}
		cfg.Cluster = &c
	}
	lock, err := vfs.Default.Lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("%s is in use by another lakefsfs process; stop it, or choose another data directory: %w", cfg.Dir, graveler.Unavailable)
	}
	r := &Replica{cfg: cfg, stop: make(chan struct{}), lockFile: lock}
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
	if cfg.Cluster != nil {
		err = r.join()
	} else if _, was, ierr := readIdentity(cfg.Dir); ierr != nil || was {
		err = orErr(ierr, fmt.Errorf("%s is that of a node of a cluster; set the address that it listens at for the others: %w", cfg.Dir, graveler.Invalid))
	} else {
		err = r.lead()
	}
	if err != nil {
		return nil, err
	}
	r.done.Add(3)
	go r.syncLoop()
	go r.cutLoop()
	go r.tickLoop()
	return r, nil
}

func (r *Replica) openStores() (err error) {
	logger := pebbleLogger{r.cfg.Logger}
	if r.log, err = openLog(r.cfg.Dir, wal.Options{Logger: r.cfg.Logger}, logger); err != nil {
		return err
	}
	r.state, err = openStates(vfs.Default, r.cfg.Dir, func() *pebble.Options {
		// The state must never hold durably what the log does not: after a power cut the log would give its indices again.
		return stateOptions(vfs.Default, logger, func() {
			if err := r.log.Sync(); err != nil {
				r.cfg.Logger.Error("sync the raft log", "err", err)
			}
		})
	})
	return err
}

// stateOptions are those of a state store; before is called before it makes something durable.
func stateOptions(fs vfs.FS, logger pebble.Logger, before func()) *pebble.Options {
	opt := &pebble.Options{
		FS: fs, Logger: logger, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 32 << 20, CacheSize: 32 << 20, DisableWAL: true,
		MaxManifestFileSize: 4 << 20, // each snapshot on an object store has it
		EventListener:       &pebble.EventListener{FlushBegin: func(pebble.FlushInfo) { before() }},
	}
	for i := range opt.Levels {
		opt.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // most looks are for what is not there
	}
	return opt
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
			if err := r.log.Sync(); err != nil {
				r.cfg.Logger.Error("sync the raft log", "err", err)
			}
		}
	}
}

// room refuses work while the disk is nearly full. What makes room itself has most of the reserve, and what OnFull frees.
func (r *Replica) room(makes bool) error {
	if !makes {
		return r.roomFor(r.cfg.MinFree)
	}
	if err := r.roomFor(r.cfg.MinFree / 8); err == nil {
		return nil
	}
	r.cfg.OnFull()
	return r.roomFor(r.cfg.MinFree / 8)
}

// roomFor refuses work if less than need is free on the disk.
func (r *Replica) roomFor(need uint64) error {
	now := time.Now().UnixMilli()
	if now-r.checked.Load() < 50 {
		return nil
	}
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
	return fmt.Errorf("the disk of %s has %d MiB left, and %d are kept in reserve; make room: %w", r.cfg.Dir, free>>20, r.cfg.MinFree>>20, graveler.NoSpace)
}

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, graveler.NoSpace)
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

// propose runs one command through the log and returns what it did. Once it returns, the command survives kill -9, and in a cluster the loss
// of a minority.
func (r *Replica) propose(ctx context.Context, cmd *pb.Command) (Result, error) {
	res, err := r.run(ctx, cmd)
	if res.Known {
		if at, _ := ctx.Value(answerKey{}).(*Result); at != nil {
			*at = res
		}
	}
	return res, err
}

func (r *Replica) run(ctx context.Context, cmd *pb.Command) (Result, error) {
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return Result{}, errClosed
	}
	if p := r.failed.Load(); p != nil {
		if r.node != nil {
			return Result{}, r.node.gone()
		}
		return Result{}, *p
	}
	if err := r.room(makesRoom(cmd)); err != nil {
		return Result{}, err
	}
	cmd.Origin = engine.OriginOf(ctx)
	if err := request(ctx, cmd); err != nil {
		return Result{}, err
	}
	if r.node != nil {
		return r.node.propose(ctx, cmd)
	}
	data, err := proto.Marshal(cmd)
	if err != nil {
		return Result{}, fmt.Errorf("encode command: text that is not UTF-8: %w", graveler.Invalid)
	}
	res := r.alone.do(r, data)
	return res, res.Err
}

var errClosed = fmt.Errorf("the metadata store is closed: %w", graveler.Unavailable)

// View returns the present state: everything that Propose acknowledged, and nothing that changes later. Close it soon.
func (r *Replica) View() (*View, error) {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return nil, errClosed
	}
	// The state of the refs is known by a number if none of them changed while the snapshot was taken.
	gen := r.fsm.refs.Load()
	st := r.state.hold()
	s := st.NewSnapshot()
	if gen&1 != 0 || r.fsm.refs.Load() != gen {
		gen = 0
	}
	return &View{view: view{s}, of: st, snap: s, refs: gen}, nil
}

// Peek returns a view that costs no snapshot: each of its reads is of the state at that moment. What was read belongs together if
// Unchanged says so afterwards. Close it soon.
func (r *Replica) Peek() (*View, error) {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return nil, errClosed
	}
	gen := r.fsm.refs.Load()
	if gen&1 != 0 {
		gen = 0
	}
	st := r.state.hold()
	return &View{view: view{st}, of: st, refs: gen, now: &r.fsm.refs}, nil
}

// Sync makes all acknowledged commands survive a power cut.
func (r *Replica) Sync(ctx context.Context) error {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return errClosed
	}
	return r.log.Sync()
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
	if r.node != nil {
		r.node.close()
	}
	r.done.Wait()
	return r.release()
}

func (r *Replica) release() error {
	var errs []error
	if r.state != nil {
		errs = append(errs, r.state.close())
	}
	if r.log != nil {
		errs = append(errs, r.log.Close())
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
	last, _ := r.log.LastIndex()
	if n := r.node; n != nil {
		_, leader := n.raft.LeaderWithID()
		return Status{Node: string(n.id), Leader: string(leader), State: n.raft.State().String(), Applied: n.r.fsm.at.Load(), LastLog: n.raft.LastIndex(), Term: strconv.FormatUint(n.raft.CurrentTerm(), 10)}
	}
	index, term := r.alone.at()
	return Status{Node: nodeID, Leader: nodeID, State: raft.Leader.String(), Applied: index, LastLog: max(last, index), Term: strconv.FormatUint(term, 10)}
}

type pebbleLogger struct{ l *slog.Logger }

var quietPebble = pebbleLogger{slog.New(slog.DiscardHandler)}

func (p pebbleLogger) Infof(string, ...any) {}
func (p pebbleLogger) Errorf(f string, a ...any) {
	p.l.Error("pebble: " + fmt.Sprintf(f, a...))
}

// Fatalf is called where Pebble can't go on, as on a failed write of its log. Nothing that was acknowledged is lost by a stop.
func (p pebbleLogger) Fatalf(f string, a ...any) {
	p.l.Error("pebble: " + fmt.Sprintf(f, a...))
	panic("pebble: " + fmt.Sprintf(f, a...))
}
