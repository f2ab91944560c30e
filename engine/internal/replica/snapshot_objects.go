package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// bin is an object store with snapshots.
type bin struct {
	object.Store
	url string
}

// Stores try again by themselves, but a snapshot is many requests, and starting anew costs more than asking once more.
const (
	triesOfRequest = 5
	pauseOfTries   = 20 * time.Millisecond // grows
)

func tries(ctx context.Context, do func() error) error {
	for try, pause := 1, pauseOfTries; ; try, pause = try+1, 4*pause {
		err := do()
		if err == nil || try == triesOfRequest || ctx.Err() != nil {
			return err
		}
		if k := graveler.KindOf(err); k != graveler.Unavailable && k != graveler.Timeout {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

func (b bin) put(ctx context.Context, address string, r io.ReadSeeker, size int64) error {
	return tries(ctx, func() error {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return err
		}
		i, err := b.Put(ctx, address, r, object.PutOptions{Size: size})
		if err == nil && i.Size != size {
			err = fmt.Errorf("%d bytes of %s were stored, of %d: %w", i.Size, address, size, graveler.Unavailable)
		}
		return err
	})
}

func (b bin) sync(ctx context.Context) error {
	l, ok := b.Store.(object.Local)
	if !ok {
		return nil // stores are durable by themselves
	}
	return tries(ctx, func() error { return l.Sync(ctx) })
}

func (b bin) remove(ctx context.Context, address string) error {
	return tries(ctx, func() error { return b.Delete(ctx, address) })
}

func (b bin) stat(ctx context.Context, address string) (i object.Info, err error) {
	err = tries(ctx, func() (err error) { i, err = b.Stat(ctx, address); return err })
	return i, err
}

func (b bin) list(ctx context.Context, prefix string) (all []object.Info, err error) {
	err = tries(ctx, func() error {
		all = all[:0]
		for o, err := range b.List(ctx, prefix) {
			if err != nil {
				return err
			}
			all = append(all, o)
		}
		return nil
	})
	return all, err
}

// copy writes an object's bytes to w.
func (b bin) copy(ctx context.Context, w io.Writer, address string, size int64) error {
	buf := make([]byte, min(size, 4<<20))
	for off := int64(0); off < size; {
		p := buf[:min(size-off, int64(len(buf)))]
		err := tries(ctx, func() error {
			n, err := b.ReadAt(ctx, object.Object{Address: address, Size: size, Fresh: true}, p, off)
			if n == len(p) {
				return nil
			}
			if err == nil || errors.Is(err, io.EOF) {
				return fmt.Errorf("%s ends at byte %d, of %d: %w", address, off+int64(n), size, graveler.Corrupt)
			}
			return err
		})
		if err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// places lists a cluster's manifests, oldest first.
func (b bin) places(ctx context.Context, cluster string) ([]place, error) {
	all, err := b.list(ctx, cluster+manifestsDir)
	if err != nil {
		return nil, err
	}
	var out []place
	for _, o := range all {
		if p, ok := placeOf(o.Address, o.Modified); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(p, q place) int {
		if p.before(q) {
			return -1
		}
		return 1
	})
	return out, nil
}

// manifest reads a manifest. One that is damaged is read again: it may have been damaged on the way.
func (b bin) manifest(ctx context.Context, p place) (m *manifest, err error) {
	for range 2 {
		var i object.Info
		if i, err = b.stat(ctx, p.address); err != nil {
			return nil, err
		}
		if i.Size > manifestMax {
			return nil, fmt.Errorf("the manifest of snapshot %s has %d bytes: %w", p.id(), i.Size, graveler.Corrupt)
		}
		var buf bytes.Buffer
		if err = b.copy(ctx, &buf, p.address, i.Size); err == nil {
			if m, err = decodeManifest(buf.Bytes()); err == nil && (m.Cluster != p.cluster || m.Index != p.index || m.Term != p.term) {
				err = fmt.Errorf("it is another snapshot's: %w", graveler.Corrupt)
			}
		}
		if err == nil {
			return m, nil
		}
		if graveler.KindOf(err) != graveler.Corrupt {
			return nil, err
		}
	}
	return nil, fmt.Errorf("snapshot %s is damaged: %w", p.id(), err)
}
