// Package objecttest tests implementations of object.Store, and has stores that fail and stores that count for the tests
// and benchmarks of what lies above.
package objecttest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Run tests that a store keeps the contract of object.Store, and that of object.Local if it is one. open returns an empty
// store; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) object.Store) {
	tests := []struct {
		name string
		run  func(*testing.T, object.Store)
	}{
		{"PutRead", testPutRead},
		{"Sizes", testSizes},
		{"Names", testNames},
		{"Refused", testRefused},
		{"Missing", testMissing},
		{"Atomic", testAtomic},
		{"WrongSize", testWrongSize},
		{"Replace", testReplace},
		{"List", testList},
		{"Delete", testDelete},
		{"Canceled", testCanceled},
		{"Parallel", testParallel},
		{"Local", testLocal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := open(t)
			defer func() {
				if err := st.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			tt.run(t, st)
		})
	}
}

// Bytes returns n bytes that seed determines.
func Bytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	r.Read(b)
	return b
}

// MD5 is the hex MD5 of b.
func MD5(b []byte) string {
	h := md5.Sum(b)
	return hex.EncodeToString(h[:])
}

// Put writes an object and returns it as an entry would name it.
func Put(t testing.TB, st object.Store, address string, b []byte) object.Object {
	t.Helper()
	i, err := st.Put(context.Background(), address, bytes.NewReader(b), object.PutOptions{Size: int64(len(b))})
	if err != nil {
		t.Fatalf("Put(%q): %v", address, err)
	}
	if i.Address != address || i.Size != int64(len(b)) || i.MD5 != MD5(b) {
		t.Fatalf("Put(%q) = %+v, want size %d and MD5 %s", address, i, len(b), MD5(b))
	}
	return Named(address, b)
}

// Named is the object at a relative address that holds b.
func Named(address string, b []byte) object.Object {
	return object.Object{Address: address, Type: graveler.AddressRelative, Size: int64(len(b)), MD5: MD5(b)}
}

func want(t *testing.T, what string, err error, k graveler.Kind) {
	t.Helper()
	if err == nil || err == io.EOF || graveler.KindOf(err) != k {
		t.Errorf("%s: error is %v, want kind %v", what, err, k)
	}
}

func check(t *testing.T, st object.Store, o object.Object, b []byte, off, n int) {
	t.Helper()
	p := make([]byte, n)
	got, err := st.ReadAt(context.Background(), o, p, int64(off))
	rest := b[min(off, len(b)):]
	if wantN := min(n, len(rest)); got != wantN || !bytes.Equal(p[:got], rest[:wantN]) {
		t.Fatalf("ReadAt(%q, %d bytes at %d) = %d, %v, want %d bytes as written", o.Address, n, off, got, err, wantN)
	}
	// At the very end io.EOF may come at once or with the next read, as with io.ReaderAt.
	if got < n && err != io.EOF || got == n && err != nil && (err != io.EOF || off+n < len(b)) {
		t.Fatalf("ReadAt(%q, %d bytes at %d of %d): error is %v", o.Address, n, off, len(b), err)
	}
}

func testPutRead(t *testing.T, st object.Store) {
	b := Bytes(1, 10_000)
	o := Put(t, st, object.NewAddress(), b)
	unknown := object.Object{Address: o.Address, Type: graveler.AddressRelative, Size: -1}
	for _, o := range []object.Object{o, unknown} {
		for _, r := range [][2]int{{0, 10_000}, {0, 1}, {9_999, 1}, {5_000, 100}, {9_990, 100}, {0, 20_000}, {10_000, 10}, {10_001, 10}, {1 << 30, 1}, {5, 0}} {
			check(t, st, o, b, r[0], r[1])
		}
	}
	_, err := st.ReadAt(t.Context(), o, make([]byte, 1), -1)
	want(t, "ReadAt(-1)", err, graveler.Invalid)
	i, err := st.Stat(t.Context(), o.Address)
	if err != nil || i.Address != o.Address || i.Size != o.Size || i.Modified.IsZero() || i.MD5 != "" && i.MD5 != o.MD5 {
		t.Errorf("Stat = %+v, %v", i, err)
	}
}

func testSizes(t *testing.T, st object.Store) {
	for _, n := range []int{0, 1, 4096, 1 << 20, 17<<20 + 3} { // the last goes up in parts
		b := Bytes(uint64(n), n)
		o := Put(t, st, fmt.Sprintf("data/p/%d", n), b)
		check(t, st, o, b, 0, n+1)
		check(t, st, o, b, n/2, 100)
		check(t, st, o, b, n, 1)
		if i, err := st.Stat(t.Context(), o.Address); err != nil || i.Size != int64(n) {
			t.Errorf("Stat(%d bytes) = %+v, %v", n, i, err)
		}
	}
}

func testNames(t *testing.T, st object.Store) {
	for _, name := range []string{
		"dummy", "_lakefs/refs_manifest.json", "data/a b", "data/ü/日本", "data/100%", "data/a%20b", "data/a+b&c=d", "data/q?x",
		"data/#h", "data/..x", "data/x..", "data/.hidden", "data/...", "data/a:b", `data/back\slash`, "data/'q\"", "data/~t",
	} {
		b := []byte("bytes of " + name)
		o := Put(t, st, name, b)
		check(t, st, o, b, 0, len(b))
		// Entries with the deprecated type are relative as long as they are no URL.
		o.Type = graveler.AddressByPrefix
		check(t, st, o, b, 0, len(b))
		var got []string
		for i, err := range st.List(t.Context(), name) {
			if err != nil {
				t.Fatalf("List(%q): %v", name, err)
			}
			got = append(got, i.Address)
		}
		if !slices.Contains(got, name) {
			t.Errorf("List(%q) = %q", name, got)
		}
	}
}

func testRefused(t *testing.T, st object.Store) {
	for _, a := range []string{"", "/a", "../a", "a/../../b", "a/..", "..", "a\x00b", "a//b", "a/", "./a", "a/./b"} {
		_, err := st.Put(t.Context(), a, bytes.NewReader(nil), object.PutOptions{})
		want(t, fmt.Sprintf("Put(%q)", a), err, graveler.Invalid)
	}
	for _, a := range []string{"", "/a", "../a", "a/../../b", "..", "a\x00b"} {
		_, err := st.ReadAt(t.Context(), object.Object{Address: a, Type: graveler.AddressRelative, Size: 1}, make([]byte, 1), 0)
		want(t, fmt.Sprintf("ReadAt(%q)", a), err, graveler.Invalid)
		_, err = st.Stat(t.Context(), a)
		want(t, fmt.Sprintf("Stat(%q)", a), err, graveler.Invalid)
		want(t, fmt.Sprintf("Delete(%q)", a), st.Delete(t.Context(), a), graveler.Invalid)
	}
	for _, a := range []string{"ftp://x/y", "s3:///key", "no url", "s3://bucket", "file://elsewhere/x"} {
		_, err := st.ReadAt(t.Context(), object.Object{Address: a, Type: graveler.AddressFull, Size: 1}, make([]byte, 1), 0)
		want(t, fmt.Sprintf("ReadAt(%q)", a), err, graveler.Invalid)
	}
}

func testMissing(t *testing.T, st object.Store) {
	Put(t, st, "data/p/x", []byte("x"))
	for _, a := range []string{"data/none", "none", "data/p", "data/p/x/y"} {
		for _, size := range []int64{-1, 1} {
			_, err := st.ReadAt(t.Context(), object.Object{Address: a, Type: graveler.AddressRelative, Size: size}, make([]byte, 1), 0)
			want(t, fmt.Sprintf("ReadAt(%q)", a), err, graveler.NotFound)
		}
		_, err := st.Stat(t.Context(), a)
		want(t, fmt.Sprintf("Stat(%q)", a), err, graveler.NotFound)
		if err := st.Delete(t.Context(), a); err != nil {
			t.Errorf("Delete(%q): %v", a, err)
		}
	}
	if _, err := st.Stat(t.Context(), "data/p/x"); err != nil {
		t.Errorf("Stat after deletes around it: %v", err)
	}
}

// testAtomic ends a Put in the middle: nothing may be left.
func testAtomic(t *testing.T, st object.Store) {
	broken := errors.New("the reader broke")
	for _, n := range []int{0, 100, 6 << 20, 20 << 20} {
		r := io.MultiReader(bytes.NewReader(Bytes(9, n)), iotest.ErrReader(broken))
		if _, err := st.Put(t.Context(), "data/broken", r, object.PutOptions{Size: -1}); err == nil {
			t.Fatalf("Put of a reader that fails after %d bytes: no error", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		r = io.MultiReader(bytes.NewReader(Bytes(9, n)), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), iotest.ErrReader(broken))
		if _, err := st.Put(ctx, "data/broken", r, object.PutOptions{Size: -1}); err == nil {
			t.Fatalf("Put that is canceled after %d bytes: no error", n)
		}
		for i, err := range st.List(t.Context(), "") {
			t.Fatalf("after a broken Put of %d bytes: List yields %+v, %v", n, i, err)
		}
	}
	want(t, "Put that ends early", putSized(t, st, 3, 4), graveler.Invalid)
	want(t, "Put that goes on", putSized(t, st, 4, 3), graveler.Invalid)
	_, err := st.Stat(t.Context(), "data/sized")
	want(t, "Stat", err, graveler.NotFound)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func putSized(t *testing.T, st object.Store, have int, announced int64) error {
	_, err := st.Put(t.Context(), "data/sized", bytes.NewReader(make([]byte, have)), object.PutOptions{Size: announced})
	return err
}

func testWrongSize(t *testing.T, st object.Store) {
	o := Put(t, st, "data/x", Bytes(3, 100))
	o.Size = 200
	for _, off := range []int64{0, 50, 150} {
		_, err := st.ReadAt(t.Context(), o, make([]byte, 200-off), off)
		want(t, fmt.Sprintf("ReadAt(%d) of an object that was cut off", off), err, graveler.Corrupt)
	}
}

func testReplace(t *testing.T, st object.Store) {
	for i := range 5 {
		b := Bytes(uint64(i), 1000+i)
		o := Put(t, st, "_lakefs/refs_manifest.json", b)
		o.Fresh = true
		check(t, st, o, b, 0, 2000)
	}
}

func testList(t *testing.T, st object.Store) {
	names := []string{"a", "a-b", "a.txt", "a0", "b/1", "b/2", "b/c/1", "b/c/2", "b0", "data/x/1", "é"}
	for _, n := range names {
		Put(t, st, n, []byte(n))
	}
	slices.Sort(names)
	for _, prefix := range []string{"", "a", "b", "b/", "b/c", "b/c/", "b/c/1", "c", "data/", "z/y", "b/1/", "..", "é"} {
		var got, want []string
		for i, err := range st.List(t.Context(), prefix) {
			if err != nil {
				t.Fatalf("List(%q): %v", prefix, err)
			}
			if i.Size != int64(len(i.Address)) || i.Modified.IsZero() {
				t.Errorf("List(%q) yields %+v", prefix, i)
			}
			got = append(got, i.Address)
		}
		for _, n := range names {
			if len(n) >= len(prefix) && n[:len(prefix)] == prefix {
				want = append(want, n)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", prefix, got, want)
		}
	}
	for range st.List(t.Context(), "") {
		break // must not panic
	}
}

func testDelete(t *testing.T, st object.Store) {
	o := Put(t, st, "data/p/1", []byte("one"))
	Put(t, st, "data/p/2", []byte("two"))
	check(t, st, o, []byte("one"), 0, 3)
	for range 2 {
		if err := st.Delete(t.Context(), "data/p/1"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := st.Stat(t.Context(), "data/p/1")
	want(t, "Stat of a deleted object", err, graveler.NotFound)
	o.Fresh = true
	_, err = st.ReadAt(t.Context(), o, make([]byte, 3), 0)
	want(t, "ReadAt of a deleted object", err, graveler.NotFound)
	if err := st.Delete(t.Context(), "data/p/2"); err != nil {
		t.Fatal(err)
	}
	Put(t, st, "data/p/3", []byte("three")) // in a directory that may have gone
}

func testCanceled(t *testing.T, st object.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := st.Put(ctx, "data/x", bytes.NewReader(Bytes(1, 100)), object.PutOptions{Size: 100})
	want(t, "Put with a canceled context", err, graveler.Canceled)
	Put(t, st, "data/y", []byte("y"))
	for _, err := range st.List(ctx, "") {
		want(t, "List with a canceled context", err, graveler.Canceled)
		return
	}
	t.Error("List with a canceled context: no error")
}

func testParallel(t *testing.T, st object.Store) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range 10 {
				b := Bytes(uint64(w*100+i), r.IntN(50_000))
				a := object.NewAddress()
				if _, err := st.Put(t.Context(), a, bytes.NewReader(b), object.PutOptions{Size: -1}); err != nil {
					t.Errorf("Put: %v", err)
					return
				}
				p := make([]byte, len(b))
				if n, err := st.ReadAt(t.Context(), Named(a, b), p, 0); n != len(b) || err != nil && err != io.EOF || !bytes.Equal(p, b) {
					t.Errorf("ReadAt = %d, %v", n, err)
				}
				if i%3 == 0 {
					if err := st.Delete(t.Context(), a); err != nil {
						t.Errorf("Delete: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func testLocal(t *testing.T, st object.Store) {
	l, ok := st.(object.Local)
	if !ok {
		t.Skip("not a store of local files")
	}
	dirs := []string{t.TempDir()}
	if dir, err := os.MkdirTemp("/dev/shm", "objecttest"); err == nil { // another file system
		dirs = append(dirs, dir)
		defer os.RemoveAll(dir)
	}
	for i, dir := range dirs {
		b := Bytes(uint64(i), 5000)
		name := filepath.Join(dir, "spilled")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		o := Named(object.NewAddress(), b)
		want(t, "Adopt of nothing", l.Adopt(t.Context(), o.Address, name+"x"), graveler.NotFound)
		want(t, "Adopt to the outside", l.Adopt(t.Context(), "../x", name), graveler.Invalid)
		if err := l.Adopt(t.Context(), o.Address, name); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Errorf("Adopt leaves the file to its caller: %v", err)
		}
		check(t, l, o, b, 0, 6000)
		if got, err := os.ReadFile(l.Path(o)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("the file at Path: %d bytes, %v", len(got), err)
		}
		full := object.Object{Address: "file://" + l.Path(o), Type: graveler.AddressFull, Size: o.Size, MD5: o.MD5}
		check(t, l, full, b, 10, 6000)
		if l.Path(full) != l.Path(o) {
			t.Errorf("Path(%s) = %s", full.Address, l.Path(full))
		}
	}
	for i := range 200 { // past what is made durable file by file
		if i%50 == 0 {
			if err := l.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		Put(t, l, object.NewAddress(), []byte{byte(i)})
	}
	if err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"../x", "", "/x"} {
		if p := l.Path(object.Object{Address: a, Type: graveler.AddressRelative}); p != "" {
			t.Errorf("Path(%q) = %q", a, p)
		}
	}
	if p := l.Path(object.Object{Address: "s3://bucket/key", Type: graveler.AddressFull}); p != "" {
		t.Errorf("Path of an S3 object = %q", p)
	}
}
