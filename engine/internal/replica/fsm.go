package replica

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// fsm applies committed log entries to the state store.
type fsm struct {
	r       *Replica
	applied uint64 // of who applies alone
	at      atomic.Uint64
	open    openLayers
	refs    atomic.Uint64 // counts changes of anything but staging: odd while one is being made, see Replica.View
}

// apply applies entries in one Pebble batch, which also moves the applied index: effect and index never part. One result an entry.
// An entry that this version can't apply ends it: what came before is applied, and the replica has failed.
func (f *fsm) apply(logs []*raft.Log) []Result {
	out := make([]Result, len(logs))
	if p := f.r.failed.Load(); p != nil {
		for i := range out {
			out[i] = Result{Err: *p}
		}
		return out
	}
	b := f.r.state.NewIndexedBatch()
	defer b.Close()
	var at [16]byte
	fresh, refs := false, false
	var stop error
	for i, l := range logs {
		if l.Index <= f.applied {
			continue // the state had it before a restart
		}
		switch l.Type {
		case raft.LogCommand:
			var staging bool
			if out[i], staging, stop = apply(b, entry{l.Index, l.Term, l.Data}, &f.open, f.r.cfg.newest()); stop != nil {
				break
			}
			refs = refs || !staging
		case raft.LogConfiguration:
			stop = b.Set(settingsKey, mustMarshal(&pb.Settings{Index: l.Index, Configuration: l.Data}), nil)
		}
		if stop != nil {
			stop = fmt.Errorf("log entry %d: %w", l.Index, stop)
			logs, out = logs[:i], out[:i]
			break
		}
		fresh = true
		f.applied = l.Index
		binary.BigEndian.PutUint64(at[:], l.Index)
		binary.BigEndian.PutUint64(at[8:], l.Term)
	}
	n := cap(out)
	if fresh {
		if refs {
			f.refs.Add(1)
			defer f.refs.Add(1)
		}
		err := b.Set(appliedKey, at[:], nil)
		if err == nil {
			err = b.Commit(pebble.NoSync)
		}
		if err != nil {
			stop = fmt.Errorf("write the state store: %v: %w", err, graveler.Corrupt)
			out = out[:0]
		} else {
			f.at.Store(f.applied)
		}
	}
	for i := range out {
		if ev := &out[i].Event; out[i].Err == nil && ev.Type != 0 {
			ev.Index = logs[i].Index
			f.r.cfg.OnEvent(*ev)
		}
	}
	if stop != nil {
		f.r.fail(stop)
		for len(out) < n {
			out = append(out, Result{Err: stop})
		}
	}
	return out
}
