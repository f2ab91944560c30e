// Command bench shows what lakefsfs costs: the time, object requests and bytes of a commit in repositories of growing size, and
// ordinary work on a mount beside the same on the plain disk, as ratios, side by side in one run.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lakefsfs/lakefsfs/cache"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
	"github.com/lakefsfs/lakefsfs/spill"
)

func main() {
	dir := flag.String("dir", os.TempDir(), "directory on the disk to measure")
	tree := flag.String("tree", "", "tree to copy in (default: the Go toolchain's source)")
	sizes := flag.String("sizes", "1000,100000,1000000", "entries of the repositories to commit in")
	bin := flag.String("bin", "bin/lakefsfs", "the program")
	build := flag.String("build", "", "only write a big repository's namespace there (a URL), to be attached")
	layout := flag.String("layout", "dirs", "of -build: dirs, deep or flat")
	entries := flag.Int("entries", 10_000_000, "of -build")
	flag.Parse()
	if *build != "" {
		if err := buildBig(context.Background(), *build, *layout, *entries); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(*dir, *tree, *sizes, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(dir, tree, sizes, bin string) error {
	work, err := os.MkdirTemp(dir, "lakefsfs-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := commits(work, sizes); err != nil {
		return err
	}
	if tree == "" {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return err
		}
		tree = filepath.Join(strings.TrimSpace(string(out)), "src")
	}
	return mounts(work, tree, bin)
}

// commits measures a commit of one changed file.
func commits(work, sizes string) error {
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "commit of one changed file\nentries\tfirst commit\tthis commit\treads\tbytes read\twrites\tbytes written")
	for field := range strings.SplitSeq(sizes, ",") {
		var n int
		if _, err := fmt.Sscan(field, &n); err != nil {
			return fmt.Errorf("sizes %q: %w", sizes, err)
		}
		if err := commitIn(w, filepath.Join(work, field), n); err != nil {
			return err
		}
	}
	return w.Flush()
}

func commitIn(w io.Writer, dir string, n int) error {
	ctx := context.Background()
	var counting *objecttest.Counting
	c, err := cache.NewCache(cache.Options{MemoryBytes: 1 << 30})
	if err != nil {
		return err
	}
	defer c.Close()
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		st, err := object.Open(ctx, ns, object.Options{})
		if err != nil {
			return nil, err
		}
		counting = objecttest.NewCounting(st)
		return counting, nil
	}
	sp, err := spill.Open(dir+"/spill", spill.Options{})
	if err != nil {
		return err
	}
	e, err := local.Open(ctx, local.Config{
		Dir: dir + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + dir + "/objects",
		Tables: func(ns string) committed.TableCache { return c.Tables(ns) },
	})
	if err != nil {
		return err
	}
	defer e.Close()
	if _, err := e.CreateRepository(ctx, engine.CreateRepository{ID: "repo"}); err != nil {
		return err
	}
	entry := func(i int) graveler.Entry {
		return graveler.Entry{Address: object.NewAddress(), AddressType: graveler.AddressRelative, Size: int64(i), ETag: fmt.Sprintf("%032x", i), Modified: time.Unix(int64(i), 0)}
	}
	var cs []graveler.Change
	for i := range n {
		cs = append(cs, graveler.Change{Path: fmt.Sprintf("data/part-%04d/file-%07d.parquet", i/1000, i), Entry: entry(i)})
		if len(cs) == 2000 || i == n-1 {
			if err := e.Stage(ctx, "repo", "main", cs); err != nil {
				return err
			}
			cs = nil
		}
	}
	start := time.Now()
	if _, err := e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "all"}); err != nil {
		return err
	}
	first := time.Since(start)
	if err := e.Stage(ctx, "repo", "main", []graveler.Change{{Path: fmt.Sprintf("data/part-%04d/file-%07d.parquet", n/2000, n/2), Entry: entry(n + 1)}}); err != nil {
		return err
	}
	// Warm: a daemon that has just written the tables.
	if _, err := e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "warm"}); err != nil {
		return err
	}
	if err := e.Stage(ctx, "repo", "main", []graveler.Change{{Path: fmt.Sprintf("data/part-%04d/file-%07d.parquet", n/2000, n/2), Entry: entry(n + 2)}}); err != nil {
		return err
	}
	before := counting.Counts()
	start = time.Now()
	if _, err := e.Commit(ctx, engine.CommitRequest{Repo: "repo", Branch: "main", Message: "one"}); err != nil {
		return err
	}
	took := time.Since(start)
	d := counting.Counts()
	_, err = fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%d\t%d\t%d\n", n, first.Round(time.Millisecond), took.Round(10*time.Microsecond),
		d.Reads-before.Reads, d.BytesRead-before.BytesRead, d.Puts-before.Puts, d.BytesPut-before.BytesPut)
	return err
}

// mounts measures ordinary programs on a plain directory and on a mount.
func mounts(work, tree, bin string) error {
	data, mnt, plain := filepath.Join(work, "d"), filepath.Join(work, "m"), filepath.Join(work, "plain")
	if err := os.MkdirAll(plain, 0o755); err != nil {
		return err
	}
	up := func() (*exec.Cmd, error) {
		c := exec.Command(bin, "up", "--data", data, "--mount", mnt, "--log-level", "error")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := c.Start(); err != nil {
			return nil, err
		}
		buf := make([]byte, 4096)
		_, err = out.Read(buf)
		return c, err
	}
	down := func(c *exec.Cmd) {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	}
	c, err := up()
	if err != nil {
		return err
	}
	defer func() { down(c) }()
	if err := sh("LAKEFSFS_SERVER=unix://" + data + "/lakefsfs.sock " + bin + " repo create repo -q"); err != nil {
		return err
	}
	branch := filepath.Join(mnt, "repo/@main")
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\n%s: plain disk and mount\nwork\tplain\tbranch\tratio\n", tree)
	row := func(name, script string, a, b string) error {
		ta, err := timed(fmt.Sprintf(script, a))
		if err != nil {
			return err
		}
		tb, err := timed(fmt.Sprintf(script, b))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\n", name, ta.Round(time.Millisecond), tb.Round(time.Millisecond), ta.Seconds()/tb.Seconds())
		return err
	}
	if err := row("cp -a", "cp -a "+tree+" %s/src", plain, branch); err != nil {
		return err
	}
	if took, err := timed("echo all > " + branch + "/.lakefs/commit"); err != nil {
		return err
	} else {
		fmt.Fprintf(w, "commit of it\t\t%s\t\n", took.Round(time.Millisecond))
	}
	// Cold: a daemon that was just started, and a kernel that has forgotten.
	down(c)
	if c, err = up(); err != nil {
		return err
	}
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // only root may
	works := []struct{ name, script string }{
		{"find | wc -l", "find %s/src | wc -l > /dev/null"},
		{"du -s", "du -s %s/src > /dev/null"},
		{"read all", "find %s/src -type f -print0 | xargs -0 cat > /dev/null"},
	}
	for _, temp := range []string{"cold", "warm"} {
		for _, k := range works {
			if err := row(k.name+", "+temp, k.script, plain, branch); err != nil {
				return err
			}
		}
	}
	if err := row("rm -r", "rm -r %s/src", plain, branch); err != nil {
		return err
	}
	return w.Flush()
}

func sh(script string) error {
	out, err := exec.Command("bash", "-c", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %v: %s", script, err, out)
	}
	return nil
}

func timed(script string) (time.Duration, error) {
	start := time.Now()
	err := sh(script)
	return time.Since(start), err
}
