// Package e2e runs the built program as a user does: a real daemon, a real mount, real programs, kill -9.
package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/internal/fixtures"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lakefsfs-e2e")
	if err != nil {
		panic(err)
	}
	bin = filepath.Join(dir, "lakefsfs")
	cmd := exec.Command("go", "build", "-o", bin, "../cmd/lakefsfs")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// world is one user's machine: a data directory, a mount, and the daemon that is up.
type world struct {
	t    *testing.T
	data string
	mnt  string
	log  string
	up   *exec.Cmd
	fds  int // the daemon's limit of descriptors; 0 is the test's own
}

func newWorld(t *testing.T) *world {
	t.Helper()
	// A socket's path must be short.
	d, err := os.MkdirTemp("", "lfs")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, data: d + "/data", mnt: d + "/mnt", log: d + "/log"}
	t.Cleanup(func() {
		w.stop(os.Interrupt)
		if t.Failed() {
			b, _ := os.ReadFile(w.log)
			t.Logf("the daemon's log:\n%s", b[max(0, len(b)-4000):])
		}
		os.RemoveAll(d)
	})
	w.start()
	return w
}

// command is the daemon, not yet started.
func (w *world) command() *exec.Cmd {
	if w.fds > 0 {
		return exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, w.fds), "sh", bin, "up", "--data", w.data, "--mount", w.mnt)
	}
	return exec.Command(bin, "up", "--data", w.data, "--mount", w.mnt)
}

// start brings everything up, and returns when the mount is ready.
func (w *world) start() {
	w.t.Helper()
	w.up = w.command()
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	w.up.Stderr = log
	out, err := w.up.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.up.Start(); err != nil {
		w.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != w.mnt {
		b, _ := os.ReadFile(w.log)
		w.t.Fatalf("up printed %q: %v\n%s", line, err, b)
	}
}

// stop ends the daemon by a signal and waits.
func (w *world) stop(sig os.Signal) error {
	if w.up == nil {
		return nil
	}
	w.up.Process.Signal(sig)
	err := w.up.Wait()
	w.up = nil
	return err
}

// killed is kill -9 and a new start.
func (w *world) killed() {
	w.t.Helper()
	w.stop(os.Kill)
	w.start()
}

func (w *world) at(p string) string { return filepath.Join(w.mnt, p) }

// run runs lakefsfs and returns what it printed, its errors and its exit code.
func (w *world) run(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	c := exec.Command(bin, args...)
	c.Env = append(os.Environ(), "LAKEFSFS_SERVER=unix://"+w.data+"/lakefsfs.sock")
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	if _, exit := err.(*exec.ExitError); err != nil && !exit {
		w.t.Fatal(err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

// ok is run of what must work.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	o, e, code := w.run(args...)
	if code != 0 {
		w.t.Fatalf("lakefsfs %s: exit %d: %s", strings.Join(args, " "), code, e)
	}
	return o
}

// sh runs a shell script in a directory.
func (w *world) sh(dir, script string) string {
	w.t.Helper()
	c := exec.Command("bash", "-euo", "pipefail", "-c", script)
	c.Dir = dir
	c.Env = append(os.Environ(), "LAKEFSFS_SERVER=unix://"+w.data+"/lakefsfs.sock", "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local")
	out, err := c.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (w *world) same(a, b string) {
	w.t.Helper()
	w.sh("/", fmt.Sprintf("diff -r --no-dereference %q %q", a, b))
}

// tree is a real tree to work with: part of the toolchain's source.
var tree = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		panic(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src", "net")
})

// The life of a data set: copied in, committed, branched, edited with ordinary programs, merged, read back at every ref, killed in
// between.
func TestLife(t *testing.T) {
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	main, dev := w.at("repo/@main"), w.at("repo/@dev")
	w.sh("/", fmt.Sprintf("cp -a %q %q/src && tar -C %q -cf - . | tar -C %q -xf - --one-top-level=tarred", tree(), main, tree(), main))
	w.same(tree(), main+"/src")
	w.same(tree(), main+"/tarred")
	w.sh(main, "echo 'the source' > .lakefs/commit")
	first := strings.TrimSpace(w.sh(main, "cat .lakefs/head"))
	w.same(tree(), main+"/src")

	w.sh(w.at("repo"), "mkdir @dev")
	w.sh(dev, `
		sed -i 's/package/package /' src/http/server.go
		cd tarred/url && git init -q . && git add . && git -c user.email=a@b -c user.name=a commit -qm x && test -z "$(git status --short)"
		cd ../.. && sqlite3 db.sqlite "create table t(a); insert into t values(1),(2);" && test "$(sqlite3 db.sqlite 'select count(*) from t')" = 2
		mkdir prog && cd prog && printf 'package main\nfunc main() { println("inside") }\n' > main.go
		go mod init prog 2>/dev/null && go build -o prog . && ./prog 2>&1 | grep -q inside
		cd .. && rm -r src/smtp && mv src/mail moved && ln -s moved/message.go link && chmod 600 src/net.go && touch -d @1000000000 src/dial.go`)
	w.sh(dev, "cd src/http && lakefsfs commit -m edited")
	if got := w.sh(dev, "lakefsfs status"); got != "" {
		t.Errorf("after the commit: %s", got)
	}
	diff := w.ok("diff", "repo/@"+first, "@dev")
	for _, want := range []string{"M\tsrc/http/server.go\n", "A\tdb.sqlite\n", "A\tlink\n", "D\tsrc/smtp/smtp.go\n", "A\tmoved/message.go\n", "M\tsrc/net.go\n", "M\tsrc/dial.go\n"} {
		if !strings.Contains(diff, want) {
			t.Errorf("the diff lacks %q", want)
		}
	}
	w.sh(main, "echo dev > .lakefs/merge")
	w.same(main, dev)
	w.same(tree(), w.at("repo/@"+first+"/src"))
	w.same(tree(), w.at("repo/@main~1/src"))
	if n := strings.Count(w.ok("log", "repo/@main", "--oneline"), "\n"); n != 4 {
		t.Errorf("%d commits in the log", n)
	}
	if n := strings.Count(w.ok("log", "repo/@main/src/http/server.go", "--oneline"), "\n"); n != 2 {
		t.Errorf("%d commits of one file", n)
	}

	// What returned before kill -9 is there after it: staged, open, moved, removed.
	open, err := os.Create(main + "/open")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(open, "being written")
	w.sh(main, "echo unsynced > after; rm db.sqlite; mv tarred newname; echo more >> src/net.go")
	status := w.ok("status", "repo/@main")
	w.killed()
	open.Close()
	if got := w.sh(main, "cat after open"); got != "unsynced\nbeing written" {
		t.Errorf("after the kill: %q", got)
	}
	if got := w.ok("status", "repo/@main"); got != status {
		t.Errorf("status after the kill:\n%s\nbefore:\n%s", got, status)
	}
	w.same(tree(), w.at("repo/@"+first+"/src"))
	w.same(dev+"/tarred", main+"/newname")
	w.sh(main, "echo 'after the kill' > .lakefs/commit")
	w.killed()
	if got := w.sh(main, "cat after open .lakefs/status"); got != "unsynced\nbeing written" {
		t.Errorf("after the second kill: %q", got)
	}
	w.same(dev+"/tarred", main+"/newname")
	w.ok("fsck", "repo", "--data")
	w.ok("gc", "repo", "--grace", "1ns")
	w.ok("fsck", "repo", "--data")
	w.same(dev+"/tarred", main+"/newname")
	if err := w.stop(unix.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if out, err := os.ReadDir(w.mnt); err != nil || len(out) != 0 {
		t.Errorf("still mounted: %v %v", out, err)
	}
	w.start()
	w.same(tree(), w.at("repo/@"+first+"/src"))
}

// Every path of every commit of a namespace that lakeFS wrote reads as the server said.
func TestFixtures(t *testing.T) {
	for _, name := range fixtures.Names {
		t.Run(name, func(t *testing.T) {
			f := fixtures.Open(t, name)
			w := newWorld(t)
			m := filepath.Join(t.TempDir(), "manifest")
			b, _ := json.Marshal(f.Manifest)
			if err := os.WriteFile(m, b, 0o600); err != nil {
				t.Fatal(err)
			}
			w.ok("repo", "attach", name, "--storage-namespace", "file://"+f.Dir, "--manifest", m)
			var refs []string
			for b := range f.Truth.Branches {
				refs = append(refs, "@"+b)
			}
			for b := range f.Truth.Tags {
				refs = append(refs, "@"+b)
			}
			slices.Sort(refs)
			if got := strings.Fields(w.ok("ls", name)); !slices.Equal(sorted(got), refs) {
				t.Errorf("refs %v, want %v", got, refs)
			}
			paths, bytes, seen := 0, int64(0), map[string]bool{}
			for id, files := range f.Truth.Trees {
				for _, file := range files {
					// The same content of a later commit is read once: in big they share 30,000 files.
					key := file.Path + "\x00" + file.SHA256
					if seen[key] && name == "big" && os.Getenv("LAKEFSFS_TEST_ALL") == "" {
						continue
					}
					seen[key] = true
					bytes += check(t, w.at(name+"/@"+id), file)
					paths++
				}
			}
			t.Logf("%d paths, %d bytes", paths, bytes)
			w.ok("repo", "dump", name)
			// The namespace's own manifest is now what lakefsfs dumped.
			w.ok("repo", "delete", name)
			w.ok("repo", "attach", name, "--storage-namespace", "file://"+f.Dir)
			if got := strings.Fields(w.ok("ls", name)); !slices.Equal(sorted(got), refs) {
				t.Errorf("refs after dump and attach %v, want %v", got, refs)
			}
		})
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

// check reads one file of a commit. A key that no file name can hold is not in the mount; one that is a directory's prefix too is
// read at .lakefs/object.
func check(t *testing.T, root string, f fixtures.File) int64 {
	t.Helper()
	for seg := range strings.SplitSeq(strings.TrimSuffix(f.Path, "/"), "/") {
		if !graveler.FileName(seg) {
			return 0
		}
	}
	name := root + "/" + f.Path
	fi, err := os.Lstat(name)
	if err != nil {
		t.Errorf("%q: %v", f.Path, err)
		return 0
	}
	if strings.HasSuffix(f.Path, "/") {
		if !fi.IsDir() {
			t.Errorf("%q is no directory", f.Path)
		}
		return 0
	}
	if fi.IsDir() {
		name += "/.lakefs/object"
		if fi, err = os.Stat(name); err != nil {
			t.Errorf("%q: %v", f.Path, err)
			return 0
		}
	}
	if fi.Mode()&os.ModeSymlink != 0 {
		if l, err := os.Readlink(name); err != nil || l != f.Metadata[graveler.MetaSymlink] {
			t.Errorf("%q is a link to %q", f.Path, l)
		}
		return 0
	}
	if fi.Size() != f.Size {
		t.Errorf("%q has %d bytes, want %d", f.Path, fi.Size(), f.Size)
	}
	r, err := os.Open(name)
	if err != nil {
		t.Errorf("%q: %v", f.Path, err)
		return 0
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil || hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		t.Errorf("%q reads wrong: %v", f.Path, err)
	}
	buf := make([]byte, 4096)
	k, err := unix.Getxattr(name, "user.lakefs.checksum", buf)
	if err != nil || string(buf[:max(k, 0)]) != f.Checksum {
		t.Errorf("%q: checksum %q %v, want %q", f.Path, buf[:max(k, 0)], err, f.Checksum)
	}
	for key, want := range f.Metadata {
		if strings.HasPrefix(key, "::") {
			continue
		}
		k, err := unix.Getxattr(name, "user."+key, buf)
		if err != nil || string(buf[:max(k, 0)]) != want {
			t.Errorf("%q: metadata %q is %q %v, want %q", f.Path, key, buf[:max(k, 0)], err, want)
		}
	}
	if p, err := graveler.ParsePermissions(f.Metadata[graveler.MetaPermissions]); err == nil && fi.Mode().Perm() != p.Mode.Perm() {
		t.Errorf("%q has mode %v, want %v", f.Path, fi.Mode(), p.Mode)
	}
	return n
}

// Exit codes and one clear line for each mistake.
func TestMistakes(t *testing.T) {
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	w.sh(w.at("repo/@main"), "echo 1 > f")
	w.ok("commit", "repo/@main", "-m", "one")
	w.ok("branch", "create", "repo/@dev")
	w.sh(w.at("repo/@dev"), "echo 2 > f")
	w.ok("commit", "repo/@dev", "-m", "two")
	w.sh(w.at("repo/@main"), "echo 3 > f")
	w.ok("commit", "repo/@main", "-m", "three")
	w.ok("tag", "create", "repo/@v1.0", "main")
	head := w.ok("show", "repo/@main")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{5, "nothing", []string{"commit", "repo/@main", "-m", "x"}},
		{2, "message", []string{"commit", "repo/@main"}},
		{2, "repo/@ref/path", []string{"commit", "repo/main", "-m", "x"}},
		{2, "no mount", []string{"commit", "-m", "x"}},
		{3, "conflict in f", []string{"merge", "repo/@main", "dev"}},
		{4, "no branch", []string{"merge", "repo/@main", "none"}},
		{4, "not found", []string{"ls", "none/@main"}},
		{4, "not found", []string{"cat", "repo/@main/none"}},
		{4, "not found", []string{"commit", "repo/@v1.0", "-m", "x"}},
		{3, "exists", []string{"repo", "create", "repo"}},
		{1, "3 to 63", []string{"repo", "create", "X!"}},
		{2, "known", []string{"repo", "create", "other", "--storage-namespace", "ftp://x"}},
		{1, "manifest", []string{"repo", "attach", "other", "--storage-namespace", "file:///tmp", "--manifest", "/dev/null"}},
		{3, "exists", []string{"branch", "create", "repo/@dev"}},
		{3, "default", []string{"branch", "delete", "repo/@main"}},
		{2, "unknown", []string{"frobnicate"}},
		{2, "unknown flag", []string{"ls", "--frob"}},
		{4, "not there", []string{"mount", "repo/@main", "/none/such"}},
		{3, "already", []string{"mount", "repo/@main", w.mnt}},
		{1, "running already", []string{"up", "--data", w.data, "--mount", w.mnt + "2"}},
		{1, "no daemon", []string{"--server", "unix:///none", "ls", "repo"}},
	} {
		o, e, code := w.run(c.args...)
		if code != c.code || !strings.Contains(e, c.want) || strings.Count(strings.Split(e, "C\t")[0], "\n") != 1 {
			t.Errorf("lakefsfs %s: exit %d, want %d with %q: %q %q", strings.Join(c.args, " "), code, c.code, c.want, e, o)
		}
	}
	if got := w.ok("show", "repo/@main"); got != head {
		t.Errorf("a mistake changed the branch:\n%s", got)
	}
}

// One ref is mounted by itself, by the command and as mount(8) runs it; the place is known inside.
func TestMounts(t *testing.T) {
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	w.sh(w.at("repo/@main"), "mkdir -p d && echo 1 > d/f && lakefsfs commit -m one -q")
	one, two := w.mnt+"1", w.mnt+"2"
	os.Mkdir(one, 0o755)
	os.Mkdir(two, 0o755)
	w.ok("mount", "repo/@main", one)
	w.sh(one, "cd d && echo 2 >> f && lakefsfs status | grep -q 'M.d/f' && lakefsfs commit -m two")
	// What one mount closes, the next open in another sees.
	if got := w.sh(w.at("repo/@main"), "cat d/f"); got != "1\n2\n" {
		t.Errorf("%q", got)
	}
	w.sh(w.at("repo/@main"), "echo 3 >> d/f")
	if got := w.sh(one, "cat d/f"); got != "1\n2\n3\n" {
		t.Errorf("%q", got)
	}
	helper := filepath.Join(t.TempDir(), "mount.lakefs")
	if err := os.Symlink(bin, helper); err != nil {
		t.Fatal(err)
	}
	w.sh("/", fmt.Sprintf("%q repo/@main~1 %q -o ro,dev,suid,data=%s", helper, two, w.data))
	if got := w.sh(two, "cat d/f; ! touch x 2>/dev/null"); got != "1\n" {
		t.Errorf("%q", got)
	}
	w.ok("umount", two)
	w.ok("umount", one)
	if o, _, _ := w.run("cp", "repo/@main/d/f", filepath.Join(t.TempDir(), "f")); !strings.Contains(o, "1 files") {
		t.Error(o)
	}
	w.ok("cp", "-r", tree()+"/url", "repo/@main/up")
	w.same(tree()+"/url", w.at("repo/@main/up"))
	w.ok("cp", "-r", "repo/@main/up", "repo/@main/copied")
	w.same(tree()+"/url", w.at("repo/@main/copied"))
	w.ok("rm", "-r", "repo/@main/up")
	w.ok("import", "file://"+tree()+"/mail", "repo/@main/imported")
	w.same(tree()+"/mail", w.at("repo/@main/imported"))
}

// The same on a real S3 server: what is committed is there and nowhere else.
func TestS3(t *testing.T) {
	url := objecttest.S3(t)
	w := newWorld(t)
	w.ok("repo", "create", "repo", "--storage-namespace", url)
	src := tree() + "/http/internal"
	main := w.at("repo/@main")
	w.sh("/", fmt.Sprintf("cp -a %q %q/src", src, main))
	w.sh(main, "echo one > .lakefs/commit")
	w.killed()
	w.same(src, main+"/src")
	w.sh(main, "sed -i 's/package/package /' src/ascii/print.go && dd if=/dev/urandom of=big bs=1M count=12 status=none && cp big /tmp/$$.big && lakefsfs commit -q -m two && cmp big /tmp/$$.big; rm /tmp/$$.big")
	w.stop(os.Interrupt)
	os.RemoveAll(w.data + "/cache")
	w.start()
	w.same(src, w.at("repo/@main~1/src"))
	w.ok("fsck", "repo", "--data")
	w.ok("repo", "dump", "repo")
	w.ok("repo", "delete", "repo")
	w.ok("repo", "attach", "again", "--storage-namespace", url)
	w.same(src, w.at("again/@main~1/src"))
}

// A full disk: the errno says so, what was there before stays, and the daemon goes on when there is room.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	disk, err := os.MkdirTemp("", "lfs")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("lakefsfs-test", disk, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH); os.Remove(disk) })
	w := &world{t: t, data: disk + "/data", mnt: disk + "/mnt", log: disk + "/log"}
	t.Cleanup(func() { w.stop(os.Interrupt) })
	w.start()
	w.ok("repo", "create", "repo")
	main := w.at("repo/@main")
	w.sh(main, "echo kept > before && lakefsfs commit -q -m one && echo staged > after")
	out := w.sh(main, "dd if=/dev/zero of=big bs=1M count=400 2>&1 || true")
	if !strings.Contains(out, "No space left on device") {
		t.Errorf("dd says %q", out)
	}
	if got := w.sh(main, "cat before after"); got != "kept\nstaged\n" {
		t.Errorf("on a full disk: %q", got)
	}
	w.killed()
	if got := w.sh(main, "cat before after"); got != "kept\nstaged\n" {
		t.Errorf("after a kill on a full disk: %q", got)
	}
	w.sh(main, "rm big")
	w.sh(main, "for i in $(seq 100); do echo more > more 2>/dev/null && exit 0; sleep 0.1; done; exit 1")
	w.ok("commit", "repo/@main", "-m", "two")
	if got := w.sh(main, "cat before after more"); got != "kept\nstaged\nmore\n" {
		t.Errorf("with room again: %q", got)
	}
}

// Damaged storage: an error that names the cause, never wrong bytes, and the rest stays readable.
func TestDamage(t *testing.T) {
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	main := w.at("repo/@main")
	w.sh(main, "echo wrong > wrong; echo short > short; echo gone > gone; echo fine > fine; lakefsfs commit -q -m one")
	file := func(name string) string {
		var e struct {
			Address string `json:"physical_address"`
		}
		if err := json.Unmarshal([]byte(w.ok("--json", "stat", "repo/@main/"+name)), &e); err != nil || e.Address == "" {
			t.Fatalf("%s: %v", name, err)
		}
		return w.data + "/objects/repo/" + e.Address
	}
	wrong, short, gone := file("wrong"), file("short"), file("gone")
	w.stop(os.Interrupt)
	for name, b := range map[string]string{wrong: "wr0ng\n", short: "sho"} {
		if err := os.WriteFile(name, []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	w.start()
	for _, name := range []string{"wrong", "short", "gone"} {
		if b, err := os.ReadFile(main + "/" + name); !errors.Is(err, unix.EIO) {
			t.Errorf("%s reads %q %v", name, b, err)
		}
		if o, e, code := w.run("cat", "repo/@main/"+name); code != 1 || strings.Count(e, "\n") != 1 {
			t.Errorf("cat %s: %q %q exit %d", name, o, e, code)
		}
	}
	if got := w.sh(main, "cat fine"); got != "fine\n" {
		t.Errorf("%q", got)
	}
	if o, _, code := w.run("fsck", "repo", "--data"); code != 1 || strings.Count(o, "repo/@") != 3 {
		t.Errorf("fsck: exit %d\n%s", code, o)
	}
	// A damaged table.
	tables, err := filepath.Glob(w.data + "/objects/repo/_lakefs/*")
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	w.stop(os.Interrupt)
	for _, name := range tables {
		if err := os.Truncate(name, 100); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	if _, err := os.ReadDir(main); !errors.Is(err, unix.EIO) {
		t.Errorf("a listing from a damaged table: %v", err)
	}
	if _, e, code := w.run("ls", "repo/@main"); code != 1 || !strings.Contains(e, "corrupt") {
		t.Errorf("ls: exit %d %q", code, e)
	}
	log, _ := os.ReadFile(w.log)
	if !bytes.Contains(log, []byte("corrupt")) {
		t.Error("the log doesn't name the cause")
	}
}
