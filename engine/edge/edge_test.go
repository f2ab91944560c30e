package edge_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/edge"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// shared keeps an engine open when an edge closes: several are before it.
type shared struct{ engine.Engine }

func (shared) Close() error { return nil }

// metadata is the engine that edges ask.
func metadata(t *testing.T) engine.Engine {
	t.Helper()
	dir := t.TempDir()
	sp, err := spill.Open(filepath.Join(dir, "spill"), spill.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := local.Open(t.Context(), local.Config{
		Dir: filepath.Join(dir, "meta"), Spill: sp, Objects: openObjects, DefaultNamespace: "file://" + filepath.Join(dir, "objects"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.CreateRepository(t.Context(), engine.CreateRepository{ID: "repo"}); err != nil {
		t.Fatal(err)
	}
	return shared{e}
}

func openObjects(ctx context.Context, ns string) (object.Store, error) {
	return object.Open(ctx, ns, object.Options{})
}

// machine is an edge with its directory.
type machine struct {
	*edge.Engine
	sp *spill.Store
}

func start(t *testing.T, meta engine.Engine, dir string, holder engine.HolderID) machine {
	t.Helper()
	sp, err := spill.Open(dir, spill.Options{Prefix: string(holder) + "-", OpenBase: openObjects})
	if err != nil {
		t.Fatal(err)
	}
	e, err := edge.New(edge.Config{
		Engine: meta, Holder: holder, Spill: sp,
		Objects: func(ctx context.Context, ns string, _ object.Store) (object.Store, error) {
			return openObjects(ctx, ns)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return machine{e, sp}
}

// create begins a file as a mount does, and leaves it open.
func (m machine) create(t *testing.T, path, text string) *spill.File {
	t.Helper()
	f, err := m.sp.Create()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: path, Entry: graveler.Entry{Pending: f.ID()}}}); err != nil {
		t.Fatal(err)
	}
	write(t, f, text, 0)
	return f
}

func write(t *testing.T, f *spill.File, text string, off int64) {
	t.Helper()
	if _, err := f.WriteAt(t.Context(), []byte(text), off); err != nil {
		t.Fatal(err)
	}
}

func (m machine) read(t *testing.T, ref graveler.Ref, path string) string {
	t.Helper()
	en, err := m.Stat(t.Context(), "repo", ref, path)
	if err != nil {
		t.Fatal(err)
	}
	return readEntry(t, m, en)
}

func readEntry(t *testing.T, e engine.Engine, en graveler.Entry) string {
	t.Helper()
	st, err := e.Objects(t.Context(), "repo")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, en.Size+10)
	n, err := st.ReadAt(t.Context(), engine.ObjectOf(&en), b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestAnotherMachineReadsWhatIsHeld(t *testing.T) {
	t.Parallel()
	meta := metadata(t)
	a, b := start(t, meta, t.TempDir(), "a"), start(t, meta, t.TempDir(), "b")
	open := a.create(t, "open", "first")
	a.create(t, "closed", "done").Close()

	if got := a.read(t, "main", "open"); got != "first" {
		t.Errorf("its holder reads %q", got)
	}
	if got := b.read(t, "main", "closed"); got != "done" {
		t.Errorf("another machine reads %q of a closed file", got)
	}
	if got := b.read(t, "main", "open"); got != "first" {
		t.Errorf("another machine reads %q of an open file", got)
	}
	write(t, open, " and second", 5)
	if got := b.read(t, "main", "open"); got != "first and second" {
		t.Errorf("another machine reads %q of an open file that was written to again", got)
	}
	sizes := map[string]int64{}
	for l, err := range b.List(t.Context(), "repo", "main", engine.ListQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		sizes[l.Path] = l.Entry.Size
	}
	if sizes["open"] != 16 || sizes["closed"] != 4 || len(sizes) != 2 {
		t.Errorf("another machine lists %v", sizes)
	}
	// The engine itself shows a closed file to who asks without a mount.
	en, err := meta.Stat(t.Context(), "repo", "main", "open")
	if err != nil {
		t.Fatal(err)
	}
	if got := readEntry(t, meta, graveler.Entry{Pending: en.Pending, Size: 16}); got != "first and second" {
		t.Errorf("through the engine %q is read", got)
	}
}

func TestCommitTakesWhatMachinesHold(t *testing.T) {
	t.Parallel()
	meta := metadata(t)
	a, b := start(t, meta, t.TempDir(), "a"), start(t, meta, t.TempDir(), "b")
	open := a.create(t, "open", "as it was")
	b.create(t, "b", "of b").Close()
	c, err := b.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"})
	if err != nil {
		t.Fatal(err)
	}
	write(t, open, "and as it is then", 0)
	open.Close()
	for path, want := range map[string]string{"open": "as it was", "b": "of b"} {
		if got := b.read(t, graveler.Ref(c.ID), path); got != want {
			t.Errorf("the commit has %q in %s, want %q", got, path, want)
		}
	}
	if got := b.read(t, "main", "open"); got != "and as it is then" {
		t.Errorf("the branch has %q in the file that was open", got)
	}
}

func TestMachineThatIsAway(t *testing.T) {
	t.Parallel()
	meta := metadata(t)
	dir := t.TempDir()
	a := start(t, meta, dir, "a")
	b := start(t, meta, t.TempDir(), "b")
	open := a.create(t, "x", "kept") // open, so that closing the machine can't settle it
	a.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := b.Stat(ctx, "repo", "main", "x"); !errors.Is(err, graveler.Unavailable) || !strings.Contains(err.Error(), "a") {
		t.Errorf("a file of a machine that is away: %v", err)
	}
	if _, err := b.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"}); !errors.Is(err, graveler.Unavailable) {
		t.Errorf("a commit without a machine's files: %v", err)
	}
	n := 0
	for l, err := range b.List(ctx, "repo", "main", engine.ListQuery{}) {
		if err != nil || l.Path != "x" {
			t.Errorf("listed %q, %v", l.Path, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d files are listed", n)
	}
	open.Close()
	start(t, meta, dir, "a")
	if _, err := b.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"}); err != nil {
		t.Fatal(err)
	}
	if got := b.read(t, "main@", "x"); got != "kept" {
		t.Errorf("after its return %q is committed", got)
	}
}

// What fsync acknowledged is there without the machine that wrote it, and what the machine wrote since comes with it.
func TestKeptBytesSurviveTheMachine(t *testing.T) {
	t.Parallel()
	meta := metadata(t)
	dir := t.TempDir()
	a := start(t, meta, dir, "a")
	b := start(t, meta, t.TempDir(), "b")
	open := a.create(t, "x", "synced")
	for range 3 {
		if err := a.Keep(t.Context(), open.ID()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, open, " and not", 6)
	never := a.create(t, "never synced", "n")
	a.Close()
	if got := b.read(t, "main", "x"); got != "synced" {
		t.Errorf("without the machine %q is read", got)
	}
	if _, err := meta.CollectGarbage(t.Context(), engine.GCRequest{Repo: "repo", Grace: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	if got := b.read(t, "main", "x"); got != "synced" {
		t.Errorf("after a garbage collection %q is read", got)
	}
	if _, err := b.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"}); !errors.Is(err, graveler.Unavailable) {
		t.Errorf("a commit of a file that was never synced, without its machine: %v", err)
	}
	if err := b.Reset(t.Context(), "repo", "main", "never synced"); err != nil {
		t.Fatal(err)
	}
	c, err := b.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.read(t, graveler.Ref(c.ID), "x"); got != "synced" {
		t.Errorf("without the machine %q is committed", got)
	}
	open.Close()
	never.Close()
	back := start(t, meta, dir, "a")
	if got := back.read(t, "main", "x") + "|" + b.read(t, "main", "x"); got != "synced and not|synced and not" {
		t.Errorf("after the machine's return %q is read", got)
	}
}

func TestWhatNothingNamesGoes(t *testing.T) {
	t.Parallel()
	meta := metadata(t)
	dir := t.TempDir()
	a := start(t, meta, dir, "a")
	named := a.create(t, "named", "n")
	kept := a.create(t, "kept", "k") // loses its name while it is open, and gets another
	for _, p := range []string{"kept"} {
		if err := a.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: p, Remove: true}}); err != nil {
			t.Fatal(err)
		}
	}
	lost, err := a.sp.Create()
	if err != nil {
		t.Fatal(err)
	}
	lost.Close()
	if _, err := a.Secure(t.Context(), []graveler.ContentID{named.ID(), kept.ID(), lost.ID()}); err != nil {
		t.Fatal(err)
	}
	if err := a.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: "again", Entry: graveler.Entry{Pending: kept.ID()}}}); err != nil {
		t.Fatal(err)
	}
	kept.Close()
	named.Close()
	deadline := time.Now().Add(time.Minute)
	for {
		ids, err := a.sp.IDs()
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v are still in the spill directory", ids)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got := a.read(t, "main", "again") + a.read(t, "main", "named"); got != "kn" {
		t.Errorf("read %q", got)
	}
}

// A content that began as an object has that kept from the garbage collection, whoever holds it.
func TestBaseIsKept(t *testing.T) {
	t.Parallel()
	meta := metadata(t)
	a := start(t, meta, t.TempDir(), "a")
	st, err := a.Objects(t.Context(), "repo")
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("0123456789"), 300_000)
	info, err := st.Put(t.Context(), "data/base", bytes.NewReader(text), object.PutOptions{Size: int64(len(text))})
	if err != nil {
		t.Fatal(err)
	}
	en := graveler.Entry{Address: "data/base", AddressType: graveler.AddressRelative, Size: info.Size, ETag: info.MD5}
	f, err := a.sp.CreateFrom(spill.Base{Store: st, Namespace: mustRepo(t, a).StorageNamespace, Object: object.Of(&en)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := a.Stage(t.Context(), "repo", "main", []graveler.Change{{Path: "x", Entry: graveler.Entry{Pending: f.ID()}}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond) // it is older than the grace then
	if _, err := meta.CollectGarbage(t.Context(), engine.GCRequest{Repo: "repo", Grace: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	write(t, f, "changed", 0)
	if got := a.read(t, "main", "x"); got != "changed"+string(text[7:]) {
		t.Error("the bytes of a file that began as an object are not what they were")
	}
	got, err := a.Stat(t.Context(), "repo", "main", "x")
	if err != nil || got.Address != "" || got.Pending != f.ID() {
		t.Errorf("the entry is shown with the address %q and the content %q, %v", got.Address, got.Pending, err)
	}
}

func mustRepo(t *testing.T, e engine.Engine) graveler.Repository {
	t.Helper()
	r, err := e.Repository(t.Context(), "repo")
	if err != nil {
		t.Fatal(err)
	}
	return r
}
