package nfs

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/internal/nfsvm"
	"github.com/lakefsfs/lakefsfs/internal/nfsvm/wire"
)

// The Connectathon tests, which scripts/cthon has built, on Linux' server and on ours. Those of locks are left out: there are none.
// LAKEFSFS_TEST_CTHON names the directory.
func TestConnectathon(t *testing.T) {
	long(t)
	dir := os.Getenv("LAKEFSFS_TEST_CTHON")
	if dir == "" {
		t.Skip("LAKEFSFS_TEST_CTHON names no directory that scripts/cthon made")
	}
	tests, err := exec.Command("tar", "-C", dir, "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []struct {
		name  string
		mount func(*testing.T, *guest)
	}{
		{"kernel", func(t *testing.T, g *guest) { g.kernelServer("/srv/rw", "/mnt/t", "rw") }},
		{"lakefsfs", func(t *testing.T, g *guest) { g.server(newServer(t), "repo/@main", "/mnt/t", "rw") }},
	} {
		t.Run(server.name, func(t *testing.T) {
			g := newGuestOf(t, nfsvm.NeedCthon(t))
			server.mount(t, g)
			r, err := g.vm.Run(g.ctx, wire.Request{Argv: []string{"tar", "-x", "--one-top-level=/tmp/cthon"}, Stdin: tests})
			if err != nil || r.Code != 0 {
				t.Fatal(err, r)
			}
			// What groff warns of stands before the time in the file that a test reads it from.
			g.ok("/", "mkdir -p /usr/local/bin && printf '#!/bin/sh\\nexec /usr/bin/nroff 2>/dev/null\\n' >/usr/local/bin/nroff && chmod +x /usr/local/bin/nroff")
			for _, set := range []string{"basic", "general", "special"} {
				t.Run(set, func(t *testing.T) {
					g := &guest{t, g.ctx, g.vm}
					r := g.sh("/tmp/cthon/"+set, "set -a; PATH=/usr/local/bin:$PATH:.; . ../tests.init; NFSTESTDIR=/mnt/t/"+set+" sh runtests -f 2>&1")
					t.Logf("%s", r.Output())
					if r.Code != 0 {
						t.Errorf("exit %d", r.Code)
					}
					// Some tell what is wrong and go on.
					for _, word := range []string{"bad link", "Can't", "can't", "failed", "FAILED", "wrong", "Error", "unexpected"} {
						for line := range strings.SplitSeq(r.Output(), "\n") {
							if strings.Contains(line, word) {
								t.Errorf("it says: %s", line)
							}
						}
					}
				})
			}
		})
	}
}
