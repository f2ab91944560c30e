package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

var (
	mReadObject   = method{pb.Objects_ReadObject_FullMethodName, reads, long}
	mPutObject    = method{pb.Objects_PutObject_FullMethodName, reads, days} // the same bytes again
	mStatObject   = method{pb.Objects_StatObject_FullMethodName, reads, short}
	mDeleteObject = method{pb.Objects_DeleteObject_FullMethodName, reads, short}
	mListObjects  = method{pb.Objects_ListObjects_FullMethodName, reads, days}
)

// Objects is engine.Engine's.
func (c *Client) Objects(ctx context.Context, repo graveler.RepositoryID) (object.Store, error) {
	if _, err := c.Repository(ctx, repo); err != nil {
		return nil, err
	}
	return &store{c, repo}, nil
}

// store is a repository's object store behind a server.
type store struct {
	c    *Client
	repo graveler.RepositoryID
}

func (s *store) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	t := s.c.tries(ctx, mReadObject)
	t.any = true
	eof := false
	for {
		err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			in, err := pb.NewObjectsClient(cc).ReadObject(ctx, &pb.ReadObjectRequest{
				Repo: name(s.repo), Address: []byte(o.Address), AddressType: pb.AddressType(o.Type), Size: o.Size, Md5: name(o.MD5), Fresh: o.Fresh,
				Offset: off + int64(n), Length: int64(len(p) - n),
			})
			if err != nil {
				return err
			}
			for {
				r, err := in.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				t.progress()
				n += copy(p[n:], r.GetData())
				eof = eof || r.GetEof()
			}
		})
		switch {
		case eof:
			return n, io.EOF
		case n == len(p):
			return n, nil
		case err == nil:
			return n, fmt.Errorf("the server gave %d bytes of %d: %w", n, len(p), graveler.Internal)
		}
		if err := t.next(err); err != nil {
			return n, err
		}
	}
}

func (s *store) Put(ctx context.Context, address string, r io.Reader, opt object.PutOptions) (object.Info, error) {
	seeker, seekable := r.(io.Seeker)
	var start int64
	if seekable {
		var err error
		if start, err = seeker.Seek(0, io.SeekCurrent); err != nil {
			seekable = false
		}
	}
	t := s.c.tries(ctx, mPutObject)
	buf := make([]byte, chunk)
	for {
		var info object.Info
		var rerr error // of the reader
		read := false
		err := t.attempt(func(ctx context.Context, cc *grpc.ClientConn) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			out, err := pb.NewObjectsClient(cc).PutObject(ctx)
			if err != nil {
				return err
			}
			q := &pb.PutObjectRequest{Repo: name(s.repo), Address: []byte(address), ContentType: name(opt.ContentType), Size: opt.Size}
			for {
				read = true
				n, err := io.ReadFull(r, buf)
				if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
					rerr = err
					return err
				}
				q.Data, q.Last = buf[:n], err != nil
				if out.Send(q) != nil || q.Last { // what is wrong, CloseAndRecv says
					break
				}
				q = &pb.PutObjectRequest{}
			}
			p, err := out.CloseAndRecv()
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("no answer: %w", graveler.Internal)
			}
			info = infoOf(p.GetInfo())
			return err
		})
		if err == nil {
			return info, nil
		}
		if rerr != nil {
			return object.Info{}, rerr
		}
		if err := t.next(err); err != nil {
			return object.Info{}, err
		}
		if !read {
			continue
		}
		if !seekable {
			return object.Info{}, fmt.Errorf("the connection broke while an object was written, and its bytes can't be read again (%v): %w", errorFrom(err), graveler.Unavailable)
		}
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return object.Info{}, fmt.Errorf("read an object's bytes again: %w: %w", err, graveler.Internal)
		}
	}
}

func (s *store) Stat(ctx context.Context, address string) (object.Info, error) {
	p, err := anyNode[pb.StatObjectResponse](ctx, s.c, mStatObject, &pb.StatObjectRequest{Repo: name(s.repo), Address: []byte(address)})
	if err != nil {
		return object.Info{}, err
	}
	return infoOf(p.GetInfo()), nil
}

func (s *store) Delete(ctx context.Context, address string) error {
	_, err := anyNode[pb.DeleteObjectResponse](ctx, s.c, mDeleteObject, &pb.DeleteObjectRequest{Repo: name(s.repo), Address: []byte(address)})
	return err
}

func (s *store) List(ctx context.Context, prefix string) iter.Seq2[object.Info, error] {
	q := &pb.ListObjectsRequest{Repo: name(s.repo), Prefix: []byte(prefix)}
	return stream(ctx, s.c, source[pb.ListObjectsResponse, object.Info]{
		m: mListObjects, any: true,
		open: func(ctx context.Context, cc grpc.ClientConnInterface) (grpc.ServerStreamingClient[pb.ListObjectsResponse], error) {
			return pb.NewObjectsClient(cc).ListObjects(ctx, q)
		},
		items: func(p *pb.ListObjectsResponse) []object.Info { return convert(p.GetObjects(), infoOf) },
	})
}

func (s *store) Close() error { return nil }
