package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"gocloud.dev/blob"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// others reads objects at full URLs, outside the namespace. Buckets are opened once.
type others struct {
	opt     Options
	mu      sync.Mutex
	buckets map[string]*blob.Bucket
}

func (s *others) bucket(ctx context.Context, u *url.URL) (*blob.Bucket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := u.Scheme + "://" + u.Host + "?" + u.RawQuery
	if b := s.buckets[key]; b != nil {
		return b, nil
	}
	bare := *u
	bare.Path = ""
	b, _, err := openBucket(context.WithoutCancel(ctx), &bare)
	if err != nil {
		return nil, err
	}
	if s.buckets == nil {
		s.buckets = map[string]*blob.Bucket{}
	}
	s.buckets[key] = b
	return b, nil
}

// file is the local file of a file:// or local:// URL, "" for others.
func (s *others) file(u *url.URL) (string, error) {
	switch u.Scheme {
	case "file":
		return filepath.FromSlash(u.Path), nil
	case "local":
		if s.opt.LocalRoot == "" {
			return "", fmt.Errorf("%s: where local:// lies is not known; set the local root in the configuration: %w", u, graveler.Invalid)
		}
		name := filepath.FromSlash(u.Host + u.Path)
		if !filepath.IsLocal(name) {
			return "", fmt.Errorf("%s leaves the local root: %w", u, graveler.Invalid)
		}
		return filepath.Join(s.opt.LocalRoot, name), nil
	}
	return "", nil
}

func (s *others) readAt(ctx context.Context, o Object, p []byte, off int64) (int, error) {
	u, err := parseURL(o.Address)
	if err != nil {
		return 0, err
	}
	name, err := s.file(u)
	if err != nil {
		return 0, err
	}
	if name != "" {
		n, err := readFile(name, p, off)
		return n, wrap("read", o.Address, err)
	}
	b, err := s.bucket(ctx, u)
	if err != nil {
		return 0, err
	}
	n, err := readBucket(ctx, b, strings.TrimPrefix(u.Path, "/"), p, off, s.opt.RetryFor)
	return n, wrap("read", o.Address, err)
}

func readFile(name string, p []byte, off int64) (int, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	if err != nil && err != io.EOF {
		return n, err
	}
	return n, err
}

func (s *others) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for key, b := range s.buckets {
		if !strings.HasPrefix(key, "mem:") {
			errs = append(errs, b.Close())
		}
	}
	s.buckets = nil
	return errors.Join(errs...)
}

// ListURL yields the objects whose URL starts with source: one object, or those under a prefix or directory. Addresses are
// relative to source ("" if source names an object itself).
func ListURL(ctx context.Context, source string, opt Options) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		u, err := parseURL(source)
		if err != nil {
			yield(Info{}, err)
			return
		}
		s := others{opt: opt}
		defer s.close()
		name, err := s.file(u)
		if err != nil {
			yield(Info{}, err)
			return
		}
		if name != "" {
			listDir(ctx, name, "", yield)
			return
		}
		b, err := s.bucket(ctx, u)
		if err != nil {
			yield(Info{}, err)
			return
		}
		root := strings.TrimPrefix(u.Path, "/")
		if root != "" && !strings.HasSuffix(root, "/") {
			a, err := b.Attributes(ctx, root)
			if err == nil {
				yield(Info{Size: a.Size, Modified: a.ModTime}, nil)
				return
			}
			root += "/"
		}
		for i, err := range listBucket(ctx, b, root, "") {
			if !yield(i, err) || err != nil {
				return
			}
		}
	}
}
