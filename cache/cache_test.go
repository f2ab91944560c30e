package cache

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

var _ committed.TableCache = (*Tables)(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// remote is a store that is no object.Local, though it is one of files: it has a URL that lasts.
func remote(t testing.TB, dir string) *objecttest.Counting {
	t.Helper()
	st, err := object.Open(context.Background(), "file://"+dir, object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return objecttest.NewCounting(st)
}

func newCache(t testing.TB, opt Options) *Cache {
	t.Helper()
	c, err := NewCache(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// over returns a cached store, to be closed before its cache.
func over(t testing.TB, st object.Store, c *Cache) object.Store {
	t.Helper()
	s := New(st, c)
	t.Cleanup(func() { s.Close() })
	return s
}

func read(t testing.TB, st object.Store, o object.Object, b []byte, off, n int) {
	t.Helper()
	p := make([]byte, n)
	got, err := st.ReadAt(context.Background(), o, p, int64(off))
	rest := b[min(off, len(b)):]
	if wantN := min(n, len(rest)); got != wantN || !bytes.Equal(p[:got], rest[:got]) || err != nil && err != io.EOF || got < n && err == nil {
		t.Fatalf("ReadAt(%s, %d bytes at %d of %d) = %d, %v", o.Address, n, off, len(b), got, err)
	}
}

func wantKind(t testing.TB, what string, err error, k graveler.Kind) {
	t.Helper()
	if err == nil || err == io.EOF || graveler.KindOf(err) != k {
		t.Errorf("%s: error is %v, want kind %v", what, err, k)
	}
}

func TestContract(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (object.Store, Options){
		"disk": func(t *testing.T) (object.Store, Options) {
			return remote(t, t.TempDir()), Options{Dir: t.TempDir(), DiskBytes: 64 << 20}
		},
		"memory": func(t *testing.T) (object.Store, Options) { return remote(t, t.TempDir()), Options{} },
		"tiny": func(t *testing.T) (object.Store, Options) {
			return remote(t, t.TempDir()), Options{MemoryBytes: 1000, Dir: t.TempDir(), DiskBytes: 1000, Concurrency: 1}
		},
		"local": func(t *testing.T) (object.Store, Options) {
			st, err := object.Open(t.Context(), "file://"+t.TempDir(), object.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return st, Options{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			objecttest.Run(t, func(t *testing.T) object.Store {
				st, opt := open(t)
				return New(st, newCache(t, opt))
			})
		})
	}
}

func TestSecondReadIsFree(t *testing.T) {
	base := remote(t, t.TempDir())
	c := newCache(t, Options{ReadAhead: -1})
	st := over(t, base, c)
	small, large := objecttest.Bytes(1, 3<<20+5), objecttest.Bytes(2, 10<<20+5)
	so, lo := objecttest.Put(t, base, "data/small", small), objecttest.Put(t, base, "data/large", large)
	for i := range 2 {
		read(t, st, so, small, 2<<20, 100)
		read(t, st, so, small, 0, len(small)+10)
		read(t, st, lo, large, 5<<20-10, 20)
		if n := base.Counts().Reads; n != 3 { // one whole object, two chunks
			t.Errorf("pass %d: %d requests so far, want 3", i, n)
		}
	}
	if s := c.Stats(); s.Fetches != 3 || s.FetchedBytes != int64(len(small))+2<<20 || s.MemoryHits == 0 {
		t.Errorf("Stats = %+v", s)
	}
}

func TestWriteThrough(t *testing.T) {
	base := remote(t, t.TempDir())
	st := over(t, base, newCache(t, Options{Dir: t.TempDir(), DiskBytes: 64 << 20}))
	b := objecttest.Bytes(1, 5<<20)
	o := objecttest.Put(t, st, "data/x", b)
	table := objecttest.Put(t, st, "_lakefs/"+strings.Repeat("a", 64), b)
	table.Size, table.MD5 = -1, ""
	read(t, st, o, b, 0, len(b))
	read(t, st, table, b, 0, len(b)+1)
	if n := base.Counts().Reads; n != 0 {
		t.Errorf("%d requests for what was just written", n)
	}
}

// rereading is a store that fails once in the middle of an upload, and reads it again.
type rereading struct{ *objecttest.Counting }

func (r rereading) Put(ctx context.Context, address string, rd io.Reader, opt object.PutOptions) (object.Info, error) {
	if _, err := io.CopyN(io.Discard, rd, opt.Size/2); err != nil {
		return object.Info{}, err
	}
	if _, err := rd.(io.Seeker).Seek(0, io.SeekStart); err != nil {
		return object.Info{}, err
	}
	return r.Counting.Put(ctx, address, rd, opt)
}

// An upload that is read again is kept as it was the last time.
func TestWriteThroughAgain(t *testing.T) {
	base := remote(t, t.TempDir())
	st := over(t, rereading{base}, newCache(t, Options{}))
	b := objecttest.Bytes(1, 3<<20)
	i, err := st.Put(t.Context(), "data/x", bytes.NewReader(b), object.PutOptions{Size: int64(len(b))})
	if err != nil {
		t.Fatal(err)
	}
	read(t, st, object.Object{Address: "data/x", Type: graveler.AddressRelative, Size: i.Size, MD5: i.MD5}, b, 0, len(b))
	if n := base.Counts().Reads; n != 0 {
		t.Errorf("%d requests for what was just written", n)
	}
}

func TestOneFetchForAll(t *testing.T) {
	base := remote(t, t.TempDir())
	release := make(chan struct{})
	faulty := objecttest.NewFaulty(base, 1, objecttest.Faults{Before: func(ctx context.Context, call, _ string) error {
		if call == "ReadAt" {
			<-release
		}
		return nil
	}})
	st := over(t, faulty, newCache(t, Options{ReadAhead: -1}))
	small, large := objecttest.Bytes(1, 1000), objecttest.Bytes(2, 9<<20)
	so, lo := objecttest.Put(t, base, "data/small", small), objecttest.Put(t, base, "data/large", large)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() { read(t, st, so, small, i, 100) })
		wg.Go(func() { read(t, st, lo, large, 3<<20+i, 100) })
	}
	close(release)
	wg.Wait()
	if n := base.Counts().Reads; n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

// A reader that gives up doesn't end the fetch for the others (I3), and one that hangs ends with its context.
func TestGiveUp(t *testing.T) {
	base := remote(t, t.TempDir())
	entered, release := make(chan struct{}, 10), make(chan struct{})
	var ended atomic.Int64
	faulty := objecttest.NewFaulty(base, 1, objecttest.Faults{Before: func(ctx context.Context, call, _ string) error {
		if call != "ReadAt" {
			return nil
		}
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			ended.Add(1)
			return ctx.Err()
		}
	}})
	st := over(t, faulty, newCache(t, Options{}))
	b := objecttest.Bytes(1, 1000)
	o := objecttest.Put(t, base, "data/x", b)

	ctx, cancel := context.WithCancel(t.Context())
	quit := make(chan error)
	go func() { _, err := st.ReadAt(ctx, o, make([]byte, 10), 0); quit <- err }()
	<-entered
	cancel()
	wantKind(t, "a reader that gave up", <-quit, graveler.Canceled)

	ctx, cancel = context.WithCancel(t.Context())
	go func() { _, err := st.ReadAt(ctx, o, make([]byte, 10), 0); quit <- err }()
	<-entered
	var wg sync.WaitGroup
	wg.Go(func() { read(t, st, o, b, 5, 10) })
	for s := st.(*store); ; {
		s.wholes.mu.Lock()
		n := 0
		for _, f := range s.wholes.m {
			n = f.waiters
		}
		s.wholes.mu.Unlock()
		if n == 2 {
			break
		}
	}
	cancel()
	wantKind(t, "another", <-quit, graveler.Canceled)
	close(release)
	wg.Wait()
	if n := ended.Load(); n > 1 {
		t.Errorf("%d fetches were ended, want the one that nobody waited for", n)
	}
}

func TestSilentStoreTimesOut(t *testing.T) {
	base := remote(t, t.TempDir())
	o := objecttest.Put(t, base, "data/x", objecttest.Bytes(1, 1000))
	st := over(t, objecttest.NewFaulty(base, 1, objecttest.Faults{HangOneIn: 1}), newCache(t, Options{FetchTimeout: 1}))
	_, err := st.ReadAt(t.Context(), o, make([]byte, 10), 0)
	wantKind(t, "ReadAt", err, graveler.Timeout)
}

func TestWrongBytesAreNeverReturned(t *testing.T) {
	dir := t.TempDir()
	base := remote(t, dir)
	c := newCache(t, Options{Dir: t.TempDir(), DiskBytes: 64 << 20})
	faulty := objecttest.NewFaulty(base, 1, objecttest.Faults{})
	st := over(t, faulty, c)
	b := objecttest.Bytes(1, 2<<20)
	o := objecttest.Put(t, base, "data/x", b)

	// Once wrong on the way: it is fetched again.
	first := true
	faulty.Set(objecttest.Faults{Before: func(context.Context, string, string) error {
		if !first {
			faulty.Set(objecttest.Faults{})
		}
		first = false
		return nil
	}, WrongOneIn: 1})
	read(t, st, o, b, 0, 100)

	// Wrong for good, in the store.
	o2 := objecttest.Put(t, base, "data/y", b)
	name := filepath.Join(dir, "data/y")
	damaged := bytes.Clone(b)
	damaged[1<<20] ^= 1
	if err := os.WriteFile(name, damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		before := base.Counts().Reads
		_, err := st.ReadAt(t.Context(), o2, make([]byte, 10), 0)
		wantKind(t, "ReadAt of a damaged object", err, graveler.Corrupt)
		if n := base.Counts().Reads - before; n != 2 {
			t.Errorf("%d requests, want 2: wrong bytes must not be kept", n)
		}
	}
	if c.Stats().Corrupt != 2 {
		t.Errorf("Stats = %+v, want 2 corrupt", c.Stats())
	}
	// Mended, it is right at once.
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	read(t, st, o2, b, 0, len(b))
}

// tagger is a store that says of each object whether its tag is no checksum.
type tagger struct {
	*objecttest.Counting
	opaque bool
}

func (s tagger) OpaqueTag(context.Context, object.Object) (bool, error) { return s.opaque, nil }

func TestOpaqueTag(t *testing.T) {
	base := remote(t, t.TempDir())
	b := objecttest.Bytes(1, 1000)
	o := objecttest.Put(t, base, "data/x", b)
	o.MD5 = strings.Repeat("0", 32)
	for _, opaque := range []bool{true, false} {
		st := New(tagger{base, opaque}, newCache(t, Options{}))
		_, err := st.ReadAt(t.Context(), o, make([]byte, 10), 0)
		if opaque && err != nil {
			t.Errorf("ReadAt of an object with an opaque tag: %v", err)
		}
		if !opaque {
			wantKind(t, "ReadAt", err, graveler.Corrupt)
		}
		st.(*store).cancel()
		st.(*store).wg.Wait()
	}
	base.Close()
}

func TestNotKept(t *testing.T) {
	base := remote(t, t.TempDir())
	st := over(t, base, newCache(t, Options{Dir: t.TempDir(), DiskBytes: 64 << 20}))
	for i := range 3 {
		b := objecttest.Bytes(uint64(i), 100)
		o := objecttest.Put(t, st, "_lakefs/refs_manifest.json", b)
		read(t, st, o, b, 0, 200)
		o.Size, o.MD5 = -1, ""
		read(t, st, o, b, 0, 200)
		o = objecttest.Put(t, st, "data/x", b)
		o.Fresh = true
		read(t, st, o, b, 0, 200)
	}
	if n := base.Counts().Reads; n != 9 {
		t.Errorf("%d requests, want 9", n)
	}
}

func TestReadAhead(t *testing.T) {
	base := remote(t, t.TempDir())
	c := newCache(t, Options{})
	const size = 24<<20 + 77
	b := objecttest.Bytes(1, size)
	o := objecttest.Put(t, base, "data/x", b)
	st := New(base, c)
	for off := 0; off < size; off += 128 << 10 {
		read(t, st, o, b, off, 128<<10)
	}
	if n := base.Counts(); n.Reads != 25 {
		t.Errorf("sequential: %+v, want 25 reads", n)
	}
	if n := c.Stats().Prefetches; n < 10 {
		t.Errorf("%d chunks were fetched ahead, want nearly all", n)
	}
	// Far jumps fetch nothing ahead.
	before := c.Stats().Prefetches
	o2 := objecttest.Put(t, base, "data/y", b)
	for i := range 12 {
		read(t, st, o2, b, (i*7%12)*2<<20, 100)
	}
	if n := c.Stats().Prefetches - before; n != 0 {
		t.Errorf("random: %d chunks were fetched ahead", n)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// A request of many chunks fetches them all at a time.
func TestLargeRead(t *testing.T) {
	base := remote(t, t.TempDir())
	var mu sync.Mutex
	in := 0
	all := make(chan struct{})
	faulty := objecttest.NewFaulty(base, 1, objecttest.Faults{Before: func(ctx context.Context, call, _ string) error {
		if call != "ReadAt" {
			return nil
		}
		mu.Lock()
		if in++; in == 10 {
			close(all)
		}
		mu.Unlock()
		<-all
		return nil
	}})
	st := over(t, faulty, newCache(t, Options{ReadAhead: -1}))
	b := objecttest.Bytes(1, 10<<20)
	o := objecttest.Put(t, base, "data/x", b)
	read(t, st, o, b, 0, len(b))
}

func TestTables(t *testing.T) {
	c := newCache(t, Options{MemoryBytes: 1 << 20})
	tables := c.Tables("mem://x")
	loads := 0
	load := func(context.Context) (any, int64, error) { loads++; return &loads, 1000, nil }
	for range 3 {
		if v, err := tables.Get(t.Context(), "a", load); err != nil || v != any(&loads) {
			t.Fatalf("Get = %v, %v", v, err)
		}
	}
	if _, err := c.Tables("mem://x").Get(t.Context(), "a", load); err != nil || loads != 1 {
		t.Errorf("%d loads, %v, want 1", loads, err)
	}
	if _, err := c.Tables("mem://y").Get(t.Context(), "a", load); err != nil || loads != 2 {
		t.Errorf("another namespace: %d loads, %v, want 2", loads, err)
	}
	for range 2 {
		_, err := tables.Get(t.Context(), "bad", func(context.Context) (any, int64, error) { loads++; return nil, 0, graveler.Corrupt })
		wantKind(t, "Get of a bad table", err, graveler.Corrupt)
	}
	if loads != 4 {
		t.Errorf("%d loads, want 4: errors must not be kept", loads)
	}

	release := make(chan struct{})
	var n atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := tables.Get(t.Context(), "slow", func(context.Context) (any, int64, error) { n.Add(1); <-release; return 1, 1 << 30, nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	for !c.tables.busy(key{store: tables.id, address: "slow", index: tableIndex}) {
	}
	close(release)
	wg.Wait()
	if s := c.Stats(); s.MemoryBytes > 1<<20 {
		t.Errorf("a table over the bound is kept: %+v", s)
	}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	base, err := object.Open(t.Context(), "file://"+dir, object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := newCache(t, Options{Dir: t.TempDir(), DiskBytes: 64 << 20})
	st := over(t, base, c).(object.Local)
	b := objecttest.Bytes(1, 1<<20)
	objects := map[string]object.Object{}
	for _, name := range []string{"good", "good2", "bad", "bad2"} {
		objects[name] = objecttest.Put(t, st, "data/"+name, b)
	}
	for _, name := range []string{"bad", "bad2"} {
		damaged := bytes.Clone(b)
		damaged[1000] ^= 1
		if err := os.WriteFile(filepath.Join(dir, "data", name), damaged, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		read(t, st, objects["good"], b, 100, 10)
		read(t, st, objects["good2"], b, 0, len(b))
		if st.Path(objects["good"]) != filepath.Join(dir, "data/good") {
			t.Error("no Path of a good file")
		}
		_, err := st.ReadAt(t.Context(), objects["bad"], make([]byte, 10), 100)
		wantKind(t, "ReadAt of a damaged file", err, graveler.Corrupt)
		_, err = st.ReadAt(t.Context(), objects["bad"], make([]byte, len(b)), 0)
		wantKind(t, "ReadAt of all of a damaged file", err, graveler.Corrupt)
		if p := st.Path(objects["bad2"]); p != "" {
			t.Errorf("Path of a damaged file = %q", p)
		}
	}
	if s := c.Stats(); s.Fetches != 0 || s.DiskBytes != 0 || s.MemoryBytes != 0 {
		t.Errorf("local files came into the cache: %+v", s)
	}
	// Objects elsewhere do go through it.
	mem, err := object.Open(t.Context(), "mem://"+t.Name(), object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	o := objecttest.Put(t, mem, "x", b)
	o.Address, o.Type = "mem://"+t.Name()+"/x", graveler.AddressFull
	read(t, st, o, b, 10, 100)
	read(t, st, o, b, 20, 100)
	if s := c.Stats(); s.Fetches != 1 || s.MemoryHits != 1 {
		t.Errorf("an object elsewhere: %+v, want one fetch and one hit", s)
	}
}

func TestVerifiedIsBounded(t *testing.T) {
	var v verified
	for i := range 3 * maxVerified {
		v.add(key{index: int32(i)})
	}
	if n := len(v.now) + len(v.old); n > 2*maxVerified {
		t.Errorf("%d objects are remembered", n)
	}
	if !v.has(key{index: 3*maxVerified - 1}) || v.has(key{index: 0}) {
		t.Error("not the last ones are remembered")
	}
}

func TestOptions(t *testing.T) {
	if _, err := NewCache(Options{MemoryBytes: -1}); graveler.KindOf(err) != graveler.Invalid {
		t.Errorf("NewCache with a negative size: %v", err)
	}
}

// logs counts what is logged at a level or above.
type logs struct {
	slog.Handler
	n *atomic.Int64
}

func (h logs) Handle(context.Context, slog.Record) error    { h.n.Add(1); return nil }
func (h logs) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (h logs) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h logs) WithGroup(string) slog.Handler                { return h }
func newLogs() (*slog.Logger, *atomic.Int64) {
	h := logs{n: new(atomic.Int64)}
	return slog.New(h), h.n
}
