package spill

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Files that are made ahead are nobody's: each is given out once, is new when it is, and goes when the store closes.
func TestAhead(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{Ahead: 4})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				f, err := s.Create()
				if err != nil {
					t.Error(err)
					return
				}
				if f.Size() != 0 {
					t.Errorf("a new file has %d bytes", f.Size())
				}
				mu.Lock()
				if seen[string(f.ID())] {
					t.Errorf("%s was given out twice", f.ID())
				}
				seen[string(f.ID())] = true
				mu.Unlock()
				f.Close()
			}
		})
	}
	wg.Wait()
	// One that was made long ago is a file of now.
	old := time.Now().Add(-time.Hour)
	m := <-s.ahead
	if err := os.Chtimes(s.path(m.id), old, old); err != nil {
		t.Fatal(err)
	}
	m.at = old
	m.touch()
	if fi, err := m.f.Stat(); err != nil || fi.ModTime().Before(old.Add(time.Minute)) {
		t.Errorf("a file of an hour ago has the time %v %v", fi.ModTime(), err)
	}
	s.discard(m)
	s.Close()
	s.Close()
	ids, err := s.IDs()
	if err != nil || len(ids) != 160 {
		t.Errorf("%d contents %v", len(ids), err)
	}
	if f, err := s.Create(); err != nil {
		t.Errorf("create after Close: %v", err)
	} else {
		f.Close()
	}
}

// A content that became an object is not found any more, although its file's name is removed a little later: what is written to it
// would be written to the object.
func TestSettledIsGoneAtOnce(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Ahead: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 300 {
		f, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		id := f.ID()
		f.Close()
		st, err := s.BeginSettle(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		st.Done()
		if _, err := s.OpenFile(id, true); !errors.Is(err, graveler.NotFound) {
			t.Fatalf("open: %v", err)
		}
		if _, err := s.Stat(id); !errors.Is(err, graveler.NotFound) {
			t.Fatalf("stat: %v", err)
		}
		if _, err := s.BeginSettle(t.Context(), id); !errors.Is(err, graveler.NotFound) {
			t.Fatalf("settle again: %v", err)
		}
	}
}
