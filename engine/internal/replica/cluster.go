package replica

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/engine/internal/replica/wal"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// CommandVersion is the newest version of commands that this program can apply. It goes up with each kind of command, or field of one, that
// older programs would get wrong. What needs none is of version 0.
const CommandVersion = 0

// ClusterConfig makes a replica a node of a cluster.
type ClusterConfig struct {
	Listen    string // HOST:PORT for the other nodes
	Advertise string // HOST:PORT that they reach it at; "" is Listen
	Serve     string // HOST:PORT that clients reach it at, told to those who ask another node
	Version   string // of the program, told to people
	// Bootstrap allows an empty directory to begin a new cluster, and that of a replica alone to become the first node of one. Without
	// it an empty one waits to be added by a member.
	Bootstrap bool
	// Heartbeat is how long a leader may be silent before others stand for election; 0 is 500 ms. A cluster has one value.
	Heartbeat time.Duration
	// RemoveDead is after how long without contact a node is removed from the cluster; 0 is never.
	RemoveDead time.Duration
	TLS        *TLSFiles // nil only with Insecure
	Insecure   bool      // speak without TLS, on loopback addresses only
	// OnLead is called when the node has become the leader and has applied all that was acknowledged before, and before it serves
	// anybody. ctx ends with the lead. If it fails the lead is handed on.
	OnLead func(ctx context.Context) error
	// Dial replaces the dialling of other nodes, for tests.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Command replaces CommandVersion, for tests.
	Command *uint32
}

const defaultHeartbeat = 500 * time.Millisecond

func (c *ClusterConfig) check() error {
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.Heartbeat < 20*time.Millisecond || c.RemoveDead < 0 {
		return fmt.Errorf("a heartbeat of %s and removal of dead nodes after %s: at least 20ms, and 0 or more: %w", c.Heartbeat, c.RemoveDead, graveler.Invalid)
	}
	if c.RemoveDead > 0 && c.RemoveDead < 10*c.Heartbeat {
		return fmt.Errorf("removal of dead nodes after %s, with a heartbeat of %s: wait for ten at least: %w", c.RemoveDead, c.Heartbeat, graveler.Invalid)
	}
	if c.OnLead == nil {
		c.OnLead = func(context.Context) error { return nil }
	}
	for _, a := range []string{c.Listen, c.Advertise} {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("cluster address %q: write HOST:PORT: %w", a, graveler.Invalid)
		}
	}
	host, _, _ := net.SplitHostPort(c.Advertise)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("cluster address %q doesn't tell other nodes where this one is; set the address to advertise: %w", c.Advertise, graveler.Invalid)
	}
	if c.TLS == nil {
		if !c.Insecure {
			return fmt.Errorf("nodes of a cluster speak TLS: set its certificate, key and CA files, or allow insecure on a loopback address: %w", graveler.Invalid)
		}
		return loopback(c.Listen)
	}
	return nil
}

// loopback fails unless an address is this machine's own.
func loopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: write HOST:PORT: %w", addr, graveler.Invalid)
	}
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s is no loopback address, and nothing is spoken there without TLS: %w", addr, graveler.Invalid)
}

// newest is the newest version of commands that this node applies.
func (c *Config) newest() uint32 {
	if c.Cluster != nil && c.Cluster.Command != nil {
		return *c.Cluster.Command
	}
	return CommandVersion
}

// nodeFile, in the directory of a node of a cluster, has its identity.
const nodeFile = "node"

type identity struct {
	ID string `json:"id"`
}

func readIdentity(dir string) (identity, bool, error) {
	var id identity
	b, err := os.ReadFile(filepath.Join(dir, nodeFile))
	if errors.Is(err, iofs.ErrNotExist) {
		return id, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err != nil || id.ID == "" {
		return id, false, fmt.Errorf("read the identity of the node in %s: %v: %w", filepath.Join(dir, nodeFile), err, graveler.Corrupt)
	}
	return id, true, nil
}

func writeIdentity(dir string, id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, nodeFile), append(b, '\n')); err != nil {
		return fmt.Errorf("keep the identity of the node: %w", err)
	}
	return nil
}

// writeFile replaces a file, durably, or leaves it as it was.
func writeFile(name string, b []byte) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return wal.SyncDir(filepath.Dir(name))
}

func newID() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// join makes the replica a node: what is in its directory goes on as that.
func (r *Replica) join() error {
	c := r.cfg.Cluster
	id, was, err := readIdentity(r.cfg.Dir)
	if err != nil {
		return err
	}
	marks, err := openMarks(r)
	if err != nil {
		return err
	}
	if !was {
		old, err := r.hasAlone()
		if err != nil {
			return err
		}
		id.ID = newID()
		self := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(id.ID), Address: raft.ServerAddress(c.Advertise)}}}
		switch {
		case old && !c.Bootstrap:
			return fmt.Errorf("%s holds the metadata of a daemon without a cluster; allow it to become the first node of one (cluster bootstrap), or begin with an empty directory to join one: %w", r.cfg.Dir, graveler.Invalid)
		case old:
			if err := r.convert(marks, self); err != nil {
				return err
			}
			r.cfg.Logger.Info("the metadata of this daemon is the first node of a cluster now", "node", id.ID)
		case c.Bootstrap:
			if err := r.bootstrap(marks, self); err != nil {
				return err
			}
			r.cfg.Logger.Info("a new cluster begins", "node", id.ID)
		}
		if err := writeIdentity(r.cfg.Dir, id); err != nil {
			return err
		}
	}
	return r.startNode(id.ID, marks)
}

// hasAlone reports whether the directory holds what a replica alone has written.
func (r *Replica) hasAlone() (bool, error) {
	term, err := r.log.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return false, err
	}
	last, err := r.log.LastIndex()
	if err != nil {
		return false, err
	}
	applied, _, err := view{r.state}.Applied()
	return term > 0 || last > 0 || applied > 0, err
}

func quiet() hclog.Logger { return hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off}) }

// bootstrap writes the first entry of a new cluster.
func (r *Replica) bootstrap(marks *marks, conf raft.Configuration) error {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = conf.Servers[0].ID, quiet()
	_, tr := raft.NewInmemTransport("")
	defer tr.Close()
	if err := raft.BootstrapCluster(c, r.log, r.log, marks, tr, conf); err != nil {
		return fmt.Errorf("begin a cluster: %w", err)
	}
	return r.log.Sync()
}

// convert makes what a replica alone has written the state of the first node of a cluster: its log is applied whole, and goes, since the
// configurations in it name another node. A kill at any moment leaves a directory that can be converted, or opened alone.
func (r *Replica) convert(marks *marks, conf raft.Configuration) error {
	if err := r.lead(); err != nil {
		return err
	}
	index, term := r.alone.index, r.alone.term
	var l raft.Log
	if err := r.log.GetLog(index, &l); err == nil {
		term = l.Term
	} else if applied, aterm, err := (view{r.state}).Applied(); err == nil && applied == index {
		term = aterm
	}
	if err := r.state.Flush(); err != nil {
		return fmt.Errorf("flush the state store: %v: %w", err, graveler.Unavailable)
	}
	if err := marks.set(&raft.SnapshotMeta{Version: 1, Index: index, Term: term, Configuration: conf, ConfigurationIndex: index}); err != nil {
		return err
	}
	first, err := r.log.FirstIndex()
	if err != nil {
		return err
	}
	return r.log.DeleteRange(first, index)
}
