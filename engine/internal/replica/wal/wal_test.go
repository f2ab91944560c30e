package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/graveler"
)

func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir, Options{SegmentSize: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func entry(i, term uint64, data string) *raft.Log {
	return &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: []byte(data)}
}

// same compares a log with the entries that it should have. Older ones than first may be back after a restart.
func same(t *testing.T, l *Log, first uint64, want map[uint64]string) {
	t.Helper()
	lo, _ := l.FirstIndex()
	hi, _ := l.LastIndex()
	if len(want) == 0 {
		if hi >= first {
			t.Fatalf("from %d to %d, want none from %d on", lo, hi, first)
		}
		return
	}
	if lo > first || hi != first+uint64(len(want))-1 {
		t.Fatalf("from %d to %d, want %d and %d more", lo, hi, first, len(want)-1)
	}
	var e raft.Log
	for i, data := range want {
		if err := l.GetLog(i, &e); err != nil || string(e.Data) != data || e.Index != i {
			t.Fatalf("entry %d is %q %v, want %q", i, e.Data, err, data)
		}
	}
	if err := l.GetLog(hi+1, &e); err != raft.ErrLogNotFound {
		t.Fatalf("entry %d: %v", hi+1, err)
	}
}

func TestAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		l := open(t, dir)
		want := map[uint64]string{}
		first, next := uint64(1), uint64(1)
		for step := range 300 {
			switch op := r.IntN(20); {
			case op < 12:
				var es []*raft.Log
				if len(want) == 0 {
					first = next
				}
				for range 1 + r.IntN(5) {
					data := strings.Repeat(fmt.Sprint(step), r.IntN(300))
					es = append(es, entry(next, uint64(step), data))
					want[next] = data
					next++
				}
				if err := l.StoreLogs(es); err != nil {
					t.Fatal(err)
				}
			case op < 14 && len(want) > 0: // the back
				from := first + uint64(r.IntN(len(want)))
				if err := l.DeleteRange(from, next-1); err != nil {
					t.Fatal(err)
				}
				for i := from; i < next; i++ {
					delete(want, i)
				}
				next = from
			case op < 16 && len(want) > 0: // the front
				to := first + uint64(r.IntN(len(want)))
				lo, _ := l.FirstIndex() // after a restart the front may be back
				if err := l.DeleteRange(lo, to); err != nil {
					t.Fatal(err)
				}
				for ; first <= to; first++ {
					delete(want, first)
				}
			case op == 16:
				if err := l.Sync(); err != nil {
					t.Fatal(err)
				}
			case op == 17:
				if err := l.SetUint64([]byte("term"), uint64(step)); err != nil {
					t.Fatal(err)
				}
			default: // also without a close, as after kill -9
				if r.IntN(2) == 0 {
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
				}
				term, _ := l.GetUint64([]byte("term"))
				l = open(t, dir)
				if got, _ := l.GetUint64([]byte("term")); got != term {
					t.Fatalf("term %d, want %d", got, term)
				}
			}
			if len(want) == 0 {
				first = next
			}
			same(t, l, first, want)
		}
		l.Close()
	}
}

func TestWrongAppends(t *testing.T) {
	l := open(t, t.TempDir())
	defer l.Close()
	if err := l.StoreLogs([]*raft.Log{entry(7, 1, "a"), entry(8, 1, "b")}); err != nil {
		t.Fatal(err)
	}
	for _, es := range [][]*raft.Log{{entry(8, 1, "")}, {entry(10, 1, "")}, {entry(9, 1, ""), entry(11, 1, "")}} {
		if err := l.StoreLogs(es); err == nil {
			t.Errorf("appended %d behind 8", es[0].Index)
		}
	}
	if err := l.DeleteRange(7, 7); err != nil {
		t.Fatal(err)
	}
	same(t, l, 8, map[uint64]string{8: "b"})
}

// A log that ends within a record has all entries before it.
func TestTornAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	ends := []int64{segmentHead}
	for i := range uint64(5) {
		if err := l.StoreLog(entry(i+1, 1, fmt.Sprint("data ", i))); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, l.segments[0].end)
	}
	name := l.name(1)
	l.closeFiles()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		for _, tail := range [][]byte{nil, make([]byte, 40), bytes.Repeat([]byte{0xff}, 40)} {
			all, _ := filepath.Glob(dir + "/*" + suffix)
			for _, n := range all {
				os.Remove(n)
			}
			if err := os.WriteFile(name, append(whole[:cut:cut], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := map[uint64]string{}
			for i, end := range ends[1:] {
				if int64(cut) >= end {
					want[uint64(i+1)] = fmt.Sprint("data ", i)
				}
			}
			l := open(t, dir)
			same(t, l, 1, want)
			// And it goes on from there.
			next := uint64(len(want) + 1)
			if err := l.StoreLog(entry(next, 2, "new")); err != nil {
				t.Fatal(err)
			}
			want[next] = "new"
			l.closeFiles()
			l = open(t, dir)
			same(t, l, 1, want)
			l.closeFiles()
		}
	}
}

// A power cut keeps what was synced, and of what was written later any part, block by block.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		dir := t.TempDir()
		l := open(t, dir)
		durable := map[string][]byte{} // files as they were at the last Sync
		want := map[uint64]string{}    // entries at the last Sync
		all := map[uint64]string{}
		for i := range uint64(20 + r.IntN(60)) {
			data := strings.Repeat(fmt.Sprint(i, " "), r.IntN(200))
			all[i+1] = data
			if err := l.StoreLog(entry(i+1, 1, data)); err != nil {
				t.Fatal(err)
			}
			if r.IntN(6) == 0 {
				if err := l.Sync(); err != nil {
					t.Fatal(err)
				}
				for k, v := range all {
					want[k] = v
				}
				for _, s := range l.segments {
					b, err := os.ReadFile(s.f.Name())
					if err != nil {
						t.Fatal(err)
					}
					durable[s.f.Name()] = b
				}
			}
		}
		l.closeFiles()
		files, _ := filepath.Glob(dir + "/*" + suffix)
		for _, name := range files {
			now, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			was, kept := durable[name]
			if !kept && r.IntN(2) == 0 {
				os.Remove(name)
				continue
			}
			const block = 64 // smaller than a disk's, for more cases
			after := append(bytes.Clone(was), make([]byte, len(now)-len(was))...)
			for at := len(was); at < len(now); at += block {
				if r.IntN(3) > 0 {
					copy(after[at:min(at+block, len(now))], now[at:])
				}
			}
			if r.IntN(2) == 0 {
				after = after[:len(was)+r.IntN(len(now)-len(was)+1)]
			}
			if err := os.WriteFile(name, after, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := Open(dir, Options{SegmentSize: 4 << 10})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		last, _ := l.LastIndex()
		if last < uint64(len(want)) {
			t.Fatalf("seed %d: %d entries after the cut, %d were durable", seed, last, len(want))
		}
		got := map[uint64]string{}
		for i := uint64(1); i <= last; i++ {
			got[i] = all[i]
		}
		same(t, l, 1, got)
		l.Close()
	}
}

// A durable entry that is damaged is an error, wherever it is, not a torn tail.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	for i := range uint64(100) {
		if err := l.StoreLog(entry(i+1, 1, strings.Repeat("x", 100))); err != nil {
			t.Fatal(err)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.segments) < 2 {
		t.Fatal("one segment is too few for this test")
	}
	spot := l.segments[0].offsets[3] + headSize + 50
	second := l.segments[1].f.Name()
	name := l.segments[0].f.Name()
	l.Close()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][]byte{"a changed byte": append(append(bytes.Clone(b[:spot]), b[spot]^1), b[spot+1:]...), "a file cut short": b[:spot]} {
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, Options{})
		if !errors.Is(err, graveler.Corrupt) || !strings.Contains(err.Error(), "entry 4 ") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(second); err != nil {
			t.Errorf("%s: the segment behind it is gone: %v", what, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	b, _ := appendRecord(nil, &raft.Log{Index: 3, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext")}, 1, 7)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e raft.Log
		n, synced, err := decodeRecord(b, &e, 7)
		if err != nil {
			return
		}
		again, err := appendRecord(nil, &e, synced, 7)
		if err != nil || !bytes.Equal(again, b[:n]) {
			t.Errorf("%x decodes to %+v, which is %x", b[:n], e, again)
		}
	})
}

// Segments that begin as files written before, with zeros or with what the log has dropped, show nothing of that: after a kill too, and
// whatever of the last appends has reached the disk.
func TestReady(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 3))
		dir := t.TempDir()
		opt := Options{SegmentSize: 2 * readyFrom}
		open := func() *Log {
			l, err := Open(dir, opt)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		model := map[uint64]string{}
		first, next := uint64(1), uint64(1)
		written, reused := 0, 0
		for range 400 {
			var es []*raft.Log
			for range 1 + r.IntN(8) {
				data := strings.Repeat(fmt.Sprintf("%d-%d ", next, r.IntN(1000)), 1+r.IntN(2000))
				model[next] = data
				es = append(es, entry(next, 1, data))
				next++
			}
			if err := l.StoreLogs(es); err != nil {
				t.Fatal(err)
			}
			switch what := r.IntN(60); {
			case what < 5:
				l.filled.Wait()
			case what < 10:
				if err := l.Sync(); err != nil {
					t.Fatal(err)
				}
			case what < 16: // the front goes
				if upto := first + r.Uint64N(next-first); upto > first {
					had := l.ready
					if err := l.DeleteRange(first, upto-1); err != nil {
						t.Fatal(err)
					}
					reused += max(l.ready-had, 0)
					for ; first < upto; first++ {
						delete(model, first)
					}
				}
			case what == 16: // the back goes
				if from := next - r.Uint64N(min(next-first, 20)); from > first && from < next {
					if err := l.DeleteRange(from, next-1); err != nil {
						t.Fatal(err)
					}
					for ; next > from; next-- {
						delete(model, next-1)
					}
				}
			case what == 17: // a kill, and of a torn last append a part
				if err := l.Sync(); err != nil {
					t.Fatal(err)
				}
				l.filled.Wait()
				s := l.segments[len(l.segments)-1]
				torn, err := appendRecord(nil, entry(next, 1, strings.Repeat("torn", 500)), l.synced, s.salt)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.f.WriteAt(torn[:r.IntN(len(torn))], s.end); err != nil {
					t.Fatal(err)
				}
				l.closeFiles()
				l = open()
				// What the file's segments had before the first index was dropped may be there again.
				if f, _ := l.FirstIndex(); f < first {
					if err := l.DeleteRange(f, first-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			if l.segments[len(l.segments)-1].written {
				written++
			}
		}
		same(t, l, first, model)
		l.Close()
		l = open()
		if f, _ := l.FirstIndex(); f < first {
			if err := l.DeleteRange(f, first-1); err != nil {
				t.Fatal(err)
			}
		}
		same(t, l, first, model)
		l.Close()
		if written == 0 || reused == 0 {
			t.Errorf("seed %d: %d appends to written files, %d files used again", seed, written, reused)
		}
	}
}
