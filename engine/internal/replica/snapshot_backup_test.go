package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

func fileStore(t testing.TB) (object.Store, string) {
	t.Helper()
	dir := t.TempDir()
	return openStore(t, "file://"+dir), dir
}

func openStore(t testing.TB, url string) object.Store {
	t.Helper()
	st, err := object.Open(t.Context(), url, object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func take(t testing.TB, s *Snapshots) engine.SnapshotInfo {
	t.Helper()
	i, err := s.Take(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func stageMany(t testing.TB, r *Replica, from, n int) {
	t.Helper()
	for i := from; i < from+n; i += 1000 {
		var cs []graveler.Change
		for j := i; j < min(i+1000, from+n); j++ {
			cs = append(cs, put(fmt.Sprintf("dir-%03d/file-%07d", j/1000, j), fmt.Sprintf("%032x", j*7919)))
		}
		if _, err := r.Stage(context.Background(), "repo", "main", cs); err != nil {
			t.Fatal(err)
		}
	}
}

// but leaves out what a restored state has of its own.
func but(m map[string]string) map[string]string {
	delete(m, string(appliedKey))
	delete(m, string(clusterKey))
	delete(m, string(settingsKey))
	return m
}

func idOf(i engine.SnapshotInfo) string {
	parts := strings.Split(i.URL, "/")
	n := len(parts)
	return parts[n-3] + "/" + parts[n-1]
}

// files are those of snapshots, without their names.
func files(t testing.TB, st object.Store, ids ...string) map[file]bool {
	t.Helper()
	out := map[file]bool{}
	for _, id := range ids {
		m, _, err := bin{Store: st}.find(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Files {
			out[file{Size: f.Size, SHA256: f.SHA256}] = true
		}
	}
	return out
}

// restored is the state that a snapshot has.
func restored(t testing.TB, st object.Store, id string) (map[string]string, Restored) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "meta")
	res, err := Restore(context.Background(), st, "x", dir, id)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	defer r.Close()
	return but(records(t, r.state)), res
}

func TestSnapshotsAndRestore(t *testing.T) {
	st, _ := fileStore(t)
	testSnapshots(t, st)
}

func TestSnapshotsOnS3(t *testing.T) {
	testSnapshots(t, openStore(t, objecttest.S3(t)))
}

func testSnapshots(t *testing.T, st object.Store) {
	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	stageMany(t, r, 0, 30_000)
	s := r.Snapshots(st, "url", "v1")
	full := take(t, s)
	if full.Uploaded < full.Bytes || full.Tables == 0 || full.Index != r.Status().Applied {
		t.Fatalf("%+v", full)
	}
	want := but(records(t, r.state))
	if again := take(t, s); again.URL != full.URL || again.Uploaded != 0 {
		t.Fatalf("nothing changed: %+v", again)
	}
	if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put("new", "1"), pending("open", "machine-c1"), pending("mine", "c2")}); err != nil {
		t.Fatal(err)
	}
	more := take(t, s)
	if more.Uploaded > full.Uploaded/5 || more.Index != full.Index+1 {
		t.Fatalf("full %+v, one change more %+v", full, more)
	}
	// Another process, which remembers nothing, finds what is there.
	if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put("newer", "1")}); err != nil {
		t.Fatal(err)
	}
	before := files(t, st, idOf(full), idOf(more))
	other := take(t, r.Snapshots(st, "url", "v1"))
	var fresh int64
	for f := range files(t, st, idOf(other)) {
		if !before[f] {
			fresh += f.Size
		}
	}
	if other.Uploaded-fresh > 8<<10 { // the manifest
		t.Fatalf("by another process %+v, of which %d bytes were not there", other, fresh)
	}
	if got, _ := restored(t, st, idOf(full)); !maps.Equal(got, want) {
		t.Fatalf("the first snapshot has %d records of %d", len(got), len(want))
	}
	got, res := restored(t, st, "")
	if want := but(records(t, r.state)); !maps.Equal(got, want) {
		t.Fatalf("the last snapshot has %d records of %d", len(got), len(want))
	}
	if len(res.Pending) != 2 || res.Pending[0].Holder != "" || res.Pending[1] != (LostContent{"machine-c1", "machine", "repo", "main", "open"}) {
		t.Fatalf("%+v", res.Pending)
	}
	all, err := ListSnapshots(t.Context(), st)
	if err != nil || len(all) != 3 || all[0].ID != idOf(full) {
		t.Fatalf("%+v, %v", all, err)
	}

	// The restored cluster goes on far ahead, and has its snapshots in the same place; the old one can't put any there now, nor a third.
	dir := filepath.Join(t.TempDir(), "meta")
	if _, err := Restore(t.Context(), st, "url", dir, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), st, "url", dir, ""); !errors.Is(err, graveler.NotEmpty) {
		t.Fatal(err)
	}
	n := open(t, dir)
	defer n.Close()
	was := n.Status()
	if _, err := n.Stage(t.Context(), "repo", "main", []graveler.Change{put("after", "1")}); err != nil {
		t.Fatal(err)
	}
	if now := n.Status(); now.Applied != was.Applied+1 || now.Applied < r.Status().Applied+restoreIndexes {
		t.Fatalf("%+v, then %+v", was, now)
	}
	ns := n.Snapshots(st, "url", "v2")
	first := take(t, ns)
	if _, err := s.Take(t.Context()); !errors.Is(err, graveler.Invalid) || !strings.Contains(err.Error(), "another cluster") {
		t.Fatalf("the old cluster: %v", err)
	}
	third := open(t, t.TempDir())
	defer third.Close()
	for range 2 {
		if _, err := third.Snapshots(st, "url", "v1").Take(t.Context()); !errors.Is(err, graveler.Invalid) {
			t.Fatalf("a third cluster: %v", err)
		}
	}
	stageMany(t, n, 0, 1)
	take(t, ns) // those who were refused are no hindrance
	if got, res := restored(t, st, ""); res.Of == res.Cluster || got[string(stagedKey("t0", "after"))] == "" || res.Program != "v2" {
		t.Fatalf("the newest of both clusters: %+v", res)
	}
	if _, res := restored(t, st, idOf(first)); res.ID != idOf(first) {
		t.Fatalf("%+v", res)
	}
	if _, err := Restore(t.Context(), st, "url", filepath.Join(t.TempDir(), "x"), "nonesuch"); !errors.Is(err, graveler.NotFound) {
		t.Fatal(err)
	}
}

// clocked is a store with a clock that tests move.
type clocked struct {
	object.Store
	mu   sync.Mutex
	now  time.Time
	made map[string]time.Time
}

func (c *clocked) pass(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
}

func (c *clocked) List(ctx context.Context, prefix string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		c.Store.List(ctx, prefix)(func(i object.Info, err error) bool {
			c.mu.Lock()
			i.Modified = c.made[i.Address]
			c.mu.Unlock()
			return yield(i, err)
		})
	}
}

// stamps notes when each object was put.
func newClocked(st object.Store) (*clocked, *objecttest.Faulty) {
	c := &clocked{Store: st, now: time.Unix(1e9, 0), made: map[string]time.Time{}}
	f := objecttest.NewFaulty(c, 1, objecttest.Faults{Before: c.stamp})
	return c, f
}

func (c *clocked) stamp(_ context.Context, call, address string) error {
	if call == "Put" {
		c.mu.Lock()
		c.made[address] = c.now
		c.mu.Unlock()
	}
	return nil
}

func count(t testing.TB, st object.Store, part string) (n int) {
	t.Helper()
	for o, err := range st.List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(o.Address, part) {
			n++
		}
	}
	return n
}

// Old snapshots go, with what only they name, and each that stays is whole.
func TestOldSnapshotsGo(t *testing.T) {
	base, _ := fileStore(t)
	c, st := newClocked(base)
	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	s := r.Snapshots(st, "url", "v1")
	want := map[string]map[string]string{}
	for i := range 40 {
		stageMany(t, r, i*300, 300)
		info := take(t, s)
		want[idOf(info)] = but(records(t, r.state))
		c.pass(30 * time.Minute)
		all, err := ListSnapshots(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		// Those of the last six hours stay, and the one before them: it was the newest six hours ago.
		if len(all) > 12+2 || len(all) < min(i+1, 12) {
			t.Fatalf("%d snapshots after %d", len(all), i+1)
		}
	}
	if err := r.state.now.Load().Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
		t.Fatal(err)
	}
	for i := range 8 { // rarely, the last five stay
		c.pass(24 * time.Hour)
		if _, err := r.Stage(t.Context(), "repo", "main", []graveler.Change{put("x", fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
		want[idOf(take(t, s))] = but(records(t, r.state))
	}
	all, err := ListSnapshots(t.Context(), st)
	if err != nil || len(all) != snapshotKeep {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	named := map[string]bool{}
	for _, a := range all {
		got, _ := restored(t, st, a.ID)
		if !maps.Equal(got, want[a.ID]) {
			t.Fatalf("snapshot %s has %d records of %d", a.ID, len(got), len(want[a.ID]))
		}
		m, _, err := bin{Store: st}.find(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Files {
			named[f.Object] = true
		}
	}
	delete(named, "")
	if n := count(t, st, tablesDir); n != len(named) {
		t.Fatalf("%d files are stored, %d are named", n, len(named))
	}
}

// allWhole looks whether all that manifests name is there.
func allWhole(t testing.TB, seed uint64, st object.Store, known map[string]*manifest) []Stored {
	t.Helper()
	all, err := ListSnapshots(t.Context(), st)
	if err != nil || len(all) == 0 {
		t.Fatalf("seed %d: %d snapshots, %v", seed, len(all), err)
	}
	b := bin{Store: st}
	tables, err := b.list(t.Context(), all[0].Cluster+tablesDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		m := known[s.ID]
		if m == nil {
			if m, _, err = b.find(t.Context(), s.ID); err != nil {
				t.Fatalf("seed %d: snapshot %s: %v", seed, s.ID, err)
			}
			known[s.ID] = m
		}
		err = (&Snapshots{}).whole(m, tables)
		if err != nil {
			t.Fatalf("seed %d: snapshot %s: %v", seed, s.ID, err)
		}
	}
	return all
}

// Two nodes that both take themselves for the leader: whatever one does while the other is about to store or delete something, every
// snapshot that is returned is whole and stays so.
func TestTwoLeaders(t *testing.T) {
	for seed := range uint64(6) {
		base, _ := fileStore(t)
		c, st := newClocked(base)
		rnd := rand.New(rand.NewPCG(seed, 3))
		dir := t.TempDir()
		a := open(t, filepath.Join(dir, "a"))
		makeRepo(t, a)
		if err := a.nameCluster(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The other node has the same state, and the same cluster's name.
		var stream bytes.Buffer
		if _, _, err := a.writeState(&stream); err != nil {
			t.Fatal(err)
		}
		b := open(t, filepath.Join(dir, "b"))
		if err := b.readState(&stream); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(t, filepath.Join(dir, "b"))
		nodes := [2]*Replica{a, b}
		var snaps [2]*Snapshots
		taken, known := map[string]map[string]string{}, map[string]*manifest{}
		n, depth, paused, highest := 0, 0, time.Duration(0), uint64(0)
		step := func(i int) {
			n++
			stageMany(t, nodes[i], rnd.IntN(3000), 1+rnd.IntN(200))
			for nodes[i].Status().Applied <= highest { // who is behind has nothing to store
				stageMany(t, nodes[i], rnd.IntN(3000), 1)
			}
			highest = nodes[i].Status().Applied
			if rnd.IntN(4) == 0 {
				if err := nodes[i].state.now.Load().Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
					t.Fatal(err)
				}
			}
			state := but(records(t, nodes[i].state))
			info, err := snaps[i].Take(context.Background())
			if err != nil {
				// One that was stopped for long may find that its files are gone, and says so.
				if !errors.Is(err, graveler.Unavailable) || paused < snaps[i].life {
					t.Fatalf("seed %d: after a pause of %s: %v", seed, paused, err)
				}
				return
			}
			if info.Uploaded > 0 {
				taken[idOf(info)] = state
			}
		}
		for i := range 2 {
			mine := objecttest.NewFaulty(st, seed, objecttest.Faults{Before: func(_ context.Context, call, address string) error {
				if depth < 1 && (call == "Put" || call == "Delete") && rnd.IntN(6) == 0 {
					depth++
					// The other one goes on while this one stands still, which is not long, or (every fourth seed) is.
					long := time.Duration(rnd.Int64N(int64(snapshotGrace / 2 / 40)))
					if seed%4 == 0 && rnd.IntN(2) == 0 {
						long = snapshotGrace * 2
					}
					for range 1 + rnd.IntN(3) {
						c.pass(long)
						paused += long
						step(1 - i)
					}
					depth--
				}
				return nil
			}})
			snaps[i] = nodes[i].Snapshots(mine, "url", "v1")
			snaps[i].keep = 2
		}
		parallelWas := uploadLimit
		uploadLimit = 1 // the interleaving is that of the random numbers
		for n < 40 {
			paused = 0
			c.pass(time.Duration(rnd.Int64N(int64(8 * time.Hour))))
			step(rnd.IntN(2))
			allWhole(t, seed, st, known)
		}
		uploadLimit = parallelWas
		all := allWhole(t, seed, st, known)
		last := all[len(all)-1]
		if got, _ := restored(t, st, last.ID); !maps.Equal(got, taken[last.ID]) {
			t.Fatalf("seed %d: the last snapshot has %d records of %d", seed, len(got), len(taken[last.ID]))
		}
		a.Close()
		b.Close()
	}
}

// A store that fails one request in ten, or lies now and then, costs time and no snapshot.
func TestSnapshotsOnAFaultyStore(t *testing.T) {
	base, _ := fileStore(t)
	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	failed := 0
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		st := objecttest.NewFaulty(base, seed, objecttest.Faults{FailOneIn: 10})
		s := r.Snapshots(st, "url", "v1")
		stageMany(t, r, rnd.IntN(20_000), 3000)
		want := but(records(t, r.state))
		var info engine.SnapshotInfo
		for try := 1; ; try++ {
			var err error
			if info, err = s.Take(t.Context()); err == nil {
				break
			}
			if !errors.Is(err, graveler.Unavailable) || try == 5 {
				t.Fatal(err)
			}
		}
		st.Set(objecttest.Faults{FailOneIn: 10, WrongOneIn: 50})
		dir := filepath.Join(t.TempDir(), "meta")
		for try := 1; ; try++ {
			_, err := Restore(t.Context(), st, "x", dir, idOf(info))
			if err == nil {
				break
			}
			if !errors.Is(err, graveler.Unavailable) && !errors.Is(err, graveler.Corrupt) || try == 8 {
				t.Fatal(err)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Fatal("there is a directory after a failure")
			}
		}
		n := open(t, dir)
		if got := but(records(t, n.state)); !maps.Equal(got, want) {
			t.Fatalf("%d records of %d", len(got), len(want))
		}
		n.Close()
		failed += st.Injected()
	}
	if failed < 8 {
		t.Fatalf("only %d requests failed", failed)
	}
}

// What a snapshot that was broken off has stored counts for the next one.
func TestSnapshotGoesOn(t *testing.T) {
	base, _ := fileStore(t)
	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	stageMany(t, r, 0, 20_000)
	if err := r.nameCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nothing is left to be compacted, so the files stay the same.
	if err := errors.Join(r.state.Flush(), r.state.now.Load().Compact(t.Context(), []byte{0}, []byte{255}, false)); err != nil {
		t.Fatal(err)
	}
	puts, limit := []string{}, 2
	st := objecttest.NewFaulty(base, 1, objecttest.Faults{Before: func(_ context.Context, call, address string) error {
		_, name, table := strings.Cut(address, tablesDir)
		if call != "Put" || !table {
			return nil
		}
		if len(puts) >= limit {
			return fmt.Errorf("the line is cut: %w", graveler.Denied)
		}
		puts = append(puts, name[:64])
		return nil
	}})
	uploadLimit = 1
	defer func() { uploadLimit = filesAtOnce }()
	if _, err := r.Snapshots(st, "url", "v1").Take(t.Context()); !errors.Is(err, graveler.Denied) {
		t.Fatal(err)
	}
	if all, err := ListSnapshots(t.Context(), st); err != nil || len(all) != 0 {
		t.Fatalf("%v, %v", all, err)
	}
	if len(puts) != limit {
		t.Fatalf("stored: %q", puts)
	}
	limit = 1 << 30
	info := take(t, r.Snapshots(st, "url", "v1"))
	once := slices.Compact(slices.Sorted(slices.Values(puts)))
	if len(once) != len(puts) || info.Uploaded > info.Bytes/5 {
		t.Fatalf("stored again: %q, %+v", puts, info)
	}
	if got, _ := restored(t, base, ""); !maps.Equal(got, but(records(t, r.state))) {
		t.Fatalf("%d records", len(got))
	}
}

// Whatever is damaged or missing is named, nothing is made of it, and the snapshot before can be asked for.
func TestDamagedSnapshots(t *testing.T) {
	st, root := fileStore(t)
	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	stageMany(t, r, 0, 3000)
	s := r.Snapshots(st, "url", "v1")
	older := take(t, s)
	want, _ := restored(t, st, "")
	stageMany(t, r, 3000, 3000)
	newer := take(t, s)
	file := func(id string) string {
		c, name, _ := strings.Cut(id, "/")
		return filepath.Join(root, c+manifestsDir+name)
	}
	fails := func(what string, kind graveler.Kind, says string) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "meta")
		st := openStore(t, "file://"+root) // one that has no file open
		_, err := Restore(t.Context(), st, "url", dir, "")
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), idOf(newer)) || !strings.Contains(err.Error(), idOf(older)) {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%s: there is a directory", what)
		}
		if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 0 {
			t.Fatalf("%s: left: %v", what, left)
		}
		if got, res := restored(t, st, idOf(older)); !maps.Equal(got, want) || res.ID != idOf(older) {
			t.Fatalf("%s: the one before: %+v", what, res)
		}
	}
	change := func(name string, do func(b []byte) []byte) (back func()) {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write := func(b []byte) {
			if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if b == nil {
				return
			}
			if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		write(do(slices.Clone(b)))
		return func() { write(b) }
	}
	rnd := rand.New(rand.NewPCG(8, 8))
	flip := func(b []byte) []byte { b[rnd.IntN(len(b))] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:rnd.IntN(len(b))] }
	gone := func([]byte) []byte { return nil }
	manifestFile := file(idOf(newer))
	for range 5 {
		back := change(manifestFile, flip)
		fails("a wrong byte in the manifest", graveler.Corrupt, idOf(older))
		back()
		back = change(manifestFile, cut)
		fails("the manifest is cut", graveler.Corrupt, idOf(older))
		back()
	}
	back := change(manifestFile, func([]byte) []byte {
		b, err := os.ReadFile(file(idOf(older)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	fails("another one's manifest", graveler.Corrupt, idOf(older))
	back()
	m, _, err := bin{Store: st}.find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	old, _, err := bin{Store: st}.find(t.Context(), idOf(older))
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string]bool{}
	for _, f := range old.Files {
		shared[f.Object] = true
	}
	tried := 0
	for _, f := range m.Files {
		if f.Size == 0 || shared[f.Object] {
			continue
		}
		tried++
		name := filepath.Join(root, m.address(f))
		back := change(name, flip)
		fails("a wrong byte in "+f.Name, graveler.Corrupt, f.Name)
		back()
		back = change(name, cut)
		fails(f.Name+" is cut", graveler.Corrupt, f.Name)
		back()
		back = change(name, gone)
		fails(f.Name+" is gone", graveler.NotFound, f.Name)
		back()
	}
	if tried < 2 {
		t.Fatalf("only %d files are the newer one's own", tried)
	}
	// The next snapshot is whole although the last one is damaged.
	change(manifestFile, flip)
	stageMany(t, r, 6000, 10)
	st = openStore(t, "file://"+root)
	third := take(t, r.Snapshots(st, "url", "v1"))
	got, res := restored(t, st, "")
	if res.ID != idOf(third) {
		t.Fatalf("%+v, and not %+v", res, third)
	}
	if now := but(records(t, r.state)); !maps.Equal(got, now) {
		for k, v := range now {
			if got[k] != v {
				t.Logf("%q: %q, not %q", k, got[k], v)
			}
		}
		t.Fatalf("%d records of %d", len(got), len(now))
	}
}

func FuzzManifest(f *testing.F) {
	st, _ := fileStore(f)
	r := open(f, f.TempDir())
	makeRepo(f, r)
	if _, err := r.Snapshots(st, "url", "v1").Take(context.Background()); err != nil {
		f.Fatal(err)
	}
	r.Close()
	m, _, err := bin{Store: st}.find(context.Background(), "")
	if err != nil {
		f.Fatal(err)
	}
	b, err := encodeManifest(m)
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte("\n"))
	f.Add(b, body)
	f.Add([]byte(manifestLine), []byte(`{"files":[{"name":"../x"}]}`))
	f.Fuzz(func(t *testing.T, b, body []byte) {
		_, _ = decodeManifest(b)
		// With its hash right, what is behind it is reached.
		m, err := decodeManifest(sealed(body))
		if err != nil {
			if !errors.Is(err, graveler.Corrupt) {
				t.Fatal(err)
			}
			return
		}
		for _, f := range m.Files {
			if filepath.Base(f.Name) != f.Name || f.Name == "." || f.Name == ".." || strings.Contains(f.Object, "/") {
				t.Fatalf("%+v", f)
			}
		}
		again, err := encodeManifest(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(again); err != nil {
			t.Fatal(err)
		}
	})
}
