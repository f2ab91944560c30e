package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// source is a call with many answers, each of which has some items.
type source[M, T any] struct {
	m     method
	any   bool // any node can answer
	open  func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[M], error)
	items func(*M) []T
	// resume makes the next open go on after n items, of which last was the last. nil, or false, if that can't be.
	resume func(last T, n int) bool
}

// errStop ends an attempt whose caller wants no more.
var errStop = errors.New("no more is wanted")

// stream yields the items of a source. When a stream breaks it goes on where it was.
func stream[M, T any](ctx context.Context, c *Client, s source[M, T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		n := 0
		t := c.tries(ctx, s.m)
		t.any = s.any
		for {
			err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				in, err := s.open(ctx, cc)
				if err != nil {
					return err
				}
				for {
					p, err := in.Recv()
					if errors.Is(err, io.EOF) {
						return nil
					}
					if err != nil {
						return err
					}
					items := s.items(p)
					if len(items) > 0 {
						t.progress()
					}
					for _, it := range items {
						last = it
						n++
						if !yield(it, nil) {
							return errStop
						}
					}
				}
			})
			if err == nil || err == errStop {
				return
			}
			var zero T
			if err := t.next(err); err != nil {
				yield(zero, err)
				return
			}
			if n > 0 && (s.resume == nil || !s.resume(last, n)) {
				yield(zero, fmt.Errorf("the answer broke off after %d items (%v); ask again: %w", n, errorFrom(err), graveler.Unavailable))
				return
			}
		}
	}
}

// collect gathers what a stream yields.
func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var out []T
	for it, err := range seq {
		if err != nil {
			return nil, err
		}
		out = append(out, it)
	}
	return out, nil
}

// convert applies a conversion to each item of a message.
func convert[P, T any](ps []*P, of func(*P) T) []T {
	out := make([]T, len(ps))
	for i, p := range ps {
		out[i] = of(p)
	}
	return out
}

// frozen reports whether a ref means the same commit for ever: any node that knows it can answer.
func frozen(ref graveler.Ref) bool {
	if len(ref) != 64 {
		return false
	}
	for _, b := range []byte(ref) {
		if (b < '0' || b > '9') && (b < 'a' || b > 'f') {
			return false
		}
	}
	return true
}
