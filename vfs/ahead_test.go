package vfs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
	"github.com/lakefsfs/lakefsfs/spill"
)

const aheadSize = 1000 // bytes of each file of the test

// aheadTest is a tree over a store that isn't local, and counts how often each object is fetched.
type aheadTest struct {
	fs   *FS
	stop func() // ends what the tree does on its own account

	mu      sync.Mutex
	fetched map[string]int // by address
	hold    chan struct{}  // fetches of what isn't in open wait for it, if it isn't nil
	open    map[string]bool
}

func address(dir string, i int) string { return fmt.Sprintf("data/%s-%03d", dir, i) }

// newAheadTest makes directories a and b of n files each, committed.
func newAheadTest(t *testing.T, n int, limit int64) *aheadTest {
	t.Helper()
	d := t.TempDir()
	at := &aheadTest{fetched: map[string]int{}, open: map[string]bool{}}
	c, err := cache.NewCache(cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	base, err := object.Open(t.Context(), "file://"+d+"/data", object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var changes []graveler.Change
	for _, dir := range []string{"a", "b"} {
		for i := range n {
			o := objecttest.Put(t, base, address(dir, i), bytes.Repeat([]byte{byte(i)}, aheadSize))
			changes = append(changes, graveler.Change{Path: fmt.Sprintf("%s/%03d", dir, i), Entry: graveler.Entry{
				Address: o.Address, AddressType: graveler.AddressRelative, Size: o.Size, ETag: o.MD5,
			}})
		}
	}
	watched := objecttest.NewFaulty(base, 1, objecttest.Faults{Before: at.before})
	objects := func(context.Context, string) (object.Store, error) { return cache.New(watched, c), nil }
	sp, err := spill.Open(d+"/spill", spill.Options{OpenBase: objects})
	if err != nil {
		t.Fatal(err)
	}
	eng, err := local.Open(t.Context(), local.Config{
		Dir: d + "/meta", Spill: sp, Objects: objects, Tables: func(ns string) committed.TableCache { return c.Tables(ns) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	if _, err := eng.CreateRepository(t.Context(), engine.CreateRepository{ID: "repo", StorageNamespace: "file://" + d + "/data"}); err != nil {
		t.Fatal(err)
	}
	if err := eng.Stage(t.Context(), "repo", "main", changes); err != nil {
		t.Fatal(err)
	}
	if _, err := eng.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"}); err != nil {
		t.Fatal(err)
	}
	at.fs, err = New(t.Context(), Config{Engine: eng, Spill: sp, Place: graveler.Place{Repo: "repo", Ref: "main"}, ReadAhead: limit, UID: uint32(os.Getuid())})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	at.fs.Watch(ctx)
	at.stop = func() { cancel(); at.fs.Wait() }
	t.Cleanup(at.stop)
	return at
}

func (at *aheadTest) before(ctx context.Context, call, address string) error {
	if call != "ReadAt" {
		return nil
	}
	at.mu.Lock()
	at.fetched[address]++
	hold := at.hold
	if at.open[address] {
		hold = nil
	}
	at.mu.Unlock()
	if hold == nil {
		return nil
	}
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (at *aheadTest) dir(t *testing.T, name string) NodeID {
	t.Helper()
	id, _, err := at.fs.Lookup(t.Context(), RootID, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (at *aheadTest) list(t *testing.T, dir string) {
	t.Helper()
	id := at.dir(t, dir)
	h, _, err := at.fs.Opendir(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer at.fs.Releasedir(h)
	d, err := at.fs.OpenedDir(h, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := at.fs.Readdir(t.Context(), d, 0, func(*DirEntry) bool { return true }); err != nil {
		t.Fatal(err)
	}
}

func (at *aheadTest) read(t *testing.T, dir string, i int) {
	t.Helper()
	at.mu.Lock()
	at.open[address(dir, i)] = true
	at.mu.Unlock()
	id, _, err := at.fs.Lookup(t.Context(), at.dir(t, dir), fmt.Sprintf("%03d", i))
	if err != nil {
		t.Fatal(err)
	}
	o, err := at.fs.Open(t.Context(), Caller{}, id, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer at.fs.Release(o.Handle)
	p := make([]byte, 4096)
	if n, err := at.fs.Read(t.Context(), o.Handle, p, 0); n != aheadSize || err != nil || p[0] != byte(i) {
		t.Fatalf("read %s/%03d: %d bytes, %v", dir, i, n, err)
	}
}

// objects is how many data objects were fetched, and most is how often one was.
func (at *aheadTest) objects() (n, most int) {
	at.mu.Lock()
	defer at.mu.Unlock()
	for a, times := range at.fetched {
		if a[:5] == "data/" && len(a) == len(address("a", 0)) {
			n++
			most = max(most, times)
		}
	}
	return n, most
}

// wait waits until so many objects were fetched.
func (at *aheadTest) wait(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n, _ := at.objects()
		if n >= want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d objects were fetched, want %d", n, want)
		}
	}
}

// idle waits until what was seen was dealt with.
func (at *aheadTest) idle(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); len(at.fs.ahead.seen) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("sightings are not dealt with")
		}
	}
}

func TestAheadOfAReader(t *testing.T) {
	at := newAheadTest(t, 300, 1<<20)
	at.read(t, "a", 0)
	at.read(t, "a", 1) // it goes on: now it is run ahead of
	at.wait(t, 2+aheadFirst)
	at.read(t, "a", 2)
	at.wait(t, 3+2*aheadFirst)
	for i := 3; i < 100; i++ {
		at.read(t, "a", i)
	}
	at.idle(t)
	at.stop()
	if n, most := at.objects(); n > 100+aheadMost || most != 1 {
		t.Errorf("a reader of 100 files made %d objects be fetched, one of them %d times", n, most)
	}
}

func TestAheadAfterListing(t *testing.T) {
	at := newAheadTest(t, 300, 1<<20)
	at.list(t, "a")
	at.read(t, "a", 0)
	at.wait(t, 1+aheadFirst)
	at.list(t, "b")
	at.idle(t)
	at.read(t, "b", 200) // not where a reader of all would begin
	at.idle(t)
	at.stop()
	if n, most := at.objects(); n != 2+aheadFirst || most != 1 {
		t.Errorf("%d objects were fetched, one %d times", n, most)
	}
}

func TestNotAheadOfRandomReads(t *testing.T) {
	at := newAheadTest(t, 300, 1<<20)
	for _, i := range []int{150, 20, 280, 77, 200, 33, 120} {
		at.read(t, "a", i)
		at.idle(t)
	}
	at.stop()
	if n, _ := at.objects(); n != 7 {
		t.Errorf("7 random reads made %d objects be fetched", n)
	}
}

// Fetches ahead that hang hold up nobody, are bounded in bytes, and end with the mount.
func TestAheadIsBounded(t *testing.T) {
	at := newAheadTest(t, 300, 5*aheadSize)
	at.mu.Lock()
	at.hold = make(chan struct{})
	at.mu.Unlock()
	at.read(t, "a", 0)
	at.read(t, "a", 1)
	at.wait(t, 2+5)
	at.read(t, "b", 100)
	at.read(t, "b", 10)
	at.idle(t)
	at.stop() // returns though the store doesn't answer
	if n, _ := at.objects(); n != 4+5 {
		t.Errorf("%d objects were fetched, want the 4 read and 5 more", n)
	}
}
