package nfs

import (
	"context"
	"math"
	"syscall"

	"github.com/lakefsfs/lakefsfs/vfs"
)

func read(ctx context.Context, q *request) error {
	obj, a, err := q.object(ctx)
	if err != nil {
		return err
	}
	off, count := q.args.Uint64(), q.args.Uint32()
	if q.args.Err() != nil {
		return errGarbage
	}
	if err := q.who.checkData(a, mayRead); err != nil {
		return err
	}
	n := *obj
	count = min(count, maxData)
	if off >= a.Size || count == 0 {
		q.w.Uint32(uint32(statusOK))
		q.post.put(q)
		q.w.Uint32(0)
		q.w.Bool(off >= a.Size)
		q.w.Uint32(0)
		return nil
	}
	// No more room is taken than there are bytes.
	want := min(uint64(count), a.Size-off)
	buf, err := q.takeBody(int(want))
	if err != nil {
		return err
	}
	k, err := n.tree.fs.ReadNode(ctx, n.id, buf, int64(off))
	if err != nil {
		return staleOf(err)
	}
	eof := off+uint64(k) >= a.Size
	if uint64(k) < want {
		// It was cut off meanwhile.
		now, err := n.tree.fs.Getattr(ctx, n.id)
		if err != nil {
			return staleOf(err)
		}
		q.post.a = now
		eof = off+uint64(k) >= now.Size || n.form == vfs.FormControlFile
	}
	q.w.Uint32(uint32(statusOK))
	q.post.put(q)
	q.w.Uint32(uint32(k))
	q.w.Bool(eof)
	q.w.Uint32(uint32(k))
	q.data = buf[:k]
	return nil
}

// How stable a write is to be.
const (
	unstable = 0
	dataSync = 1
	fileSync = 2
)

func write(ctx context.Context, q *request) error {
	obj, a, err := q.object(ctx)
	if err != nil {
		return err
	}
	off, count, stable := q.args.Uint64(), q.args.Uint32(), q.args.Uint32()
	p := q.args.Bytes(maxData)
	if q.args.Err() != nil || stable > fileSync || uint64(count) > uint64(len(p)) {
		return errGarbage
	}
	p = p[:count]
	n := *obj
	if err := q.writable(n); err != nil {
		return err
	}
	if err := q.who.checkData(a, mayWrite); err != nil {
		return err
	}
	if off > math.MaxInt64-uint64(len(p)) {
		return syscall.EFBIG
	}
	k := 0
	if len(p) > 0 {
		if k, err = q.s.open.write(ctx, n, q.caller(), p, int64(off)); err != nil {
			return staleOf(err)
		}
	}
	if stable != unstable {
		if err := q.sync(ctx, n); err != nil {
			return err
		}
		stable = fileSync
	}
	q.w.Uint32(uint32(statusOK))
	q.putWcc(nil, q.after(ctx, n))
	q.w.Uint32(uint32(k))
	q.w.Uint32(stable)
	q.w.Uint64(q.s.verifier(n))
	return nil
}

// sync makes what was written to a file survive a power cut; what was written to a control file is done.
func (q *request) sync(ctx context.Context, n *node) error {
	if n.form == vfs.FormControlFile {
		return q.s.open.flush(ctx, n, q.caller())
	}
	if err := n.tree.fs.SyncNode(ctx, n.id); err != nil {
		return staleOf(err)
	}
	q.s.open.synced(n.tree, n.id)
	return nil
}

func commit(ctx context.Context, q *request) error {
	obj, a, err := q.object(ctx)
	if err != nil {
		return err
	}
	q.args.Uint64() // the range: all is made durable
	q.args.Uint32()
	if q.args.Err() != nil {
		return errGarbage
	}
	n := *obj
	if a.Mode&syscall.S_IFMT == syscall.S_IFREG {
		if err := q.writable(n); err != nil {
			return err
		}
	}
	if err := q.sync(ctx, n); err != nil {
		return err
	}
	q.w.Uint32(uint32(statusOK))
	q.putWcc(nil, q.after(ctx, n))
	q.w.Uint64(q.s.verifier(n))
	return nil
}
