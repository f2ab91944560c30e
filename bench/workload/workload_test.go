package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func tiny(dir string) *job {
	return &job{dir: dir, files: 230, syncs: 3, big: 2 * block, ops: 50, seed: 7, limit: time.Minute}
}

// results runs measures and returns what they printed, by name.
func results(t *testing.T, j *job, names string) (map[string]result, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(j, names, &out)
	all := map[string]result{}
	for dec := json.NewDecoder(&out); dec.More(); {
		var r result
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		all[r.Name] = r
	}
	return all, err
}

func TestAllMeasures(t *testing.T) {
	j := tiny(t.TempDir())
	got, err := results(t, j, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{
		"create": 230, "create8": 230, "fsync": 3, "fsync8": 6, "write": 2, "stat": 50, "readdir": 230 + 3 + 1, "walkstat": 230 + 3 + 1,
		"open1": 230, "open8": 230, "shuffle8": 230, "seqread": 2, "rand1": 50, "rand8": 50, "mmap": 50, "rename": 460, "renamedir": 100, "remove": 230,
	}
	for _, m := range measures {
		if got[m.name].Count != want[m.name] || got[m.name].Seconds <= 0 {
			t.Errorf("%s: %+v, want a count of %d", m.name, got[m.name], want[m.name])
		}
	}
	if got["open1"].Bytes != got["create"].Bytes || got["seqread"].Bytes != j.big || got["open1"].P99 < got["open1"].P50 {
		t.Errorf("bytes: %+v %+v %+v", got["create"], got["open1"], got["seqread"])
	}
	j.suffix = "-2"
	if _, err := results(t, j, "fsync,fsync8,write,seqread"); err != nil {
		t.Fatal(err)
	}
	j.suffix = ""
	// Reading measures run on what is there, as often as one likes.
	if _, err := results(t, j, "stat,readdir,walkstat,open1,open8,shuffle8,seqread,rand1,rand8,mmap"); err != nil {
		t.Fatal(err)
	}
}

// change rewrites a file by what do makes of its bytes.
func change(t *testing.T, name string, do func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, do(b), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestWrongAnswersAreErrors(t *testing.T) {
	last := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	tests := []struct {
		name     string
		break_   func(t *testing.T, j *job)
		measures string
	}{
		{"a byte of a small file", func(t *testing.T, j *job) { change(t, j.at("t", smallName(111)), last) }, "open1,open8,shuffle8"},
		{"another file's bytes", func(t *testing.T, j *job) {
			change(t, j.at("t", smallName(3)), func([]byte) []byte { return j.pattern.small(4, nil) })
		}, "open1,open8,shuffle8,stat,walkstat"},
		{"a file that is too long", func(t *testing.T, j *job) {
			change(t, j.at("t", smallName(5)), func(b []byte) []byte { return append(b, 0) })
		}, "open1,stat,walkstat"},
		{"a file that is gone", func(t *testing.T, j *job) {
			if err := os.Remove(j.at("t", smallName(229))); err != nil {
				t.Fatal(err)
			}
		}, "open1,stat,readdir,walkstat,rename,renamedir"},
		{"a file that is new", func(t *testing.T, j *job) {
			if err := os.WriteFile(j.at("t", filepath.Dir(smallName(0)), "file-000007.dat~"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "readdir,walkstat"},
		{"all pages of the big file", func(t *testing.T, j *job) {
			change(t, j.at("big"), func(b []byte) []byte {
				for at := page - 1; at < len(b); at += page {
					b[at] ^= 0x80
				}
				return b
			})
		}, "seqread,rand1,rand8,mmap"},
		{"pages in the wrong place", func(t *testing.T, j *job) {
			change(t, j.at("big"), func(b []byte) []byte { return append(b[block:], b[:block]...) })
		}, "seqread,rand1,rand8,mmap"},
		{"a big file that is short", func(t *testing.T, j *job) { change(t, j.at("big"), func(b []byte) []byte { return b[:block] }) }, "seqread,rand1,mmap"},
		{"nothing to remove", func(t *testing.T, j *job) {}, "remove"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := tiny(t.TempDir())
			if _, err := results(t, j, "create,write"); err != nil {
				t.Fatal(err)
			}
			tt.break_(t, j)
			got, err := results(t, j, tt.measures)
			if err == nil {
				t.Fatal("no measure failed")
			}
			for name := range strings.SplitSeq(tt.measures, ",") {
				if got[name].Error == "" {
					t.Errorf("%s took it for right", name)
				}
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, j := range []*job{{}, {dir: "x"}} {
		if err := run(j, "", os.Stderr); err == nil {
			t.Errorf("run(%+v) worked", j)
		}
	}
	if err := run(tiny(t.TempDir()), "creat", os.Stderr); err == nil || !strings.Contains(err.Error(), "creat") {
		t.Errorf("a measure that isn't there: %v", err)
	}
}
