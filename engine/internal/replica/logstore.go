package replica

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/engine/internal/replica/wal"
)

// logStore is the log as raft's LogStore and StableStore: what it has taken is durable when it says so. Raft panics where a term can't be
// stored or an entry that is to be applied can't be read; here the node stops instead, in words, and raft's goroutine ends with all that it
// has deferred.
type logStore struct {
	*wal.Log
	r       *Replica
	started atomic.Bool
}

// IsMonotonic tells raft that the log has no gaps: it is emptied when a state arrives that is ahead of it.
func (l *logStore) IsMonotonic() bool { return true }

// StoreLog is raft.LogStore's.
func (l *logStore) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs is raft.LogStore's. Entries that come while the disk is nearly full are refused: a follower then stays behind until there is room.
func (l *logStore) StoreLogs(es []*raft.Log) error {
	if err := l.r.roomFor(l.r.cfg.MinFree / 16); err != nil {
		return err
	}
	if err := l.Log.StoreLogs(es); err != nil {
		if !errors.Is(err, unix.ENOSPC) && !isNoSpace(err) {
			l.r.fail(err)
		}
		return err
	}
	if err := l.Sync(); err != nil {
		l.r.fail(err)
		return err
	}
	return nil
}

// GetLog is raft.LogStore's.
func (l *logStore) GetLog(index uint64, out *raft.Log) error {
	err := l.Log.GetLog(index, out)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if l.started.Load() {
		l.r.fail(err)
		if inRaft("processLogs") {
			runtime.Goexit()
		}
	}
	return err
}

// DeleteRange is raft.LogStore's.
func (l *logStore) DeleteRange(lo, hi uint64) error {
	err := l.Log.DeleteRange(lo, hi)
	if err != nil && l.started.Load() {
		l.r.fail(err)
	}
	return err
}

// inRaft reports whether a method of raft is under way on this goroutine: one that would panic, and not return the error.
func inRaft(method string) bool {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "/raft.(*Raft)."+method) {
			return true
		}
		if !more {
			return false
		}
	}
}

// Set is raft.StableStore's. While the disk is full the node waits: it can't vote then.
func (l *logStore) Set(k, v []byte) error {
	for warned := false; ; {
		err := l.Log.Set(k, v)
		if err == nil {
			return nil
		}
		if !l.started.Load() {
			return err
		}
		if !isNoSpace(err) {
			l.r.fail(err)
			if inRaft("setCurrentTerm") {
				runtime.Goexit()
			}
			return err
		}
		if !warned {
			warned = true
			l.r.cfg.Logger.Error("no room for a vote or a term; this node waits for it", "err", err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-l.r.node.stopped:
			if inRaft("setCurrentTerm") {
				runtime.Goexit()
			}
			return err
		}
	}
}

// SetUint64 is raft.StableStore's.
func (l *logStore) SetUint64(k []byte, v uint64) error {
	return l.Set(k, appendUint64(nil, v))
}
