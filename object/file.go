package object

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// fileStore keeps objects as plain files under a directory, named by their addresses, as lakeFS's local adapter does. It is
// not built on fileblob: reads are one pread on a kept descriptor, finished files are adopted by a rename, and Sync is one
// syncfs for a whole batch.
type fileStore struct {
	root   string
	dir    *os.File // keeps the file system for Sync
	fds    fdCache
	others others
	mu     sync.Mutex
	made   map[string]bool // directories known to exist
}

// tempPrefix marks files that are being written. They are not objects.
const tempPrefix = ".lakefsfs-tmp-"

func openFile(dir string, opt Options) (Store, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, wrap("open", "file://"+dir, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, wrap("open", "file://"+dir, err)
	}
	if opt.LocalRoot == "" {
		opt.LocalRoot = filepath.Dir(dir)
	}
	return &fileStore{root: dir, dir: d, others: others{opt: opt}, made: map[string]bool{}}, nil
}

// Path returns the file that holds o.
func (s *fileStore) Path(o Object) string {
	if o.full() {
		u, err := parseURL(o.Address)
		if err != nil {
			return ""
		}
		name, err := s.others.file(u)
		if err != nil {
			return ""
		}
		return name
	}
	if relative(o.Address) != nil {
		return ""
	}
	return filepath.Join(s.root, filepath.FromSlash(o.Address))
}

func (s *fileStore) ReadAt(ctx context.Context, o Object, p []byte, off int64) (int, error) {
	name := s.Path(o)
	if name == "" {
		if o.full() {
			return s.others.readAt(ctx, o, p, off)
		}
		return 0, relative(o.Address)
	}
	n, err := s.fds.readAt(name, p, off)
	return n, wrap("read", o.Address, err)
}

// mkdir makes the directory of an object's file.
func (s *fileStore) mkdir(dir string) error {
	s.mu.Lock()
	known := s.made[dir]
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	s.mu.Lock()
	if len(s.made) > 1000 {
		clear(s.made)
	}
	s.made[dir] = true
	s.mu.Unlock()
	return nil
}

func (s *fileStore) forget(dir string) {
	s.mu.Lock()
	delete(s.made, dir)
	s.mu.Unlock()
}

// place runs put, which makes the file at name, again if name's directory turned out to be gone.
func (s *fileStore) place(name string, put func() error) error {
	dir := filepath.Dir(name)
	for again := false; ; again = true {
		if err := s.mkdir(dir); err != nil {
			return err
		}
		err := put()
		if !errors.Is(err, iofs.ErrNotExist) || again {
			return err
		}
		s.forget(dir)
	}
}

func (s *fileStore) Put(ctx context.Context, address string, r io.Reader, opt PutOptions) (Info, error) {
	if err := relative(address); err != nil {
		return Info{}, err
	}
	name := filepath.Join(s.root, filepath.FromSlash(address))
	var f *os.File
	err := s.place(name, func() (err error) {
		f, err = os.CreateTemp(filepath.Dir(name), tempPrefix)
		return err
	})
	if err != nil {
		return Info{}, wrap("write", address, err)
	}
	h := md5.New()
	n, err := io.Copy(io.MultiWriter(f, h), ctxReader{ctx, r})
	if err == nil && opt.Size >= 0 && n != opt.Size {
		err = fmt.Errorf("%d bytes came, %d were announced: %w", n, opt.Size, graveler.Invalid)
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return Info{}, wrap("write", address, err)
	}
	s.fds.drop(name)
	return Info{Address: address, Size: n, MD5: hex.EncodeToString(h.Sum(nil))}, nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Adopt makes the file at from the object at address.
func (s *fileStore) Adopt(ctx context.Context, address, from string) error {
	if err := relative(address); err != nil {
		return err
	}
	name := filepath.Join(s.root, filepath.FromSlash(address))
	err := s.place(name, func() error { return os.Rename(from, name) })
	if errors.Is(err, syscall.EXDEV) {
		var f *os.File
		if f, err = os.Open(from); err == nil {
			defer f.Close()
			if _, err = s.Put(ctx, address, f, PutOptions{Size: -1}); err == nil {
				err = os.Remove(from)
			}
		}
	}
	return wrap("adopt", address, err)
}

// Sync makes all files of the store durable with one syncfs.
func (s *fileStore) Sync(ctx context.Context) error {
	return wrap("sync", s.root, unix.Syncfs(int(s.dir.Fd())))
}

func (s *fileStore) Stat(ctx context.Context, address string) (Info, error) {
	if err := relative(address); err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(filepath.Join(s.root, filepath.FromSlash(address)))
	if err == nil && fi.IsDir() {
		err = iofs.ErrNotExist
	}
	if err != nil {
		return Info{}, wrap("stat", address, err)
	}
	return Info{Address: address, Size: fi.Size(), Modified: fi.ModTime()}, nil
}

func (s *fileStore) Delete(ctx context.Context, address string) error {
	if err := relative(address); err != nil {
		return err
	}
	name := filepath.Join(s.root, filepath.FromSlash(address))
	s.fds.drop(name)
	if err := os.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return wrap("delete", address, err)
	}
	// An emptied partition's directory goes with its last object.
	if dir := filepath.Dir(name); dir != s.root && os.Remove(dir) == nil {
		s.forget(dir)
	}
	return nil
}

func (s *fileStore) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		dir, rest := path.Split(prefix)
		if dir != "" && relative(strings.TrimSuffix(dir, "/")) != nil {
			return
		}
		listDir(ctx, filepath.Join(s.root, filepath.FromSlash(dir)), rest, func(i Info, err error) bool {
			i.Address = dir + i.Address
			return yield(i, err)
		})
	}
}

// listDir yields the files under root whose relative name starts with prefix, in byte order of the names. If root is a file
// it yields that alone, under the name "".
func listDir(ctx context.Context, root, prefix string, yield func(Info, error) bool) {
	fi, err := os.Stat(root)
	if errors.Is(err, iofs.ErrNotExist) {
		return
	}
	if err != nil {
		yield(Info{}, wrap("list", root, err))
		return
	}
	if !fi.IsDir() {
		if prefix == "" {
			yield(Info{Size: fi.Size(), Modified: fi.ModTime()}, nil)
		}
		return
	}
	var walk func(rel string) bool
	walk = func(rel string) bool {
		if err := ctx.Err(); err != nil {
			return yield(Info{}, err) && false
		}
		ents, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(rel)))
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			yield(Info{}, wrap("list", rel, err))
			return false
		}
		// Object stores order whole keys: a directory's name counts with its slash.
		names := make([]string, 0, len(ents))
		for _, e := range ents {
			n := e.Name()
			if e.IsDir() {
				n += "/"
			}
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			key := rel + n
			if strings.HasPrefix(n, tempPrefix) {
				continue
			}
			if strings.HasSuffix(n, "/") {
				if (strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key)) && !walk(key) {
					return false
				}
				continue
			}
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			fi, err := os.Stat(filepath.Join(root, filepath.FromSlash(key)))
			if errors.Is(err, iofs.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(Info{}, wrap("list", key, err))
				return false
			}
			if !fi.Mode().IsRegular() {
				continue
			}
			if !yield(Info{Address: key, Size: fi.Size(), Modified: fi.ModTime()}, nil) {
				return false
			}
		}
		return true
	}
	walk("")
}

func (s *fileStore) Close() error {
	s.fds.close()
	return errors.Join(s.others.close(), s.dir.Close())
}

// fdCache keeps recently read files open.
type fdCache struct {
	mu sync.Mutex
	m  map[string]*openFD
}

type openFD struct {
	f    *os.File
	refs int
	gone bool
}

const maxFDs = 256

func (c *fdCache) readAt(name string, p []byte, off int64) (int, error) {
	c.mu.Lock()
	fd := c.m[name]
	if fd == nil {
		c.mu.Unlock()
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		c.mu.Lock()
		if c.m == nil {
			c.m = map[string]*openFD{}
		}
		if had := c.m[name]; had != nil {
			f.Close()
			fd = had
		} else {
			if len(c.m) >= maxFDs {
				for victim := range c.m { // any: the map's order is random
					c.dropLocked(victim)
					break
				}
			}
			fd = &openFD{f: f}
			c.m[name] = fd
		}
	}
	fd.refs++
	c.mu.Unlock()
	n, err := fd.f.ReadAt(p, off)
	c.mu.Lock()
	if fd.refs--; fd.gone && fd.refs == 0 {
		fd.f.Close()
	}
	c.mu.Unlock()
	return n, err
}

func (c *fdCache) dropLocked(name string) {
	if fd := c.m[name]; fd != nil {
		delete(c.m, name)
		fd.gone = true
		if fd.refs == 0 {
			fd.f.Close()
		}
	}
}

func (c *fdCache) drop(name string) {
	c.mu.Lock()
	c.dropLocked(name)
	c.mu.Unlock()
}

func (c *fdCache) close() {
	c.mu.Lock()
	for name := range c.m {
		c.dropLocked(name)
	}
	c.mu.Unlock()
}
