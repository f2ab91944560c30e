package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
)

const (
	block    = 1 << 20 // bytes of one read or write of the big file
	page     = 4096
	smallMin = 1 << 10
	smallMax = 16 << 10
	perDir   = 100 // files of a directory
)

// pattern is what content is made of: noise, which no file system compresses. A small file is a window of it, and the big file is
// repetitions of it; the first 8 bytes of each file and of each page say which one it is.
type pattern struct {
	seed  uint64
	noise []byte // block+smallMax
}

func newPattern(seed uint64) *pattern {
	p := &pattern{seed: seed, noise: make([]byte, block+smallMax)}
	r := rand.New(rand.NewPCG(seed, 0))
	for i := 0; i+8 <= len(p.noise); i += 8 {
		binary.LittleEndian.PutUint64(p.noise[i:], r.Uint64())
	}
	return p
}

// mix spreads n over all 64 bits (the finalizer of SplitMix64).
func mix(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// smallSize is the size of small file i.
func smallSize(i int) int { return smallMin + int(mix(uint64(i))%(smallMax-smallMin+1)) }

// small fills b with file i's content and returns it.
func (p *pattern) small(i int, b []byte) []byte {
	n := smallSize(i)
	b = append(b[:0], p.window(i, n)...)
	binary.LittleEndian.PutUint64(b, p.smallMark(i))
	return b
}

func (p *pattern) window(i, n int) []byte {
	off := int(mix(uint64(i)+p.seed) % block)
	return p.noise[off : off+n]
}

func (p *pattern) smallMark(i int) uint64       { return mix(p.seed<<32 + uint64(i)) }
func (p *pattern) pageMark(number int64) uint64 { return mix(^p.seed<<32 + uint64(number)) }

// checkSmall compares b with file i's content.
func (p *pattern) checkSmall(i int, b []byte) error {
	n := smallSize(i)
	if len(b) != n {
		return fmt.Errorf("file %d has %d bytes, not %d", i, len(b), n)
	}
	if binary.LittleEndian.Uint64(b) != p.smallMark(i) || !bytes.Equal(b[8:], p.window(i, n)[8:]) {
		return fmt.Errorf("file %d has wrong content", i)
	}
	return nil
}

// big fills b, of a block, with the big file's block k.
func (p *pattern) big(k int64, b []byte) {
	copy(b, p.noise[:block])
	for at := 0; at < block; at += page {
		binary.LittleEndian.PutUint64(b[at:], p.pageMark(k*(block/page)+int64(at/page)))
	}
}

// checkPages compares b with the big file's content from byte off; both are multiples of a page.
func (p *pattern) checkPages(off int64, b []byte) error {
	for at := 0; at < len(b); at += page {
		here := off + int64(at)
		in := int(here % block)
		got := b[at : at+page]
		if binary.LittleEndian.Uint64(got) != p.pageMark(here/page) || !bytes.Equal(got[8:], p.noise[in+8:in+page]) {
			return fmt.Errorf("the big file has wrong content at byte %d", here)
		}
	}
	return nil
}

// smallName is the name of file i below a tree's root.
func smallName(i int) string {
	return fmt.Sprintf("%s/file-%06d.dat", dirName(i/perDir), i)
}

// dirName is the name of directory d below a tree's root.
func dirName(d int) string {
	return filepath.Join(fmt.Sprintf("part-%02d", d/10), fmt.Sprintf("group-%d", d%10))
}
