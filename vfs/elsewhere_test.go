package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/edge"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// kept keeps an engine open when one before it closes.
type kept struct{ engine.Engine }

func (kept) Close() error { return nil }

// machines are trees of one branch on several machines.
func machines(t *testing.T, n int) []*FS {
	t.Helper()
	d := t.TempDir()
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	sp, err := spill.Open(d+"/spill", spill.Options{OpenBase: objects})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := local.Open(t.Context(), local.Config{Dir: d + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + d + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { meta.Close() })
	if _, err := meta.CreateRepository(t.Context(), engine.CreateRepository{ID: "repo"}); err != nil {
		t.Fatal(err)
	}
	var out []*FS
	for i := range n {
		holder := engine.HolderID(fmt.Sprintf("m%d", i))
		sp, err := spill.Open(fmt.Sprintf("%s/held%d", d, i), spill.Options{Prefix: string(holder) + "-", OpenBase: objects})
		if err != nil {
			t.Fatal(err)
		}
		e, err := edge.New(edge.Config{
			Engine: kept{meta}, Holder: holder, Spill: sp,
			Objects: func(ctx context.Context, ns string, _ object.Store) (object.Store, error) { return objects(ctx, ns) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		f, err := New(t.Context(), Config{Engine: e, Spill: sp, Place: graveler.Place{Repo: "repo", Ref: "main"}, Elsewhere: true, UID: uint32(os.Getuid())})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		f.Watch(ctx)
		t.Cleanup(func() { cancel(); f.Wait() })
		out = append(out, f)
	}
	return out
}

var root = Caller{}

func putFile(t *testing.T, f *FS, name, text string) {
	t.Helper()
	h := openTo(t, f, name, syscall.O_TRUNC)
	if _, err := f.Write(t.Context(), h, Caller{}, false, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
	f.Release(h)
}

// openTo opens a file of the root for writing, and makes it if it isn't there.
func openTo(t *testing.T, f *FS, name string, flags int) Handle {
	t.Helper()
	id, _, err := f.Lookup(t.Context(), RootID, name)
	if errors.Is(err, graveler.NotFound) {
		_, _, o, err := f.Create(t.Context(), root, RootID, name, syscall.O_RDWR, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return o.Handle
	}
	if err != nil {
		t.Fatal(err)
	}
	o, err := f.Open(t.Context(), root, id, syscall.O_RDWR|flags)
	if err != nil {
		t.Fatal(err)
	}
	return o.Handle
}

func get(t *testing.T, f *FS, name string) string {
	t.Helper()
	id, _, err := f.Lookup(t.Context(), RootID, name)
	if err != nil {
		t.Fatal(err)
	}
	return getNode(t, f, id)
}

func getNode(t *testing.T, f *FS, id NodeID) string {
	t.Helper()
	o, err := f.Open(t.Context(), root, id, syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release(o.Handle)
	b := make([]byte, 100)
	n, err := f.Read(t.Context(), o.Handle, b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b[:n])
}

// What one machine closes, another sees at its next open and look, also of what it had open or looked at before.
func TestMachinesSeeEachOther(t *testing.T) {
	m := machines(t, 2)
	a, b := m[0], m[1]
	putFile(t, a, "x", "one")
	if got := get(t, b, "x"); got != "one" {
		t.Fatalf("read %q", got)
	}
	putFile(t, b, "x", "two, longer")
	id, attr, err := a.Lookup(t.Context(), RootID, "x")
	if err != nil || attr.Size != 11 {
		t.Fatalf("size %d, %v", attr.Size, err)
	}
	if got := get(t, a, "x"); got != "two, longer" {
		t.Fatalf("read %q", got)
	}
	for i := range 50 {
		from, to := m[i%2], m[(i+1)%2]
		text := fmt.Sprintf("round %d", i)
		putFile(t, from, "x", text)
		if got := get(t, to, "x"); got != text {
			t.Fatalf("read %q in round %d", got, i)
		}
		if to == a {
			if got := getNode(t, a, id); got != text { // an open without a look, as of a name that the kernel knows
				t.Fatalf("read %q in round %d, by the node", got, i)
			}
		}
	}
	if err := a.Unlink(t.Context(), RootID, "x"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Lookup(t.Context(), RootID, "x"); !errors.Is(err, graveler.NotFound) {
		t.Fatalf("a removed file is found elsewhere: %v", err)
	}
}

// A file that is open for writing on one machine can be read on another as it is, and goes on.
func TestMachineReadsWhatAnotherWrites(t *testing.T) {
	m := machines(t, 2)
	h := openTo(t, m[0], "x", 0)
	for i, want := 0, ""; i < 5; i++ {
		part := fmt.Sprintf("part %d;", i)
		if _, err := m[0].Write(t.Context(), h, Caller{}, false, []byte(part), int64(len(want))); err != nil {
			t.Fatal(err)
		}
		want += part
		if got := get(t, m[1], "x"); got != want {
			t.Fatalf("read %q, want %q", got, want)
		}
	}
	m[0].Release(h)
	if _, err := m[1].eng.Commit(t.Context(), engine.CommitRequest{Repo: "repo", Branch: "main", Message: "m"}); err != nil {
		t.Fatal(err)
	}
	if got := get(t, m[1], "x"); got != "part 0;part 1;part 2;part 3;part 4;" {
		t.Fatalf("read %q", got)
	}
}
