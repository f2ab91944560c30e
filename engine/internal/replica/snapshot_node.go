package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// members is the configuration of the cluster that a state belongs to, with its index; nothing of a replica alone.
func (r *Replica) configurationOf(v view) (conf raft.Configuration, at uint64, err error) {
	if r.node == nil {
		return conf, 0, nil
	}
	if conf, at, err = v.Settings(); err != nil {
		return conf, 0, err
	}
	// A node that was alone before has its configuration in the mark only, until there is a newer one.
	r.node.marks.mu.Lock()
	defer r.node.marks.mu.Unlock()
	if m := r.node.marks.last; m != nil && m.ConfigurationIndex > at {
		conf, at = m.Configuration, m.ConfigurationIndex
	}
	return conf, at, nil
}

// setMembers notes a configuration in a manifest, with what the state knows of its nodes.
func (m *manifest) setMembers(v view, conf raft.Configuration, at uint64) error {
	m.Configured = at
	for _, s := range conf.Servers {
		rec, err := v.Node(string(s.ID))
		if err != nil {
			return err
		}
		m.Members = append(m.Members, memberInfo{ID: string(s.ID), Peer: string(s.Address), Serve: rec.GetServe(), Voter: s.Suffrage == raft.Voter})
	}
	return nil
}

func (m *manifest) configuration() (conf raft.Configuration) {
	for _, s := range m.Members {
		server := raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Peer), Suffrage: raft.Nonvoter}
		if s.Voter {
			server.Suffrage = raft.Voter
		}
		conf.Servers = append(conf.Servers, server)
	}
	return conf
}

// Seed makes the empty directory of a node that is to join a cluster one that has the cluster's newest snapshot, so that the leader needs to
// send it only what came since. NotFound if there is none that a node can begin with; then, and on any error, the directory is left empty.
func Seed(ctx context.Context, st object.Store, url, dir string) (engine.SnapshotInfo, error) {
	b := bin{st, url}
	if err := empty(dir); err != nil {
		return engine.SnapshotInfo{}, err
	}
	m, p, err := b.find(ctx, "")
	if err != nil {
		return engine.SnapshotInfo{}, fmt.Errorf("begin with a snapshot from %s: %w", url, err)
	}
	if len(m.Members) == 0 {
		return engine.SnapshotInfo{}, fmt.Errorf("snapshot %s is of a daemon that had no cluster: %w", p.id(), graveler.NotFound)
	}
	err = making(dir, func(tmp string) error {
		state := filepath.Join(tmp, stateFirst)
		if err := b.fetch(ctx, m, state); err != nil {
			return err
		}
		db, err := openFetched(m, state)
		if err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
		mark, err := json.Marshal(&raft.SnapshotMeta{
			Version: 1, ID: fmt.Sprintf("mark-%d-%d", m.Term, m.Index), Index: m.Index, Term: m.Term,
			Configuration: m.configuration(), ConfigurationIndex: m.Configured,
		})
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(tmp, markFile), append(mark, '\n')); err != nil {
			return err
		}
		return writeIdentity(tmp, identity{ID: newID()})
	})
	if err != nil {
		return engine.SnapshotInfo{}, fmt.Errorf("begin with snapshot %s from %s: %w", p.id(), url, err)
	}
	return m.info(url, p.address), nil
}

// name is the cluster's name, "" as long as this node doesn't know it. It never changes.
func (n *node) name() string {
	if p := n.cluster.Load(); p != nil {
		return *p
	}
	v, err := n.r.Peek()
	if err != nil {
		return ""
	}
	defer v.Close()
	id, _, err := v.Cluster()
	if err != nil || id == "" {
		return ""
	}
	n.cluster.Store(&id)
	return id
}

// foreign reports whether a node that says that it is of a cluster is not of this one's. One that has no state yet is of none.
func (n *node) foreign(name string) bool {
	mine := n.name()
	return name != "" && mine != "" && name != mine
}

// Joined reports whether this node is a member of the cluster, as far as it knows; a replica alone is. One that began with a snapshot knows
// members, and is none before it was added.
func (r *Replica) Joined() bool {
	if r.node == nil {
		return true
	}
	_, err := r.node.server(string(r.node.id))
	return err == nil
}

// keptEntries is how many of the newest entries stay in a log that has some of a size: at most most, and about as many bytes as given.
func keptEntries(most, entries uint64, size, bytes int64) uint64 {
	if size <= bytes || entries == 0 {
		return most
	}
	return max(min(most, uint64(bytes)/(uint64(size)/entries+1)), 1)
}

const (
	// logMost bounds what the log grows to while other nodes take in a state.
	logMost = 1 << 30
	// feedTime is how long a node may take, after it has received a state, until it asks for what came since.
	feedTime = time.Minute
)

// feeding knows which states are on their way to other nodes.
type feeding struct {
	mu   sync.Mutex
	now  int
	last time.Time // when one was sent to its end
}

// begin notes that a state is sent, until it is closed.
func (f *feeding) begin(state io.ReadCloser) io.ReadCloser {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now++
	return &fed{ReadCloser: state, f: f}
}

type fed struct {
	io.ReadCloser
	f    *feeding
	once sync.Once
}

// Close ends the sending.
func (s *fed) Close() error {
	s.once.Do(func() {
		s.f.mu.Lock()
		defer s.f.mu.Unlock()
		s.f.now--
		s.f.last = time.Now()
	})
	return s.ReadCloser.Close()
}

// feeds reports whether another node takes in a state of this one, or has just done.
func (n *node) feeds() bool {
	n.feed.mu.Lock()
	defer n.feed.mu.Unlock()
	return n.feed.now > 0 || !n.feed.last.IsZero() && time.Since(n.feed.last) < feedTime
}
