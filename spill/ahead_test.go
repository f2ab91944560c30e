package spill

import (
	"errors"
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
				before := time.Now()
				f, err := s.Create()
				if err != nil {
					t.Error(err)
					return
				}
				info, err := f.Stat()
				// The clock of local file systems ticks every few milliseconds.
				if err != nil || info.Size != 0 || info.Mtime.Before(before.Add(-20*time.Millisecond)) {
					t.Errorf("a new file is %+v %v", info, err)
				}
				mu.Lock()
				if seen[string(f.ID())] {
					t.Errorf("%s was given out twice", f.ID())
				}
				seen[string(f.ID())] = true
				mu.Unlock()
				f.Close()
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
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
