package nfsclient

import (
	"context"
	"fmt"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// Attr are the attributes of a file that matter here.
type Attr struct {
	Size, Number uint64
}

// attrSize is that of fattr3, in bytes.
const attrSize = 84

func readAttr(r *xdr.Reader) Attr {
	b := xdr.NewReader(r.Fixed(attrSize))
	b.Fixed(20) // type, mode, nlink, uid, gid
	a := Attr{Size: b.Uint64()}
	b.Fixed(24) // used, rdev, fsid
	a.Number = b.Uint64()
	return a
}

// skipAttr skips attributes that may be there.
func skipAttr(r *xdr.Reader) {
	if r.Bool() {
		r.Fixed(attrSize)
	}
}

// skipWcc skips the attributes before and after a change.
func skipWcc(r *xdr.Reader) {
	if r.Bool() {
		r.Fixed(24)
	}
	skipAttr(r)
}

// Getattr asks for attributes.
func (c *Client) Getattr(ctx context.Context, h Handle) (Attr, error) {
	r, err := c.do(ctx, "getattr", 1, func(w *xdr.Writer) { w.String(string(h)) })
	if err != nil {
		return Attr{}, err
	}
	a := readAttr(&r)
	return a, done("getattr", &r)
}

// Lookup finds a name.
func (c *Client) Lookup(ctx context.Context, dir Handle, name string) (Handle, error) {
	r, err := c.do(ctx, "lookup", 3, func(w *xdr.Writer) { w.String(string(dir)); w.String(name) })
	if err != nil {
		return "", err
	}
	h := Handle(r.String(maxHandle))
	return h, done("lookup", &r)
}

// Create makes a file, or empties one that is there.
func (c *Client) Create(ctx context.Context, dir Handle, name string) (Handle, error) {
	return c.make(ctx, "create", 8, dir, name, 0o644, true)
}

// Mkdir makes a directory.
func (c *Client) Mkdir(ctx context.Context, dir Handle, name string) (Handle, error) {
	return c.make(ctx, "mkdir", 9, dir, name, 0o755, false)
}

func (c *Client) make(ctx context.Context, what string, proc uint32, dir Handle, name string, mode uint32, file bool) (Handle, error) {
	r, err := c.do(ctx, what, proc, func(w *xdr.Writer) {
		w.String(string(dir))
		w.String(name)
		if file {
			w.Uint32(0) // UNCHECKED
		}
		w.Bool(true)
		w.Uint32(mode)
		w.Bool(false) // uid
		w.Bool(false) // gid
		w.Bool(file)  // size
		if file {
			w.Uint64(0)
		}
		w.Uint32(0) // atime
		w.Uint32(0) // mtime
	})
	if err != nil {
		return "", err
	}
	if !r.Bool() {
		return "", fmt.Errorf("%s: %w", what, errNoHandle)
	}
	h := Handle(r.String(maxHandle))
	return h, done(what, &r)
}

// Stable is how durable a WRITE is when it returns.
type Stable uint32

// What WRITE knows.
const (
	Unstable Stable = 0
	FileSync Stable = 2
)

// Write writes all of p, which is one WRITE if the server takes it at once. The verifier is that of the last.
func (c *Client) Write(ctx context.Context, h Handle, off int64, p []byte, s Stable) (verifier uint64, err error) {
	for len(p) > 0 {
		r, err := c.do(ctx, "write", 7, func(w *xdr.Writer) {
			w.String(string(h))
			w.Uint64(uint64(off))
			w.Uint32(uint32(len(p)))
			w.Uint32(uint32(s))
			w.Bytes(p)
		})
		if err != nil {
			return 0, err
		}
		skipWcc(&r)
		n := int(r.Uint32())
		r.Uint32() // committed
		verifier = r.Uint64()
		if err := done("write", &r); err != nil {
			return 0, err
		}
		if n <= 0 || n > len(p) {
			return 0, fmt.Errorf("write: %d of %d bytes", n, len(p))
		}
		p, off = p[n:], off+int64(n)
	}
	return verifier, nil
}

// Commit makes durable all of a file that was written.
func (c *Client) Commit(ctx context.Context, h Handle) (verifier uint64, err error) {
	r, err := c.do(ctx, "commit", 21, func(w *xdr.Writer) {
		w.String(string(h))
		w.Uint64(0)
		w.Uint32(0)
	})
	if err != nil {
		return 0, err
	}
	skipWcc(&r)
	verifier = r.Uint64()
	return verifier, done("commit", &r)
}

// Read reads up to n bytes. What it returns is the caller's.
func (c *Client) Read(ctx context.Context, h Handle, off int64, n int) ([]byte, error) {
	r, err := c.do(ctx, "read", 6, func(w *xdr.Writer) {
		w.String(string(h))
		w.Uint64(uint64(off))
		w.Uint32(uint32(n))
	})
	if err != nil {
		return nil, err
	}
	skipAttr(&r)
	r.Uint32() // count
	r.Bool()   // eof
	b := r.Bytes(n)
	return b, done("read", &r)
}

// Remove removes a file.
func (c *Client) Remove(ctx context.Context, dir Handle, name string) error {
	_, err := c.do(ctx, "remove", 12, func(w *xdr.Writer) { w.String(string(dir)); w.String(name) })
	return err
}

// List lists a directory with attributes and handles, and returns how many entries there are.
func (c *Client) List(ctx context.Context, dir Handle) (n int, err error) {
	var cookie, verifier uint64
	for {
		r, err := c.do(ctx, "readdirplus", 17, func(w *xdr.Writer) {
			w.String(string(dir))
			w.Uint64(cookie)
			w.Uint64(verifier)
			w.Uint32(64 << 10)
			w.Uint32(1 << 20)
		})
		if err != nil {
			return n, err
		}
		skipAttr(&r)
		verifier = r.Uint64()
		for r.Bool() {
			r.Uint64() // number
			r.String(255)
			cookie = r.Uint64()
			skipAttr(&r)
			if r.Bool() {
				r.Bytes(maxHandle)
			}
			n++
		}
		eof := r.Bool()
		if err := done("readdirplus", &r); err != nil || eof {
			return n, err
		}
	}
}
