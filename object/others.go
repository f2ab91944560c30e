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
	opt    Options
	scheme string // of the namespace
	query  string // the namespace's parameters, which stand for all buckets of its scheme: endpoint, region, …
	fds    fdCache

	mu      sync.Mutex // guards buckets
	buckets map[string]*opening
}

// opening is a bucket, once done is closed.
type opening struct {
	done chan struct{}
	b    *blob.Bucket
	err  error
}

func (s *others) bucket(ctx context.Context, scheme, host string) (*blob.Bucket, error) {
	key := scheme + "://" + host
	s.mu.Lock()
	o := s.buckets[key]
	if o != nil {
		s.mu.Unlock()
		select {
		case <-o.done:
			return o.b, o.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	o = &opening{done: make(chan struct{})}
	if s.buckets == nil {
		s.buckets = map[string]*opening{}
	}
	s.buckets[key] = o
	s.mu.Unlock()

	u := &url.URL{Scheme: scheme, Host: host}
	if scheme == s.scheme {
		u.RawQuery = s.query
	}
	// The bucket outlives this request.
	o.b, o.err = openBucket(context.WithoutCancel(ctx), u)
	if o.err != nil {
		s.mu.Lock()
		delete(s.buckets, key)
		s.mu.Unlock()
	}
	close(o.done)
	return o.b, o.err
}

// localFile is the file of local://name under a local root.
func localFile(root, name string) (string, error) {
	file := filepath.FromSlash(name)
	if !filepath.IsLocal(file) {
		return "", fmt.Errorf("local://%s leaves the local root: %w", name, graveler.Invalid)
	}
	return filepath.Join(root, file), nil
}

// file is the local file of a file:// or local:// location, "" for others.
func (s *others) file(l location) (string, error) {
	switch l.scheme {
	case "file":
		return filepath.Clean("/" + filepath.FromSlash(l.key)), nil
	case "local":
		if s.opt.LocalRoot == "" {
			return "", fmt.Errorf("local://%s: where local:// lies is not known; set the local root in the configuration: %w", l.host, graveler.Invalid)
		}
		return localFile(s.opt.LocalRoot, l.host+"/"+l.key)
	}
	return "", nil
}

func (s *others) readAt(ctx context.Context, o Object, p []byte, off int64) (n int, err error) {
	err = s.find(o, func(l location) (err error) {
		n, err = s.readLocation(ctx, l, o, p, off)
		return err
	})
	return n, wrap("read", o.Address, err)
}

// find runs do for the place that o's URL means: as it is written, or else with its escapes decoded.
func (s *others) find(o Object, do func(location) error) error {
	l, err := splitURL(o.Address)
	if err != nil {
		return err
	}
	err = do(l)
	if err == nil || err == io.EOF || kindOf(err) != graveler.NotFound {
		return err
	}
	if l, ok := l.decoded(); ok {
		return do(l)
	}
	return err
}

func (s *others) readLocation(ctx context.Context, l location, o Object, p []byte, off int64) (int, error) {
	name, err := s.file(l)
	if err != nil {
		return 0, err
	}
	if name != "" {
		return s.fds.readAt(name, o, p, off)
	}
	b, err := s.bucket(ctx, l.scheme, l.host)
	if err != nil {
		return 0, err
	}
	return readBucket(ctx, b, l.key, o, p, off, s.opt)
}

func (s *others) opaqueTag(ctx context.Context, o Object) (yes bool, err error) {
	err = s.find(o, func(l location) error {
		if name, err := s.file(l); name != "" || err != nil {
			return err
		}
		b, err := s.bucket(ctx, l.scheme, l.host)
		if err != nil {
			return err
		}
		yes, err = opaqueTag(ctx, b, l.key, o, s.opt)
		return err
	})
	return yes, wrap("stat", o.Address, err)
}

func (s *others) close() error {
	s.fds.close()
	s.mu.Lock()
	buckets := s.buckets
	s.buckets = nil
	s.mu.Unlock()
	var errs []error
	for key, o := range buckets {
		<-o.done
		if o.err == nil && !strings.HasPrefix(key, "mem:") {
			errs = append(errs, o.b.Close())
		}
	}
	return errors.Join(errs...)
}

// ListURL yields the objects whose URL starts with source: one object, or those under a prefix or directory. Addresses are
// relative to source ("" if source names an object itself). A source may have the parameters that Open takes.
func ListURL(ctx context.Context, source string, opt Options) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		opt.setDefaults()
		u, err := parseURL(source)
		if err != nil {
			yield(Info{}, err)
			return
		}
		s := others{opt: opt, scheme: u.Scheme, query: u.RawQuery}
		defer s.close()
		name, err := s.file(location{u.Scheme, u.Host, strings.TrimPrefix(u.Path, "/")})
		if err != nil {
			yield(Info{}, err)
			return
		}
		if name != "" {
			if fi, err := os.Stat(name); err == nil && fi.Mode().IsRegular() {
				yield(Info{Size: fi.Size(), Modified: fi.ModTime()}, nil)
				return
			}
			listDir(ctx, name, "", yield)
			return
		}
		b, err := s.bucket(ctx, u.Scheme, u.Host)
		if err != nil {
			yield(Info{}, err)
			return
		}
		root := strings.TrimPrefix(u.Path, "/")
		if root != "" {
			if a, err := b.Attributes(ctx, root); err == nil {
				yield(Info{Size: a.Size, Modified: a.ModTime}, nil)
				return
			}
			root += "/"
		}
		for i, err := range listBucket(ctx, b, root, "", opt) {
			if !yield(i, err) || err != nil {
				return
			}
		}
	}
}
