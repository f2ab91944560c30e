// Package fsx compares one file with a model under random reads, writes, truncates, mappings, fallocate and copy_file_range, as the
// program of that name does. With several directories, which show the same files, it closes the file and goes on in another at times.
package fsx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// name is the file's.
const name = "fsx"

// Options of a run.
type Options struct {
	// Dirs are directories that show the same files.
	Dirs []string
	Seed uint64
	// Operations is how many there are.
	Operations int
	// NFS leaves out what NFSv3 can't do: fallocate, and to empty a file by opening it. That Linux' client doesn't ask for if the file was
	// empty when it last looked.
	NFS bool
}

// file is the file and the model.
type file struct {
	Options
	r    *rand.Rand
	dir  string
	fd   *os.File
	want []byte
	log  []string
}

// maxSize bounds the file, in bytes.
const maxSize = 400 << 10

// Run works on the file fsx of the directories, beginning with an empty one. The error tells the last operations.
func Run(o Options) error {
	x := &file{Options: o, r: rand.New(rand.NewPCG(o.Seed, 1))}
	for _, dir := range o.Dirs {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := x.reopen(); err != nil {
		return err
	}
	for i := range o.Operations {
		if err := x.step(); err != nil {
			return fmt.Errorf("seed %d, operation %d: %w\n%s", o.Seed, i, err, strings.Join(x.log, "\n"))
		}
	}
	return x.fd.Close()
}

func (x *file) reopen() (err error) {
	if x.fd != nil {
		if err := x.fd.Close(); err != nil {
			return err
		}
	}
	x.dir = x.Dirs[x.r.IntN(len(x.Dirs))]
	flags := os.O_RDWR | os.O_CREATE
	empty := x.r.IntN(8) == 0
	if empty {
		x.want = x.want[:0]
		if !x.NFS {
			flags |= os.O_TRUNC
		}
	}
	if x.fd, err = os.OpenFile(filepath.Join(x.dir, name), flags, 0o644); err != nil {
		return err
	}
	if empty && x.NFS {
		return x.fd.Truncate(0)
	}
	return nil
}

func (x *file) did(f string, a ...any) {
	x.log = append(x.log, fmt.Sprintf(f, a...))
	if len(x.log) > 40 {
		x.log = x.log[1:]
	}
}

// span is a range that may reach past the end.
func (x *file) span() (off, n int) {
	off = x.r.IntN(min(len(x.want)+8192, maxSize-1))
	return off, 1 + x.r.IntN(min(64<<10, maxSize-off))
}

func (x *file) grow(size int) {
	if size > len(x.want) {
		x.want = append(x.want, make([]byte, size-len(x.want))...)
	}
}

func (x *file) step() error {
	off, n := x.span()
	switch op := x.r.IntN(24); {
	case op < 6:
		x.did("read %d+%d", off, n)
		return x.compare(off, n)
	case op < 11:
		x.did("write %d+%d", off, n)
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(x.r.Uint32())
		}
		x.grow(off + n)
		copy(x.want[off:], b)
		_, err := x.fd.WriteAt(b, int64(off))
		return err
	case op < 13:
		x.did("truncate %d", off)
		x.grow(off)
		x.want = x.want[:off]
		return x.fd.Truncate(int64(off))
	case op < 17:
		if len(x.want) == 0 {
			return nil
		}
		return x.mapped(op < 15)
	case op >= 17 && op <= 19 && x.NFS:
		return nil
	case op == 17:
		x.did("punch %d+%d", off, n)
		for i := off; i < min(off+n, len(x.want)); i++ {
			x.want[i] = 0
		}
		return x.allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case op == 18:
		x.did("zero %d+%d", off, n)
		x.grow(off + n)
		clear(x.want[off : off+n])
		return x.allocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
	case op == 19:
		x.did("allocate %d+%d", off, n)
		x.grow(off + n)
		return x.allocate(0, off, n)
	case op == 20:
		return x.copied()
	case op == 21:
		x.did("reopen")
		return x.reopen()
	case op == 22:
		x.did("sync")
		return x.fd.Sync()
	}
	fi, err := x.fd.Stat()
	if err == nil && fi.Size() != int64(len(x.want)) {
		err = fmt.Errorf("size %d, want %d", fi.Size(), len(x.want))
	}
	return err
}

func (x *file) allocate(mode uint32, off, n int) error {
	err := unix.Fallocate(int(x.fd.Fd()), mode, int64(off), int64(n))
	if err == unix.EOPNOTSUPP {
		return fmt.Errorf("fallocate: %w", err)
	}
	return err
}

func (x *file) compare(off, n int) error {
	b := make([]byte, n)
	k, err := x.fd.ReadAt(b, int64(off))
	if err != nil && err != io.EOF {
		return err
	}
	var want []byte
	if off < len(x.want) {
		want = x.want[off:min(off+n, len(x.want))]
	}
	return x.same(off, b[:k], want)
}

func (x *file) same(off int, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("in %s byte %d is %d, want %d", x.dir, off+i, got[i], want[i])
		}
	}
	return fmt.Errorf("in %s %d bytes at %d, want %d", x.dir, len(got), off, len(want))
}

func (x *file) mapped(write bool) error {
	off := x.r.IntN(len(x.want))
	n := 1 + x.r.IntN(min(64<<10, len(x.want)-off))
	x.did("map %d+%d write %v", off, n, write)
	start := off &^ 4095
	prot := unix.PROT_READ
	if write {
		prot |= unix.PROT_WRITE
	}
	mm, err := unix.Mmap(int(x.fd.Fd()), int64(start), off+n-start, prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	part := mm[off-start:]
	if write {
		for i := range part {
			part[i] = byte(x.r.Uint32())
		}
		copy(x.want[off:], part)
		err = unix.Msync(mm, unix.MS_SYNC)
	} else {
		err = x.same(off, part, x.want[off:off+n])
	}
	unix.Munmap(mm)
	return err
}

// copied copies a range to another place of the file, or the whole file to another name and back.
func (x *file) copied() error {
	from, n := x.span()
	to, _ := x.span()
	n = min(n, maxSize-to, max(len(x.want)-from, 0))
	if from >= to+n || to >= from+n {
		x.did("copy %d+%d to %d", from, n, to)
		if n == 0 {
			return nil
		}
		data := bytes.Clone(x.want[from : from+n])
		x.grow(to + n)
		copy(x.want[to:], data)
		return copyAll(x.fd, x.fd, int64(from), int64(to), n)
	}
	x.did("copy to another file")
	other := filepath.Join(x.dir, name+".copy")
	if x.r.IntN(2) == 0 {
		os.Remove(other)
	}
	c, err := os.OpenFile(other, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := copyAll(c, x.fd, 0, 0, len(x.want)); err != nil {
		return err
	}
	got := make([]byte, len(x.want)+1)
	k, err := c.ReadAt(got, 0)
	if err != io.EOF {
		return fmt.Errorf("the copy is longer: %v", err)
	}
	return x.same(0, got[:k], x.want)
}

func copyAll(dst, src *os.File, from, to int64, n int) error {
	for n > 0 {
		k, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, n, 0)
		if err != nil || k == 0 {
			return fmt.Errorf("copy_file_range: %d of %d: %w", k, n, err)
		}
		n -= k
	}
	return nil
}
