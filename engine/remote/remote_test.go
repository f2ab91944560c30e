package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// dial returns a client of a real local engine behind a real socket.
func dial(t *testing.T) *Client {
	t.Helper()
	d := t.TempDir()
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	sp, err := spill.Open(d+"/spill", spill.Options{OpenBase: objects})
	if err != nil {
		t.Fatal(err)
	}
	e, err := local.Open(t.Context(), local.Config{Dir: d + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + d + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	mux := http.NewServeMux()
	Register(mux, e)
	sock := filepath.Join(d, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	c, err := Dial("unix://" + sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestEverythingOverTheWire(t *testing.T) {
	c, ctx := dial(t), t.Context()
	if _, err := c.CreateRepository(ctx, engine.CreateRepository{ID: "repo"}); err != nil {
		t.Fatal(err)
	}
	st, err := c.Objects(ctx, "repo")
	if err != nil {
		t.Fatal(err)
	}
	put := func(branch graveler.BranchID, path, text string) {
		t.Helper()
		e := graveler.Entry{Address: object.NewAddress(), AddressType: graveler.AddressRelative}
		info, err := st.Put(ctx, e.Address, strings.NewReader(text), object.PutOptions{Size: int64(len(text))})
		if err != nil {
			t.Fatal(err)
		}
		e.Size, e.ETag = info.Size, info.MD5
		if err := c.Stage(ctx, "repo", branch, []graveler.Change{{Path: path, Entry: e}}); err != nil {
			t.Fatal(err)
		}
	}
	odd := "dir/\xff\x01 name\n"
	put("main", odd, "text")
	put("main", "f", "base")
	var paths []string
	for l, err := range c.List(ctx, "repo", "main", engine.ListQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, l.Path)
	}
	if !slices.Equal(paths, []string{odd, "f"}) {
		t.Errorf("%q", paths)
	}
	for d, err := range c.Status(ctx, "repo", "main", engine.DiffQuery{}) {
		if err != nil || d.Path != odd {
			t.Error(d, err)
		}
		break // an early stop
	}
	en, err := c.Stat(ctx, "repo", "main", odd)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if n, err := st.ReadAt(ctx, object.Of(&en), b, 1); err != io.EOF || string(b[:n]) != "ext" {
		t.Errorf("%q %v", b[:n], err)
	}
	first, err := c.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "one", Metadata: map[string]string{"k": "v"}})
	if err != nil || first.Metadata["k"] != "v" {
		t.Fatal(first, err)
	}
	if _, err := c.CreateBranch(ctx, engine.CreateBranch{Repo: "repo", ID: "dev"}); err != nil {
		t.Fatal(err)
	}
	put("main", "f", "ours")
	put("dev", "f", "theirs")
	for _, br := range []graveler.BranchID{"main", "dev"} {
		if _, err := c.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: br, Message: "two"}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.Merge(ctx, engine.MergeRequest{Repo: "repo", Source: "dev", Dest: "main"})
	var mc *graveler.MergeConflict
	if !errors.As(err, &mc) || !slices.Equal(mc.Paths, []string{"f"}) || !errors.Is(err, graveler.Conflict) || !strings.Contains(err.Error(), "conflict in f") {
		t.Errorf("%v", err)
	}
	base, err := c.MergeBase(ctx, "repo", "main", "dev")
	if err != nil || base.ID != first.ID {
		t.Error(base, err)
	}
	if _, err := c.Merge(ctx, engine.MergeRequest{Repo: "repo", Source: "dev", Dest: "main", Strategy: graveler.SourceWins}); err != nil {
		t.Error(err)
	}
	n := 0
	for _, err := range c.Log(ctx, "repo", "main", engine.LogQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d commits", n)
	}
	if _, err := c.CreateTag(ctx, "repo", "v1", "main~1"); err != nil {
		t.Error(err)
	}
	if ts, err := c.ListTags(ctx, "repo", engine.RefQuery{}); err != nil || len(ts) != 1 {
		t.Error(ts, err)
	}
	if err := c.SetRules(ctx, "repo", []graveler.Rule{{Pattern: "main", Block: []graveler.Action{graveler.BlockStaging}}}); err != nil {
		t.Error(err)
	}
	if err := c.Stage(ctx, "repo", "main", []graveler.Change{{Path: "x", Remove: true}}); !errors.Is(err, graveler.Protected) {
		t.Error(err)
	}
	if err := c.Move(ctx, "repo", "dev", "dir/", "moved/"); err != nil {
		t.Error(err)
	}
	if f, err := c.Lookup(ctx, "repo", "dev", "moved"); err != nil || !f.HasPrefix {
		t.Error(f, err)
	}
	if err := c.Reset(ctx, "repo", "dev", ""); err != nil {
		t.Error(err)
	}
	if _, err := c.DumpRefs(ctx, "repo"); err != nil {
		t.Error(err)
	}
	for p, err := range c.Check(ctx, engine.CheckRequest{Repo: "repo", Data: true}) {
		if err != nil || p.Level == "error" {
			t.Error(p, err)
		}
	}
	if _, err := c.CollectGarbage(ctx, engine.GCRequest{Repo: "repo"}); err != nil {
		t.Error(err)
	}
	if err := c.Sync(ctx); err != nil {
		t.Error(err)
	}
}

func TestEveryKindCrosses(t *testing.T) {
	for _, k := range graveler.Kinds() {
		err := failureOf(errors.Join(errors.New("words"), k)).error()
		if graveler.KindOf(err) != k || !strings.Contains(err.Error(), "words") {
			t.Errorf("%v came as %v", k, err)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	c, err := Dial("unix://" + filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ListRepositories(t.Context()); !errors.Is(err, graveler.Unavailable) || !strings.Contains(err.Error(), "lakefsfs up") {
		t.Error(err)
	}
	for _, addr := range []string{"", "tcp://x", "unix://"} {
		if _, err := Dial(addr); !errors.Is(err, graveler.Invalid) {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

// The server answers what isn't a request with words.
func FuzzServer(f *testing.F) {
	mux := http.NewServeMux()
	srv := &server{ServeMux: mux, caughtUp: func(context.Context) {}}
	unary(srv, "x", func(ctx context.Context, r stageReq) (none, error) { return none{}, nil })
	f.Add([]byte{})
	f.Add([]byte{7, 0xff, 0x81, 3, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := http.NewRequest(http.MethodPost, "/"+version+"/x", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		mux.ServeHTTP(&discard{h: http.Header{}}, req)
	})
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
