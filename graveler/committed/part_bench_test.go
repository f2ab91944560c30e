package committed

import (
	"strings"
	"testing"
)

// BenchmarkDirectories finds the 1,000 directories of a commit of 100,000 entries, in parts.
func BenchmarkDirectories(b *testing.B) {
	s, id, _, _ := partStore(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.anew().Cursor(b.Context(), id)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for ok := c.SeekGE(""); ok; n++ {
			d, _, _ := strings.Cut(c.Path(), "/")
			ok = c.SeekGE(d + "0")
		}
		if n != 1000 {
			b.Fatal(n)
		}
	}
}
