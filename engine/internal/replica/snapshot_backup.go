package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/xid"
	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Snapshots of one cluster may be taken by two nodes at a time, of which one has lost the lead and doesn't know. What makes that safe:
//
// A file that is on the store already is named again only if the newest manifest names it, or if it is younger than `life` by the store's
// clock; else it is stored again, under a name of its own. A snapshot that takes longer than `life` is given up before its manifest is
// written. What no manifest names is deleted when it is older than `grace`, at least twice `life`; a manifest is deleted only when the one
// after it is older than that. So whatever a snapshot counts on when it begins is there until it has ended.
const (
	snapshotGrace = 6 * time.Hour
	snapshotKeep  = 5 // manifests that stay, however old they are
)

// Snapshots keeps snapshots of a replica on an object store.
type Snapshots struct {
	r           *Replica
	bin         bin
	program     string
	grace, life time.Duration
	keep        int

	mu     sync.Mutex // one at a time; guards the fields below
	hashes map[string]file
	named  map[string]map[string]bool // manifest → objects that it names
}

// Snapshots returns what keeps snapshots on a store, which has the given URL. program is the version of the program.
func (r *Replica) Snapshots(st object.Store, url, program string) *Snapshots {
	return &Snapshots{
		r: r, bin: bin{st, url}, program: program, grace: snapshotGrace, life: snapshotGrace / 2, keep: snapshotKeep,
		hashes: map[string]file{}, named: map[string]map[string]bool{},
	}
}

// Take stores the state as it is now. If the store has it already, that snapshot is returned. Invalid if another cluster uses the place. In
// a cluster it is the leader's; one that loses the lead meanwhile gives up.
func (s *Snapshots) Take(ctx context.Context) (engine.SnapshotInfo, error) {
	// It is no change that could be asked for twice.
	ctx, end, err := s.r.Begin(engine.WithRequest(ctx, engine.Request{}), true)
	if err != nil {
		return engine.SnapshotInfo{}, err
	}
	defer end()
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := s.take(ctx)
	if lost := s.r.Lost(ctx); err != nil && lost != nil {
		err = lost
	}
	if err != nil {
		return info, fmt.Errorf("take a snapshot of the state to %s: %w", s.bin.url, err)
	}
	return info, nil
}

func (s *Snapshots) take(ctx context.Context) (engine.SnapshotInfo, error) {
	if err := s.r.nameCluster(ctx); err != nil {
		return engine.SnapshotInfo{}, err
	}
	c, err := s.r.copyState()
	if err != nil {
		return engine.SnapshotInfo{}, err
	}
	defer c.remove()
	m := &c.manifest
	m.Program, m.Taken = s.program, time.Now().UTC()
	began := time.Now()
	now, err := s.claim(ctx, m)
	if err != nil {
		return engine.SnapshotInfo{}, err
	}
	places, err := s.bin.places(ctx, m.Cluster)
	if err != nil {
		return engine.SnapshotInfo{}, err
	}
	var newest *manifest
	if n := len(places); n > 0 {
		last := places[n-1]
		newest, err = s.bin.manifest(ctx, last)
		switch {
		case err == nil && newest.Index >= m.Index:
			return newest.info(s.bin.url, last.address), nil
		case err == nil, graveler.KindOf(err) == graveler.NotFound:
		case graveler.KindOf(err) == graveler.Corrupt:
			s.r.cfg.Logger.Error("a snapshot on the object store is damaged; the next one will be whole", "err", err)
		default:
			return engine.SnapshotInfo{}, err
		}
	}
	uploaded, err := s.upload(ctx, c, newest, now)
	if err != nil {
		return engine.SnapshotInfo{}, err
	}
	if took := time.Since(began); took > s.life {
		return engine.SnapshotInfo{}, fmt.Errorf("it took %s, longer than %s; what is stored already counts at the next try: %w", took.Round(time.Second), s.life, graveler.Timeout)
	}
	at := manifestAddress(m, xid.New().String())
	text, err := encodeManifest(m)
	if err != nil {
		return engine.SnapshotInfo{}, err
	}
	if err := s.bin.put(ctx, at, bytes.NewReader(text), int64(len(text))); err != nil {
		return engine.SnapshotInfo{}, err
	}
	if err := s.bin.sync(ctx); err != nil {
		return engine.SnapshotInfo{}, err
	}
	tables, err := s.bin.list(ctx, m.Cluster+tablesDir)
	if err != nil {
		return engine.SnapshotInfo{}, err
	}
	if err := s.whole(m, tables); err != nil {
		// Who was stopped for hours between the two steps above may find that. The manifest must not stay.
		return engine.SnapshotInfo{}, errors.Join(err, s.bin.remove(ctx, at))
	}
	if err := s.prune(ctx, m.Cluster, tables, now); err != nil {
		s.r.cfg.Logger.Warn("old snapshots could not be removed from the object store", "url", s.bin.url, "err", err)
	}
	info := m.info(s.bin.url, at)
	info.Uploaded = uploaded + int64(len(text))
	return info, nil
}

// claim notes that the cluster keeps its snapshots here, and returns the time by the store's clock.
func (s *Snapshots) claim(ctx context.Context, m *manifest) (time.Time, error) {
	text := "lakefsfs keeps snapshots of the metadata of the cluster " + m.Cluster + " here, see docs/operations.md\n"
	mine := clustersPrefix + m.Cluster
	if err := s.bin.put(ctx, mine, strings.NewReader(text), int64(len(text))); err != nil {
		return time.Time{}, err
	}
	// Of two clusters that come at the same time, each sees the other.
	all, err := s.bin.list(ctx, clustersPrefix)
	if err != nil {
		return time.Time{}, err
	}
	var now time.Time
	for _, o := range all {
		other := strings.TrimPrefix(o.Address, clustersPrefix)
		switch {
		case o.Address == mine:
			now = o.Modified
		case !slices.Contains(m.Former, other):
			there, err := s.bin.places(ctx, m.Cluster)
			if err == nil && len(there) == 0 {
				err = s.bin.remove(ctx, mine)
			}
			return now, errors.Join(fmt.Errorf("another cluster, %s, keeps its snapshots there; give each a place of its own: %w", other, graveler.Invalid), err)
		}
	}
	if now.IsZero() {
		return now, fmt.Errorf("%s was stored, and is not there: %w", mine, graveler.Unavailable)
	}
	return now, nil
}

// filesAtOnce bounds how many files are moved at a time.
const filesAtOnce = 4

var uploadLimit = filesAtOnce // changed by tests that must know the order

// upload stores the files that are not on the store, and fills the manifest's list.
func (s *Snapshots) upload(ctx context.Context, c *stateCopy, newest *manifest, now time.Time) (uploaded int64, err error) {
	m := &c.manifest
	all, err := s.bin.list(ctx, m.Cluster+tablesDir)
	if err != nil {
		return 0, err
	}
	inNewest := map[string]bool{}
	if newest != nil {
		for _, f := range newest.Files {
			inNewest[f.Object] = true
		}
	}
	have := map[string]string{} // hash → object
	size := map[string]int64{}
	for _, o := range all {
		name := strings.TrimPrefix(o.Address, m.Cluster+tablesDir)
		if objectName.MatchString(name) && (inNewest[name] || now.Sub(o.Modified) < s.life) {
			have[name[:64]], size[name] = name, o.Size
		}
	}
	hashes := map[string]file{}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadLimit)
	for i := range m.Files {
		f := &m.Files[i]
		g.Go(func() error {
			from := filepath.Join(c.dir, f.Name)
			// A table never changes, and its number isn't used again in its store.
			known := c.of + "/" + f.Name
			h, ok := s.hashes[known]
			if !ok || h.Size != f.Size {
				var err error
				if h, err = hashFile(gctx, from); err != nil {
					return err
				}
			}
			f.Size, f.SHA256 = h.Size, h.SHA256
			if strings.HasSuffix(f.Name, ".sst") {
				mu.Lock()
				hashes[known] = h
				mu.Unlock()
			}
			if f.Size == 0 {
				return nil
			}
			if f.Object = have[f.SHA256]; f.Object != "" && size[f.Object] == f.Size {
				return nil
			}
			f.Object = f.SHA256 + "." + xid.New().String()
			r, err := os.Open(from)
			if err != nil {
				return err
			}
			defer r.Close()
			if err := s.bin.put(gctx, m.address(*f), r, f.Size); err != nil {
				return err
			}
			mu.Lock()
			uploaded += f.Size
			mu.Unlock()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	s.hashes = hashes
	return uploaded, s.bin.sync(ctx)
}

func hashFile(ctx context.Context, name string) (file, error) {
	f, err := os.Open(name)
	if err != nil {
		return file{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, ctxReader{ctx, f})
	return file{Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// whole looks whether all that a manifest names is there.
func (s *Snapshots) whole(m *manifest, tables []object.Info) error {
	size := make(map[string]int64, len(tables))
	for _, o := range tables {
		size[o.Address] = o.Size
	}
	for _, f := range m.Files {
		if n, ok := size[m.address(f)]; f.Size > 0 && (!ok || n != f.Size) {
			return fmt.Errorf("%s was deleted meanwhile: %w", m.address(f), graveler.Unavailable)
		}
	}
	return nil
}

// prune deletes what is not needed any more of a cluster's snapshots. tables is what there was a moment ago, and now was before that.
func (s *Snapshots) prune(ctx context.Context, cluster string, tables []object.Info, now time.Time) error {
	old := func(t time.Time) bool { return now.Sub(t) > s.grace }
	places, err := s.bin.places(ctx, cluster)
	if err != nil {
		return err
	}
	stay := places[:0:0]
	var removed []place
	for i, p := range places {
		if i < len(places)-s.keep && old(places[i+1].modified) {
			removed = append(removed, p)
		} else {
			stay = append(stay, p)
		}
	}
	for _, p := range removed {
		if err := s.bin.remove(ctx, p.address); err != nil {
			return err
		}
	}
	named := map[string]map[string]bool{}
	live := map[string]bool{}
	for _, p := range stay {
		of := s.named[p.address]
		if of == nil {
			m, err := s.bin.manifest(ctx, p)
			if graveler.KindOf(err) == graveler.NotFound {
				continue // another node has deleted it
			}
			if err != nil {
				return err // what it names is not known, so nothing goes
			}
			of = map[string]bool{}
			for _, f := range m.Files {
				of[m.address(f)] = true
			}
		}
		named[p.address] = of
		for a := range of {
			live[a] = true
		}
	}
	s.named = named
	for _, o := range tables {
		if !live[o.Address] && old(o.Modified) {
			if err := s.bin.remove(ctx, o.Address); err != nil {
				return err
			}
		}
	}
	return nil
}

// stateCopy is the state at one moment, as Pebble's files, under names of their own: links, no bytes.
type stateCopy struct {
	dir      string
	of       string // the store's directory
	manifest manifest
}

func (c *stateCopy) remove() { _ = os.RemoveAll(c.dir) } // or the next start does it

// copyState makes a copy of the state, durable and consistent.
func (r *Replica) copyState() (_ *stateCopy, err error) {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return nil, errClosed
	}
	if err := r.room(false); err != nil {
		return nil, err
	}
	st := r.state.hold()
	defer st.release()
	if err := st.Flush(); err != nil {
		return nil, fmt.Errorf("flush the state store: %v: %w", err, graveler.Unavailable)
	}
	c := &stateCopy{dir: filepath.Join(r.cfg.Dir, copyBeside+"-"+xid.New().String()), of: st.dir}
	if err := st.Checkpoint(c.dir); err != nil {
		return nil, fmt.Errorf("copy the state store: %v: %w", err, graveler.Unavailable)
	}
	defer func() {
		if err != nil {
			c.remove()
		}
	}()
	all, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		fi, err := e.Info()
		if err != nil {
			return nil, err
		}
		c.manifest.Files = append(c.manifest.Files, file{Name: e.Name(), Size: fi.Size()})
	}
	opt := stateOptions(vfs.Default, pebbleLogger{r.cfg.Logger}, func() {})
	opt.ReadOnly = true
	db, err := pebble.Open(c.dir, opt)
	if err != nil {
		return nil, fmt.Errorf("open a copy of the state store: %v: %w", err, graveler.Corrupt)
	}
	defer db.Close()
	v := view{db}
	conf, at, err := r.configurationOf(v)
	if err != nil {
		return nil, err
	}
	if err := c.manifest.setMembers(v, conf, at); err != nil {
		return nil, err
	}
	return c, c.manifest.describe(v, uint64(db.FormatMajorVersion()))
}

// describe fills in what a state says of itself.
func (m *manifest) describe(v view, format uint64) (err error) {
	if m.Index, m.Term, err = v.Applied(); err != nil {
		return err
	}
	if m.Cluster, m.Former, err = v.Cluster(); err != nil {
		return err
	}
	m.Format = format
	pending, err := v.PendingContents()
	if err != nil {
		return err
	}
	m.Pending = map[string]int{}
	for _, id := range pending {
		m.Pending[string(engine.HolderOf(id))]++
	}
	return nil
}
