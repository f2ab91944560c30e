package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// records are all of a state.
func records(t testing.TB, s reader) map[string]string {
	t.Helper()
	it, err := s.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	out := map[string]string{}
	for ok := it.First(); ok; ok = it.Next() {
		out[string(it.Key())] = string(it.Value())
	}
	if err := it.Error(); err != nil {
		t.Fatal(err)
	}
	return out
}

// scramble makes a random state, with records that were overwritten, removed and range-deleted, flushed and not.
func scramble(t testing.TB, r *Replica, rnd *rand.Rand, n int) {
	t.Helper()
	db := r.state.now.Load().DB
	for i := range n {
		k := fmt.Appendf(nil, "s%04d\x00%x", rnd.IntN(20), rnd.IntN(n))
		v := make([]byte, rnd.IntN(300))
		if rnd.IntN(50) == 0 {
			v = make([]byte, rnd.IntN(2<<20))
		}
		for j := range v {
			v[j] = byte(rnd.IntN(1 + rnd.IntN(256)))
		}
		var err error
		switch rnd.IntN(20) {
		case 0:
			err = db.Delete(k, pebble.NoSync)
		case 1:
			lo := fmt.Appendf(nil, "s%04d", rnd.IntN(20))
			err = db.DeleteRange(append(lo, 0), append(lo, 0, '1'), pebble.NoSync)
		default:
			err = db.Set(k, v, pebble.NoSync)
		}
		if err == nil && i%(n/3+1) == n/3 {
			err = db.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// stamp sets a state's index as applying would.
func stamp(t testing.TB, r *Replica, index, term uint64) {
	t.Helper()
	at := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, index), term)
	if err := r.state.now.Load().Set(appliedKey, at, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	r.fsm.applied = index
}

// A stream builds the state that it was made of, in the place of another, which views of it still see.
func TestStreamOfRandomStates(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		from, to := open(t, t.TempDir()), open(t, t.TempDir())
		if seed > 0 {
			scramble(t, from, rnd, 1+rnd.IntN(3000))
		}
		scramble(t, to, rnd, 1+rnd.IntN(300))
		stamp(t, from, 1000+seed, 7)
		before := records(t, to.state)
		v, err := to.View()
		if err != nil {
			t.Fatal(err)
		}
		p, err := to.Peek()
		if err != nil {
			t.Fatal(err)
		}
		want := records(t, from.state)
		var s bytes.Buffer
		index, term, err := from.writeState(&s)
		if err != nil || index != 1000+seed || term != 7 {
			t.Fatalf("index %d term %d: %v", index, term, err)
		}
		if err := to.readState(&s); err != nil {
			t.Fatal(err)
		}
		if got := records(t, to.state); !maps.Equal(got, want) {
			t.Fatalf("seed %d: %d records came of %d", seed, len(got), len(want))
		}
		if got := records(t, v.r); !maps.Equal(got, before) {
			t.Fatalf("seed %d: a view of the state before changed", seed)
		}
		if got := records(t, p.r); !maps.Equal(got, before) || p.Unchanged() {
			t.Fatalf("seed %d: a peek at the state before changed, or says that nothing did (%v)", seed, p.Unchanged())
		}
		if to.fsm.applied != index || to.fsm.refs.Load()&1 != 0 {
			t.Fatalf("applied %d, refs %d", to.fsm.applied, to.fsm.refs.Load())
		}
		p.Close()
		v.Close()
		dir := to.cfg.Dir
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "state*")); len(left) != 2 {
			t.Fatalf("left: %q", left)
		}
		to = open(t, dir)
		got := records(t, to.state)
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: %d records after a restart of %d", seed, len(got), len(want))
		}
		if st := to.Status(); st.Applied != index {
			t.Fatalf("applied %d after a restart", st.Applied)
		}
		makeRepo(t, to) // it goes on
		to.Close()
		from.Close()
	}
}

// The state of a stream is one state, however much is written meanwhile, and the index is that of the state.
func TestStreamIsConsistent(t *testing.T) {
	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			// Both or neither.
			n := fmt.Sprint(i)
			if _, err := r.Stage(context.Background(), "repo", "main", []graveler.Change{put("a", n), put("z", n)}); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 20 {
		var s bytes.Buffer
		index, _, err := r.writeState(&s)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		if _, _, err := readStream(&s, func(k, v []byte) error { got[string(k)] = string(v); return nil }); err != nil {
			t.Fatal(err)
		}
		if be([]byte(got[string(appliedKey)])) != index {
			t.Fatal("the index isn't the state's")
		}
		if a, z := got[string(stagedKey("t0", "a"))], got[string(stagedKey("t0", "z"))]; a != z {
			t.Fatalf("half a command: %q %q", a, z)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Whatever is wrong with a stream is found, and the present state stays.
func TestDamagedStream(t *testing.T) {
	from, to := open(t, t.TempDir()), open(t, t.TempDir())
	defer from.Close()
	defer to.Close()
	rnd := rand.New(rand.NewPCG(5, 1))
	scramble(t, from, rnd, 800)
	stamp(t, from, 50, 3)
	makeRepo(t, to)
	want := records(t, to.state)
	var s bytes.Buffer
	if _, _, err := from.writeState(&s); err != nil {
		t.Fatal(err)
	}
	whole := s.Bytes()
	try := func(what string, b []byte) {
		t.Helper()
		if err := to.readState(bytes.NewReader(b)); !errors.Is(err, graveler.Corrupt) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for range 25 {
		b := bytes.Clone(whole)
		i := rnd.IntN(len(b))
		b[i] ^= byte(1 + rnd.IntN(255))
		try(fmt.Sprint("a wrong byte at ", i), b)
		n := rnd.IntN(len(whole))
		try(fmt.Sprint("cut at ", n), whole[:n])
	}
	try("empty", nil)
	try("more", append(bytes.Clone(whole), 0))
	// A frame that is missing, or comes twice, has its own checksum right.
	at := len(streamLine)
	var frames [][]byte
	for at < len(whole) {
		n := 8 + int(binary.BigEndian.Uint32(whole[at:]))
		frames = append(frames, whole[at:at+n])
		at += n
	}
	if len(frames) < 4 {
		t.Fatalf("only %d frames", len(frames))
	}
	line := []byte(streamLine)
	try("one missing", bytes.Join(append([][]byte{line, frames[0]}, frames[2:]...), nil))
	try("one twice", bytes.Join(append([][]byte{line, frames[0], frames[1]}, frames[1:]...), nil))
	try("another version", bytes.Join(append([][]byte{[]byte("lakefsfs state 2\n")}, frames...), nil))
	broken := errors.New("the connection broke")
	if err := to.readState(io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), errReader{broken})); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if got := records(t, to.state); !maps.Equal(got, want) {
		t.Fatal("the state changed")
	}
	if left, _ := filepath.Glob(filepath.Join(to.cfg.Dir, "state-*")); len(left) != 0 {
		t.Fatalf("left: %q", left)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// What kills leave is gone after a start, and what this package doesn't know stays.
func TestLeavings(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	makeRepo(t, r)
	r.Close()
	for _, n := range []string{"state-abc", "state.copy-1", "mine"} {
		if err := os.MkdirAll(filepath.Join(dir, n, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "state.at.new"), []byte("st"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir)
	r.Close()
	for _, n := range []string{"state-abc", "state.copy-1", "state.at.new"} {
		if _, err := os.Stat(filepath.Join(dir, n)); err == nil {
			t.Errorf("%s is still there", n)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "state", "state-gone\n", "../state\n", "raft\n"} {
		if err := os.WriteFile(filepath.Join(dir, "state.at"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir}); !errors.Is(err, graveler.Corrupt) || !strings.Contains(err.Error(), "state.at") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzStream(f *testing.F) {
	r := open(f, f.TempDir())
	makeRepo(f, r)
	var s bytes.Buffer
	if _, _, err := r.writeState(&s); err != nil {
		f.Fatal(err)
	}
	r.Close()
	f.Add(s.Bytes())
	f.Add([]byte(streamLine))
	f.Add(s.Bytes()[:s.Len()-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		var last []byte
		_, _, _ = readStream(bytes.NewReader(data), func(k, v []byte) error {
			if bytes.Compare(k, last) <= 0 {
				t.Fatalf("%q after %q", k, last)
			}
			last = bytes.Clone(k)
			return nil
		})
		// The same with checksums mended, so that what is behind them is reached.
		if !bytes.HasPrefix(data, []byte(streamLine)) {
			return
		}
		var out bytes.Buffer
		out.WriteString(streamLine)
		fr := &frames{w: &out}
		for rest := data[len(streamLine):]; len(rest) > 8; {
			n := min(int(binary.BigEndian.Uint32(rest)), len(rest)-8)
			if n <= 0 {
				break
			}
			if err := fr.write(rest[8], rest[9:8+n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[8+n:]
		}
		_, _, _ = readStream(&out, func(k, v []byte) error { return nil })
	})
}
