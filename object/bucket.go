package object

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
	_ "gocloud.dev/blob/gcsblob"   // gs://
	"gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob" // s3://
	"gocloud.dev/gcerrors"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Options of Open.
type Options struct {
	// LocalRoot is the directory that holds the namespaces of a lakeFS local adapter: local://NAME/… is LocalRoot/NAME/….
	// "" takes the directory above a file:// namespace, where that adapter puts them.
	LocalRoot string
	// RetryFor bounds how long a read is tried again while the store is unavailable; 0 is 30 s.
	RetryFor time.Duration
}

// Open returns the store of a storage namespace. It does not yet reach for a bucket: an unreachable one shows at first use.
func Open(ctx context.Context, namespace string, opt Options) (Store, error) {
	if opt.RetryFor == 0 {
		opt.RetryFor = 30 * time.Second
	}
	u, err := parseURL(namespace)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		return openFile(u.Path, opt)
	case "local":
		return nil, fmt.Errorf("storage URL %q: give the directory as file:///…: %w", namespace, graveler.Invalid)
	}
	b, prefix, err := openBucket(ctx, u)
	if err != nil {
		return nil, err
	}
	return &bucket{b: b, prefix: prefix, opt: opt, others: others{opt: opt}}, nil
}

// memBuckets are the mem:// buckets of this process, so that each name is one bucket.
var memBuckets = struct {
	sync.Mutex
	m map[string]*blob.Bucket
}{m: map[string]*blob.Bucket{}}

// openBucket opens a URL's bucket, and returns the prefix that its path stands for.
func openBucket(ctx context.Context, u *url.URL) (*blob.Bucket, string, error) {
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	if u.Scheme == "mem" {
		memBuckets.Lock()
		defer memBuckets.Unlock()
		b := memBuckets.m[u.Host]
		if b == nil {
			b = memblob.OpenBucket(nil)
			memBuckets.m[u.Host] = b
		}
		return b, prefix, nil
	}
	bare := *u
	bare.Path, bare.RawPath = "", ""
	b, err := blob.OpenBucket(ctx, bare.String())
	if err != nil {
		return nil, "", fmt.Errorf("open bucket %s://%s: %v; check the URL and the credentials: %w", u.Scheme, u.Host, err, graveler.Invalid)
	}
	return b, prefix, nil
}

// bucket is a Store over a bucket of gocloud.dev/blob.
type bucket struct {
	b      *blob.Bucket
	prefix string
	opt    Options
	others others
}

func (s *bucket) ReadAt(ctx context.Context, o Object, p []byte, off int64) (int, error) {
	if o.full() {
		return s.others.readAt(ctx, o, p, off)
	}
	if err := relative(o.Address); err != nil {
		return 0, err
	}
	n, err := readBucket(ctx, s.b, s.prefix+o.Address, p, off, s.opt.RetryFor)
	return n, wrap("read", o.Address, err)
}

// readBucket reads one span with one request. While the store is unavailable it tries again, with a growing pause.
func readBucket(ctx context.Context, b *blob.Bucket, key string, p []byte, off int64, retryFor time.Duration) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	until := time.Now().Add(retryFor)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		n, err := readOnce(ctx, b, key, p, off)
		if err == nil || err == io.EOF || kindOf(err) != graveler.Unavailable || time.Now().Add(pause).After(until) {
			return n, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func readOnce(ctx context.Context, b *blob.Bucket, key string, p []byte, off int64) (int, error) {
	r, err := b.NewRangeReader(ctx, key, off, int64(len(p)), nil)
	if err != nil {
		if off > 0 && gcerrors.Code(err) != gcerrors.NotFound {
			// Stores answer a range past the end with an error of their own; the size tells which it was.
			if a, aerr := b.Attributes(ctx, key); aerr == nil && off >= a.Size {
				return 0, io.EOF
			}
		}
		return 0, err
	}
	defer r.Close()
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		if size := r.Size(); size > off+int64(n) {
			return 0, fmt.Errorf("answer cut short at %d of %d bytes: %w", off+int64(n), size, graveler.Unavailable)
		}
		err = io.EOF
	}
	return n, err
}

func (s *bucket) Put(ctx context.Context, address string, r io.Reader, opt PutOptions) (Info, error) {
	if err := relative(address); err != nil {
		return Info{}, err
	}
	// A canceled context is how a half-written object is given up: Close would make it whole.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ct := opt.ContentType
	if ct == "" {
		ct = "application/octet-stream"
	}
	w, err := s.b.NewWriter(ctx, s.prefix+address, &blob.WriterOptions{ContentType: ct})
	if err != nil {
		return Info{}, wrap("write", address, err)
	}
	h := md5.New()
	n, err := io.Copy(io.MultiWriter(w, h), r)
	if err == nil && opt.Size >= 0 && n != opt.Size {
		err = fmt.Errorf("%d bytes came, %d were announced: %w", n, opt.Size, graveler.Invalid)
	}
	if err != nil {
		cancel()
		w.Close()
		return Info{}, wrap("write", address, err)
	}
	if err := w.Close(); err != nil {
		return Info{}, wrap("write", address, err)
	}
	return Info{Address: address, Size: n, MD5: hex.EncodeToString(h.Sum(nil)), Modified: time.Now()}, nil
}

func (s *bucket) Stat(ctx context.Context, address string) (Info, error) {
	if err := relative(address); err != nil {
		return Info{}, err
	}
	a, err := s.b.Attributes(ctx, s.prefix+address)
	if err != nil {
		return Info{}, wrap("stat", address, err)
	}
	return Info{Address: address, Size: a.Size, Modified: a.ModTime, MD5: hex.EncodeToString(a.MD5)}, nil
}

func (s *bucket) Delete(ctx context.Context, address string) error {
	if err := relative(address); err != nil {
		return err
	}
	err := s.b.Delete(ctx, s.prefix+address)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil
	}
	return wrap("delete", address, err)
}

func (s *bucket) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return listBucket(ctx, s.b, s.prefix, prefix)
}

func listBucket(ctx context.Context, b *blob.Bucket, root, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		it := b.List(&blob.ListOptions{Prefix: root + prefix})
		for {
			o, err := it.Next(ctx)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Info{}, wrap("list", prefix, err))
				return
			}
			if !yield(Info{Address: strings.TrimPrefix(o.Key, root), Size: o.Size, Modified: o.ModTime, MD5: hex.EncodeToString(o.MD5)}, nil) {
				return
			}
		}
	}
}

func (s *bucket) Close() error {
	err := s.others.close()
	memBuckets.Lock()
	shared := false
	for _, b := range memBuckets.m {
		shared = shared || b == s.b
	}
	memBuckets.Unlock()
	if shared {
		return err
	}
	return errors.Join(err, s.b.Close())
}
