package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
)

// newExport is a world that exports everything at an address too.
func newExport(t *testing.T) (w *world, addr string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = lis.Addr().String()
	lis.Close()
	config := filepath.Join(t.TempDir(), "c.yaml")
	text := fmt.Sprintf("nfs:\n  listen: %s\nexports:\n  - path: /\n    squash: none\n    networks: [127.0.0.1]\n  - path: /repo/@main\n    squash: none\n", addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LAKEFSFS_CONFIG", config)
	w = newWorld(t)
	return w, addr
}

// dial connects to a daemon that may be starting.
func dial(t *testing.T, addr string) *nfstest.User {
	t.Helper()
	for i := 0; ; i++ {
		c, err := nfstest.Dial(addr)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c.Root()
		}
		if i > 600 {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestExport copies by another's NFS client, and looks at it through the mount.
func TestExport(t *testing.T) {
	w, addr := newExport(t)
	w.ok("repo", "create", "repo")
	_, port, _ := net.SplitHostPort(addr)
	url := func(p string) string {
		return "nfs://127.0.0.1" + p + "?version=3&nfsport=" + port + "&mountport=" + port
	}
	libnfs := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	src := filepath.Join(t.TempDir(), "src")
	data := strings.Repeat("some line of text\n", 300_000)
	if err := os.WriteFile(src, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	libnfs("nfs-cp", src, url("/repo/@main/copied"))
	w.same(src, w.at("repo/@main/copied"))
	w.sh(w.at("repo/@main"), "mkdir d && echo from the mount > d/f && ln d/f d/g && ln -s f d/l")
	if got := libnfs("nfs-cat", url("/repo/@main/d/f")); got != "from the mount\n" {
		t.Errorf("NFS reads %q", got)
	}
	if got := libnfs("nfs-ls", url("/repo/@main/d")); !strings.Contains(got, "f") || strings.Count(got, "\n") != 3 {
		t.Errorf("NFS lists %q", got)
	}
	w.ok("commit", "repo/@main", "-m", "one")
	w.ok("tag", "create", "repo/@v1", "main")
	w.sh(w.at("repo/@main"), "echo more >> copied")
	libnfs("nfs-cp", url("/repo/@v1/copied"), src+".back")
	w.same(src, src+".back")
	var state struct {
		Exports []struct{ Path, Address string }
	}
	if err := json.Unmarshal([]byte(w.ok("cluster", "status", "--json")), &state); err != nil || len(state.Exports) != 2 || state.Exports[0].Path != "/" || state.Exports[0].Address != addr {
		t.Errorf("exports %+v, %v", state, err)
	}
	fi, err := os.Stat(filepath.Join(w.data, "nfs.key"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", fi, err)
	}
}

// TestExportKilled kills the daemon while clients write. What was acknowledged as durable is there when it is up again, under the handles
// that the clients have; and an exclusive create and a removal that are sent again come out right.
func TestExportKilled(t *testing.T) {
	w, addr := newExport(t)
	w.ok("repo", "create", "repo")
	u := dial(t, addr)
	root, err := u.Mount("/repo/@main")
	if err != nil {
		t.Fatal(err)
	}
	type acked struct {
		name string
		fh   nfstest.FH
		text string
	}
	var mu sync.Mutex
	var done []acked
	verfs := map[uint64]bool{}
	rounds, n := 3, 0
	for round := range rounds {
		var group sync.WaitGroup
		for worker := range 4 {
			u := dial(t, addr)
			group.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("r%d-w%d-%d", round, worker, i)
					text := strings.Repeat(name+" ", 1+i%3000)
					m, err := u.CreateExclusive(root, name, uint64(round)<<40|uint64(worker)<<32|uint64(i+1))
					if err != nil {
						return
					}
					var verf uint64
					if i%2 == 0 {
						wr, err := u.Write(m.FH, 0, []byte(text), nfstest.FileSync)
						if err != nil {
							return
						}
						verf = wr.Verf
					} else {
						wr, err := u.Write(m.FH, 0, []byte(text), nfstest.Unstable)
						if err != nil {
							return
						}
						if verf, err = u.Commit(m.FH); err != nil {
							return
						}
						if verf != wr.Verf {
							t.Error("the verifier changes without a restart")
						}
					}
					mu.Lock()
					verfs[verf] = true
					done = append(done, acked{name, m.FH, text})
					mu.Unlock()
				}
			})
		}
		for {
			mu.Lock()
			enough := len(done) >= n+60
			mu.Unlock()
			if enough {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		w.killed()
		group.Wait()
		n = len(done)
		u = dial(t, addr)
		for _, a := range done {
			b, eof, err := u.Read(a.fh, 0, 1<<20)
			if err != nil || !eof || string(b) != a.text {
				t.Fatalf("round %d: %s has %d bytes, %v, by its handle; written were %d", round, a.name, len(b), err, len(a.text))
			}
			if fh, _, err := u.Lookup(root, a.name); err != nil || fh != a.fh {
				t.Fatalf("round %d: %s has another handle, %v", round, a.name, err)
			}
		}
		// The last one of a worker may be there although nobody was told.
		last := fmt.Sprintf("r%d-w0-x", round)
		m, err := u.CreateExclusive(root, last, 99)
		if err != nil {
			t.Fatal(err)
		}
		w.killed()
		u = dial(t, addr)
		if again, err := u.CreateExclusive(root, last, 99); err != nil || again.FH != m.FH {
			t.Fatalf("an exclusive create that is sent again: %v", err)
		}
		if round == 1 {
			w.ok("commit", "repo/@main", "-m", "between")
		}
	}
	// The death of the daemon loses nothing, so clients need not send anything again.
	if len(verfs) != 1 {
		t.Errorf("%d write verifiers of %d starts", len(verfs), rounds)
	}
}
