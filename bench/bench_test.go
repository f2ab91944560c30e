package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProxyCountsAndHoldsBack(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			io.Copy(io.Discard, r.Body)
			return
		}
		fmt.Fprint(w, r.Host)
	}))
	defer back.Close()
	const delay = 30 * time.Millisecond
	p, err := newProxy(strings.TrimPrefix(back.URL, "http://"), delay)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	before := p.snapshot()
	ask := func(method, path, body string) string {
		req, err := http.NewRequest(method, "http://"+p.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < delay {
			t.Errorf("%s %s took %s", method, path, took)
		}
		return string(b)
	}
	// The host is signed, so the server must get the one that the client asked.
	if host := ask("GET", "/b/k", ""); host != p.addr {
		t.Errorf("the server saw the host %q, not %q", host, p.addr)
	}
	ask("GET", "/b?list-type=2", "")
	ask("GET", "/b/?list-type=2", "")
	ask("HEAD", "/b/k", "")
	ask("PUT", "/b/k", "12345")
	ask("POST", "/b/k?uploads", "")
	ask("DELETE", "/b/k", "")
	if _, err := p.quiet(10*time.Millisecond, time.Minute); err != nil {
		t.Fatal(err)
	}
	got := p.snapshot().sub(before)
	want := requests{Get: 1, List: 2, Head: 1, Put: 1, Post: 1, Delete: 1, In: 5, Out: int64(5 * len(p.addr))} // all but HEAD and PUT have a body
	if got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestQuietWaitsForWhatBeginsLate(t *testing.T) {
	back := httptest.NewServer(http.NotFoundHandler())
	defer back.Close()
	p, err := newProxy(strings.TrimPrefix(back.URL, "http://"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.last = time.Now().Add(-time.Hour)
	start := time.Now()
	if _, err := p.quiet(100*time.Millisecond, time.Minute); err != nil || time.Since(start) < 100*time.Millisecond {
		t.Errorf("quiet returned after %s: %v", time.Since(start), err)
	}
	p.open = 1
	if _, err := p.quiet(time.Millisecond, 10*time.Millisecond); err == nil {
		t.Error("quiet while a request is open")
	}
}

func TestRatios(t *testing.T) {
	rec := func(n int64, s float64) *record { return &record{result: result{Name: "open1", Count: n, Seconds: s}} }
	for _, tt := range []struct {
		base, r *record
		want    string
	}{
		{rec(10, 1), rec(10, 2), "0.50"},
		{rec(10, 1), rec(5, 1), "0.50"}, // by the operation, not by the run
		{rec(10, 2), rec(10, 0.1), "20"},
		{rec(10, 1), rec(10, 20), "0.050"},
		{rec(10, 1), rec(10, 500), "0.002"},
		{rec(10, 1), nil, ""},
		{rec(10, 1), &record{result: result{Error: "no"}}, "failed"},
		{&record{result: result{Error: "no"}}, rec(1, 1), "?"},
	} {
		if got := ratio(tt.base, tt.r); got != tt.want {
			t.Errorf("ratio(%+v, %+v) = %q, want %q", tt.base, tt.r, got, tt.want)
		}
	}
	m := median([]record{*rec(10, 3), *rec(10, 1), *rec(10, 2)})
	if m.Seconds != 2 {
		t.Errorf("median: %+v", m)
	}
	if m := median([]record{*rec(10, 3), {result: result{Error: "no"}}, *rec(10, 2)}); m.Error == "" {
		t.Errorf("a failure has no median: %+v", m)
	}
}

// A small contest, on real mounts, from writing to the tables.
func TestContest(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE here: ", err)
	}
	work, err := os.MkdirTemp("", "lfsb") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	bin := filepath.Join(work, "lakefsfs")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/lakefsfs").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	p := plan{
		files: 120, s3Files: 50, big: 2, s3Big: 1, syncs: 2, ops: 20, rounds: 1, timeout: time.Minute, limit: time.Minute,
		plain: true, keepCaches: true, only: "ext4,loopback,branch,commit,mount", measures: "create,write,stat,open8,rename,mmap", raw: filepath.Join(work, "raw"),
	}
	var out strings.Builder
	if err := p.contest(context.Background(), work, bin, &out); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	if strings.Contains(got, "failed") || strings.Contains(got, "Failed") {
		t.Errorf("a measure failed:\n%s", got)
	}
	for _, want := range []string{"| measure | ext4 | loopback | branch | commit | mount |", "| measure | loopback | branch | commit | mount |", "| open8, cold | ", "| mmap, warm | ", "| rename | "} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in:\n%s", want, got)
		}
	}
	raw, err := os.ReadFile(p.raw)
	if err != nil || strings.Count(string(raw), "\n") < 20 {
		t.Errorf("raw results: %v\n%s", err, raw)
	}
	left, err := os.ReadFile("/proc/mounts")
	if err != nil || strings.Contains(string(left), work) {
		t.Errorf("mounts are left below %s: %v", work, err)
	}
}
