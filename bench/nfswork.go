package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/bench/nfsclient"
)

// nfsWork does the same work on each server in turn, measure by measure, with the calls that Linux' client makes for it.
type nfsWork struct {
	*plan
	servers []*nfsServer
	took    map[string][]float64 // seconds of a measure on a server, of each round
	wrong   []string
}

// nfsMeasure is one kind of work. Count is how many there are of it, of a unit, and do returns what it must be.
type nfsMeasure struct {
	name, about string
	bytes       bool // it is the big file's, and counted in bytes
	cold        bool // the kernel's caches are dropped before
	do          func(w *nfsWork, ctx context.Context, s *nfsServer) error
}

const (
	nfsInFlight = 8       // calls of a stream of data, as of a kernel that reads ahead
	nfsBlock    = 1 << 20 // bytes of a READ or a WRITE
)

var nfsMeasures = []nfsMeasure{
	{"write", "the big file in WRITEs of 1 MiB, unstable, 8 in flight; COMMIT", true, false, (*nfsWork).write},
	{"read", "it, in READs of 1 MiB, 8 in flight", true, false, (*nfsWork).read},
	{"read cold", "the same, after the kernel's caches were dropped", true, true, (*nfsWork).read},
	{"create", "small files: LOOKUP, CREATE, a WRITE that is durable, as closing a file asks for", false, false, func(w *nfsWork, ctx context.Context, s *nfsServer) error { return w.create(ctx, s, 1) }},
	{"create8", "the same by 8 writers", false, false, func(w *nfsWork, ctx context.Context, s *nfsServer) error { return w.create(ctx, s, 8) }},
	{"stat", "GETATTR of the small files in random order", false, false, func(w *nfsWork, ctx context.Context, s *nfsServer) error { return w.stat(ctx, s, 1) }},
	{"stat8", "the same, 8 in flight", false, false, func(w *nfsWork, ctx context.Context, s *nfsServer) error { return w.stat(ctx, s, 8) }},
	{"lookup", "LOOKUP of their names in random order", false, false, (*nfsWork).lookup},
	{"list", "READDIRPLUS of their directory", false, false, (*nfsWork).list},
	{"read small", "a READ of each", false, false, (*nfsWork).readSmall},
	{"remove", "REMOVE of each", false, false, (*nfsWork).remove},
}

func (w *nfsWork) run(ctx context.Context) error {
	for round := range w.rounds {
		for _, s := range w.servers {
			dir, err := s.client.Mkdir(ctx, s.client.Root, fmt.Sprintf("round%d", round))
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.dir, s.files, s.big = dir, make([]nfsclient.Handle, 2*w.files), ""
		}
		for _, m := range nfsMeasures {
			for i := range w.servers {
				// Another one begins each time.
				s := w.servers[(i+round)%len(w.servers)]
				if m.cold && !w.keepCaches && os.Geteuid() == 0 {
					if err := dropCaches(); err != nil {
						return err
					}
				}
				limit, cancel := context.WithTimeout(ctx, w.timeout)
				began := time.Now()
				err := m.do(w, limit, s)
				took := time.Since(began).Seconds()
				cancel()
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					w.wrong = append(w.wrong, fmt.Sprintf("%s, %s: %v", s.name, m.name, err))
					continue
				}
				key := m.name + "\x00" + s.name
				w.took[key] = append(w.took[key], took)
			}
		}
	}
	return nil
}

// noise is a block of the big file, another one for each number.
func noise(block int) []byte {
	b := make([]byte, nfsBlock)
	r := rand.NewChaCha8([32]byte{byte(block), byte(block >> 8), 1})
	r.Read(b)
	return b
}

// blocks are a few of them, so that making them isn't measured.
var blocks = func() (out [16][]byte) {
	for i := range out {
		out[i] = noise(i)
	}
	return out
}()

// spread runs do for 0 to n-1, some at a time, in order.
func spread(ctx context.Context, n, workers int, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range workers {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(ctx, i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

func (w *nfsWork) write(ctx context.Context, s *nfsServer) (err error) {
	if s.big, err = s.client.Create(ctx, s.dir, "big"); err != nil {
		return err
	}
	var verifiers [2]atomic.Uint64 // one that was seen, and another that was
	err = spread(ctx, w.big, nfsInFlight, func(ctx context.Context, i int) error {
		v, err := s.client.Write(ctx, s.big, int64(i)*nfsBlock, blocks[i%len(blocks)], nfsclient.Unstable)
		if !verifiers[0].CompareAndSwap(0, v) && verifiers[0].Load() != v {
			verifiers[1].Store(v)
		}
		return err
	})
	if err != nil {
		return err
	}
	v, err := s.client.Commit(ctx, s.big)
	if err == nil && (v != verifiers[0].Load() || verifiers[1].Load() != 0) {
		err = errors.New("the server lost what was written")
	}
	return err
}

func (w *nfsWork) read(ctx context.Context, s *nfsServer) error {
	return spread(ctx, w.big, nfsInFlight, func(ctx context.Context, i int) error {
		return s.same(ctx, s.big, int64(i)*nfsBlock, blocks[i%len(blocks)])
	})
}

// same reads a part of a file and compares it. The server may give less at a time.
func (s *nfsServer) same(ctx context.Context, h nfsclient.Handle, off int64, want []byte) error {
	for len(want) > 0 {
		got, err := s.client.Read(ctx, h, off, len(want))
		if err != nil {
			return err
		}
		if len(got) == 0 || !bytes.Equal(got, want[:len(got)]) {
			return fmt.Errorf("%d bytes at %d aren't those written", len(got), off)
		}
		want, off = want[len(got):], off+int64(len(got))
	}
	return nil
}

// small is the content of a small file: 1 to 16 KiB.
func small(i int) []byte { return blocks[i%len(blocks)][:1024+i*7919%(15<<10)] }

func smallName(i int) string { return fmt.Sprintf("file%06d", i) }

// create makes the files of one worker, or those of eight.
func (w *nfsWork) create(ctx context.Context, s *nfsServer, workers int) error {
	first := 0
	if workers > 1 {
		first = w.files
	}
	return spread(ctx, w.files, workers, func(ctx context.Context, i int) error {
		i += first
		if _, err := s.client.Lookup(ctx, s.dir, smallName(i)); !errors.Is(err, nfsclient.NoEntry) {
			return fmt.Errorf("%s isn't absent: %w", smallName(i), err)
		}
		h, err := s.client.Create(ctx, s.dir, smallName(i))
		if err != nil {
			return err
		}
		s.files[i] = h
		_, err = s.client.Write(ctx, h, 0, small(i), nfsclient.FileSync)
		return err
	})
}

func (w *nfsWork) stat(ctx context.Context, s *nfsServer, workers int) error {
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(s.files))
	return spread(ctx, len(order), workers, func(ctx context.Context, i int) error {
		i = order[i]
		a, err := s.client.Getattr(ctx, s.files[i])
		if err == nil && a.Size != uint64(len(small(i))) {
			err = fmt.Errorf("%s has %d bytes, not %d", smallName(i), a.Size, len(small(i)))
		}
		return err
	})
}

func (w *nfsWork) lookup(ctx context.Context, s *nfsServer) error {
	order := rand.New(rand.NewPCG(3, 4)).Perm(len(s.files))
	return spread(ctx, len(order), 1, func(ctx context.Context, i int) error {
		_, err := s.client.Lookup(ctx, s.dir, smallName(order[i]))
		return err
	})
}

func (w *nfsWork) list(ctx context.Context, s *nfsServer) error {
	n, err := s.client.List(ctx, s.dir)
	// Some list . and .. too; the big file is there.
	if err == nil && (n < len(s.files)+1 || n > len(s.files)+3) {
		err = fmt.Errorf("%d entries, not %d", n, len(s.files)+1)
	}
	return err
}

func (w *nfsWork) readSmall(ctx context.Context, s *nfsServer) error {
	return spread(ctx, len(s.files), 1, func(ctx context.Context, i int) error { return s.same(ctx, s.files[i], 0, small(i)) })
}

func (w *nfsWork) remove(ctx context.Context, s *nfsServer) error {
	return spread(ctx, len(s.files), 1, func(ctx context.Context, i int) error { return s.client.Remove(ctx, s.dir, smallName(i)) })
}

// print prints a table of speeds and one of ratios.
func (w *nfsWork) print(out io.Writer) {
	fmt.Fprintf(out, "\n%d small files of 1 to 16 KiB by one writer and as many by eight, a big file of %d MiB, one connection; medians of %d rounds.\n\n", w.files, w.big, w.rounds)
	names := []string{"measure"}
	for _, s := range w.servers {
		fmt.Fprintf(out, "- %s: %s\n", s.name, s.about)
		names = append(names, s.name)
	}
	for _, m := range nfsMeasures {
		fmt.Fprintf(out, "- *%s*: %s\n", m.name, m.about)
	}
	if len(w.servers) == 0 {
		return
	}
	base := w.servers[0].name
	for _, t := range []struct {
		title string
		cell  func(m nfsMeasure, took, base float64) string
	}{
		{"Time of " + base + " by the server's: 1 is as fast, 0.5 takes twice as long", func(_ nfsMeasure, took, base float64) string {
			if base == 0 {
				return "–"
			}
			return fmt.Sprintf("%.2f", base/took)
		}},
		{"MB a second, or calls' worth of files a second", func(m nfsMeasure, took, _ float64) string {
			if m.bytes {
				return fmt.Sprintf("%.0f MB", float64(w.big)*nfsBlock/1e6/took)
			}
			n := 2 * w.files
			if m.name == "create" || m.name == "create8" {
				n = w.files
			}
			return fmt.Sprintf("%.0f", float64(n)/took)
		}},
	} {
		fmt.Fprintf(out, "\n### %s\n\n", t.title)
		head(out, names...)
		for _, m := range nfsMeasures {
			cells := []string{m.name}
			for _, s := range w.servers {
				took := w.took[m.name+"\x00"+s.name]
				if len(took) == 0 {
					cells = append(cells, "failed")
					continue
				}
				var b float64
				if all := w.took[m.name+"\x00"+base]; len(all) > 0 {
					b = middle(all)
				}
				cells = append(cells, t.cell(m, middle(took), b))
			}
			line(out, cells...)
		}
	}
	for _, e := range w.wrong {
		fmt.Fprintf(out, "\n- failed: %s\n", e)
	}
}
