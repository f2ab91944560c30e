// Command cluster shows what three nodes on one machine's loopback put through, side by side with etcd: the same keys and values, the
// same disk, the same writers, one after the other in rounds, so that a machine whose speed drifts is fair to both. A put is answered when
// a majority has it on disk.
//
//	cluster [flags]
//
// Both are asked over gRPC by this process, on so many connections to the leader; each connection carries many writers. Beside them a
// machine alone: the engine without peers, in this process, where a put is answered when it survives a power cut, and Pebble with synced
// writes.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// plan is what to measure.
type plan struct {
	dir, bin, etcd string
	nodes          int
	writers        []int
	conns          int
	key, value     int // bytes
	warm, during   time.Duration
	rounds         int
	only           string
	profile        string
}

// putter puts one value, and returns when a majority has it on disk. i numbers the connection.
type putter interface {
	put(ctx context.Context, conn int, key string, value []byte) error
	close()
}

// profiler is a putter whose leader tells where its time goes. What profile returns waits for that.
type profiler interface {
	profile(file string, during time.Duration) (wait func() error)
}

// contender starts what is measured, in a directory of its own.
type contender struct {
	name  string
	base  string // the contender that it is compared with
	start func(ctx context.Context, p *plan, dir string) (putter, error)
}

// result is one round of one contender.
type result struct {
	puts     int
	rate     float64
	p50, p99 time.Duration
}

func main() {
	var p plan
	writers := flag.String("writers", "1,64,256", "writers at a time, by comma")
	flag.StringVar(&p.dir, "dir", os.TempDir(), "directory on the disk to measure")
	flag.StringVar(&p.bin, "bin", "bin/lakefsfs", "the program")
	flag.StringVar(&p.etcd, "etcd", "", "etcd's program (default: .tools/bin/etcd, or on PATH)")
	flag.IntVar(&p.nodes, "nodes", 3, "nodes of each cluster")
	flag.IntVar(&p.conns, "conns", 16, "connections")
	flag.IntVar(&p.key, "key", 60, "bytes of a key")
	flag.IntVar(&p.value, "value", 200, "bytes of a value")
	flag.DurationVar(&p.warm, "warm", 2*time.Second, "time before the measure")
	flag.DurationVar(&p.during, "during", 8*time.Second, "time of each measure")
	flag.IntVar(&p.rounds, "rounds", 3, "times that each is measured; the median counts")
	flag.StringVar(&p.only, "contenders", "", "contenders to run, by comma (default: all)")
	flag.StringVar(&p.profile, "profile", "", "also write a CPU profile of lakefsfs's leader under the most writers to this file")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	for s := range strings.SplitSeq(*writers, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "cluster: -writers: %q is no number of writers\n", s)
			os.Exit(2)
		}
		p.writers = append(p.writers, n)
	}
	if err := p.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func (p *plan) run(ctx context.Context, out io.Writer) (err error) {
	work, err := os.MkdirTemp(p.dir, "bc")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	var all []contender
	for _, c := range []contender{
		{"lakefsfs", "etcd", startLakefsfs}, {"etcd", "etcd", startEtcd},
		{"alone", "pebble", startAlone}, {"pebble", "pebble", startPebble},
	} {
		if p.only == "" || slices.Contains(strings.Split(p.only, ","), c.name) {
			all = append(all, c)
		}
	}
	results := map[string][]result{}
	for round := range p.rounds {
		// Each is first in turn.
		for i := range all {
			c := all[(i+round)%len(all)]
			dir := filepath.Join(work, fmt.Sprint(c.name, round))
			if err := p.round(ctx, c, dir, results, round); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "%d nodes on loopback, keys of %d bytes, values of %d; %d connections; %d CPUs; median of %d rounds of %s each\n\n",
		p.nodes, p.key, p.value, p.conns, runtime.NumCPU(), p.rounds, p.during)
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| writers\t| contender\t| puts/s\t| p50\t| p99\t| ratio\t|")
	fmt.Fprintln(w, "| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|")
	for _, n := range p.writers {
		for _, c := range all {
			r := median(results[key(c.name, n)])
			ratio := "-"
			if base := results[key(c.base, n)]; len(base) > 0 {
				ratio = fmt.Sprintf("%.2f of %s", r.rate/median(base).rate, c.base)
			}
			fmt.Fprintf(w, "| %d\t| %s\t| %.0f\t| %s\t| %s\t| %s\t|\n", n, c.name, r.rate, short(r.p50), short(r.p99), ratio)
		}
	}
	return w.Flush()
}

func key(name string, writers int) string { return fmt.Sprint(name, " ", writers) }

func short(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func median(rs []result) result {
	rs = slices.Clone(rs)
	slices.SortFunc(rs, func(a, b result) int { return cmp.Compare(a.rate, b.rate) })
	return rs[len(rs)/2]
}

// round starts a contender and measures it under each number of writers.
func (p *plan) round(ctx context.Context, c contender, dir string, results map[string][]result, round int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := c.start(ctx, p, dir)
	if err != nil {
		return err
	}
	defer s.close()
	for _, n := range p.writers {
		if _, err := p.measure(ctx, s, n, p.warm); err != nil {
			return err
		}
		profiled := func() error { return nil }
		if f, ok := s.(profiler); ok && p.profile != "" && round == 0 && n == slices.Max(p.writers) {
			profiled = f.profile(p.profile, p.during)
		}
		r, err := p.measure(ctx, s, n, p.during)
		if err := errors.Join(err, profiled()); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "round %d: %s, %d writers: %.0f puts/s, p50 %s, p99 %s\n", round+1, c.name, n, r.rate, short(r.p50), short(r.p99))
		results[key(c.name, n)] = append(results[key(c.name, n)], r)
	}
	return nil
}

// measure lets writers put random keys for a while.
func (p *plan) measure(ctx context.Context, s putter, writers int, during time.Duration) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	took := make([][]time.Duration, writers)
	errs := make([]error, writers)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range writers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(begin.UnixNano()), uint64(i)))
			value := make([]byte, p.value)
			for {
				at := time.Now()
				if at.Sub(begin) >= during {
					return
				}
				for j := range value {
					value[j] = 'a' + byte(r.Uint32()%26)
				}
				k := fmt.Sprintf("dir-%03d/file-%020d", r.IntN(1000), r.Uint64())
				k += strings.Repeat("x", max(0, p.key-len(k)))
				if errs[i] = s.put(ctx, i%p.conns, k, value); errs[i] != nil {
					cancel()
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	all.Wait()
	wall := time.Since(begin)
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return result{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	each := slices.Concat(took...)
	slices.Sort(each)
	if len(each) == 0 {
		return result{}, errors.New("nothing was put in time")
	}
	return result{puts: len(each), rate: float64(len(each)) / wall.Seconds(), p50: each[len(each)/2], p99: each[len(each)*99/100]}, nil
}
