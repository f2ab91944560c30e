// Command workload measures what programs do with files: it makes, reads, walks, renames and removes them below a directory, and
// knows nothing of the file system that the directory is on.
//
//	workload -dir DIR [-run create,open1,…] [-files N] [-big BYTES] …
//
// Each measure prints one line of JSON: what it did, how often, how long that took. The tree's names, sizes and bytes follow from
// -files, -big and -seed alone, so reading measures can run later, elsewhere, on a copy of the tree, given the same flags. All that is
// read is compared with what was written: a wrong answer is an error, not a fast one.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// result is what a measure prints.
type result struct {
	Name    string  `json:"name"`
	Count   int64   `json:"count"`            // operations done; MiB where the measure moves a big file
	Seconds float64 `json:"seconds"`          // wall time of all of them
	Bytes   int64   `json:"bytes,omitempty"`  // of files' content
	P50     float64 `json:"p50_us,omitempty"` // microseconds of one operation, where each was timed
	P99     float64 `json:"p99_us,omitempty"`
	Error   string  `json:"error,omitempty"` // the first; the other figures then say how far it came
}

// measure is one kind of work. It counts and times by the clock that it gets.
type measure struct {
	name, does string
	run        func(j *job, c *clock) error
}

// measures are in the order in which they are run by default: those that make, those that read, those that change and remove.
var measures = []measure{
	{"create", "make the small files in order, directories as they come, as tar does", func(j *job, c *clock) error { return j.create(c, "t", 1) }},
	{"create8", "the same from 8 writers, in a second tree", func(j *job, c *clock) error { return j.create(c, "t8", 8) }},
	{"fsync", "make small files, fsync each", func(j *job, c *clock) error { return j.createSynced(c, "s1", 1) }},
	{"fsync8", "the same from 8 writers", func(j *job, c *clock) error { return j.createSynced(c, "s8", 8) }},
	{"write", "write the big file from end to end, then fsync; counts MiB", (*job).writeBig},
	{"stat", "lstat of random names that have all been asked for once", (*job).stat},
	{"readdir", "list all directories of the tree", func(j *job, c *clock) error { return j.walk(c, false) }},
	{"walkstat", "list all directories and lstat each name", func(j *job, c *clock) error { return j.walk(c, true) }},
	{"open1", "open, read and close each small file, in order", func(j *job, c *clock) error { return j.readSmall(c, 1, false) }},
	{"open8", "the same from 8 readers", func(j *job, c *clock) error { return j.readSmall(c, 8, false) }},
	{"shuffle8", "the same from 8 readers, in random order", func(j *job, c *clock) error { return j.readSmall(c, 8, true) }},
	{"seqread", "read the big file from end to end; counts MiB", (*job).readBig},
	{"rand1", "read random pages of 4 KiB of the big file", func(j *job, c *clock) error { return j.readRandom(c, 1) }},
	{"rand8", "the same from 8 readers", func(j *job, c *clock) error { return j.readRandom(c, 8) }},
	{"mmap", "touch random pages of the mapped big file", (*job).readMapped},
	{"rename", "rename small files, and back", (*job).renameFiles},
	{"remove", "remove the second tree", (*job).removeTree},
	{"renamedir", "rename the directory of all small files, and back", (*job).renameDir},
}

func main() {
	j := job{}
	names := flag.String("run", "", "measures to run, by comma, in this order (default: all)")
	list := flag.Bool("list", false, "print the measures and what they do")
	flag.StringVar(&j.dir, "dir", "", "directory to work in; must exist")
	flag.IntVar(&j.files, "files", 5000, "small files, of 1 to 16 KiB")
	flag.IntVar(&j.syncs, "syncs", 200, "files to fsync from one writer; twice as many from 8")
	flag.Int64Var(&j.big, "big", 1<<30, "bytes of the big file, a multiple of 1 MiB")
	flag.IntVar(&j.ops, "ops", 20000, "random reads and stats")
	flag.Uint64Var(&j.seed, "seed", 1, "of content and of random orders")
	flag.StringVar(&j.suffix, "suffix", "", "of the names of the big file and of the synced ones' directories, to make them again")
	flag.DurationVar(&j.limit, "limit", time.Minute, "a measure that needn't be whole stops after this long, and counts what it did")
	flag.Parse()
	if *list {
		for _, m := range measures {
			fmt.Printf("%-10s %s\n", m.name, m.does)
		}
		return
	}
	if err := run(&j, *names, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

// run runs the named measures and prints their results. One that fails doesn't keep the next ones from running.
func run(j *job, names string, out io.Writer) error {
	if j.dir == "" {
		return errors.New("name the directory to work in by -dir")
	}
	if j.files < 1 || j.syncs < 1 || j.ops < 1 || j.big < block || j.big%block != 0 {
		return fmt.Errorf("-files, -syncs and -ops must be at least 1, -big a multiple of %d", block)
	}
	todo := measures
	if names != "" {
		todo = nil
		for name := range strings.SplitSeq(names, ",") {
			i := slices.IndexFunc(measures, func(m measure) bool { return m.name == name })
			if i < 0 {
				return fmt.Errorf("there is no measure %q; -list prints them", name)
			}
			todo = append(todo, measures[i])
		}
	}
	j.pattern = newPattern(j.seed)
	enc := json.NewEncoder(out)
	var failed []error
	for _, m := range todo {
		c := &clock{limit: j.limit}
		c.start()
		err := m.run(j, c)
		r := c.result(m.name)
		if err != nil {
			r.Error = err.Error()
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}
