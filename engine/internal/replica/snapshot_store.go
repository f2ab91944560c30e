package replica

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/xid"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// The state store is DIR/state, until a state that came from elsewhere takes its place: that is built beside it, in DIR/state-ID, and is the
// state from when the file DIR/state.at names it. What is not named is a leaving of a kill, and goes at the next start.
const (
	stateFirst   = "state"
	statePointer = "state.at"
	stateBeside  = "state-"     // prefix of the directories of states that came from elsewhere
	copyBeside   = "state.copy" // prefix of what is made of a state on its way to elsewhere
)

// states is the state store that counts now, and those before it that somebody still reads.
type states struct {
	fs   vfs.FS
	dir  string
	opt  func() *pebble.Options
	now  atomic.Pointer[stateStore]
	gone sync.WaitGroup // stores that are being removed
}

// stateStore is one Pebble store. It is closed when the replica has let it go and nobody reads it any more.
type stateStore struct {
	*pebble.DB
	all     *states
	dir     string
	holders atomic.Int64 // the replica is one of them
	old     bool         // another one took its place; set before the replica lets it go
}

// openStates opens the state under dir, or makes one, and removes what kills have left.
func openStates(fs vfs.FS, dir string, opt func() *pebble.Options) (*states, error) {
	s := &states{fs: fs, dir: dir, opt: opt}
	name, err := s.pointed()
	if err != nil {
		return nil, err
	}
	if err := s.clean(name); err != nil {
		return nil, err
	}
	db, err := pebble.Open(fs.PathJoin(dir, name), opt())
	if err != nil {
		return nil, fmt.Errorf("open the state store: %v: %w", err, graveler.Corrupt)
	}
	s.set(db, name)
	return s, nil
}

func (s *states) set(db *pebble.DB, name string) {
	st := &stateStore{DB: db, all: s, dir: s.fs.PathJoin(s.dir, name)}
	st.holders.Store(1)
	s.now.Store(st)
}

// pointed is the name of the directory that counts.
func (s *states) pointed() (string, error) {
	f, err := s.fs.Open(s.fs.PathJoin(s.dir, statePointer))
	if errors.Is(err, iofs.ErrNotExist) {
		return stateFirst, nil
	}
	if err != nil {
		return "", fmt.Errorf("look for the state store: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 200))
	if err != nil {
		return "", fmt.Errorf("look for the state store: %w", err)
	}
	name, ok := strings.CutSuffix(string(b), "\n")
	if !ok || name != stateFirst && !strings.HasPrefix(name, stateBeside) || strings.ContainsAny(name, "/\\") {
		return "", fmt.Errorf("%s says %q, which is no state store: %w", s.fs.PathJoin(s.dir, statePointer), b, graveler.Corrupt)
	}
	if _, err := s.fs.Stat(s.fs.PathJoin(s.dir, name)); err != nil {
		return "", fmt.Errorf("%s names a state store that isn't there: %v: %w", s.fs.PathJoin(s.dir, statePointer), err, graveler.Corrupt)
	}
	return name, nil
}

// clean removes what is neither the state called name nor something that this package doesn't know.
func (s *states) clean(name string) error {
	all, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("look for leavings in %s: %w", s.dir, err)
	}
	for _, n := range all {
		left := n == stateFirst || strings.HasPrefix(n, stateBeside) || strings.HasPrefix(n, copyBeside) || n == statePointer+".new"
		if n == name || !left {
			continue
		}
		if err := s.fs.RemoveAll(s.fs.PathJoin(s.dir, n)); err != nil {
			return fmt.Errorf("remove the leaving %s: %w", n, err)
		}
	}
	return nil
}

// hold returns the state store of now, which stays open until it is released.
func (s *states) hold() *stateStore {
	for {
		st := s.now.Load()
		if n := st.holders.Load(); n > 0 && st.holders.CompareAndSwap(n, n+1) {
			return st
		}
	}
}

func (st *stateStore) release() {
	if st.holders.Add(-1) > 0 {
		return
	}
	// Closing waits for compactions, and who reads must not wait for that.
	st.all.gone.Add(1)
	go func() {
		defer st.all.gone.Done()
		_ = st.Close() // nothing of an old store is needed any more
		if st.old {
			_ = st.all.fs.RemoveAll(st.dir) // or the next start does it
		}
	}()
}

// Those that apply entries or wait for no swap use the present store directly.

func (s *states) Get(k []byte) ([]byte, io.Closer, error) { return s.now.Load().Get(k) }
func (s *states) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	return s.now.Load().NewIter(o)
}
func (s *states) NewIndexedBatch() *pebble.Batch { return s.now.Load().NewIndexedBatch() }

// Flush makes the state durable as it is.
func (s *states) Flush() error {
	st := s.hold()
	defer st.release()
	return st.DB.Flush()
}

// close flushes and closes. Nobody reads any more.
func (s *states) close() error {
	st := s.now.Load()
	err := errors.Join(st.DB.Flush(), st.DB.Close())
	s.gone.Wait()
	return err
}

// newState is a state that is being built, or is built, beside the one that counts.
type newState struct {
	all         *states
	db          *pebble.DB
	name        string
	index, term uint64 // of the last log entry in it
}

// beside begins a state beside the one that counts.
func (s *states) beside() (*newState, error) {
	n := &newState{all: s, name: stateBeside + xid.New().String()}
	var err error
	if n.db, err = pebble.Open(n.dir(), s.opt()); err != nil {
		return nil, fmt.Errorf("begin a state store: %w", err)
	}
	if err := syncDir(s.fs, s.dir); err != nil {
		n.discard()
		return nil, err
	}
	return n, nil
}

func (n *newState) dir() string { return n.all.fs.PathJoin(n.all.dir, n.name) }

// discard removes a state that will not count.
func (n *newState) discard() {
	_ = n.db.Close()
	_ = n.all.fs.RemoveAll(n.dir()) // or the next start does it
}

// point makes the state called name count from the next start on. If it fails with sure false, that may be so all the same.
func (s *states) point(name string) (sure bool, err error) {
	to := s.fs.PathJoin(s.dir, statePointer)
	tmp := to + ".new"
	f, err := s.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return true, err
	}
	_, err = io.WriteString(f, name+"\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return true, err
	}
	if err := s.fs.Rename(tmp, to); err != nil {
		return false, err
	}
	return false, syncDir(s.fs, s.dir)
}

// swap makes a state that was built count, durably, and lets the one before go. If it fails, the one before still counts, unless sure is
// false: then the replica must stop, since the next start may take either.
func (s *states) swap(n *newState) (sure bool, err error) {
	if sure, err := s.point(n.name); err != nil {
		return sure, fmt.Errorf("make the new state count: %w", err)
	}
	before := s.now.Load()
	before.old = true
	s.set(n.db, n.name)
	before.release()
	return true, nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("make the names in %s durable: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("make the names in %s durable: %w", dir, err)
	}
	return nil
}

// receive builds a state from a stream that writeState made. It is whole, verified and durable, and doesn't count yet: take it by
// takeState, or discard it.
func (r *Replica) receive(rd io.Reader) (*newState, error) {
	n, err := r.state.beside()
	if err != nil {
		return nil, err
	}
	if err := n.fill(rd); err != nil {
		n.discard()
		return nil, fmt.Errorf("build a state from a stream: %w", err)
	}
	return n, nil
}

// take makes a received state the replica's. Only who applies entries may call it.
func (r *Replica) take(n *newState) error {
	f := r.fsm
	f.refs.Add(1)
	defer f.refs.Add(1)
	if sure, err := r.state.swap(n); err != nil {
		if sure {
			n.discard()
		} else {
			err = fmt.Errorf("%v: %w", err, graveler.Unavailable)
			r.fail(err)
		}
		return err
	}
	f.open.clear()
	f.applied = n.index
	if r.node != nil {
		r.node.cluster.Store(nil)
	}
	return nil
}

// readState puts the state of a stream in the place of the present one. After a kill at any moment it is the one or the other, whole.
// Views of the one before stay as they are. Only who applies entries may call it.
func (r *Replica) readState(rd io.Reader) error {
	n, err := r.receive(rd)
	if err != nil {
		return err
	}
	return r.take(n)
}

// spoolState writes a state into a file without a name, for who has to tell the stream's length before its first byte. The file stands at its
// start.
func (r *Replica) spoolState(s reader) (f *os.File, size int64, index, term uint64, err error) {
	f, err = os.CreateTemp(r.cfg.Dir, copyBeside+"-*")
	if err != nil {
		return nil, 0, 0, 0, fmt.Errorf("spool the state: %w", err)
	}
	if err = os.Remove(f.Name()); err == nil {
		w := bufio.NewWriterSize(f, 256<<10)
		if index, term, err = streamState(w, s); err == nil {
			err = w.Flush()
		}
	}
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, 0, 0, fmt.Errorf("spool the state: %w", err)
	}
	return f, size, index, term, nil
}
