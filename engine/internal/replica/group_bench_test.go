package replica

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// writers is how many write at the same time. Each waits for the disk with each record.
const writers = 64

func eachOf64(b *testing.B, one func(i int64) error) {
	b.SetParallelism((writers + 1) / 2)
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := one(n.Add(1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
}

func benchPut(i int64) graveler.Change {
	return put(fmt.Sprintf("some/directory/file-%012d", i), "0123456789abcdef0123456789abcdef")
}

// What is staged by 64 writers, each durable before it counts as done.
func BenchmarkGroupStage(b *testing.B) {
	r := open(b, b.TempDir())
	defer r.Close()
	makeRepo(b, r)
	b.ResetTimer()
	eachOf64(b, func(i int64) error {
		if _, err := r.Stage(b.Context(), "repo", "main", []graveler.Change{benchPut(i)}); err != nil {
			return err
		}
		return r.Sync(b.Context())
	})
}

// What Pebble alone does of the same: a synced batch with a record of the same key and value.
func BenchmarkGroupPebble(b *testing.B) {
	db, err := pebble.Open(filepath.Join(b.TempDir(), "db"), &pebble.Options{FormatMajorVersion: pebble.FormatNewest, MemTableSize: 32 << 20, Logger: pebbleLogger{}})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	b.ResetTimer()
	eachOf64(b, func(i int64) error {
		ch := benchPut(i)
		c, err := changePB(&ch)
		if err != nil {
			return err
		}
		return db.Set(stagedKey("t0", ch.Path), appendRecord(nil, c), pebble.Sync)
	})
}

// Three nodes on this machine.
func BenchmarkGroupCluster(b *testing.B) {
	c := newCluster(b, 3)
	c.makeRepo()
	l := c.leader()
	b.ResetTimer()
	eachOf64(b, func(i int64) error {
		_, err := l.Stage(b.Context(), "repo", "main", []graveler.Change{benchPut(i)})
		return err
	})
}

// Reads that a majority confirms.
func BenchmarkGroupVerify(b *testing.B) {
	c := newCluster(b, 3)
	l := c.leader()
	b.ResetTimer()
	eachOf64(b, func(int64) error { return l.node.leading().check.verify(b.Context()) })
}
