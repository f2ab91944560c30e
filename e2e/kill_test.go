package e2e

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The daemon is killed at random moments while programs write, rename, remove and sync, and others commit, branch, merge, reset and
// collect garbage. What returned is there afterwards, whole, and what was under way happened or did not.
func TestKilledAtRandom(t *testing.T) {
	kills := 10
	if os.Getenv("LAKEFSFS_TEST_ALL") != "" {
		kills = 120
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	w.ok("branch", "create", "repo/@trunk")
	w.ok("branch", "create", "repo/@scratch")
	k := &killed{w: w}
	for i := range 4 {
		k.writers = append(k.writers, &writer{k: k, dir: fmt.Sprintf("w%d", i), r: rand.New(rand.NewPCG(seed, uint64(i+2))), have: map[string]string{}})
	}
	for i := range kills {
		k.dead.Store(false)
		var wg sync.WaitGroup
		for _, wr := range k.writers {
			wg.Go(wr.run)
		}
		wg.Go(k.history)
		wg.Go(k.merges)
		wg.Go(k.resets)
		wg.Go(k.collect)
		time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
		if r.IntN(8) == 0 {
			time.Sleep(2 * time.Second) // until something is stored in the background
		}
		k.dead.Store(true)
		w.stop(os.Kill)
		wg.Wait()
		for r.IntN(3) == 0 { // and while it takes up what it left
			c := w.command()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
			c.Process.Kill()
			c.Wait()
		}
		w.start()
		if k.check(); t.Failed() {
			t.Fatalf("after kill %d", i+1)
		}
	}
	w.run("commit", "repo/@main", "-m", "the end") // there may be nothing to commit
	k.check()
	w.ok("fsck", "repo", "--data")
	t.Logf("%d kills; %d steps of writers, %d of them under way at a kill; %d commits, %d merges, %d resets, %d collections", kills, k.steps.Load(), k.open.Load(), len(k.commits), k.merged, k.wiped.Load(), k.collected.Load())
	for name, n := range map[string]int64{"steps": k.steps.Load(), "commits": int64(len(k.commits)), "merges": int64(k.merged), "resets": k.wiped.Load(), "collections": k.collected.Load()} {
		if n == 0 {
			t.Errorf("no %s: nothing was tested", name)
		}
	}
}

// killed is a daemon with everybody who works with it, and what it acknowledged to them.
type killed struct {
	w       *world
	dead    atomic.Bool // it is being killed: errors are expected
	writers []*writer
	steps   atomic.Int64
	open    atomic.Int64

	n       int               // of the file that is committed again and again
	commits map[string]string // what that file has in a commit
	merged  int               // branches merged
	tried   int
	wiped   atomic.Int64

	collected atomic.Int64
}

// fault tells of an error, unless the daemon is being killed. It reports whether there was one.
func (k *killed) fault(what string, err error) bool {
	if err == nil {
		return false
	}
	if !k.dead.Load() {
		k.w.t.Errorf("%s: %v", what, err)
	}
	return true
}

// cli runs a command of the daemon's; an error is in words.
func (k *killed) cli(args ...string) (string, error) {
	c := exec.Command(bin, args...)
	c.Env = append(os.Environ(), "LAKEFSFS_SERVER=unix://"+k.w.data+"/lakefsfs.sock")
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%v: %v: %s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out)), err
}

// writer works in a directory of its own.
type writer struct {
	k    *killed
	dir  string
	r    *rand.Rand
	have map[string]string // path → content; of a directory, which ends in a slash, none
	may  map[string]string // what it is if the step that was under way happened; nil if none was
}

func (wr *writer) path(p string) string { return wr.k.w.at(filepath.Join("repo/@main", wr.dir, p)) }

// step does one thing, after which the directory has next.
func (wr *writer) step(what string, next map[string]string, do func() error) bool {
	wr.may = next
	if err := do(); wr.k.fault(wr.dir+": "+what, err) {
		wr.k.open.Add(1)
		return false
	}
	wr.have, wr.may = next, nil
	wr.k.steps.Add(1)
	return true
}

// with is what there is, changed.
func (wr *writer) with(path, content string) map[string]string {
	m := maps.Clone(wr.have)
	m[path] = content
	return m
}

func (wr *writer) pick(dirs bool) string {
	var names []string
	for p := range wr.have {
		if strings.HasSuffix(p, "/") == dirs {
			names = append(names, p)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[wr.r.IntN(len(names))]
}

func (wr *writer) newName() string {
	name := fmt.Sprintf("n%d", wr.r.IntN(30))
	if d := wr.pick(true); d != "" && wr.r.IntN(2) == 0 {
		name = d + name
	}
	return name
}

func (wr *writer) run() {
	if len(wr.have) == 0 {
		if err := os.MkdirAll(wr.path(""), 0o755); wr.k.fault("mkdir", err) {
			return
		}
	}
	for p := range maps.Clone(wr.have) {
		if isLink(p) && !wr.unlink(p) { // it may be a second name of a file that is to be written
			return
		}
	}
	for !wr.k.dead.Load() {
		if !wr.one() {
			return
		}
	}
}

func (wr *writer) one() bool {
	switch wr.r.IntN(10) {
	case 0, 1, 2, 3:
		return wr.write(wr.newName())
	case 4:
		if p := wr.pick(false); p != "" {
			return wr.write(p)
		}
	case 5, 6:
		return wr.rename()
	case 7:
		if p := wr.pick(false); p != "" {
			return wr.unlink(p)
		}
	case 8:
		d := fmt.Sprintf("d%d/", wr.r.IntN(4))
		if _, ok := wr.have[d]; !ok {
			return wr.step("mkdir "+d, wr.with(d, ""), func() error { return os.Mkdir(wr.path(d), 0o755) })
		}
		return wr.moveDir(d)
	case 9:
		if p := wr.pick(false); p != "" {
			to := fmt.Sprintf("l%d", wr.r.IntN(5))
			if _, ok := wr.have[to]; !ok && !isLink(p) {
				return wr.step("link "+p+" "+to, wr.with(to, wr.have[p]), func() error { return os.Link(wr.path(p), wr.path(to)) }) && wr.part(to)
			}
		}
	}
	return true
}

func (wr *writer) unlink(p string) bool {
	next := maps.Clone(wr.have)
	delete(next, p)
	return wr.step("unlink "+p, next, func() error { return os.Remove(wr.path(p)) })
}

// part puts a symbolic link in the place of a file's second name, so that a write to one name doesn't change another.
func (wr *writer) part(p string) bool {
	tmp := "tmp-" + p
	content := fmt.Sprintf("leads to %d", wr.r.IntN(1000))
	return wr.step("create "+tmp, wr.with(tmp, content), func() error { return os.Symlink(content, wr.path(tmp)) }) &&
		wr.move(tmp, p)
}

// write writes a file anew or goes on with it, in some steps.
func (wr *writer) write(p string) bool {
	if isLink(p) {
		return true
	}
	flags, content := os.O_CREATE|os.O_WRONLY|os.O_TRUNC, ""
	if was, ok := wr.have[p]; ok && wr.r.IntN(2) == 0 {
		flags, content = os.O_WRONLY|os.O_APPEND, was
	}
	if len(content) > 60_000 {
		return true
	}
	var f *os.File
	if !wr.step("open "+p, wr.with(p, content), func() (err error) {
		f, err = os.OpenFile(wr.path(p), flags, 0o644)
		return err
	}) {
		return false
	}
	defer f.Close()
	for range 1 + wr.r.IntN(3) {
		more := strings.Repeat(fmt.Sprintf("%s %d. ", p, wr.r.IntN(1000)), 1+wr.r.IntN(300))
		content += more
		if !wr.step("write "+p, wr.with(p, content), func() error {
			_, err := f.WriteString(more)
			return err
		}) {
			return false
		}
	}
	if wr.r.IntN(4) == 0 {
		return wr.step("fsync "+p, wr.have, f.Sync)
	}
	return true
}

// isLink tells the names that are symbolic links in the end; what they lead to is their content.
func isLink(p string) bool { return strings.HasPrefix(p, "l") || strings.HasPrefix(p, "tmp-") }

func (wr *writer) move(from, to string) bool {
	next := wr.with(to, wr.have[from])
	delete(next, from)
	return wr.step("rename "+from+" "+to, next, func() error { return os.Rename(wr.path(from), wr.path(to)) })
}

func (wr *writer) rename() bool {
	from, to := wr.pick(false), wr.newName()
	if from == "" || from == to || isLink(from) {
		return true
	}
	return wr.move(from, to)
}

// moveDir renames a directory with all that is in it.
func (wr *writer) moveDir(d string) bool {
	to := fmt.Sprintf("e%d/", wr.r.IntN(4))
	if _, ok := wr.have[to]; ok {
		return true
	}
	next := map[string]string{}
	for p, c := range wr.have {
		if rest, ok := strings.CutPrefix(p, d); ok {
			p = to + rest
		}
		next[p] = c
	}
	return wr.step("rename "+d+" "+to, next, func() error { return os.Rename(wr.path(d), wr.path(to)) })
}

// tree reads what is there.
func (wr *writer) tree() (map[string]string, error) {
	out := map[string]string{}
	root := wr.path("")
	err := filepath.WalkDir(root, func(p string, d iofs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		name := strings.TrimPrefix(p, root+"/")
		switch {
		case d.IsDir():
			out[name+"/"] = ""
		case d.Type()&iofs.ModeSymlink != 0:
			out[name], err = os.Readlink(p)
		default:
			var b []byte
			b, err = os.ReadFile(p)
			out[name] = string(b)
		}
		return err
	})
	if errors.Is(err, iofs.ErrNotExist) && len(wr.have) == 0 {
		err = nil // killed before its directory was made
	}
	return out, err
}

// partly compares a file with what it would be if the step under way had been done. A write may have been done in part: the kernel sends
// one that goes beyond a page in pieces.
func (wr *writer) partly(got map[string]string) func(a, b string) bool {
	return func(a, b string) bool {
		if a == b {
			return true
		}
		for p, was := range wr.have {
			if got[p] == a && wr.may[p] == b && strings.HasPrefix(a, was) && strings.HasPrefix(b, a) {
				return true
			}
		}
		return false
	}
}

func (wr *writer) check() {
	got, err := wr.tree()
	if err != nil {
		wr.k.w.t.Errorf("read %s: %v", wr.dir, err)
		return
	}
	if !maps.Equal(got, wr.have) && (wr.may == nil || !maps.EqualFunc(got, wr.may, wr.partly(got))) {
		for p := range got {
			if want, ok := wr.have[p]; !ok || want != got[p] {
				wr.k.w.t.Errorf("%s/%s has %d bytes %.40q; acknowledged: %v, %d bytes %.40q", wr.dir, p, len(got[p]), got[p], ok, len(want), want)
			}
		}
		for p := range wr.have {
			if _, ok := got[p]; !ok {
				wr.k.w.t.Errorf("%s/%s is gone", wr.dir, p)
			}
		}
		wr.k.w.t.Errorf("a step was under way: %v", wr.may != nil)
	}
	wr.have, wr.may = got, nil
}

// history commits a file that tells how often it was written.
func (k *killed) history() {
	if k.commits == nil {
		k.commits = map[string]string{}
	}
	for !k.dead.Load() {
		k.n++
		if err := os.WriteFile(k.w.at("repo/@main/history"), []byte(strconv.Itoa(k.n)), 0o644); k.fault("write", err) {
			return
		}
		out, err := k.cli("commit", "repo/@main", "-m", strconv.Itoa(k.n), "--json")
		if k.fault("commit", err) {
			return
		}
		if i := strings.Index(out, `"id":`); i >= 0 {
			id := strings.Trim(strings.TrimSpace(strings.SplitN(out[i+5:], ",", 2)[0]), `"`)
			k.commits[id] = strconv.Itoa(k.n)
		} else {
			k.w.t.Errorf("commit printed %q", out)
			return
		}
	}
}

// merges makes branches with a file each, and merges them.
func (k *killed) merges() {
	for !k.dead.Load() {
		k.tried++
		b := fmt.Sprintf("b%d", k.tried)
		if _, err := k.cli("branch", "create", "repo/@"+b, "--source", "trunk"); k.fault("branch", err) {
			return
		}
		if err := os.WriteFile(k.w.at(fmt.Sprintf("repo/@%s/m%d", b, k.merged+1)), []byte(b), 0o644); k.fault("write", err) {
			return
		}
		if _, err := k.cli("commit", "repo/@"+b, "-m", b); k.fault("commit", err) {
			return
		}
		if _, err := k.cli("merge", "repo/@trunk", b, "-m", b); k.fault("merge", err) {
			return
		}
		k.merged++
	}
}

// resets writes five files and drops them, all at once.
func (k *killed) resets() {
	for !k.dead.Load() {
		for i := range 5 {
			if err := os.WriteFile(k.w.at(fmt.Sprintf("repo/@scratch/s%d", i)), []byte("s"), 0o644); k.fault("write", err) {
				return
			}
		}
		if _, err := k.cli("branch", "reset", "repo/@scratch"); k.fault("reset", err) {
			return
		}
		if names, err := os.ReadDir(k.w.at("repo/@scratch")); !k.fault("list", err) && len(names) > 0 && !k.dead.Load() {
			k.w.t.Errorf("after a reset there are %d files", len(names))
		}
		k.wiped.Add(1)
	}
}

func (k *killed) collect() {
	for !k.dead.Load() {
		if _, err := k.cli("gc", "repo"); k.fault("gc", err) {
			return
		}
		k.collected.Add(1)
		time.Sleep(50 * time.Millisecond)
	}
}

// check compares with all that was acknowledged.
func (k *killed) check() {
	for _, wr := range k.writers {
		wr.check()
	}
	log, err := k.cli("log", "repo/@main", "--json")
	if err != nil {
		k.w.t.Error(err)
	}
	for id, want := range k.commits {
		if !strings.Contains(log, id) {
			k.w.t.Errorf("commit %s is not in the log", id)
			continue
		}
		if rand.IntN(10) > 0 {
			continue
		}
		if b, err := os.ReadFile(k.w.at("repo/@" + id + "/history")); err != nil || string(b) != want {
			k.w.t.Errorf("commit %s has %q, want %s: %v", id, b, want, err)
		}
	}
	// The last of them may have been merged without a word.
	for i := 1; i <= k.merged+1; i++ {
		b, err := os.ReadFile(k.w.at(fmt.Sprintf("repo/@trunk/m%d", i)))
		switch {
		case i > k.merged && errors.Is(err, iofs.ErrNotExist):
		case err != nil || !strings.HasPrefix(string(b), "b"):
			k.w.t.Errorf("merge %d of %d: %q %v", i, k.merged, b, err)
		case i > k.merged:
			k.merged++
		}
	}
	// What was reset is gone whole or there whole; what was being written is there up to some file.
	names, err := os.ReadDir(k.w.at("repo/@scratch"))
	if err != nil {
		k.w.t.Error(err)
	}
	for i, e := range names {
		if e.Name() != fmt.Sprintf("s%d", i) {
			k.w.t.Errorf("of what was being reset there are %v", names)
			break
		}
	}
}
