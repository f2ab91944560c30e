package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// raftLog keeps raft's log and votes in a Pebble store. Keys: "l" + index (8 bytes) → term, type, time, data; "k" + name → a
// value of the stable store.
type raftLog struct {
	db *pebble.DB
	fs *walFS
}

func logKey(i uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'l'}, i) }

func (l *raftLog) edge(last bool) (uint64, error) {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'l'}, UpperBound: []byte{'l' + 1}})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	ok := false
	if last {
		ok = it.Last()
	} else {
		ok = it.First()
	}
	if !ok {
		return 0, it.Error()
	}
	return binary.BigEndian.Uint64(it.Key()[1:]), nil
}

// FirstIndex is the first index in the log, 0 if it is empty.
func (l *raftLog) FirstIndex() (uint64, error) { return l.edge(false) }

// LastIndex is the last index in the log, 0 if it is empty.
func (l *raftLog) LastIndex() (uint64, error) { return l.edge(true) }

// GetLog reads one log entry.
func (l *raftLog) GetLog(i uint64, log *raft.Log) error {
	v, closer, err := l.db.Get(logKey(i))
	if errors.Is(err, pebble.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if len(v) < 17 {
		return fmt.Errorf("raft log entry %d is cut short", i)
	}
	*log = raft.Log{
		Index: i, Term: binary.BigEndian.Uint64(v), Type: raft.LogType(v[8]),
		AppendedAt: time.Unix(0, int64(binary.BigEndian.Uint64(v[9:]))), Data: append([]byte(nil), v[17:]...),
	}
	return nil
}

// StoreLog appends one entry.
func (l *raftLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries in one write.
func (l *raftLog) StoreLogs(logs []*raft.Log) error {
	b := l.db.NewBatch()
	defer b.Close()
	for _, log := range logs {
		op := b.SetDeferred(9, 17+len(log.Data))
		op.Key[0] = 'l'
		binary.BigEndian.PutUint64(op.Key[1:], log.Index)
		binary.BigEndian.PutUint64(op.Value, log.Term)
		op.Value[8] = byte(log.Type)
		binary.BigEndian.PutUint64(op.Value[9:], uint64(log.AppendedAt.UnixNano()))
		copy(op.Value[17:], log.Data)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

// DeleteRange removes the entries from min to max, both included.
func (l *raftLog) DeleteRange(min, max uint64) error {
	return l.db.DeleteRange(logKey(min), logKey(max+1), pebble.Sync)
}

// Set stores a value durably: a vote must not be forgotten.
func (l *raftLog) Set(k, v []byte) error {
	if err := l.db.Set(append([]byte{'k'}, k...), v, pebble.Sync); err != nil {
		return err
	}
	return l.fs.sync()
}

// Get returns a value, empty if there is none.
func (l *raftLog) Get(k []byte) ([]byte, error) {
	v, closer, err := l.db.Get(append([]byte{'k'}, k...))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), v...), nil
}

// SetUint64 stores a number durably.
func (l *raftLog) SetUint64(k []byte, v uint64) error {
	return l.Set(k, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 returns a number, 0 if there is none.
func (l *raftLog) GetUint64(k []byte) (uint64, error) {
	v, err := l.Get(k)
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}
