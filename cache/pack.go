package cache

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Small chunks lie together in packs, since to make a file costs a file system more than all else that is done for one. A pack is at
// DIR/chunks/packs/<40 random hex digits>, is written once from its start to its end by one process, and is given up as a whole.
//
//	pack:   record ...
//	record: trailer of the chunk's file, see chunkfile.go | data
//
// A record that was reserved and not written, or a damaged one, hides those after it from the next process, which finds them by their
// lengths.
const (
	packDir   = "packs"
	packed    = 64 << 10 // a chunk of so many bytes, or fewer, is in a pack
	packBytes = 4 << 20  // a pack ends before it would be larger
	packShare = 8        // nor is it more than this part of the tier
)

// pack is the pack that takes new chunks.
type pack struct {
	*file
	f       *os.File
	writers int // that write to it, less one when it takes no more. Guarded by disk.mu
}

// chunks are those that are in a file. Hold disk.mu.
func (f *file) chunks() []fileKey {
	if f.many {
		return f.packs
	}
	return []fileKey{f.key}
}

// putPacked is put of a small chunk; false if it is too large for a pack of this tier.
func (d *disk) putPacked(k fileKey, data []byte, last bool) bool {
	n := int64(trailerBytes + len(data))
	if n > d.packLimit() {
		return false
	}
	p, off, err := d.place(k, n)
	if p == nil {
		d.wroteIf(err)
		return true
	}
	_, err = p.f.WriteAt(append(trailerOf(k, data, last), data...), off)
	d.mu.Lock()
	if at := d.index[k]; at != nil && at.f == p.file {
		if at.ready = err == nil; err != nil {
			delete(d.index, k)
		}
	}
	d.mu.Unlock()
	d.wrote(err)
	d.closeUnpinned(p)
	return true
}

func (d *disk) wroteIf(err error) {
	if err != nil {
		d.wrote(err)
	}
}

func (d *disk) packLimit() int64 { return min(packBytes, d.limit/packShare) }

// place finds a place for a record of n bytes, and pins its pack; nil if there is none.
func (d *disk) place(k fileKey, n int64) (p *pack, off int64, err error) {
	d.packing.Lock()
	defer d.packing.Unlock()
	if d.pack != nil && d.pack.size+n > d.packLimit() {
		d.leavePack()
	}
	if d.pack == nil {
		if d.resting() {
			return nil, 0, nil
		}
		if err := d.newPack(); err != nil {
			return nil, 0, err
		}
	}
	p = d.pack
	off = p.size // which changes here alone
	if !d.reserve(k, occupied(off+n)-occupied(off), func() {
		p.size += n
		p.pins++
		p.writers++
		p.packs = append(p.packs, k)
		d.index[k] = &spot{f: p.file, off: off, n: n}
		d.recent.MoveToFront(p.e)
	}) {
		return nil, 0, nil
	}
	return p, off, nil
}

// resting reports whether the disk isn't given anything now, since it refused.
func (d *disk) resting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.paused)
}

// newPack begins a pack. Hold packing.
func (d *disk) newPack() error {
	p := &pack{file: &file{many: true, ready: true, pins: 1}}
	if _, err := rand.Read(p.key[:]); err != nil {
		return err
	}
	var err error
	if p.f, err = os.OpenFile(d.path(p.file), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600); err != nil {
		return err
	}
	d.mu.Lock()
	p.e = d.recent.PushFront(p.file)
	d.mu.Unlock()
	d.pack = p
	return nil
}

// leavePack ends the present pack. Hold packing.
func (d *disk) leavePack() {
	p := d.pack
	d.pack = nil
	d.closeUnpinned(p)
}

// closeUnpinned takes a writer's pin off a pack; the last one, when it takes no more, closes it.
func (d *disk) closeUnpinned(p *pack) {
	d.mu.Lock()
	p.pins--
	p.writers--
	done := p.writers < 0
	d.mu.Unlock()
	if done {
		p.f.Close()
	}
}

// forget drops a damaged chunk of a pack.
func (d *disk) forget(k fileKey, at spot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropped++
	if now := d.index[k]; now != nil && now.f == at.f && now.off == at.off {
		delete(d.index, k)
	}
}

func readSpan(name string, off, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	k, err := f.ReadAt(b, off)
	if err == io.EOF {
		err = nil
	}
	return b[:k], err
}

// parseRecord returns the chunk in a record, without a copy; Corrupt if it isn't as it was written.
func parseRecord(k fileKey, b []byte) (data []byte, last bool, err error) {
	if len(b) < trailerBytes {
		return nil, false, fmt.Errorf("it is cut short at %d bytes: %w", len(b), graveler.Corrupt)
	}
	t, data := b[:trailerBytes], b[trailerBytes:]
	got, n, ok := recordHead(t)
	switch {
	case !ok || got != k || n != int64(len(data)):
		return nil, false, fmt.Errorf("it holds another chunk: %w", graveler.Corrupt)
	case crc32.Update(crc32.Checksum(data, crcTable), crcTable, t[:trailerBytes-4]) != binary.LittleEndian.Uint32(t[trailerBytes-4:]):
		return nil, false, fmt.Errorf("its checksum is wrong: %w", graveler.Corrupt)
	}
	return data[:len(data):len(data)], binary.LittleEndian.Uint32(t[4:])&flagLast != 0, nil
}

// recordHead reads whose record one is, and how many bytes of data follow.
func recordHead(t []byte) (k fileKey, n int64, ok bool) {
	size := binary.LittleEndian.Uint64(t[8:])
	copy(k[:], t[16:36])
	return k, int64(size), string(t[:4]) == string(fileMagic) && size <= packed
}

// loadPacks finds the packs of an earlier process.
func (d *disk) loadPacks() (all []found, err error) {
	dir := filepath.Join(d.root, packDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range ents {
		f := &file{many: true, ready: true}
		name := filepath.Join(dir, e.Name())
		if b, err := hex.DecodeString(e.Name()); err != nil || len(b) != len(f.key) || copy(f.key[:], b) != len(b) || f.key.String() != e.Name() || !e.Type().IsRegular() {
			return nil, fmt.Errorf("%s is no file of the cache; give the cache a directory of its own", name)
		}
		in, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		fi, err := in.Stat()
		var spots map[fileKey]*spot
		if err == nil {
			f.size = fi.Size()
			spots, err = readPack(in, f.size)
		}
		in.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		all = append(all, found{f, spots, fi.ModTime()})
	}
	return all, nil
}

// readPack finds the records of a pack of a size, up to the first that can't be one.
func readPack(in io.ReaderAt, size int64) (map[fileKey]*spot, error) {
	spots := map[fileKey]*spot{}
	head := make([]byte, trailerBytes)
	for off := int64(0); off+trailerBytes <= size; {
		if _, err := in.ReadAt(head, off); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return nil, err
		}
		k, n, ok := recordHead(head)
		if !ok || off+trailerBytes+n > size {
			break
		}
		spots[k] = &spot{off: off, n: trailerBytes + n, ready: true}
		off += trailerBytes + n
	}
	return spots, nil
}
