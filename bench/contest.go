package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plan is how large a contest is, and what of it is run.
type plan struct {
	files, s3Files int
	big, s3Big     int // MiB
	syncs, ops     int
	rounds         int
	delay          time.Duration
	timeout        time.Duration
	limit          time.Duration // of a reading measure that needn't be whole
	plain          bool          // no fresh disks
	keepCaches     bool          // the kernel's
	only, measures string
	raw            string
	nfs            *nfsPlan // set if NFS servers are to be compared instead
}

// quicken makes small what no flag has set.
func (p *plan) quicken(fs *flag.FlagSet) {
	for _, s := range []struct {
		flag  string
		field *int
		n     int
	}{{"files", &p.files, 1000}, {"s3-files", &p.s3Files, 200}, {"big", &p.big, 128}, {"s3-big", &p.s3Big, 32}, {"syncs", &p.syncs, 50}, {"ops", &p.ops, 5000}, {"rounds", &p.rounds, 1}} {
		if !isSet(fs, s.flag) {
			*s.field = s.n
		}
	}
	if !isSet(fs, "timeout") {
		p.timeout = time.Minute
	}
}

// result is what the workload prints of a measure; bench/workload tells its fields.
type result struct {
	Name    string  `json:"name"`
	Count   int64   `json:"count"`
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes,omitempty"`
	P50     float64 `json:"p50_us,omitempty"`
	P99     float64 `json:"p99_us,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// record is a result of a contender, and what it cost at the object store.
type record struct {
	Contender string `json:"contender"`
	When      string `json:"when"` // writing, cold, warm, changing
	result
	Requests *requests `json:"requests,omitempty"` // nil without an object store that counts
	Stored   float64   `json:"stored,omitempty"`   // seconds from the measure's start until the store had all
}

// contender is a directory of a system to work in.
type contender struct {
	name, about string
	sys         system
	dir         func() string
	s3          *bucket // nil if its store is not 10 ms away
	writes      bool    // else it is a commit, made from a tree written by prepare
}

// phase is measures that are run in the same circumstances.
type phase struct {
	when     string
	measures string
}

var (
	writing = phase{"writing", "create,create8,fsync,fsync8,write"}
	cold    = phase{"cold", "walkstat,open1,open8,shuffle8,seqread,rand1"}
	warm    = phase{"warm", "stat,readdir,walkstat,open1,open8,shuffle8,seqread,rand1,rand8,mmap"}
	// The directory last: what its renames leave to a store of metadata would count for what comes after.
	changing = phase{"changing", "rename,remove,renamedir"}
)

// changeLimit is how long a changing measure goes on that needn't be whole: a slow contender's rate is known by then, and all has to
// be changed back.
const changeLimit = 10 * time.Second

// settled is how long a far store must not be asked for anything before all is taken to be there. It is longer than any contender
// here waits before it writes back.
const settled = 3 * time.Second

// contest runs all and prints the tables.
func (p *plan) contest(ctx context.Context, work, bin string, out io.Writer) (err error) {
	a := &arena{plan: p, work: work, bin: bin}
	defer func() { err = errors.Join(err, a.close()) }()
	began := time.Now()
	if err := a.build(ctx); err != nil {
		return err
	}
	if err := a.enter(ctx); err != nil {
		return err
	}
	r := &runner{arena: a}
	if err := r.all(ctx); err != nil {
		return err
	}
	if p.raw != "" {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		for _, rec := range r.records {
			if err := enc.Encode(rec); err != nil {
				return err
			}
		}
		if err := os.WriteFile(p.raw, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	t := tables{records: r.records, contenders: a.contenders}
	fmt.Fprintf(out, "\n## Contest\n\n%s; %s.\n", a.machine(ctx), time.Since(began).Round(time.Second))
	t.print(out, p)
	return nil
}

// runner runs phases and keeps what they measured.
type runner struct {
	*arena
	records []record
}

func (r *runner) all(ctx context.Context) error {
	for _, m := range r.wanted(writing) {
		rounds := r.rounds
		if strings.HasPrefix(m, "create") {
			rounds = 1 // a tree is made once; of all else there can be more
		}
		if err := r.repeat(ctx, writing.when, m, rounds, func(c *contender) bool { return c.writes }); err != nil {
			return err
		}
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	for _, m := range r.wanted(cold) {
		for _, c := range r.contenders {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// Anew each time: the last measure has warmed it.
			if err := r.cool(ctx, c); err != nil {
				r.failed(c, cold.when, m, err)
				continue
			}
			r.records = append(r.records, r.measured(ctx, c, cold.when, m, ""))
		}
	}
	if ms := r.wanted(warm); len(ms) > 0 {
		for _, c := range r.contenders {
			r.workload(ctx, c, r.limit, "", "walkstat", "open8", "seqread")
		}
		for _, m := range ms {
			if err := r.repeat(ctx, warm.when, m, r.rounds, func(*contender) bool { return true }); err != nil {
				return err
			}
		}
	}
	for _, m := range r.wanted(changing) {
		if err := r.repeat(ctx, changing.when, m, 1, func(c *contender) bool { return c.writes }); err != nil {
			return err
		}
	}
	return nil
}

// repeat runs a measure so many times on each contender that is in, in turn, and keeps the medians.
func (r *runner) repeat(ctx context.Context, when, name string, rounds int, in func(*contender) bool) error {
	all := map[*contender][]record{}
	for round := range rounds {
		suffix := ""
		if when == writing.when && round > 0 {
			suffix = fmt.Sprintf("-%d", round)
		}
		for _, c := range r.contenders {
			if in(c) {
				all[c] = append(all[c], r.measured(ctx, c, when, name, suffix))
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	for _, c := range r.contenders {
		if in(c) {
			r.records = append(r.records, median(all[c]))
		}
	}
	return nil
}

// wanted are the measures of a phase that the flags leave. Those that make the tree stay: others need it.
func (r *runner) wanted(ph phase) []string {
	var out []string
	for m := range strings.SplitSeq(ph.measures, ",") {
		needed := m == "create" || m == "write" || m == "create8" && slices.Contains(strings.Split(r.measures, ","), "remove")
		if r.measures == "" || needed || slices.Contains(strings.Split(r.measures, ","), m) {
			out = append(out, m)
		}
	}
	return out
}

// prepare writes the trees of the contenders that are commits, and commits them.
func (r *runner) prepare(ctx context.Context) error {
	for _, c := range r.contenders {
		l, ok := c.sys.(*lakefsfs)
		if !ok || c.writes || l.frozen != "" {
			continue
		}
		main := &contender{name: c.name, sys: l, dir: l.branch, s3: c.s3, writes: true}
		for _, res := range r.workload(ctx, main, r.limit, "", "create", "write") {
			if res.Error != "" {
				return fmt.Errorf("prepare %s: %s", c.name, res.Error)
			}
		}
		if c.s3 != nil {
			if _, err := c.s3.quiet(settled, r.timeout); err != nil {
				return fmt.Errorf("prepare %s: %w", c.name, err)
			}
		}
		before := c.requests()
		start := time.Now()
		if err := l.freeze(ctx); err != nil {
			return fmt.Errorf("prepare %s: %w", c.name, err)
		}
		rec := record{Contender: c.name, When: writing.when, result: result{Name: "commit", Count: 1, Seconds: time.Since(start).Seconds()}}
		rec.Requests = c.since(before)
		r.records = append(r.records, rec)
	}
	return nil
}

// cool starts a contender's system anew, with nothing kept of a far store, and makes the kernel forget.
func (r *runner) cool(ctx context.Context, c *contender) error {
	c.sys.stop()
	if err := c.sys.forget(); err != nil {
		return err
	}
	if err := c.sys.start(ctx); err != nil {
		return err
	}
	if r.keepCaches || os.Geteuid() != 0 {
		return nil // the table says so
	}
	return dropCaches()
}

func (r *runner) failed(c *contender, when, name string, err error) {
	r.records = append(r.records, record{Contender: c.name, When: when, result: result{Name: name, Error: err.Error()}})
}

// measured runs a measure once, suffix being that of the names it makes, and for a far store waits until that has all.
func (r *runner) measured(ctx context.Context, c *contender, when, name, suffix string) record {
	before := c.requests()
	limit := r.limit
	if when == changing.when {
		limit = changeLimit
	}
	start := time.Now()
	rec := record{Contender: c.name, When: when, result: r.workload(ctx, c, limit, suffix, name)[0]}
	if c.s3 != nil && when != warm.when && when != cold.when {
		last, err := c.s3.quiet(settled, r.timeout)
		if err != nil && rec.Error == "" {
			rec.Error = err.Error()
		}
		rec.Stored = max(last.Sub(start).Seconds(), rec.Seconds)
	}
	rec.Requests = c.since(before)
	fmt.Fprintf(os.Stderr, "%-9s %-10s %-10s %8d in %7.3f s  %s\n", when, name, c.name, rec.Count, rec.Seconds, rec.Error)
	return rec
}

// workload runs measures on a contender in a process of their own, and returns as many results. What went wrong is in them.
func (r *runner) workload(ctx context.Context, c *contender, limit time.Duration, suffix string, names ...string) []result {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	files, big := r.sizes(c)
	cmd := exec.CommandContext(ctx, r.workloadBin, "-dir", c.dir(), "-run", strings.Join(names, ","), "-files", strconv.Itoa(files), "-big", strconv.Itoa(big<<20),
		"-syncs", strconv.Itoa(r.syncs), "-ops", strconv.Itoa(r.ops), "-limit", limit.String(), "-suffix", suffix)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second // a process that hangs in a system call doesn't die
	err := cmd.Run()
	results := make([]result, len(names))
	dec := json.NewDecoder(&out)
	for i := range results {
		if dec.Decode(&results[i]) != nil {
			results[i] = result{Name: names[i], Error: fmt.Sprintf("%v: %s", err, strings.TrimSpace(errs.String()))}
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				results[i].Error = fmt.Sprintf("not done after %s", r.timeout)
			}
		}
	}
	return results
}

// sizes of a contender's tree: the big file's in MiB.
func (p *plan) sizes(c *contender) (files, big int) {
	if c.s3 != nil {
		return p.s3Files, p.s3Big
	}
	return p.files, p.big
}

func (c *contender) requests() requests {
	if c.s3 == nil {
		return requests{}
	}
	return c.s3.snapshot()
}

func (c *contender) since(before requests) *requests {
	if c.s3 == nil {
		return nil
	}
	d := c.s3.snapshot().sub(before)
	return &d
}

// median is the record in the middle by its rate; one that failed if any did.
func median(rs []record) record {
	for _, r := range rs {
		if r.Error != "" {
			return r
		}
	}
	slices.SortFunc(rs, func(a, b record) int {
		switch x, y := a.each(), b.each(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return rs[len(rs)/2]
}

// each is the seconds of one operation, or one MiB.
func (r *record) each() float64 { return r.Seconds / float64(max(r.Count, 1)) }
