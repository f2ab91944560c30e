// Package nfs tests what lakefsfs exports with the kernel's NFS client, in the virtual machine of internal/nfsvm. The checks are those
// of the battery, which Linux' own server has to pass too: it is the bar, and shows that the checks ask for no more than NFS is.
package nfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/internal/nfsvm"
	"github.com/lakefsfs/lakefsfs/internal/nfsvm/wire"
)

// Programs that TestMain builds.
var bin, battery string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lakefsfs-nfs")
	if err != nil {
		panic(err)
	}
	bin, battery = filepath.Join(dir, "lakefsfs"), filepath.Join(dir, "battery")
	for file, pkg := range map[string]string{bin: "cmd/lakefsfs", battery: "e2e/nfs/battery"} {
		if err := nfsvm.Build(context.Background(), file, "github.com/lakefsfs/lakefsfs/"+pkg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// guest is a client machine.
type guest struct {
	t   *testing.T
	ctx context.Context
	vm  *nfsvm.VM
}

// newGuest boots a client, which lives as long as the test.
func newGuest(t *testing.T) *guest {
	t.Helper()
	return newGuestOf(t, nfsvm.Need(t))
}

func newGuestOf(t *testing.T, dir string) *guest {
	t.Helper()
	limit := 10 * time.Minute
	if all() {
		limit = time.Hour
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	began := time.Now()
	vm, err := nfsvm.Boot(ctx, nfsvm.Options{Dir: dir, Programs: map[string]string{"battery": battery}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.Close)
	t.Logf("the guest is up after %s", time.Since(began).Round(100*time.Millisecond))
	return &guest{t, ctx, vm}
}

// all tells whether what takes long is wanted.
func all() bool { return os.Getenv("LAKEFSFS_TEST_ALL") != "" }

// long is for tests that take minutes: make nfs-soak runs them.
func long(t *testing.T) {
	t.Helper()
	if !all() {
		t.Skip("takes long: LAKEFSFS_TEST_ALL=1 runs it")
	}
}

// sh runs a script in the guest.
func (g *guest) sh(dir, script string) nfsvm.Result {
	g.t.Helper()
	r, err := g.vm.Run(g.ctx, wire.Request{Argv: []string{"bash", "-euo", "pipefail", "-c", script}, Dir: dir})
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// ok is sh of what must work.
func (g *guest) ok(dir, script string) string {
	g.t.Helper()
	r := g.sh(dir, script)
	if r.Code != 0 {
		g.t.Fatalf("%s: exit %d: %s", script, r.Code, r.Output())
	}
	return r.Stdout
}

// mount mounts an export of a server on a port, as the documentation tells users to.
func (g *guest) mount(server string, port int, export, dir, opts string) {
	g.t.Helper()
	o := fmt.Sprintf("vers=3,tcp,nolock,port=%d,mountport=%[1]d,mountproto=tcp", port)
	if opts != "" {
		o += "," + opts
	}
	g.ok("/", fmt.Sprintf("mkdir -p %s && mount -t nfs -o %s %s:%s %[1]s", dir, o, server, export))
}

// check runs a command of the battery in the guest, and reports each check as a test of its own.
func (g *guest) check(name string, args ...string) {
	g.t.Helper()
	g.t.Run(name, func(t *testing.T) {
		w := &lines{t: t, running: "start"}
		code, err := g.vm.Stream(g.ctx, wire.Request{Argv: append([]string{"battery"}, args...)}, w, &w.errs)
		if err != nil {
			t.Fatalf("%v, in check %s", err, w.running)
		}
		if w.passed == 0 || code != 0 && w.failed == 0 {
			t.Fatalf("the battery passed %d, failed %d, exit %d: %s", w.passed, w.failed, code, w.errs.String())
		}
	})
}

// lines reads what the battery prints.
type lines struct {
	t              *testing.T
	rest           string
	errs           strings.Builder
	running        string
	passed, failed int
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest += string(p)
	for {
		line, rest, ok := strings.Cut(l.rest, "\n")
		if !ok {
			return len(p), nil
		}
		l.rest = rest
		f := strings.SplitN(line, "\t", 3)
		switch f[0] {
		case "RUN":
			l.running = f[1]
		case "PASS":
			l.passed++
			l.t.Run(f[1], func(t *testing.T) { t.Log(line) })
		case "FAIL":
			l.failed++
			l.t.Run(f[1], func(t *testing.T) { t.Error(f[2]) })
		}
	}
}
