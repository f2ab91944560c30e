package replica

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// fsm applies committed log entries to the state store.
type fsm struct {
	r       *Replica
	applied uint64
}

// ApplyBatch applies entries in one Pebble batch, which also moves the applied index: effect and index never part.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	b := f.r.state.NewIndexedBatch()
	defer b.Close()
	fresh := false
	for i, l := range logs {
		if l.Index <= f.applied {
			continue // the state had it before a restart
		}
		fresh = true
		f.applied = l.Index
		if l.Type == raft.LogCommand {
			out[i] = apply(b, l.Data)
		}
		b.Set(appliedKey, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, l.Index), l.Term), nil)
	}
	if !fresh {
		return out
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		err = fmt.Errorf("write the state store: %v: %w", err, graveler.Corrupt)
		f.r.failed.Store(&err)
		for i := range out {
			out[i] = Result{Err: err}
		}
		return out
	}
	for _, o := range out {
		if res, ok := o.(Result); ok && res.Err == nil && res.Event.Type != 0 {
			f.r.cfg.OnEvent(res.Event)
		}
	}
	return out
}

// Apply applies one entry.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot marks how far the state is. Its bytes stay in the state store.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return fsmSnapshot{f.r.state}, nil }

// Restore is asked for a snapshot of another node. There is none yet.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	return fmt.Errorf("restore a snapshot: %w", graveler.Internal)
}

type fsmSnapshot struct{ db *pebble.DB }

// Persist makes the state durable: raft drops the log up to the snapshot right after.
func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.db.Flush(); err != nil {
		sink.Cancel()
		return err
	}
	if _, err := sink.Write([]byte("lakefsfs state\n")); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (s fsmSnapshot) Release() {}
