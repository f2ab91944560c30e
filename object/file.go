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
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// fileStore keeps objects as plain files under a directory, named by their addresses, as lakeFS's local adapter does. It is
// not built on fileblob: reads are one pread on a kept descriptor, finished files are adopted by a link, and Sync is one
// call for a whole batch.
type fileStore struct {
	root   string
	dir    *os.File // keeps the file system for Sync
	fds    fdCache
	others others
	named  bool // files being written have names, as where the file system has none without; set by tests only

	mu    sync.Mutex          // guards the fields below
	made  map[string]struct{} // directories known to exist
	fresh map[string]struct{} // files that the next Sync makes durable; nil while they are too many to name
}

var _ interface {
	Local
	Named
	Tagger
} = (*fileStore)(nil)

// maxMade bounds the directories remembered.
const maxMade = 1000

// syncEach is how many files Sync makes durable one by one. An fsync costs about 0.4 ms on a local disk; from this many on,
// syncfs is cheaper, though it has to write what others left in the file system's cache too.
const syncEach = 64

func openFile(dir string, opt Options) (Store, error) {
	name := (&url.URL{Scheme: "file", Path: dir}).String()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("open storage %s: %v: %w", name, err, kindOf(err))
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open storage %s: %v: %w", name, err, kindOf(err))
	}
	if opt.LocalRoot == "" {
		opt.LocalRoot = filepath.Dir(dir)
	}
	return &fileStore{
		root: dir, dir: d, others: others{opt: opt},
		made: map[string]struct{}{}, fresh: map[string]struct{}{},
	}, nil
}

// URL names the namespace.
func (s *fileStore) URL() string { return (&url.URL{Scheme: "file", Path: s.root}).String() }

// file is the file of a relative address.
func (s *fileStore) file(address string) string {
	return filepath.Join(s.root, filepath.FromSlash(address))
}

// Path returns the file that holds o.
func (s *fileStore) Path(o Object) string {
	if !o.full() {
		if relative(o.Address) != nil {
			return ""
		}
		return s.file(o.Address)
	}
	var name string
	// An address of another kind has no file; ReadAt tells what is wrong with it.
	_ = s.others.find(o, func(l location) error {
		file, err := s.others.file(l)
		if err != nil || file == "" {
			return err
		}
		if name == "" {
			name = file
		}
		if _, err = os.Stat(file); err == nil {
			name = file
		}
		return err
	})
	return name
}

func (s *fileStore) ReadAt(ctx context.Context, o Object, p []byte, off int64) (int, error) {
	if o.full() {
		return s.others.readAt(ctx, o, p, off)
	}
	if err := relative(o.Address); err != nil {
		return 0, err
	}
	n, err := s.fds.readAt(s.file(o.Address), o, p, off)
	return n, wrap("read", o.Address, err)
}

// OpaqueTag asks the bucket of an object outside the namespace; a file has no tag.
func (s *fileStore) OpaqueTag(ctx context.Context, o Object) (bool, error) {
	if !o.full() {
		return false, nil
	}
	return s.others.opaqueTag(ctx, o)
}

// mkdir makes the directory of an object's file.
func (s *fileStore) mkdir(dir string) error {
	s.mu.Lock()
	_, known := s.made[dir]
	s.mu.Unlock()
	if known {
		return nil
	}
	err := os.MkdirAll(dir, 0o777)
	for try := 0; errors.Is(err, iofs.ErrExist) && try < 10; try++ {
		err = os.MkdirAll(dir, 0o777) // a delete removed it just when it was found to be there
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.made) >= maxMade {
		clear(s.made)
	}
	s.made[dir] = struct{}{}
	return nil
}

func (s *fileStore) forget(dir string) {
	s.mu.Lock()
	delete(s.made, dir)
	s.mu.Unlock()
}

// placeTries bounds how often an object's directory may be deleted, as its last object goes, between making and using it.
const placeTries = 20

// place runs put, which makes the file at name, again if name's directory turned out to be gone.
func (s *fileStore) place(name string, put func() error) error {
	dir := filepath.Dir(name)
	for try := 1; ; try++ {
		if err := s.mkdir(dir); err != nil {
			return err
		}
		err := put()
		if !errors.Is(err, iofs.ErrNotExist) || try == placeTries {
			return err
		}
		s.forget(dir)
	}
}

// placed notes that the file at name is new.
func (s *fileStore) placed(name string) {
	s.fds.drop(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fresh == nil {
		return
	}
	if len(s.fresh) >= syncEach {
		s.fresh = nil
		return
	}
	s.fresh[name] = struct{}{}
}

func (s *fileStore) Put(ctx context.Context, address string, r io.Reader, opt PutOptions) (Info, error) {
	if err := writable(address); err != nil {
		return Info{}, err
	}
	name := s.file(address)
	var f *tempFile
	err := s.place(name, func() (err error) {
		f, err = createTemp(filepath.Dir(name), s.named)
		return err
	})
	if err != nil {
		return Info{}, wrap("write", address, err)
	}
	defer f.close()
	h := md5.New()
	n, err := io.Copy(io.MultiWriter(f, h), ctxReader{ctx, r})
	if err == nil && opt.Size >= 0 && n != opt.Size {
		err = fmt.Errorf("%d bytes came, %d were announced: %w", n, opt.Size, graveler.Invalid)
	}
	if err == nil {
		err = s.place(name, func() error { return f.become(name) })
	}
	if err != nil {
		return Info{}, wrap("write", address, err)
	}
	s.placed(name)
	fi, err := f.Stat()
	if err != nil {
		return Info{}, wrap("write", address, err)
	}
	return Info{Address: address, Size: n, Modified: fi.ModTime(), MD5: hex.EncodeToString(h.Sum(nil))}, nil
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

// Adopt makes the file at from the object at address too.
func (s *fileStore) Adopt(ctx context.Context, address, from string) error {
	if err := writable(address); err != nil {
		return err
	}
	name := s.file(address)
	err := s.place(name, func() error { return os.Link(from, name) })
	switch {
	case err == nil:
		s.placed(name)
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EMLINK),
		errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EEXIST):
		err = s.adoptCopy(ctx, address, from)
	}
	return wrap("adopt", address, err)
}

// adoptCopy adopts a file that can't be linked to, as one of another file system, or replaces an object.
func (s *fileStore) adoptCopy(ctx context.Context, address, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = s.Put(ctx, address, f, PutOptions{Size: -1})
	return err
}

// Sync makes durable what was put or adopted since the last Sync.
func (s *fileStore) Sync(ctx context.Context) error {
	s.mu.Lock()
	names := s.fresh
	s.fresh = map[string]struct{}{}
	s.mu.Unlock()
	err := s.sync(ctx, names)
	if err != nil {
		s.mu.Lock()
		s.fresh = nil // the next Sync takes them all
		s.mu.Unlock()
		return fmt.Errorf("make the objects of %s durable: %v%s: %w", s.root, err, hints[kindOf(err)], kindOf(err))
	}
	return nil
}

func (s *fileStore) sync(ctx context.Context, names map[string]struct{}) error {
	if names == nil {
		return unix.Syncfs(int(s.dir.Fd()))
	}
	dirs := map[string]struct{}{}
	for name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fsync(name); err != nil {
			return err
		}
		// A directory may itself be new: its name has to be durable in the one above, up to the root's in its own.
		for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
			if dirs[dir] = struct{}{}; dir == s.root || len(dir) < len(s.root) {
				dirs[filepath.Dir(s.root)] = struct{}{}
				break
			}
		}
	}
	for dir := range dirs {
		if err := fsync(dir); err != nil {
			return err
		}
	}
	return nil
}

// fsync makes a file or directory durable; one that was deleted meanwhile needs it no more.
func fsync(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (s *fileStore) Stat(ctx context.Context, address string) (Info, error) {
	if err := relative(address); err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(s.file(address))
	if err == nil && !fi.Mode().IsRegular() {
		err = syscall.ENOENT
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
	name := s.file(address)
	s.fds.drop(name)
	err := unix.Unlink(name) // not os.Remove, which takes an empty directory too
	switch err {
	case nil, unix.ENOENT, unix.ENOTDIR, unix.EISDIR:
	default:
		return wrap("delete", address, err)
	}
	// An emptied partition's directory goes with its last object.
	if dir := filepath.Dir(name); dir != s.root && unix.Rmdir(dir) == nil {
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
		listDir(ctx, s.file(dir), rest, func(i Info, err error) bool {
			i.Address = dir + i.Address
			return yield(i, err)
		})
	}
}

func (s *fileStore) Close() error {
	s.fds.close()
	return errors.Join(s.others.close(), s.dir.Close())
}
