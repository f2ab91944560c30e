package replica

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/xid"
	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica/wal"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// A restored state goes on at an index and in a term that the cluster which it was of has not reached: what was numbered by that cluster
// after the snapshot, sessions and events among it, is never taken for something of the new one.
const (
	restoreIndexes = 1 << 32
	restoreTerms   = 1 << 20
)

// Restored tells what was restored.
type Restored struct {
	Snapshot engine.SnapshotInfo
	ID       string // of the snapshot
	Cluster  string // name of the new cluster
	Of       string // name of the cluster whose state it is
	Program  string // version of the program that took it
	Pending  []LostContent
}

// LostContent is a content whose bytes were on one machine's disk only when the snapshot was taken, and where it is staged.
type LostContent struct {
	Content graveler.ContentID
	Holder  engine.HolderID // "" is the machine that led
	Repo    graveler.RepositoryID
	Branch  graveler.BranchID
	Path    string
}

// Stored is a snapshot on a store.
type Stored struct {
	ID          string // for Restore
	Cluster     string
	Index, Term uint64
	Modified    time.Time // when it was stored, by the store's clock
}

// ListSnapshots lists the snapshots on a store: those of one cluster together, oldest first.
func ListSnapshots(ctx context.Context, st object.Store) ([]Stored, error) {
	b := bin{Store: st}
	clusters, err := b.clusters(ctx)
	if err != nil {
		return nil, err
	}
	var out []Stored
	for _, c := range clusters {
		ps, err := b.places(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, p := range ps {
			out = append(out, Stored{ID: p.id(), Cluster: c, Index: p.index, Term: p.term, Modified: p.modified})
		}
	}
	return out, nil
}

// clusters are the names of those who keep snapshots here.
func (b bin) clusters(ctx context.Context) (out []string, err error) {
	all, err := b.list(ctx, clustersPrefix)
	for _, o := range all {
		if c := strings.TrimPrefix(o.Address, clustersPrefix); clusterName.MatchString(c) {
			out = append(out, c)
		}
	}
	return out, err
}

// find returns a snapshot: the one that is named, or the newest of the only cluster, or of the one that began with the state of all others.
func (b bin) find(ctx context.Context, id string) (*manifest, place, error) {
	clusters, err := b.clusters(ctx)
	if err != nil {
		return nil, place{}, err
	}
	if id != "" {
		for _, c := range clusters {
			ps, err := b.places(ctx, c)
			if err != nil {
				return nil, place{}, err
			}
			if i := slices.IndexFunc(ps, func(p place) bool { return p.id() == id }); i >= 0 {
				m, err := b.manifest(ctx, ps[i])
				return m, ps[i], err
			}
		}
		return nil, place{}, fmt.Errorf("there is no snapshot %q: %w", id, graveler.NotFound)
	}
	type found struct {
		m *manifest
		p place
	}
	var heads []found
	for _, c := range clusters {
		ps, err := b.places(ctx, c)
		if err != nil {
			return nil, place{}, err
		}
		if len(ps) == 0 {
			continue
		}
		p := ps[len(ps)-1]
		m, err := b.manifest(ctx, p)
		if err != nil {
			return nil, place{}, b.hint(ctx, p, err)
		}
		heads = append(heads, found{m, p})
	}
	last := slices.DeleteFunc(slices.Clone(heads), func(h found) bool {
		return slices.ContainsFunc(heads, func(o found) bool { return slices.Contains(o.m.Former, h.m.Cluster) })
	})
	switch len(last) {
	case 0:
		return nil, place{}, fmt.Errorf("there is no snapshot: %w", graveler.NotFound)
	case 1:
		return last[0].m, last[0].p, nil
	}
	var names []string
	for _, h := range last {
		names = append(names, h.p.id())
	}
	return nil, place{}, fmt.Errorf("there are snapshots of several clusters; give the name of one, such as the newest of each: %s: %w", strings.Join(names, ", "), graveler.Invalid)
}

// hint adds, to the error of a snapshot that is damaged, which one is before it.
func (b bin) hint(ctx context.Context, p place, err error) error {
	if k := graveler.KindOf(err); k != graveler.Corrupt && k != graveler.NotFound {
		return err
	}
	ps, lerr := b.places(ctx, p.cluster)
	if i := slices.IndexFunc(ps, func(o place) bool { return o.address == p.address }); lerr == nil && i > 0 {
		return fmt.Errorf("%w; the one before it is %s: give its name to go back to it", err, ps[i-1].id())
	}
	return err
}

// fetch makes a snapshot's files in a directory, verified and durable.
func (b bin) fetch(ctx context.Context, m *manifest, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(filesAtOnce)
	for _, f := range m.Files {
		g.Go(func() error {
			err := b.fetchFile(gctx, m, f, filepath.Join(dir, f.Name))
			if graveler.KindOf(err) == graveler.Corrupt {
				err = b.fetchFile(gctx, m, f, filepath.Join(dir, f.Name)) // the damage may have come on the way
			}
			if err != nil {
				return fmt.Errorf("file %s: %w", f.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return wal.SyncDir(dir)
}

func (b bin) fetchFile(ctx context.Context, m *manifest, f file, to string) error {
	w, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	err = b.copy(ctx, io.MultiWriter(w, h), m.address(f), f.Size)
	if err == nil && hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		err = fmt.Errorf("%s has other bytes than were stored: %w", m.address(f), graveler.Corrupt)
	}
	if err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

// openFetched opens a state that was fetched, and looks whether it is the manifest's.
func openFetched(m *manifest, dir string) (*pebble.DB, error) {
	if newest := uint64(pebble.FormatNewest); m.Format > newest {
		return nil, fmt.Errorf("lakefsfs %s took it, in a format that this version doesn't know; use that one or a newer: %w", m.Program, graveler.Invalid)
	}
	db, err := pebble.Open(dir, stateOptions(vfs.Default, quietPebble, func() {}))
	if err != nil {
		return nil, fmt.Errorf("open the fetched state: %v: %w", err, graveler.Corrupt)
	}
	index, term, err := (view{db}).Applied()
	if err == nil && (index != m.Index || term != m.Term) {
		err = fmt.Errorf("the manifest says change %d of term %d, the state %d of %d: %w", m.Index, m.Term, index, term, graveler.Corrupt)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// empty fails unless nothing is in a directory, or it is not there.
func empty(dir string) error {
	all, err := os.ReadDir(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err == nil && len(all) > 0 {
		err = fmt.Errorf("%s is not empty; give a new one, or remove what is there: %w", dir, graveler.NotEmpty)
	}
	return err
}

// making builds dir beside itself and puts it in its place when it is whole: after a kill at any moment it is whole or not there.
func making(dir string, build func(tmp string) error) error {
	if err := empty(dir); err != nil {
		return err
	}
	parent, base := filepath.Split(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	beside := base + ".making-"
	left, err := filepath.Glob(filepath.Join(parent, globQuote(beside)+"*"))
	if err != nil {
		return err
	}
	for _, n := range left {
		if err := os.RemoveAll(n); err != nil {
			return fmt.Errorf("remove what an earlier try has left: %w", err)
		}
	}
	tmp := filepath.Join(parent, beside+xid.New().String())
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	err = build(tmp)
	if err == nil {
		err = wal.SyncDir(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, dir) // takes the place of an empty directory
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return wal.SyncDir(parent)
}

func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// Restore makes a data directory, which must be empty or not there, of a snapshot: the one with an id, or with "" the newest. It is that of
// a node that is alone, of a new cluster. Corrupt if something of the snapshot is damaged, NotFound if it is not there; then there is no
// directory, and whether an older snapshot is whole is to be tried by its id.
func Restore(ctx context.Context, st object.Store, url, dir, id string) (Restored, error) {
	b := bin{st, url}
	var res Restored
	if err := empty(dir); err != nil {
		return res, err
	}
	m, p, err := b.find(ctx, id)
	if err != nil {
		return res, fmt.Errorf("restore from %s: %w", url, err)
	}
	res = Restored{Snapshot: m.info(url, p.address), ID: p.id(), Cluster: xid.New().String(), Of: m.Cluster, Program: m.Program}
	err = making(dir, func(tmp string) error {
		state := filepath.Join(tmp, stateFirst)
		if err := b.fetch(ctx, m, state); err != nil {
			return err
		}
		db, err := openFetched(m, state)
		if err != nil {
			return err
		}
		res.Pending, err = lostContents(view{db})
		if err == nil {
			err = renew(db, m, res.Cluster)
		}
		if err = errors.Join(err, db.Close()); err != nil {
			return err
		}
		// Opened once, it gets a log and all that a node that is alone has.
		r, err := Open(Config{Dir: tmp})
		if err != nil {
			return err
		}
		return r.Close()
	})
	if err != nil {
		return res, fmt.Errorf("restore snapshot %s from %s: %w", p.id(), url, b.hint(ctx, p, err))
	}
	return res, nil
}

// renew makes a state that of a new cluster, durably.
func renew(db *pebble.DB, m *manifest, cluster string) error {
	b := db.NewBatch()
	defer b.Close()
	at := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, m.Index+restoreIndexes), m.Term+restoreTerms)
	c := &pb.Cluster{Id: cluster, Former: append([]string{m.Cluster}, m.Former...)}
	err := errors.Join(
		b.Set(appliedKey, at, nil), b.Set(clusterKey, mustMarshal(c), nil),
		// Of the nodes of the cluster that was, none is a member.
		b.Delete(settingsKey, nil), b.DeleteRange([]byte{'n'}, after([]byte{'n'}), nil),
	)
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err == nil {
		err = db.Flush()
	}
	return err
}

// lostContents lists what staged entries are pending on.
func lostContents(v view) (out []LostContent, err error) {
	type branch struct {
		repo graveler.RepositoryID
		id   graveler.BranchID
	}
	of := map[graveler.StagingToken]branch{}
	repos, err := v.Repositories()
	if err != nil {
		return nil, err
	}
	for _, r := range repos {
		err := v.Branches(r.ID, "", func(b graveler.Branch) bool {
			for _, t := range layers(&b) {
				of[t] = branch{r.ID, b.ID}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	err = v.scan([]byte{'p'}, nil, func(k, _ []byte) bool {
		content, rest, _ := strings.Cut(string(k[1:]), "\x00")
		token, path, _ := strings.Cut(rest, "\x00")
		b := of[graveler.StagingToken(token)]
		id := graveler.ContentID(content)
		out = append(out, LostContent{Content: id, Holder: engine.HolderOf(id), Repo: b.repo, Branch: b.id, Path: path})
		return true
	})
	return out, err
}
