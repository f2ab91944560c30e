package replica

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/engine/internal/replica/wal"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Many who stage at the same time: each is served once, and all of it is there after a restart.
func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	makeRepo(t, r)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put(fmt.Sprintf("%d/%d", w, i), "x")}); err != nil {
					t.Error(err)
				}
				if i%20 == 0 {
					if err := r.Sync(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := r.Status(); got.Applied < 1600 || got.LastLog != got.Applied {
		t.Errorf("%+v", got)
	}
	r.Close()
	r = open(t, dir)
	defer r.Close()
	if got := staged(t, r, "t0"); len(got) != 1600 {
		t.Errorf("%d records", len(got))
	}
}

// The log stays bounded, and what was cut off is in the state.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	makeRepo(t, r)
	n := 0
	for range 3 {
		for range cutKept + 200 {
			if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put(fmt.Sprint(n), "x")}); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if err := r.cut(100, 1<<40); err != nil {
			t.Fatal(err)
		}
		first, _ := r.log.FirstIndex()
		last, _ := r.log.LastIndex()
		if last-first > cutKept {
			t.Errorf("the log has entries %d to %d", first, last)
		}
		r.Close()
		r = open(t, dir)
		if got := staged(t, r, "t0"); len(got) != n {
			t.Fatalf("%d records, want %d", len(got), n)
		}
	}
	r.Close()
}

// counter is a state machine that counts commands.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) Apply(l *raft.Log) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return nil
}
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, fmt.Errorf("not here") }
func (c *counter) Restore(r io.ReadCloser) error       { return r.Close() }

// A raft node can go on from what a lone voter wrote, and a lone voter from what that node wrote.
func TestRaftGoesOn(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	makeRepo(t, r)
	for i := range 100 {
		if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put(fmt.Sprint(i), "x")}); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	l, err := wal.Open(filepath.Join(dir, "raft"), wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	quiet := hclog.New(&hclog.LoggerOptions{Level: hclog.Off})
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 1, quiet)
	if err != nil {
		t.Fatal(err)
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = nodeID, quiet
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	_, tr := raft.NewInmemTransport(nodeID)
	sm := &counter{}
	node, err := raft.NewRaft(c, sm, l, l, snaps, tr)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); node.Barrier(time.Second).Error() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the node doesn't lead")
		}
	}
	if sm.n != 101 {
		t.Errorf("the node has %d commands", sm.n)
	}
	last := node.LastIndex()
	if err := node.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	r = open(t, dir)
	defer r.Close()
	if got := r.Status(); got.LastLog != last {
		t.Errorf("%+v, the node had %d", got, last)
	}
	if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put("after", "x")}); err != nil {
		t.Fatal(err)
	}
	if got := staged(t, r, "t0"); len(got) != 101 {
		t.Errorf("%d records", len(got))
	}
}

// A directory of the first versions, whose log is a Pebble store, is taken over; after a kill in between too.
func TestOldLog(t *testing.T) {
	for _, killed := range []string{"", "within the copy", "before the removal"} {
		dir := t.TempDir()
		r := open(t, dir)
		makeRepo(t, r)
		for i := range 50 {
			if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put(fmt.Sprint(i), "x")}); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		l, err := wal.Open(filepath.Join(dir, "raft"), wal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		db, err := pebble.Open(filepath.Join(dir, "log"), &pebble.Options{FormatMajorVersion: pebble.FormatNewest})
		if err != nil {
			t.Fatal(err)
		}
		lo, _ := l.FirstIndex()
		hi, _ := l.LastIndex()
		for i := lo; i <= hi; i++ {
			var e raft.Log
			if err := l.GetLog(i, &e); err != nil {
				t.Fatal(err)
			}
			v := append(binary.BigEndian.AppendUint64(nil, e.Term), byte(e.Type))
			v = append(binary.BigEndian.AppendUint64(v, uint64(e.AppendedAt.UnixNano())), e.Data...)
			if err := db.Set(binary.BigEndian.AppendUint64([]byte{'l'}, i), v, nil); err != nil {
				t.Fatal(err)
			}
		}
		term, _ := l.Get([]byte("CurrentTerm"))
		if err := db.Set([]byte("kCurrentTerm"), term, nil); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		l.Close()
		switch killed {
		case "within the copy":
			if err := os.Rename(filepath.Join(dir, "raft"), filepath.Join(dir, "raft.new")); err != nil {
				t.Fatal(err)
			}
		case "":
			if err := os.RemoveAll(filepath.Join(dir, "raft")); err != nil {
				t.Fatal(err)
			}
		}
		// The state forgets all, so that what is there comes from the log.
		if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
			t.Fatal(err)
		}
		r = open(t, dir)
		if got := staged(t, r, "t0"); len(got) != 50 {
			t.Errorf("killed %q: %d records", killed, len(got))
		}
		if _, err := os.Stat(filepath.Join(dir, "log")); err == nil {
			t.Error("the old log is still there")
		}
		r.Close()
	}
}
