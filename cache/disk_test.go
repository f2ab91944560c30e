package cache

import (
	"bytes"
	iofs "io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// usage is what the files under dir occupy, as the tier counts.
func usage(t testing.TB, dir string) (bytes int64, names []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "chunks"), func(name string, e iofs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // deleted meanwhile
		}
		if fi, err := e.Info(); err == nil {
			bytes += occupied(fi.Size())
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, names
}

// session opens a cache over dir and a store, runs do, and closes both.
func session(t *testing.T, storeDir, dir string, limit int64, do func(object.Store, *objecttest.Counting, *Cache)) {
	t.Helper()
	base := remote(t, storeDir)
	c, err := NewCache(Options{Dir: dir, DiskBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	st := New(base, c)
	do(st, base, c)
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestRestart(t *testing.T) {
	storeDir, dir := t.TempDir(), t.TempDir()
	small, large := objecttest.Bytes(1, 2<<20+1), objecttest.Bytes(2, 9<<20+1)
	var so, lo object.Object
	pass := func(wantReads int64) func(object.Store, *objecttest.Counting, *Cache) {
		return func(st object.Store, base *objecttest.Counting, c *Cache) {
			t.Helper()
			if so.Address == "" {
				so, lo = objecttest.Put(t, base, "data/s", small), objecttest.Put(t, base, "data/l", large)
			}
			read(t, st, so, small, 0, len(small))
			read(t, st, lo, large, 0, len(large))
			if n := base.Counts().Reads; n != wantReads {
				t.Errorf("%d requests, want %d; %+v", n, wantReads, c.Stats())
			}
		}
	}
	session(t, storeDir, dir, 64<<20, pass(11))
	session(t, storeDir, dir, 64<<20, pass(0))
	used, names := usage(t, dir)
	if len(names) != 12 { // the two chunks of one byte are in one
		t.Errorf("%d files, want 12", len(names))
	}

	// A lower limit is kept from the start.
	session(t, storeDir, dir, used/2, func(_ object.Store, _ *objecttest.Counting, c *Cache) {
		now, _ := usage(t, dir)
		if s := c.Stats(); now > used/2 || s.DiskBytes != now || now < used/3 {
			t.Errorf("%d bytes on disk, %+v, want at most %d", now, s, used/2)
		}
	})
}

func TestDamagedFiles(t *testing.T) {
	storeDir, dir := t.TempDir(), t.TempDir()
	b := objecttest.Bytes(1, 5<<20+1)
	var o object.Object
	session(t, storeDir, dir, 64<<20, func(st object.Store, base *objecttest.Counting, _ *Cache) {
		o = objecttest.Put(t, base, "data/x", b)
		read(t, st, o, b, 0, len(b))
	})
	_, names := usage(t, dir)
	for i, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 0:
			data = nil
		case 1:
			data = data[:len(data)/2]
		case 2:
			data = make([]byte, len(data))
		case 3: // another chunk's file
			if data, err = os.ReadFile(names[4]); err != nil {
				t.Fatal(err)
			}
		case 4:
			data[len(data)/3] ^= 4
		default:
			data[len(data)-1] ^= 1
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	session(t, storeDir, dir, 64<<20, func(st object.Store, base *objecttest.Counting, c *Cache) {
		for i := range 6 {
			read(t, st, o, b, i<<20, 10)
		}
		if s := c.Stats(); s.DiskDropped == 0 || base.Counts().Reads == 0 {
			t.Errorf("damaged files went unnoticed: %+v", s)
		}
	})
	session(t, storeDir, dir, 64<<20, func(st object.Store, base *objecttest.Counting, c *Cache) {
		read(t, st, o, b, 0, len(b))
		if n := base.Counts().Reads; n > 1 {
			t.Errorf("%d requests after the damage was mended", n)
		}
	})
}

func TestDirectoryOfItsOwn(t *testing.T) {
	log, warnings := newLogs()
	dir := t.TempDir()
	c := newCache(t, Options{Dir: dir, DiskBytes: 1 << 20, Logger: log})
	c2 := newCache(t, Options{Dir: dir, DiskBytes: 1 << 20, Logger: log})
	if c.disk == nil || c2.disk != nil || warnings.Load() != 1 {
		t.Errorf("two processes in one directory: %v, %v, %d warnings", c.disk, c2.disk, warnings.Load())
	}
	// What isn't ours isn't deleted.
	other := t.TempDir()
	precious := filepath.Join(other, "chunks/00/thesis.tex")
	if err := os.MkdirAll(filepath.Dir(precious), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c3 := newCache(t, Options{Dir: other, DiskBytes: 1 << 20, Logger: log})
	if _, err := os.Stat(precious); err != nil || c3.disk != nil {
		t.Errorf("someone's file: %v, %v", err, c3.disk)
	}
	// A file where the directory should be.
	c4 := newCache(t, Options{Dir: precious, DiskBytes: 1 << 20, Logger: log})
	if c4.disk != nil || warnings.Load() != 3 {
		t.Errorf("a file for a directory: %v, %d warnings", c4.disk, warnings.Load())
	}
}

// A disk that refuses is left alone, with one line in the log, and used again when it accepts.
func TestDiskRefuses(t *testing.T) {
	log, warnings := newLogs()
	dir := t.TempDir()
	base := remote(t, t.TempDir())
	c := newCache(t, Options{Dir: dir, DiskBytes: 64 << 20, Logger: log, MemoryBytes: 1 << 20})
	st := New(base, c)
	if err := os.RemoveAll(filepath.Join(dir, "chunks")); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		b := objecttest.Bytes(uint64(i), 100)
		read(t, st, objecttest.Put(t, base, object.NewAddress(), b), b, 0, 100)
		if i%5 == 0 { // as if time passed
			st.(*store).wg.Wait()
			c.disk.mu.Lock()
			if !c.disk.paused.IsZero() {
				c.disk.paused = time.Unix(1, 0)
			}
			c.disk.mu.Unlock()
		}
	}
	st.(*store).wg.Wait()
	if s := c.Stats(); warnings.Load() != 1 || s.DiskBytes != 0 || s.DiskFiles != 0 {
		t.Errorf("%d warnings, %+v", warnings.Load(), s)
	}
	if err := os.Mkdir(filepath.Join(dir, "chunks"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "chunks", packDir), 0o700); err != nil {
		t.Fatal(err)
	}
	c.disk.mu.Lock()
	c.disk.paused = time.Unix(1, 0)
	c.disk.mu.Unlock()
	b := objecttest.Bytes(99, 100)
	read(t, st, objecttest.Put(t, base, object.NewAddress(), b), b, 0, 100)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.DiskFiles != 1 || s.DiskBytes != blockBytes || warnings.Load() != 1 {
		t.Errorf("%d warnings, %+v, want a file", warnings.Load(), s)
	}
}

func TestLeastRecentlyUsedGoes(t *testing.T) {
	chunk := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, packed+1) }
	d, err := openDisk(t.TempDir(), 10*occupied(packed+1+trailerBytes), newCache(t, Options{}).opt.Logger)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	k := func(i int) fileKey { return fileKeyOf("x", key{index: int32(i)}) }
	for i := range 10 {
		d.put(k(i), chunk(i), true)
	}
	d.get(k(0))
	d.put(k(10), chunk(10), false)
	for i := range 11 {
		data, last, ok := d.get(k(i))
		if want := i != 1; ok != want || ok && (!bytes.Equal(data, chunk(i)) || last != (i != 10)) {
			t.Errorf("chunk %d: %d bytes, %v, %v", i, len(data), last, ok)
		}
	}
	d.put(k(20), make([]byte, d.limit+1), true) // never fits
	if d.has(k(20)) || !d.has(k(10)) {
		t.Error("a chunk over the limit pushed others out")
	}
}

func FuzzParseFile(f *testing.F) {
	k := fileKeyOf("file:///x", key{address: "data/a/b", md5: "m", index: 3})
	for _, n := range []int{0, 1, 100} {
		data := objecttest.Bytes(uint64(n), n)
		f.Add(append(bytes.Clone(data), trailerOf(k, data, n > 0)...))
	}
	f.Add([]byte("LKF1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, last, err := parseFile(k, b)
		if err != nil {
			if graveler.KindOf(err) != graveler.Corrupt {
				t.Fatalf("parseFile: %v", err)
			}
			return
		}
		// The flags have bits that mean nothing yet, so only what is written is compared.
		again, last2, err := parseFile(k, append(bytes.Clone(data), trailerOf(k, data, last)...))
		if err != nil || last2 != last || !bytes.Equal(again, data) {
			t.Fatalf("parseFile of what it gave: %v", err)
		}
	})
}
