package spill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

func begin(t testing.TB, b []byte) (Base, func(ctx context.Context, ns string) (object.Store, error)) {
	t.Helper()
	ns := "mem://" + strings.ReplaceAll(t.Name(), "/", "-")
	open := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	st, err := open(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	addr := object.NewAddress()
	info, err := st.Put(t.Context(), addr, bytes.NewReader(b), object.PutOptions{Size: int64(len(b))})
	if err != nil {
		t.Fatal(err)
	}
	return Base{Store: st, Namespace: ns, Object: object.Object{Address: addr, Type: graveler.AddressRelative, Size: info.Size, MD5: info.MD5}, Mtime: time.Unix(1e9, 0)}, open
}

func all(t testing.TB, f *File) []byte {
	t.Helper()
	b := make([]byte, f.Size()+10)
	n, err := f.ReadAt(t.Context(), b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b[:n]
}

// A file that began as an object behaves as a plain one, also over kills at any point: another Store on the same directory sees
// all that returned.
func TestCopyUpAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 12 {
		want := make([]byte, r.IntN(4*chunkSize))
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		b, open := begin(t, want)
		dir := t.TempDir()
		s, err := Open(dir, Options{OpenBase: open})
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.CreateFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := f.Stat(); !info.Mtime.Equal(b.Mtime) {
			t.Errorf("mtime %v", info.Mtime)
		}
		want = bytes.Clone(want)
		for step := range 60 {
			off := int64(r.IntN(5 * chunkSize))
			n := []int{1, 100, 5000, chunkSize, chunkSize + 77}[r.IntN(5)]
			switch op := r.IntN(10); op {
			case 0, 1, 2, 3:
				p := bytes.Repeat([]byte{byte(step + 1)}, n)
				if _, err := f.WriteAt(t.Context(), p, off); err != nil {
					t.Fatal(err)
				}
				if grow := int(off) + n - len(want); grow > 0 {
					want = append(want, make([]byte, grow)...)
				}
				copy(want[off:], p)
			case 4:
				p := bytes.Repeat([]byte{byte(step + 1)}, n)
				n, err := f.Append(t.Context(), p)
				if err != nil || n != len(p) {
					t.Fatal(n, err)
				}
				want = append(want, p...)
			case 5, 6:
				if err := f.Truncate(off); err != nil {
					t.Fatal(err)
				}
				if int(off) < len(want) {
					want = want[:off:off]
				} else {
					want = append(want, make([]byte, int(off)-len(want))...)
				}
			case 7:
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
			case 8: // kill -9
				id := f.ID()
				if s, err = Open(dir, Options{OpenBase: open}); err != nil {
					t.Fatal(err)
				}
				if f, err = s.OpenFile(id, true); err != nil {
					t.Fatal(err)
				}
			case 9:
				p := make([]byte, n)
				k, err := f.ReadAt(t.Context(), p, off)
				end := min(max(len(want)-int(off), 0), n)
				if k != end || (err == io.EOF) != (end < n) || end > 0 && !bytes.Equal(p[:k], want[off:int(off)+end]) {
					t.Fatalf("round %d step %d: read of %d at %d gives %d %v", round, step, n, off, k, err)
				}
			}
		}
		if got := all(t, f); !bytes.Equal(got, want) {
			t.Fatalf("round %d: contents differ", round)
		}
		snap, err := s.Snapshot(t.Context(), f.ID())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(snap.Reader()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: the snapshot differs: %v", round, err)
		}
		snap.Done()
		f.Close()
		st, err := s.BeginSettle(t.Context(), f.ID())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(st.Path()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: the settled file differs: %v", round, err)
		}
		st.Done()
		if _, err := s.OpenFile(f.ID(), false); !errors.Is(err, graveler.NotFound) {
			t.Errorf("after settling: %v", err)
		}
		if ents, _ := os.ReadDir(dir); len(ents) != 0 {
			t.Errorf("left: %v", ents)
		}
	}
}

// Nothing that wasn't synced is trusted after a power cut: a chunk that was never synced is the object's again.
func TestPowerCut(t *testing.T) {
	b, open := begin(t, bytes.Repeat([]byte("o"), 2*chunkSize))
	dir := t.TempDir()
	s, err := Open(dir, Options{OpenBase: open})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.CreateFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(t.Context(), []byte("synced"), 0)
	f.Sync()
	f.WriteAt(t.Context(), []byte("lost"), chunkSize)
	s, err = Open(dir, Options{OpenBase: open})
	if err != nil {
		t.Fatal(err)
	}
	s.boot = "another boot"
	g, err := s.OpenFile(f.ID(), false)
	if err != nil {
		t.Fatal(err)
	}
	got := all(t, g)
	if string(got[:6]) != "synced" || string(got[chunkSize:chunkSize+4]) != "oooo" {
		t.Errorf("%q %q", got[:6], got[chunkSize:chunkSize+4])
	}
	f.Close()
	g.Close()
}

func TestSettleAndWriters(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan graveler.ContentID, 10)
	s.SetReady(func(id graveler.ContentID) { ready <- id })
	f, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(t.Context(), []byte("x"), 0)
	if _, err := s.BeginSettle(t.Context(), f.ID()); !errors.Is(err, graveler.Conflict) {
		t.Errorf("settle of what is being written: %v", err)
	}
	f.Close()
	if id := <-ready; id != f.ID() {
		t.Error(id)
	}
	st, err := s.BeginSettle(t.Context(), f.ID())
	if err != nil {
		t.Fatal(err)
	}
	ro, err := s.OpenFile(f.ID(), false)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { // waits for the end of the settling
		if _, err := s.OpenFile(f.ID(), true); !errors.Is(err, graveler.NotFound) {
			t.Errorf("a writer after settling: %v", err)
		}
	})
	st.Done()
	wg.Wait()
	if got := all(t, ro); string(got) != "x" {
		t.Errorf("an open reader has %q", got)
	}
	ro.Close()

	g, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	s.Drop(g.ID())
	if _, err := g.WriteAt(t.Context(), []byte("still"), 0); err != nil {
		t.Error(err)
	}
	g.Close()
	if ids, _ := s.IDs(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}

func FuzzDecodeBase(f *testing.F) {
	f.Add([]byte(baseMagic + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _, _, _ = decodeBase(b) })
}

// TestTimesWhileSettling sets a content's time while it is being settled: who settles it has the time from before, so the setter is told
// that it is an object now, whose entry has to take the time.
func TestTimesWhileSettling(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, settled := range []bool{false, true} {
		r, err := s.OpenFile(f.ID(), false)
		if err != nil {
			t.Fatal(err)
		}
		st, err := s.BeginSettle(t.Context(), f.ID())
		if err != nil {
			t.Fatal(err)
		}
		when := time.Unix(1000, 0)
		done := make(chan error, 1)
		go func() { done <- r.SetTimes(time.Time{}, when) }()
		select {
		case err := <-done:
			t.Fatalf("times are set while the content is being settled: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if settled {
			st.Done()
			if err := <-done; !errors.Is(err, graveler.NotFound) {
				t.Errorf("times of what was settled: %v", err)
			}
		} else {
			st.Abort()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if i, err := r.Stat(); err != nil || !i.Mtime.Equal(when) {
				t.Errorf("%v, %v", i.Mtime, err)
			}
		}
		r.Close()
	}
}
