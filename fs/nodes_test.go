package fs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// stageMany stages n empty files in a directory of the branch, by the engine.
func (m *mounted) stageMany(t *testing.T, dir string, n int) {
	t.Helper()
	for at := 0; at < n; {
		var changes []graveler.Change
		for ; at < n && len(changes) < 10_000; at++ {
			changes = append(changes, graveler.Change{Path: fmt.Sprintf("%s/a-file-with-a-name-%06d", dir, at), Entry: graveler.Entry{
				AddressType: graveler.AddressRelative, ETag: "d41d8cd98f00b204e9800998ecf8427e", Modified: time.Unix(1, 0),
				Metadata: map[string]string{graveler.MetaPermissions: graveler.Permissions{UID: 1000, GID: 1000, Mode: 0o640}.String()},
			}})
		}
		if err := m.eng.Stage(t.Context(), "repo", "main", changes); err != nil {
			t.Fatal(err)
		}
	}
}

// listAll lists a directory as ls -l does, and returns how many names it has.
func listAll(t *testing.T, dir string) int {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n := 0
	for {
		ents, err := d.ReadDir(1000)
		for _, e := range ents {
			if fi, err := e.Info(); err != nil || fi.IsDir() {
				t.Errorf("%s: %v %v", e.Name(), fi, err)
			}
		}
		if n += len(ents); err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Listing large directories over and over keeps within the nodes' bound, on a branch and on a mount of one commit; what is
// open, and who works somewhere, doesn't notice.
func TestNodesAreBounded(t *testing.T) {
	const tables = 32 << 20
	m := mountCached(t, Options{}, tables)
	const dirs = 3
	each, rounds := 50_000, 2
	switch {
	case os.Getenv("LAKEFSFS_TEST_ALL") != "":
		each, rounds = 110_000, 4
	case testing.Short():
		each = 20_000
	}
	for d := range dirs {
		m.stageMany(t, fmt.Sprintf("many/%d", d), each)
	}
	m.commit(t)
	head := strings.TrimSpace(read(t, m.path(".lakefs/head")))
	m.nodes = 4 << 20 // a sixth of what each tree would need
	m.again(t)
	commit := m.dir + "-commit"
	p, err := graveler.ParsePlace("repo/@" + head)
	if err != nil {
		t.Fatal(err)
	}
	mnt, still := m.at(t, commit, p)
	t.Cleanup(func() { mnt.Unmount() })

	write(t, m.path("open"), "as it was")
	open, err := os.Open(m.path("open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	// A program that works in a directory.
	sh := exec.CommandContext(t.Context(), "sh", "-c", `cd "$1/work/deep" && while read line; do /bin/pwd -P; ls; done`, "sh", m.path(""))
	if err := os.MkdirAll(m.path("work/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, m.path("work/deep/f"), "f")
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); sh.Wait() }()
	lines := bufio.NewScanner(out)

	var most atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			for {
				was := most.Load()
				n := max(m.fs.NodeBytes(), still.NodeBytes())
				if n <= was || most.CompareAndSwap(was, n) {
					break
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	listed := func() {
		for _, root := range []string{m.path("many"), commit + "/many"} {
			for d := range dirs {
				if n := listAll(t, fmt.Sprintf("%s/%d", root, d)); n != each {
					t.Fatalf("%s/%d has %d names, want %d", root, d, n, each)
				}
			}
		}
	}
	before := heap()
	listed()
	for range rounds - 1 {
		listed()
		if got := read(t, m.path("open")); got != "as it was" {
			t.Errorf("the file that is open has %q", got)
		}
		io.WriteString(in, "\n")
		var got []string
		for range 2 {
			lines.Scan()
			got = append(got, lines.Text())
		}
		if got[0] != m.path("work/deep") || got[1] != "f" {
			t.Errorf("in the directory where a program works: %q", got)
		}
	}
	close(stop)
	<-stopped
	last := heap()
	t.Logf("nodes: at most %d bytes, %d and %d now; heap: %d, %d", most.Load(), m.fs.Nodes(), still.Nodes(), before, last)
	if n := most.Load(); n > m.nodes*5/4+(1<<20) {
		t.Errorf("nodes took %d bytes, and %d are allowed", n, m.nodes)
	}
	// Both trees' nodes, what lists them, and tables: those of all names would be too much.
	if grown := last - before; grown > 2*2*m.nodes+tables+(8<<20) {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if got := lstat(t, m.path("many/1/a-file-with-a-name-000007")); got.Uid != 1000 || got.Mode&0o777 != 0o640 {
		t.Errorf("attributes after all that: %+v", got)
	}
}
