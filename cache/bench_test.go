package cache

import (
	"context"
	"testing"

	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

func BenchmarkHit(b *testing.B) {
	base := remote(b, b.TempDir())
	st := over(b, base, newCache(b, Options{}))
	for name, size := range map[string]int{"small": 4096, "large": 20 << 20} {
		data := objecttest.Bytes(1, size)
		o := objecttest.Put(b, base, "data/"+name, data)
		read(b, st, o, data, 0, size)
		b.Run(name, func(b *testing.B) {
			p := make([]byte, 4096)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := st.ReadAt(context.Background(), o, p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHitParallel(b *testing.B) {
	base := remote(b, b.TempDir())
	st := over(b, base, newCache(b, Options{}))
	data := objecttest.Bytes(1, 128<<10)
	o := objecttest.Put(b, base, "data/x", data)
	read(b, st, o, data, 0, len(data))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, len(data))
		for pb.Next() {
			if _, err := st.ReadAt(context.Background(), o, p, 0); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkDiskHit reads chunks that are on disk but not in memory.
func BenchmarkDiskHit(b *testing.B) {
	base := remote(b, b.TempDir())
	st := over(b, base, newCache(b, Options{MemoryBytes: 2000, Dir: b.TempDir(), DiskBytes: 64 << 20}))
	data := objecttest.Bytes(1, 20<<20)
	o := objecttest.Put(b, base, "data/x", data)
	read(b, st, o, data, 0, len(data))
	st.(*store).wg.Wait()
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	i := 0
	for b.Loop() {
		if _, err := st.ReadAt(context.Background(), o, p, int64(i%20)<<20); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkTables(b *testing.B) {
	c := newCache(b, Options{})
	tables := c.Tables("mem://x")
	load := func(context.Context) (any, int64, error) { return 1, 1000, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tables.Get(context.Background(), "a", load); err != nil {
			b.Fatal(err)
		}
	}
}

func TestHitDoesNotAllocate(t *testing.T) {
	base := remote(t, t.TempDir())
	st := over(t, base, newCache(t, Options{}))
	for name, size := range map[string]int{"small": 4096, "large": 9 << 20} {
		data := objecttest.Bytes(1, size)
		o := objecttest.Put(t, base, "data/"+name, data)
		p := make([]byte, 4096)
		read(t, st, o, data, 0, size)
		n := testing.AllocsPerRun(1000, func() {
			if _, err := st.ReadAt(context.Background(), o, p, 0); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("a hit of a %s object allocates %v times", name, n)
		}
	}
}
