// Package nfs shows vfs trees to NFSv3 clients: NFS version 3 and MOUNT version 3 (RFC 1813) over ONC RPC on one TCP port, without a
// port mapper and without locks.
//
// The files: server.go has connections and limits, rpc.go records, call.go calls and their replies, replay.go what is sent again;
// exports.go who may see what, access.go who may do what, status.go errors; handle.go file handles, nodes.go the files that clients know,
// find.go how a handle's file is found; open.go files that are being written; mount.go the MOUNT program; attr.go attributes, and
// info.go, names.go, data.go and list.go the procedures of NFS.
package nfs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// Config of a Server.
type Config struct {
	Exports []Export
	// VFS is what trees are made with; Place, ReadOnly and ControlSizes are set by the server.
	VFS vfs.Config
	// Key makes file handles, KeySize bytes. Servers that clients may take for one another have the same.
	Key []byte
	// Data is a directory on the disk whose room FSSTAT tells.
	Data     string
	Deadline time.Duration // of one request; 0 is 2 minutes
	Logger   *slog.Logger

	// Limits; 0 is what the constants below say.
	Connections int           // at a time
	Nodes       int           // files that are kept in memory for clients
	Memory      int64         // bytes of calls and replies that carry data, of all connections
	Stall       time.Duration // how long a client may leave a reply unread
	Idle        time.Duration // after which a file that was written is closed
}

const (
	defaultConnections = 2048
	defaultNodes       = 256 << 10
	defaultMemory      = 256 << 20
	defaultStall       = 30 * time.Second
	defaultIdle        = 3 * time.Second
	defaultDeadline    = 2 * time.Minute
)

// Server is a running server.
type Server struct {
	cfg      Config
	log      *slog.Logger
	seal     *sealer
	byPath   map[string]*exports
	byID     map[uint32]*exports
	nodes    *nodes
	open     *openFiles
	lists    *lists
	replay   *replays
	changing stripes
	mounts   mountList
	budget   *budget
	verf     uint64 // of writes: another one after each start
	start    time.Time
	said     said

	ctx  context.Context // of all requests
	stop context.CancelFunc
	work sync.WaitGroup

	mu    sync.Mutex
	lis   []net.Listener
	conns map[*conn]struct{}
	done  bool
}

// New makes a server of some exports. Serve makes it answer.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Key) != KeySize {
		return nil, fmt.Errorf("nfs: the key of file handles has %d bytes, not %d: %w", len(cfg.Key), KeySize, graveler.Invalid)
	}
	setDefault(&cfg.Connections, defaultConnections)
	setDefault(&cfg.Nodes, defaultNodes)
	setDefault(&cfg.Memory, defaultMemory)
	setDefault(&cfg.Stall, defaultStall)
	setDefault(&cfg.Idle, defaultIdle)
	setDefault(&cfg.Deadline, defaultDeadline)
	s := &Server{cfg: cfg, log: cfg.Logger, seal: newSealer(cfg.Key), byPath: map[string]*exports{}, byID: map[uint32]*exports{}, start: time.Now(), conns: map[*conn]struct{}{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("nfs: %w", err)
	}
	for _, b := range random {
		s.verf = s.verf<<8 | uint64(b)
	}
	s.nodes = newNodes(cfg.Nodes)
	s.lists = newLists()
	s.replay = newReplays()
	s.budget = newBudget(cfg.Memory)
	s.open = newOpenFiles(s)
	if err := s.export(ctx); err != nil {
		return nil, err
	}
	s.work.Go(s.open.run)
	return s, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// export takes the configuration's exports in, and makes the trees of what is there.
func (s *Server) export(ctx context.Context) error {
	for _, e := range s.cfg.Exports {
		one, err := newExport(e)
		if err != nil {
			return err
		}
		x := s.byPath[e.Path]
		if x == nil {
			if x, err = newExports(e.Path); err != nil {
				return err
			}
			if s.byID[x.id] != nil {
				return fmt.Errorf("nfs: the paths %s and %s have one hash; leave one of them out: %w", e.Path, s.byID[x.id].path, graveler.Invalid)
			}
			s.byPath[e.Path], s.byID[x.id] = x, x
		}
		x.list = append(x.list, one)
	}
	for _, x := range s.byPath {
		if _, err := s.treeOf(ctx, x); graveler.KindOf(err) == graveler.NotFound {
			s.log.Warn("nfs: what is exported isn't there; clients can mount it when it is", "path", x.path, "err", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// treeOf returns the tree that an export is in, which is made when what it shows is there. Each export has one of its own, also where one
// lies within another: their roots differ.
func (s *Server) treeOf(ctx context.Context, x *exports) (*tree, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.tree != nil {
		return x.tree, nil
	}
	c := s.cfg.VFS
	c.Place, c.ControlSizes, c.ReadOnly = x.place, true, true
	for _, e := range x.list {
		c.ReadOnly = c.ReadOnly && e.ReadOnly
	}
	f, err := vfs.New(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", x.path, err)
	}
	t := &tree{fs: f, place: x.place, refs: map[uint64]version{}, finders: map[version]*finder{}}
	wctx, cancel := context.WithCancel(context.Background())
	t.stop = cancel
	f.Watch(wctx)
	x.tree = t
	return t, nil
}

// Serve answers the connections that a listener accepts, until Close. Listeners may be several.
func (s *Server) Serve(lis net.Listener) error {
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		lis.Close()
		return net.ErrClosed
	}
	s.lis = append(s.lis, lis)
	s.mu.Unlock()
	for {
		c, err := lis.Accept()
		if err != nil {
			s.mu.Lock()
			done := s.done
			s.mu.Unlock()
			if done || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of descriptors, mostly: who is connected goes on.
			if !s.said.already("accept", time.Now()) {
				s.log.Error("nfs: accept", "err", err)
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.serve(c)
	}
}

func (s *Server) serve(nc net.Conn) {
	addr, err := netip.ParseAddrPort(nc.RemoteAddr().String())
	if err != nil {
		nc.Close()
		return
	}
	c := newConn(s, nc, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
	s.mu.Lock()
	if s.done || len(s.conns) >= s.cfg.Connections {
		full := !s.done
		s.mu.Unlock()
		nc.Close()
		if full && !s.said.already("connections", time.Now()) {
			s.log.Warn("nfs: too many connections; a new one was closed", "limit", s.cfg.Connections, "client", addr)
		}
		return
	}
	s.conns[c] = struct{}{}
	s.work.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.work.Done()
		c.run()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// Close ends all connections, waits for what is being answered, and closes what is open.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		return nil
	}
	s.done = true
	for _, l := range s.lis {
		l.Close()
	}
	for c := range s.conns {
		c.nc.Close()
	}
	s.mu.Unlock()
	s.stop()
	s.work.Wait()
	if s.open != nil {
		s.open.closeAll()
	}
	for _, x := range s.byPath {
		if t := x.tree; t != nil {
			t.stop()
			t.fs.Wait()
			t.fs.Close()
		}
	}
	return nil
}

// Exports lists what is exported.
func (s *Server) Exports() []Export { return s.cfg.Exports }
