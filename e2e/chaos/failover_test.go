package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	harness "github.com/lakefsfs/lakefsfs/internal/chaos"
)

// caughtUp waits until a leader hears of all voters and none is far behind.
func caughtUp(ctx context.Context, c *harness.Cluster) (*harness.Node, error) {
	var lead *harness.Node
	err := harness.Wait(ctx, func() bool {
		if lead = c.Node(leader(ctx, c)); lead == nil {
			return false
		}
		voters := 0
		for _, m := range members(ctx, lead) {
			if !m.Voter || !m.Self && (m.Contact == nil || m.Contact.AsDuration() > time.Second) {
				return false
			}
			voters++
		}
		return voters == len(c.Nodes)
	})
	if err != nil {
		return nil, fmt.Errorf("not all nodes follow a leader: %w", err)
	}
	return lead, nil
}

// TestFailover kills leaders under load, at the defaults, and measures how long no write is acknowledged. Nothing that was is lost. It kills
// 50, as make failover does, or LAKEFSFS_TEST_KILLS, and a few in CI, where times decide nothing.
func TestFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some 20 s")
	}
	t.Parallel() // each waits most of the time
	kills := int(number(t, "LAKEFSFS_TEST_KILLS", 3))
	c := newCluster(t, harness.Options{Nodes: 3})
	first := client(t, c.Serve()...)
	if _, err := first.CreateRepository(t.Context(), engine.CreateRepository{ID: repo}); err != nil {
		t.Fatal(err)
	}
	stage := func(ctx context.Context, c engine.Engine, key string) error {
		return c.Stage(ctx, repo, "main", []graveler.Change{{Path: key, Entry: entry(key)}})
	}
	load, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	var acked [16][]string
	var count atomic.Int64
	for i := range acked {
		w := client(t, c.Serve()...)
		writers.Go(func() {
			for n := 0; load.Err() == nil; n++ {
				key := fmt.Sprintf("load/%d/%d", i, n)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				err := stage(ctx, w, key)
				cancel()
				if err != nil {
					t.Errorf("a write of the load: %v", err)
					return
				}
				acked[i] = append(acked[i], key)
				count.Add(1)
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	var times []time.Duration
	var probes []string
	probe := client(t, c.Serve()...)
	for k := range kills {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		lead, err := caughtUp(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		pause(ctx, time.Duration(200+r.IntN(1000))*time.Millisecond)
		key := fmt.Sprint("probe/", k)
		if err := stage(ctx, probe, key+"/before"); err != nil { // it knows the leader
			t.Fatal(err)
		}
		begin := time.Now()
		killed := make(chan error, 1)
		go func() { killed <- lead.Kill() }()
		if err := errors.Join(<-killed, stage(ctx, probe, key)); err != nil {
			t.Fatalf("kill %d: %v", k, err)
		}
		took := time.Since(begin)
		times = append(times, took)
		probes = append(probes, key, key+"/before")
		t.Logf("kill %d, of %s: %s", k, lead.Name, took.Round(time.Millisecond))
		if err := lead.Start(); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	stop()
	writers.Wait()
	for _, n := range c.Nodes {
		for _, crash := range n.Crashes() {
			t.Errorf("%s\n%s", crash, tail(n.Log, 2000))
		}
	}
	got, err := contents(t.Context(), first, repo, "main")
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, key := range append(slices.Concat(acked[:]...), probes...) {
		if got[key] != key {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged writes are lost", lost, count.Load()+int64(len(probes)))
	}
	slices.Sort(times)
	t.Logf("%d kills of the leader under load: p50 %s, p99 %s, longest %s until a write is acknowledged; %d writes, %d lost", kills,
		times[len(times)/2].Round(time.Millisecond), times[len(times)*99/100].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond), count.Load(), lost)
}
