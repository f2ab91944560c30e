// Command bench shows what lakefsfs costs, in tables of Markdown: the time, object requests and bytes of a commit in repositories of
// growing size; then the contest, the same work on lakefsfs, on the disk below it, on a FUSE file system that does nothing, and on
// other file systems over an object store, side by side in one run. README.md says what each column is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	var p plan
	dir := flag.String("dir", os.TempDir(), "directory on the disk to measure; needs 35 GB in the default size")
	bin := flag.String("bin", "bin/lakefsfs", "the program")
	sizes := flag.String("sizes", "1000,100000,1000000", `entries of the repositories to commit in; "" for no table of commits`)
	tree := flag.String("tree", "", `also run ordinary programs on a copy of this tree; "go" is the Go toolchain's source`)
	quick := flag.Bool("quick", false, "small sizes: some three minutes, and rougher figures")
	contest := flag.Bool("contest", true, "run the contest")
	flag.IntVar(&p.files, "files", 5000, "small files")
	flag.IntVar(&p.s3Files, "s3-files", 2000, "small files where the store is 10 ms away")
	flag.IntVar(&p.big, "big", 1024, "MiB of the big file")
	flag.IntVar(&p.s3Big, "s3-big", 256, "MiB of the big file where the store is 10 ms away")
	flag.IntVar(&p.syncs, "syncs", 200, "files to fsync")
	flag.IntVar(&p.ops, "ops", 20000, "random reads and stats")
	flag.IntVar(&p.rounds, "rounds", 3, "times that each measure is run that can be, those of warm reading, fsync and the big file; the median counts")
	flag.DurationVar(&p.delay, "delay", 10*time.Millisecond, "what the proxy adds to each request to the S3 server")
	flag.DurationVar(&p.limit, "limit", 45*time.Second, "reading many files or pages stops after this long, and the rate counts")
	flag.DurationVar(&p.timeout, "timeout", 4*time.Minute, "a measure on one contender fails after this long")
	flag.BoolVar(&p.plain, "plain", false, "give contenders plain directories of -dir, not a fresh ext4 each, as happens without root")
	flag.BoolVar(&p.keepCaches, "keep-caches", false, "don't drop the kernel's caches before cold measures, as only root can")
	flag.StringVar(&p.only, "contenders", "", "contenders to run, by comma (default: all that are installed but passthrough)")
	flag.StringVar(&p.measures, "measures", "", "measures to run, by comma (default: all)")
	flag.StringVar(&p.raw, "raw", "", "also write all results to this file, as lines of JSON")
	nfs := flag.Bool("nfs", false, "run the contest of NFS servers, and nothing else")
	inside := flag.Bool("nfs-inside", false, "of -nfs: it runs in a network of its own already")
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
	if *quick {
		p.quicken(flag.CommandLine)
		if !isSet(flag.CommandLine, "sizes") {
			*sizes = "1000,100000"
		}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if *nfs {
		*sizes, *tree, *contest = "", "", false
		if os.Geteuid() == 0 && !*inside {
			if err := enclosed(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				os.Exit(1)
			}
			return
		}
		if *inside {
			if err := settleIn(); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				os.Exit(1)
			}
		}
		p.nfs = &nfsPlan{plan: &p, inside: *inside}
	}
	if err := run(ctx, &p, *dir, *tree, *sizes, *bin, *contest); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func isSet(fs *flag.FlagSet, name string) bool {
	set := false
	fs.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func run(ctx context.Context, p *plan, dir, tree, sizes, bin string, contest bool) (err error) {
	// A socket's path must be short, so names here are.
	work, err := os.MkdirTemp(dir, "lfsb")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if sizes != "" {
		if err := commits(filepath.Join(work, "c"), sizes); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(work, "c")); err != nil {
			return err
		}
	}
	if tree == "go" {
		out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return err
		}
		tree = filepath.Join(strings.TrimSpace(string(out)), "src")
	}
	if tree != "" {
		if err := programs(work, tree, bin); err != nil {
			return err
		}
	}
	if p.nfs != nil {
		return p.nfs.run(ctx, work, bin, os.Stdout)
	}
	if !contest {
		return nil
	}
	return p.contest(ctx, work, bin, os.Stdout)
}
