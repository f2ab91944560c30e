package replica

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// fsm applies committed log entries to the state store.
type fsm struct {
	r       *Replica
	applied uint64
	open    openLayers
	refs    atomic.Uint64 // counts changes of anything but staging: odd while one is being made, see Replica.View
}

// apply applies entries in one Pebble batch, which also moves the applied index: effect and index never part. One result an entry.
func (f *fsm) apply(logs []raft.Log) []Result {
	out := make([]Result, len(logs))
	b := f.r.state.NewIndexedBatch()
	defer b.Close()
	var at [16]byte
	fresh, refs := false, false
	for i := range logs {
		l := &logs[i]
		if l.Index <= f.applied {
			continue // the state had it before a restart
		}
		fresh = true
		f.applied = l.Index
		if l.Type == raft.LogCommand {
			var staging bool
			out[i], staging = apply(b, l.Data, &f.open)
			refs = refs || !staging
		}
		binary.BigEndian.PutUint64(at[:], l.Index)
		binary.BigEndian.PutUint64(at[8:], l.Term)
	}
	if !fresh {
		return out
	}
	if refs {
		f.refs.Add(1)
		defer f.refs.Add(1)
	}
	err := b.Set(appliedKey, at[:], nil)
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err != nil {
		err = fmt.Errorf("write the state store: %v: %w", err, graveler.Corrupt)
		f.r.failed.Store(&err)
		for i := range out {
			out[i] = Result{Err: err}
		}
		return out
	}
	for i := range out {
		if out[i].Err == nil && out[i].Event.Type != 0 {
			f.r.cfg.OnEvent(out[i].Event)
		}
	}
	return out
}
