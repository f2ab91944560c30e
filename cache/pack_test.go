package cache

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

func smallKey(i int) fileKey { return fileKeyOf("x", key{address: fmt.Sprint(i)}) }

func smallChunk(i int) []byte { return objecttest.Bytes(uint64(i), 500+i%3000) }

func openTestDisk(t *testing.T, dir string, limit int64) *disk {
	t.Helper()
	d, err := openDisk(dir, limit, newCache(t, Options{}).opt.Logger)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkSmall reads chunks and returns how many there are. What is there must be what was put.
func checkSmall(t *testing.T, d *disk, n int) (have int) {
	t.Helper()
	for i := range n {
		b, last, ok := d.get(smallKey(i))
		if !ok {
			continue
		}
		have++
		if !bytes.Equal(b, smallChunk(i)) || last != (i%2 == 0) {
			t.Fatalf("chunk %d has %d bytes, last %v", i, len(b), last)
		}
	}
	return have
}

// Small chunks share files: they are found by all, at once and after a restart, and take no more than the limit.
func TestPacks(t *testing.T) {
	const n = 5000 // 10 MB
	dir := t.TempDir()
	d := openTestDisk(t, dir, 64<<20)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				d.put(smallKey(i), smallChunk(i), i%2 == 0)
				d.put(smallKey(i), nil, false) // it is there already
				if _, _, ok := d.get(smallKey(i)); !ok {
					t.Errorf("chunk %d isn't there", i)
				}
			}
		})
	}
	wg.Wait()
	if have := checkSmall(t, d, n); have != n {
		t.Errorf("%d chunks, want %d", have, n)
	}
	used, names := usage(t, dir)
	if len(names) > 6 {
		t.Errorf("%d files", len(names))
	}
	if bytes, count, _ := d.stats(); bytes != used || count != n {
		t.Errorf("%d bytes are counted, %d used; %d chunks", bytes, used, count)
	}
	d.close()

	d = openTestDisk(t, dir, 64<<20)
	if have := checkSmall(t, d, n); have != n {
		t.Errorf("after a restart %d chunks, want %d", have, n)
	}
	if bytes, _, _ := d.stats(); bytes != used {
		t.Errorf("after a restart %d bytes are counted, %d used", bytes, used)
	}
	d.close()

	// A lower limit: whole packs go, and more when new ones come.
	d = openTestDisk(t, dir, used/2)
	defer d.close()
	have := checkSmall(t, d, n)
	if now, _ := usage(t, dir); now > used/2 || have == 0 || have > n/2+n/8 {
		t.Errorf("%d bytes of at most %d, %d chunks", now, used/2, have)
	}
	for i := n; i < 2*n; i++ {
		d.put(smallKey(i), smallChunk(i), i%2 == 0)
		if i%500 == 0 {
			if now, _ := usage(t, dir); now > used/2 {
				t.Fatalf("%d bytes of at most %d", now, used/2)
			}
		}
	}
	if _, _, ok := d.get(smallKey(2*n - 1)); !ok {
		t.Error("the last chunk isn't there")
	}
	if have := checkSmall(t, d, 2*n); have < n/4 {
		t.Errorf("%d chunks", have)
	}
}

// A damaged record is noticed, and the others of its pack are read on; a pack that was cut short keeps what is whole.
func TestDamagedPack(t *testing.T) {
	const n = 100
	dir := t.TempDir()
	d := openTestDisk(t, dir, 64<<20)
	for i := range n {
		d.put(smallKey(i), smallChunk(i), i%2 == 0)
	}
	_, names := usage(t, dir)
	if len(names) != 1 || filepath.Base(filepath.Dir(names[0])) != packDir {
		t.Fatalf("files %q", names)
	}
	d.mu.Lock()
	hurt, cut := *d.index[smallKey(30)], *d.index[smallKey(80)]
	d.mu.Unlock()
	f, err := os.OpenFile(names[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{^smallChunk(30)[7]}, hurt.off+trailerBytes+7); err != nil {
		t.Fatal(err)
	}
	if have := checkSmall(t, d, n); have != n-1 || d.has(smallKey(30)) {
		t.Errorf("%d chunks, want %d", have, n-1)
	}
	if _, _, dropped := d.stats(); dropped != 1 {
		t.Errorf("%d dropped", dropped)
	}
	d.put(smallKey(30), smallChunk(30), true)
	if have := checkSmall(t, d, n); have != n {
		t.Errorf("%d chunks when it was put again, want %d", have, n)
	}
	d.close()
	if err := f.Truncate(cut.off + 100); err != nil {
		t.Fatal(err)
	}
	d = openTestDisk(t, dir, 64<<20)
	if have := checkSmall(t, d, n); have != 79 { // nor the damaged one
		t.Errorf("%d chunks of a pack cut in the 81st, want 79", have)
	}
	d.close()
}

// FuzzReadPack: whatever a pack holds, what is found in it lies in it, and is read or refused.
func FuzzReadPack(f *testing.F) {
	var b []byte
	for i := range 3 {
		b = append(b, trailerOf(smallKey(i), smallChunk(i), true)...)
		b = append(b, smallChunk(i)...)
	}
	f.Add(b)
	f.Add(b[:len(b)-5])
	f.Add(append(make([]byte, 50), b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		spots, err := readPack(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		for k, s := range spots {
			if s.off < 0 || s.n < trailerBytes || s.off+s.n > int64(len(b)) {
				t.Fatalf("a record at %d of %d bytes, in %d", s.off, s.n, len(b))
			}
			rec := b[s.off : s.off+s.n]
			if data, last, err := parseRecord(k, rec); err == nil && !bytes.Equal(append(trailerOf(k, data, last), data...)[36:], rec[36:]) && last == (rec[4]&flagLast != 0) && rec[5]|rec[6]|rec[7]|rec[4]&^flagLast == 0 {
				t.Fatalf("record of %d bytes isn't what it is read as", s.n)
			}
		}
	})
}
