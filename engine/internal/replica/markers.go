package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/rs/xid"
	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// markFile says how much of the log the state of a node of a cluster holds durably, and the configuration of the cluster there.
const markFile = "mark"

// marks is raft's snapshot store. The state is in the state store, so a snapshot is a mark of how far that is; who is sent one gets the
// state as it is then.
type marks struct {
	r  *Replica
	mu sync.Mutex

	last *raft.SnapshotMeta
	come *arrived
}

// arrived is a state that the leader sent, ready to take the place of the present one.
type arrived struct {
	meta  raft.SnapshotMeta
	state *newState
}

func openMarks(r *Replica) (*marks, error) {
	m := &marks{r: r}
	name := filepath.Join(r.cfg.Dir, markFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		m.last = &raft.SnapshotMeta{}
		err = json.Unmarshal(b, m.last)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %v: %w", name, err, graveler.Corrupt)
	}
	return m, nil
}

// set notes, durably, that the state is durable up to an entry.
func (m *marks) set(meta *raft.SnapshotMeta) error {
	meta.ID = fmt.Sprintf("mark-%d-%d", meta.Term, meta.Index)
	b, err := json.Marshal(meta)
	if err == nil {
		err = writeFile(filepath.Join(m.r.cfg.Dir, markFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("mark the state: %w", err)
	}
	m.mu.Lock()
	m.last = meta
	m.mu.Unlock()
	return nil
}

// List is raft.SnapshotStore's.
func (m *marks) List() ([]*raft.SnapshotMeta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		return nil, nil
	}
	meta := *m.last
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open is raft.SnapshotStore's: it returns a state that has arrived, which Restore takes, or the present one.
func (m *marks) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	come, last := m.come, m.last
	m.mu.Unlock()
	if come != nil && come.meta.ID == id {
		meta := come.meta
		return &meta, io.NopCloser(eof{}), nil
	}
	if last == nil {
		return nil, nil, fmt.Errorf("no snapshot %s: %w", id, graveler.NotFound)
	}
	return m.r.sendable(*last)
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// sendable is the present state as a stream, with what raft has to know of it.
func (r *Replica) sendable(last raft.SnapshotMeta) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := r.room(false); err != nil {
		return nil, nil, err
	}
	st := r.state.hold()
	defer st.release()
	s := st.NewSnapshot()
	defer s.Close()
	meta := &raft.SnapshotMeta{Version: 1, Configuration: last.Configuration, ConfigurationIndex: last.ConfigurationIndex}
	conf, at, err := view{s}.Settings()
	if err != nil {
		return nil, nil, err
	}
	if at > meta.ConfigurationIndex {
		meta.Configuration, meta.ConfigurationIndex = conf, at
	}
	f, size, index, term, err := r.spoolState(s)
	if err != nil {
		return nil, nil, err
	}
	meta.ID, meta.Index, meta.Term, meta.Size = fmt.Sprintf("state-%d-%d", term, index), index, term, size
	return meta, r.node.feed.begin(f), nil
}

// Settings is the raft configuration that was applied last, with its index.
func (v view) Settings() (raft.Configuration, uint64, error) {
	var s pb.Settings
	ok, err := v.message(settingsKey, &s)
	if err != nil || !ok {
		return raft.Configuration{}, 0, err
	}
	return raft.DecodeConfiguration(s.Configuration), s.Index, nil
}

// Create is raft.SnapshotStore's.
func (m *marks) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	meta := raft.SnapshotMeta{Version: version, ID: "in-" + xid.New().String(), Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex}
	return &sink{m: m, meta: meta}, nil
}

// sink takes what is to be a snapshot: of this node, whose state is there already, or the bytes that the leader sends.
type sink struct {
	m     *marks
	meta  raft.SnapshotMeta
	ours  bool
	pipe  *io.PipeWriter
	built chan built
}

type built struct {
	state *newState
	err   error
}

func (s *sink) ID() string { return s.meta.ID }

// Write takes a part of the leader's state.
func (s *sink) Write(p []byte) (int, error) {
	if s.pipe == nil {
		if err := s.m.r.room(false); err != nil {
			return 0, err
		}
		var rd *io.PipeReader
		rd, s.pipe = io.Pipe()
		s.built = make(chan built, 1)
		go func() {
			n, err := s.m.r.receive(rd)
			rd.CloseWithError(errors.Join(err, io.ErrClosedPipe))
			s.built <- built{n, err}
		}()
		s.m.r.node.installing(1)
	}
	s.m.r.node.installing(0)
	return s.pipe.Write(p)
}

// Close ends a snapshot that is whole.
func (s *sink) Close() error {
	if s.ours {
		s.m.mu.Lock()
		behind := s.m.last != nil && s.m.last.Index >= s.meta.Index
		s.m.mu.Unlock()
		if behind {
			return nil // a state that is further has arrived meanwhile
		}
		return s.m.set(&s.meta)
	}
	if s.pipe == nil {
		return fmt.Errorf("a snapshot without bytes: %w", graveler.Invalid)
	}
	s.m.r.node.installing(-1)
	s.pipe.Close()
	b := <-s.built
	s.pipe = nil
	if b.err != nil {
		return b.err
	}
	if b.state.index != s.meta.Index || b.state.term != s.meta.Term {
		err := fmt.Errorf("the leader sent a state of entry %d, term %d, as one of %d, %d: %w", b.state.index, b.state.term, s.meta.Index, s.meta.Term, graveler.Corrupt)
		b.state.discard()
		return err
	}
	s.m.mu.Lock()
	before := s.m.come
	s.m.come = &arrived{s.meta, b.state}
	s.m.mu.Unlock()
	if before != nil {
		before.state.discard()
	}
	return nil
}

// Cancel drops a snapshot.
func (s *sink) Cancel() error {
	if s.pipe == nil {
		return nil
	}
	s.m.r.node.installing(-1)
	s.pipe.CloseWithError(errors.New("the leader's state didn't come whole"))
	if b := <-s.built; b.err == nil {
		b.state.discard()
	}
	s.pipe = nil
	return nil
}

// Snapshot is raft.FSM's.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return f, nil }

// Persist is raft.FSMSnapshot's: what is in the state store is made durable, then marked.
func (f *fsm) Persist(s raft.SnapshotSink) error {
	if err := f.r.state.Flush(); err != nil {
		return fmt.Errorf("flush the state store: %v: %w", err, graveler.Unavailable)
	}
	own, ok := s.(*sink)
	if !ok {
		return fmt.Errorf("a snapshot of another store: %w", graveler.Internal)
	}
	own.ours = true
	return own.Close()
}

// Release is raft.FSMSnapshot's.
func (f *fsm) Release() {}

// Restore is raft.FSM's: the state that has arrived takes the place of the present one.
func (f *fsm) Restore(rd io.ReadCloser) error {
	rd.Close()
	m := f.r.node.marks
	m.mu.Lock()
	come := m.come
	m.come = nil
	m.mu.Unlock()
	if come == nil {
		return fmt.Errorf("no state has arrived: %w", graveler.Internal)
	}
	if err := f.r.take(come.state); err != nil {
		return err
	}
	f.at.Store(f.applied)
	// Only now: a mark ahead of the state would have the log skipped in between.
	if err := m.set(&come.meta); err != nil {
		f.r.fail(err)
		return err
	}
	f.r.cfg.OnEvent(engine.Event{Lost: true, Index: come.meta.Index})
	return nil
}

// Apply is raft.FSM's.
func (f *fsm) Apply(l *raft.Log) any { return f.apply([]*raft.Log{l})[0] }

// ApplyBatch is raft.BatchingFSM's.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	res := f.apply(logs)
	out := make([]any, len(logs))
	for i := range res {
		out[i] = res[i]
	}
	return out
}

// useVersion notes that a command of a version was applied.
func (a *applier) useVersion(v uint32) error {
	had, err := a.Version()
	if err != nil || had >= v {
		return err
	}
	return a.set(versionKey, mustMarshal(&pb.Node{Command: v}))
}

// Version is the newest version of a command that was applied.
func (v view) Version() (uint32, error) {
	var n pb.Node
	_, err := v.message(versionKey, &n)
	return n.Command, err
}

func errTooNew(version, newest uint32) error {
	return fmt.Errorf("the cluster uses commands of version %d, and this program knows them up to %d: upgrade it; until then this node applies nothing: %w", version, newest, graveler.Unavailable)
}

func (a *applier) setNode(n *pb.Node) error {
	if n.GetId() == "" {
		return fmt.Errorf("a node without an id: %w", graveler.Invalid)
	}
	return a.set(nodeKey(n.Id), mustMarshal(n))
}

// Nodes lists the records of nodes, by id.
func (v view) Nodes() (out []*pb.Node, err error) {
	serr := v.scan([]byte{'n'}, nil, func(_, b []byte) bool {
		n := &pb.Node{}
		if err = proto.Unmarshal(b, n); err != nil {
			return false
		}
		out = append(out, n)
		return true
	})
	return out, errors.Join(err, serr)
}

// Node returns the record of a node, nil if there is none.
func (v view) Node(id string) (*pb.Node, error) {
	n := &pb.Node{}
	ok, err := v.message(nodeKey(id), n)
	if err != nil || !ok {
		return nil, err
	}
	return n, nil
}
