package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// job is what all measures of a run share.
type job struct {
	dir     string
	files   int
	syncs   int
	big     int64 // bytes
	ops     int
	seed    uint64
	suffix  string // of the names of what fsync, fsync8 and write make
	limit   time.Duration
	pattern *pattern
}

func (j *job) at(elem ...string) string { return filepath.Join(append([]string{j.dir}, elem...)...) }

func (j *job) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(j.seed, stream)) }

// buffers are lent to workers, so that a measure is of files and not of memory.
var buffers = sync.Pool{New: func() any { b := make([]byte, smallMax+1); return &b }}

// makeSmall makes small file i under a name.
func (j *job) makeSmall(i int, name string, sync bool) (int, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b := j.pattern.small(i, *buf)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	return len(b), errors.Join(err, f.Close())
}

// create makes a tree of all the small files.
func (j *job) create(c *clock, tree string, workers int) error {
	made := make([]sync.Once, (j.files-1)/perDir+1)
	return c.each(workers, j.files, true, func(i int) (int, error) {
		var err error
		made[i/perDir].Do(func() { err = os.MkdirAll(j.at(tree, dirName(i/perDir)), 0o755) })
		if err != nil {
			return 0, err
		}
		return j.makeSmall(i, j.at(tree, smallName(i)), false)
	})
}

func (j *job) createSynced(c *clock, dir string, workers int) error {
	dir += j.suffix
	if err := os.Mkdir(j.at(dir), 0o755); err != nil {
		return err
	}
	n := j.syncs
	if workers > 1 {
		n *= 2
	}
	return c.each(workers, n, false, func(i int) (int, error) {
		return j.makeSmall(i, j.at(dir, fmt.Sprintf("synced-%06d.dat", i)), true)
	})
}

func (j *job) writeBig(c *clock) error {
	b := make([]byte, block)
	c.start()
	f, err := os.OpenFile(j.at("big"+j.suffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for k := range j.big / block {
		j.pattern.big(k, b)
		if _, err := f.Write(b); err != nil {
			return err
		}
		c.count.Add(1)
		c.bytes.Add(block)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func (j *job) lstat(i int) error {
	fi, err := os.Lstat(j.at("t", smallName(i)))
	if err != nil {
		return err
	}
	return j.checkInfo(i, fi)
}

func (j *job) checkInfo(i int, fi fs.FileInfo) error {
	if !fi.Mode().IsRegular() || fi.Size() != int64(smallSize(i)) {
		return fmt.Errorf("file %d is %s of %d bytes, not a regular file of %d", i, fi.Mode(), fi.Size(), smallSize(i))
	}
	return nil
}

func (j *job) stat(c *clock) error {
	for i := range j.files {
		if err := j.lstat(i); err != nil {
			return err
		}
	}
	order := j.random(1)
	c.start()
	return c.each(1, j.ops, false, func(int) (int, error) { return 0, j.lstat(order.IntN(j.files)) })
}

// walk lists the tree, and with stat asks for each name's attributes. It counts names, directories among them.
func (j *job) walk(c *clock, stat bool) error {
	seen := 0
	var list func(dir string) error
	list = func(dir string) error {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		names, err := f.ReadDir(-1)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		c.count.Add(int64(len(names)))
		for _, d := range names {
			name := filepath.Join(dir, d.Name())
			if d.IsDir() {
				if err := list(name); err != nil {
					return err
				}
				continue
			}
			seen++
			if !stat {
				continue
			}
			fi, err := os.Lstat(name)
			if err != nil {
				return err
			}
			var i int
			if _, err := fmt.Sscanf(d.Name(), "file-%d.dat", &i); err != nil {
				return fmt.Errorf("%s is not of the tree: %w", name, err)
			}
			if err := j.checkInfo(i, fi); err != nil {
				return err
			}
		}
		return nil
	}
	if err := list(j.at("t")); err != nil {
		return err
	}
	c.stop()
	if seen != j.files {
		return fmt.Errorf("the walk met %d files, not %d", seen, j.files)
	}
	return nil
}

func (j *job) readSmall(c *clock, workers int, shuffled bool) error {
	order := make([]int, j.files)
	for i := range order {
		order[i] = i
	}
	if shuffled {
		order = j.random(2).Perm(j.files)
	}
	c.start()
	return c.each(workers, j.files, false, func(k int) (int, error) {
		i := order[k]
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		f, err := os.Open(j.at("t", smallName(i)))
		if err != nil {
			return 0, err
		}
		n, err := io.ReadFull(f, *buf) // a byte longer than any, so that it meets the end
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return 0, errors.Join(fmt.Errorf("read file %d: %w", i, err), f.Close())
		}
		return n, errors.Join(j.pattern.checkSmall(i, (*buf)[:n]), f.Close())
	})
}

func (j *job) openBig() (*os.File, error) {
	f, err := os.Open(j.at("big" + j.suffix))
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() != j.big {
		err = fmt.Errorf("the big file has %d bytes, not %d", fi.Size(), j.big)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (j *job) readBig(c *clock) error {
	b := make([]byte, block)
	c.start()
	f, err := j.openBig()
	if err != nil {
		return err
	}
	defer f.Close()
	for k := range j.big / block {
		if _, err := io.ReadFull(f, b); err != nil {
			return err
		}
		if err := j.pattern.checkPages(k*block, b); err != nil {
			return err
		}
		c.count.Add(1)
		c.bytes.Add(block)
	}
	return f.Close()
}

// pages are the random pages to read, known beforehand so that workers don't share a source.
func (j *job) pages(stream uint64) []int64 {
	r := j.random(stream)
	all := make([]int64, j.ops)
	for i := range all {
		all[i] = r.Int64N(j.big/page) * page
	}
	return all
}

func (j *job) readRandom(c *clock, workers int) error {
	f, err := j.openBig()
	if err != nil {
		return err
	}
	defer f.Close()
	at := j.pages(3)
	c.start()
	return c.each(workers, len(at), false, func(i int) (int, error) {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		b := (*buf)[:page]
		if _, err := f.ReadAt(b, at[i]); err != nil {
			return 0, err
		}
		return page, j.pattern.checkPages(at[i], b)
	})
}

func (j *job) readMapped(c *clock) error {
	f, err := j.openBig()
	if err != nil {
		return err
	}
	defer f.Close()
	at := j.pages(4)
	c.start()
	m, err := unix.Mmap(int(f.Fd()), 0, int(j.big), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the big file: %w", err)
	}
	defer unix.Munmap(m)
	return c.each(1, len(at), false, func(i int) (int, error) {
		return page, j.pattern.checkPages(at[i], m[at[i]:at[i]+page])
	})
}

func (j *job) renameFiles(c *clock) error {
	n := min(j.files, 1000)
	there := 0
	err := c.each(1, n, false, func(i int) (int, error) {
		name := j.at("t", smallName(i))
		there = i + 1
		return 0, os.Rename(name, name+".moved")
	})
	if err != nil {
		return err
	}
	// All the way back, whatever the limit says: other measures want the tree as it was.
	if err := c.each(1, there, true, func(i int) (int, error) {
		name := j.at("t", smallName(i))
		return 0, os.Rename(name+".moved", name)
	}); err != nil {
		return err
	}
	c.stop()
	for i := range there {
		if err := j.lstat(i); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) renameDir(c *clock) error {
	here, there := j.at("t"), j.at("t-moved")
	// Many, since one is quick and the disk's journal is in its way now and then.
	err := c.each(1, 50, false, func(int) (int, error) {
		if err := os.Rename(here, there); err != nil {
			return 0, err
		}
		c.count.Add(1)
		return 0, os.Rename(there, here)
	})
	c.stop()
	c.times = nil // of pairs
	if err != nil {
		return err
	}
	if _, err := os.Lstat(there); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the directory is still under its other name: %v", err)
	}
	return j.lstat(j.files - 1)
}

func (j *job) removeTree(c *clock) error {
	if _, err := os.Lstat(j.at("t8", smallName(0))); err != nil {
		return err // or nothing would be removed, very fast
	}
	c.start()
	if err := os.RemoveAll(j.at("t8")); err != nil {
		return err
	}
	c.count.Add(int64(j.files))
	c.stop()
	if _, err := os.Lstat(j.at("t8")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the tree is still there: %v", err)
	}
	return nil
}
