// Package remote carries the engine contract between processes of one machine: Register serves an engine on a socket, Dial
// returns one that asks it.
//
// The wire is HTTP over a Unix socket with gob bodies, one POST a call. It is private to a daemon and the command line of the
// same version: paths and names are arbitrary bytes, which gob carries as they are. A call's answer is a head, then its values:
// one, or for a stream each after a head of its own.
package remote

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// version is raised with every change of the wire.
const version = "1"

// head comes before each value.
type head struct {
	More bool // a value follows
	Err  *failure
}

// failure is an error on the wire.
type failure struct {
	Kind  graveler.Kind
	Text  string
	Paths []string // of a merge conflict
	More  bool
}

// remoteError has the server's words and its kind.
type remoteError struct {
	text string
	err  error // a Kind or a *graveler.MergeConflict
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.err }

func failureOf(err error) *failure {
	f := &failure{Kind: graveler.KindOf(err), Text: err.Error()}
	var mc *graveler.MergeConflict
	if errors.As(err, &mc) {
		f.Paths, f.More = mc.Paths, mc.More
	}
	return f
}

func (f *failure) error() error {
	e := &remoteError{text: f.Text, err: f.Kind}
	if f.Paths != nil {
		e.err = &graveler.MergeConflict{Paths: f.Paths, More: f.More}
	}
	return e
}

// server is where calls are served.
type server struct {
	*http.ServeMux
	caughtUp func(context.Context) // waits until the mounts know what a call did
}

// unary serves a call with one answer.
func unary[Req, Resp any](mux *server, name string, fn func(ctx context.Context, r Req) (Resp, error)) {
	serve(mux, name, func(ctx context.Context, r Req, out *gob.Encoder, _ func()) {
		resp, err := fn(ctx, r)
		if err != nil {
			out.Encode(head{Err: failureOf(err)})
			return
		}
		mux.caughtUp(ctx)
		if out.Encode(head{More: true}) == nil {
			out.Encode(&resp)
		}
	})
}

// stream serves a call with many answers.
func stream[Req, Item any](mux *server, name string, fn func(ctx context.Context, r Req) iter.Seq2[Item, error]) {
	serve(mux, name, func(ctx context.Context, r Req, out *gob.Encoder, flush func()) {
		n := 0
		for item, err := range fn(ctx, r) {
			if err != nil {
				out.Encode(head{Err: failureOf(err)})
				return
			}
			if out.Encode(head{More: true}) != nil || out.Encode(&item) != nil {
				return
			}
			if n++; n < 4 || n%64 == 0 {
				flush()
			}
		}
		out.Encode(head{})
	})
}

func serve[Req any](mux *server, name string, answer func(ctx context.Context, r Req, out *gob.Encoder, flush func())) {
	mux.HandleFunc("POST /"+version+"/"+name, func(w http.ResponseWriter, hr *http.Request) {
		var r Req
		out := gob.NewEncoder(w)
		if err := gob.NewDecoder(io.LimitReader(hr.Body, maxRequest)).Decode(&r); err != nil {
			out.Encode(head{Err: failureOf(fmt.Errorf("request %s: %v: %w", name, err, graveler.Invalid))})
			return
		}
		answer(hr.Context(), r, out, func() { http.NewResponseController(w).Flush() })
	})
}

// maxRequest bounds a request's bytes.
const maxRequest = 256 << 20

// post sends a request and returns its answer's body.
func (c *Client) post(ctx context.Context, name string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lakefsfs/"+version+"/"+name, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("no daemon answers at %s (%v); start one with lakefsfs up, or name another with --server: %w", c.addr, errors.Unwrap(err), graveler.Unavailable)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("the daemon at %s answers %s to %s: is it of another version?: %w", c.addr, resp.Status, name, graveler.Unavailable)
	}
	return resp.Body, nil
}

func (c *Client) send(ctx context.Context, name string, req any) (io.ReadCloser, error) {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(gob.NewEncoder(pw).Encode(req)) }()
	return c.post(ctx, name, pr)
}

func lost(err error) error {
	return fmt.Errorf("the daemon's answer broke off (%v): %w", err, graveler.Unavailable)
}

// call is the client's side of unary.
func call[Resp any](ctx context.Context, c *Client, name string, req any) (resp Resp, err error) {
	body, err := c.send(ctx, name, req)
	if err != nil {
		return resp, err
	}
	defer body.Close()
	return answer[Resp](gob.NewDecoder(body))
}

func answer[Resp any](in *gob.Decoder) (resp Resp, err error) {
	var h head
	if err := in.Decode(&h); err != nil {
		return resp, lost(err)
	}
	if h.Err != nil {
		return resp, h.Err.error()
	}
	if err := in.Decode(&resp); err != nil {
		return resp, lost(err)
	}
	return resp, nil
}

// items is the client's side of stream.
func items[Item any](ctx context.Context, c *Client, name string, req any) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		var zero Item
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		body, err := c.send(ctx, name, req)
		if err != nil {
			yield(zero, err)
			return
		}
		defer body.Close()
		in := gob.NewDecoder(body)
		for {
			var h head
			if err := in.Decode(&h); err != nil {
				if ctx.Err() != nil {
					err = ctx.Err()
				} else {
					err = lost(err)
				}
				yield(zero, err)
				return
			}
			if h.Err != nil {
				yield(zero, h.Err.error())
				return
			}
			if !h.More {
				return
			}
			var item Item
			if err := in.Decode(&item); err != nil {
				yield(zero, lost(err))
				return
			}
			if !yield(item, nil) {
				return
			}
		}
	}
}
