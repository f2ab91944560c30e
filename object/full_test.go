package object_test

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// read reads an object at a full URL.
func read(t *testing.T, st object.Store, address string, size int) ([]byte, error) {
	t.Helper()
	p := make([]byte, size)
	n, err := st.ReadAt(t.Context(), object.Object{Address: address, Type: graveler.AddressFull, Size: int64(size)}, p, 0)
	if err == io.EOF {
		err = nil
	}
	return p[:n], err
}

func mustRead(t *testing.T, st object.Store, address, want string) {
	t.Helper()
	got, err := read(t, st, address, len(want))
	if err != nil || string(got) != want {
		t.Errorf("read %s = %q, %v, want %q", address, got, err, want)
	}
}

func TestFullAddresses(t *testing.T) {
	root := t.TempDir()
	for name, b := range map[string]string{"other/data/1": "one", "other/a b": "space", "other/a%20b": "percent", "other/100%": "hundred", "other/c d": "decoded"} {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mem := open(t, "mem://"+t.Name()+"/p", object.Options{})
	defer mem.Close()
	objecttest.Put(t, mem, "x/y", []byte("in memory"))

	for _, ns := range []string{"file://" + root + "/r1", "mem://" + t.Name() + "2"} {
		st := open(t, ns, object.Options{LocalRoot: root})
		defer st.Close()
		mustRead(t, st, "file://"+root+"/other/data/1", "one")
		mustRead(t, st, "local://other/data/1", "one")
		// A name stands as it is; decoded only where there is nothing else.
		mustRead(t, st, "local://other/a b", "space")
		mustRead(t, st, "local://other/a%20b", "percent")
		mustRead(t, st, "local://other/100%", "hundred")
		mustRead(t, st, "local://other/c%20d", "decoded")
		mustRead(t, st, "mem://"+t.Name()+"/p/x/y", "in memory")
		for address, kind := range map[string]graveler.Kind{
			"local://other/none":          graveler.NotFound,
			"mem://" + t.Name() + "/none": graveler.NotFound,
			"local://../x":                graveler.Invalid,
			"local://other/../../x":       graveler.Invalid,
			"local://other/%2e%2e/%2e%2e": graveler.Invalid,
		} {
			if _, err := read(t, st, address, 1); graveler.KindOf(err) != kind {
				t.Errorf("read %s: %v, want kind %v", address, err, kind)
			}
		}
	}
	// Without a local root, the directory above a file:// namespace is it.
	st := open(t, "file://"+root+"/r1", object.Options{})
	defer st.Close()
	mustRead(t, st, "local://other/data/1", "one")
	if p := st.(object.Local).Path(object.Object{Address: "local://other/c%20d", Type: graveler.AddressFull}); p != root+"/other/c d" {
		t.Errorf("Path of a decoded address = %q", p)
	}
}

// An object of another bucket is read with the parameters of the namespace's URL: its endpoint, above all.
func TestFullAddressesS3(t *testing.T) {
	ns := objecttest.S3(t)
	u, err := url.Parse(ns)
	if err != nil {
		t.Fatal(err)
	}
	st := open(t, ns, object.Options{})
	defer st.Close()
	objecttest.Put(t, st, "a/100%/x y?z", []byte("bytes"))
	other := *u
	other.Path = "/elsewhere"
	st2 := open(t, other.String(), object.Options{})
	defer st2.Close()
	mustRead(t, st2, "s3://"+u.Host+"/ns/a/100%/x y?z", "bytes")
	if _, err := read(t, st2, "s3://no-such-bucket/x", 1); graveler.KindOf(err) != graveler.NotFound {
		t.Errorf("read from a missing bucket: %v", err)
	}
}

func TestListURL(t *testing.T) {
	mem := open(t, "mem://"+t.Name()+"/p", object.Options{})
	defer mem.Close()
	dir := t.TempDir()
	file := open(t, "file://"+dir, object.Options{})
	defer file.Close()
	for _, st := range []object.Store{mem, file} {
		for _, name := range []string{"in/a", "in/b/c", "inside", "z"} {
			objecttest.Put(t, st, name, []byte(name))
		}
	}
	for _, base := range []string{"mem://" + t.Name() + "/p", "file://" + dir} {
		for source, want := range map[string][]string{
			"/in": {"a", "b/c"}, "/in/": {"a", "b/c"}, "/in/a": {""}, "/none": nil, "": {"in/a", "in/b/c", "inside", "z"},
		} {
			var got []string
			for i, err := range object.ListURL(t.Context(), base+source, object.Options{}) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, i.Address)
			}
			if !slices.Equal(got, want) {
				t.Errorf("ListURL(%s) = %q, want %q", base+source, got, want)
			}
		}
	}
	for _, err := range object.ListURL(t.Context(), "nonsense", object.Options{}) {
		if graveler.KindOf(err) != graveler.Invalid {
			t.Errorf("ListURL(nonsense): %v", err)
		}
	}
}

func TestNewAddress(t *testing.T) {
	seen := map[string]bool{}
	parts := map[string]bool{}
	for range 50_001 {
		a := object.NewAddress()
		parts[strings.Split(a, "/")[1]] = true
		if seen[a] || !strings.HasPrefix(a, object.DataPrefix) || len(a) != len("data/")+20+1+20 {
			t.Fatalf("NewAddress() = %q", a)
		}
		seen[a] = true
	}
	if len(parts) != 2 {
		t.Errorf("50001 addresses lie in %d partitions, want 2", len(parts))
	}
}

func TestManyFiles(t *testing.T) {
	st := open(t, "file://"+t.TempDir(), object.Options{})
	defer st.Close()
	var os []object.Object
	for i := range 600 {
		os = append(os, objecttest.Put(t, st, fmt.Sprintf("data/%d", i), objecttest.Bytes(uint64(i), 10)))
	}
	for range 2 {
		for i, o := range os {
			p := make([]byte, 10)
			if n, err := st.ReadAt(t.Context(), o, p, 0); n != 10 || err != nil || !bytes.Equal(p, objecttest.Bytes(uint64(i), 10)) {
				t.Fatalf("read %s = %d, %v", o.Address, n, err)
			}
		}
	}
}

func BenchmarkReadFile(b *testing.B) {
	st, err := object.Open(b.Context(), "file://"+b.TempDir(), object.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	o := objecttest.Put(b, st, "data/x", objecttest.Bytes(1, 1<<20))
	p := make([]byte, 4096)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for i := range b.N {
		if _, err := st.ReadAt(b.Context(), o, p, int64(i%200)*4096); err != nil {
			b.Fatal(err)
		}
	}
}
