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
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// bucket is a Store over a bucket of gocloud.dev/blob.
type bucket struct {
	b      *blob.Bucket
	url    string
	prefix string // "" or ends in a slash
	shared bool   // the process's own, not to be closed
	opt    Options
	others others
}

var _ interface {
	Named
	Tagger
} = (*bucket)(nil)

func openBucketStore(ctx context.Context, u *url.URL, opt Options) (Store, error) {
	b, err := openBucket(ctx, u)
	if err != nil {
		return nil, err
	}
	s := &bucket{b: b, url: u.String(), shared: u.Scheme == "mem", opt: opt, others: others{opt: opt, scheme: u.Scheme, query: u.RawQuery}}
	if s.prefix = strings.Trim(u.Path, "/"); s.prefix != "" {
		s.prefix += "/"
	}
	if s.shared {
		s.url += "#" + processID // what it holds doesn't outlive the process
	}
	return s, nil
}

// URL names the namespace.
func (s *bucket) URL() string { return s.url }

func (s *bucket) ReadAt(ctx context.Context, o Object, p []byte, off int64) (int, error) {
	if o.full() {
		return s.others.readAt(ctx, o, p, off)
	}
	if err := relative(o.Address); err != nil {
		return 0, err
	}
	n, err := readBucket(ctx, s.b, s.prefix+o.Address, o, p, off, s.opt)
	return n, wrap("read", o.Address, err)
}

// slowest is how many bytes a second a store that answers must send.
const slowest = 128 << 10

// readBucket reads one span with one request, and more while the store is unavailable.
func readBucket(ctx context.Context, b *blob.Bucket, key string, o Object, p []byte, off int64, opt Options) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d: %w", off, graveler.Invalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	opt.Timeout += time.Duration(len(p)/slowest) * time.Second
	err = retry(ctx, opt, func(ctx context.Context) (err error) {
		n, err = readOnce(ctx, b, key, o, p, off)
		return err
	})
	return n, err
}

func readOnce(ctx context.Context, b *blob.Bucket, key string, o Object, p []byte, off int64) (int, error) {
	r, err := b.NewRangeReader(ctx, key, off, int64(len(p)), nil)
	if err != nil {
		if kindOf(err) != graveler.Invalid {
			return 0, err
		}
		// Stores answer a range past the end with an error of their own; the size tells whether it was that.
		if a, aerr := b.Attributes(ctx, key); aerr == nil && off >= a.Size {
			if o.Size >= 0 && a.Size != o.Size {
				return 0, short(o, a.Size)
			}
			return 0, io.EOF
		}
		return 0, err
	}
	defer r.Close()
	if o.Size >= 0 && r.Size() != o.Size {
		return 0, short(o, r.Size())
	}
	n, err := io.ReadFull(r, p)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		if size := r.Size(); size > off+int64(n) {
			return 0, fmt.Errorf("the answer ended at byte %d of %d: %w", off+int64(n), size, graveler.Unavailable)
		}
		err = io.EOF
	}
	return n, err
}

// uploadPart bounds what is sent in one request; larger objects go up in parts. S3 takes parts of 5 MiB or more.
const uploadPart = 8 << 20

func (s *bucket) Put(ctx context.Context, address string, r io.Reader, opt PutOptions) (Info, error) {
	if err := writable(address); err != nil {
		return Info{}, err
	}
	seeker, ok := r.(io.Seeker)
	if !ok {
		return s.putOnce(ctx, address, r, opt)
	}
	// What can be read again is sent again while the store is unavailable.
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return Info{}, wrap("write", address, err)
	}
	var i Info
	err = again(ctx, s.opt, func() (err error) {
		if _, err = seeker.Seek(start, io.SeekStart); err != nil {
			return err
		}
		i, err = s.putOnce(ctx, address, r, opt)
		return err
	})
	return i, err
}

func (s *bucket) putOnce(ctx context.Context, address string, r io.Reader, opt PutOptions) (Info, error) {
	// A canceled context is how a half-written object is given up: Close would make it whole.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := newWatch(ctx, cancel, r, stallFactor*s.opt.Timeout)
	h := md5.New()
	n, err := s.put(ctx, cancel, address, io.TeeReader(w, h), opt)
	if err = w.end(err); err != nil {
		return Info{}, wrap("write", address, err)
	}
	return Info{Address: address, Size: n, MD5: hex.EncodeToString(h.Sum(nil)), Modified: time.Now()}, nil
}

func (s *bucket) put(ctx context.Context, cancel func(), address string, r io.Reader, opt PutOptions) (int64, error) {
	wopt := blob.WriterOptions{ContentType: "application/octet-stream", BufferSize: uploadPart}
	if opt.ContentType != "" {
		wopt.ContentType = opt.ContentType
	}
	w, err := s.b.NewWriter(ctx, s.prefix+address, &wopt)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(w, r)
	if err == nil && opt.Size >= 0 && n != opt.Size {
		err = fmt.Errorf("%d bytes came, %d were announced: %w", n, opt.Size, graveler.Invalid)
	}
	if err != nil {
		cancel()
		w.Close()
		return 0, err
	}
	return n, w.Close()
}

func (s *bucket) Stat(ctx context.Context, address string) (i Info, err error) {
	if err := relative(address); err != nil {
		return Info{}, err
	}
	err = retry(ctx, s.opt, func(ctx context.Context) error {
		a, err := s.b.Attributes(ctx, s.prefix+address)
		if err != nil {
			return err
		}
		i = Info{Address: address, Size: a.Size, Modified: a.ModTime, ETag: strings.Trim(a.ETag, `"`)}
		if !opaque(a) {
			i.MD5 = hex.EncodeToString(a.MD5)
		}
		return nil
	})
	return i, wrap("stat", address, err)
}

func (s *bucket) Delete(ctx context.Context, address string) error {
	if err := relative(address); err != nil {
		return err
	}
	err := retry(ctx, s.opt, func(ctx context.Context) error {
		err := s.b.Delete(ctx, s.prefix+address)
		if err != nil && kindOf(err) == graveler.NotFound && gcerrors.Code(err) == gcerrors.NotFound {
			return nil
		}
		return err
	})
	return wrap("delete", address, err)
}

func (s *bucket) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return listBucket(ctx, s.b, s.prefix, prefix, s.opt)
}

func listBucket(ctx context.Context, b *blob.Bucket, root, prefix string, opt Options) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		it := b.List(&blob.ListOptions{Prefix: root + prefix})
		for {
			var o *blob.ListObject
			err := retry(ctx, opt, func(ctx context.Context) (err error) {
				o, err = it.Next(ctx)
				return err
			})
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

// OpaqueTag reports whether o.MD5 is the bucket's tag of o without being a checksum.
func (s *bucket) OpaqueTag(ctx context.Context, o Object) (bool, error) {
	if o.full() {
		return s.others.opaqueTag(ctx, o)
	}
	if err := relative(o.Address); err != nil {
		return false, err
	}
	yes, err := opaqueTag(ctx, s.b, s.prefix+o.Address, o, s.opt)
	return yes, wrap("stat", o.Address, err)
}

func (s *bucket) Close() error {
	err := s.others.close()
	if s.shared {
		return err
	}
	return errors.Join(err, s.b.Close())
}
