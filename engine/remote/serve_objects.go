package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

type objects struct {
	pb.UnimplementedObjectsServer
	*server
}

const (
	chunk     = 512 << 10 // bytes of an object in one message
	smallRead = 64 << 10
	maxLength = 1 << 40 // bytes of one read
)

func (c *checker) address(b []byte) string {
	if len(b) > graveler.MaxPath {
		c.bad("address of %d bytes", len(b))
	}
	return string(b)
}

func (s objects) ReadObject(r *pb.ReadObjectRequest, out grpc.ServerStreamingServer[pb.ReadObjectResponse]) error {
	var c checker
	repo := repoID(&c, r.GetRepo())
	o := object.Object{
		Address: c.address(r.GetAddress()), Type: c.addressType(r.GetAddressType()), Size: max(r.GetSize(), -1), MD5: c.name("MD5", r.GetMd5()), Fresh: r.GetFresh(),
	}
	if r.GetOffset() < 0 || r.GetLength() < 0 || r.GetLength() > maxLength {
		c.bad("read of %d bytes at %d", r.GetLength(), r.GetOffset())
	}
	if c.err != nil {
		return Status(c.err)
	}
	ctx := out.Context()
	if err := mayRead(ctx, o); err != nil {
		return Status(err)
	}
	st, err := s.eng.Objects(ctx, repo)
	if err != nil {
		return Status(err)
	}
	off, left := r.GetOffset(), r.GetLength()
	buf := make([]byte, min(left, chunk))
	for {
		b := buf[:min(left, int64(len(buf)))]
		n, err := st.ReadAt(ctx, o, b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return Status(err)
		}
		off, left = off+int64(n), left-int64(n)
		if err == nil && n < len(b) {
			return Status(fmt.Errorf("read %d bytes of %d without an end: %w", n, len(b), graveler.Internal))
		}
		// The message is encoded before Send returns, so the buffer can be used again.
		if err := out.Send(&pb.ReadObjectResponse{Data: b[:n], Eof: err != nil}); err != nil {
			return err
		}
		if err != nil || left == 0 {
			return nil
		}
	}
}

// putReader is the bytes of a PutObject.
type putReader struct {
	in   grpc.ClientStreamingServer[pb.PutObjectRequest, pb.PutObjectResponse]
	data []byte
	last bool
}

func (p *putReader) Read(b []byte) (int, error) {
	for len(p.data) == 0 {
		if p.last {
			return 0, io.EOF
		}
		r, err := p.in.Recv()
		if errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("the object's bytes end without a last part: %w", graveler.Invalid)
		}
		if err != nil {
			return 0, fmt.Errorf("the object's bytes break off: %w", graveler.Canceled)
		}
		p.data, p.last = r.GetData(), r.GetLast()
	}
	n := copy(b, p.data)
	p.data = p.data[n:]
	return n, nil
}

func (s objects) PutObject(in grpc.ClientStreamingServer[pb.PutObjectRequest, pb.PutObjectResponse]) error {
	r, err := in.Recv()
	if errors.Is(err, io.EOF) {
		return Status(fmt.Errorf("an object of nothing, not even a name: %w", graveler.Invalid))
	}
	if err != nil {
		return err
	}
	var c checker
	repo, address := repoID(&c, r.GetRepo()), c.address(r.GetAddress())
	opt := object.PutOptions{ContentType: c.name("content type", r.GetContentType()), Size: max(r.GetSize(), -1)}
	if c.err != nil {
		return Status(c.err)
	}
	ctx := in.Context()
	st, err := s.eng.Objects(ctx, repo)
	if err != nil {
		return Status(err)
	}
	i, err := st.Put(ctx, address, &putReader{in: in, data: r.GetData(), last: r.GetLast()}, opt)
	if err != nil {
		return Status(err)
	}
	if l, ok := st.(object.Local); ok {
		if err := l.Sync(ctx); err != nil {
			return Status(err)
		}
	}
	return in.SendAndClose(&pb.PutObjectResponse{Info: infoPB(i)})
}

func (s objects) StatObject(ctx context.Context, r *pb.StatObjectRequest) (*pb.StatObjectResponse, error) {
	st, err := s.eng.Objects(ctx, graveler.RepositoryID(r.GetRepo()))
	if err != nil {
		return nil, Status(err)
	}
	i, err := st.Stat(ctx, string(r.GetAddress()))
	return &pb.StatObjectResponse{Info: infoPB(i)}, Status(err)
}

func (s objects) DeleteObject(ctx context.Context, r *pb.DeleteObjectRequest) (*pb.DeleteObjectResponse, error) {
	st, err := s.eng.Objects(ctx, graveler.RepositoryID(r.GetRepo()))
	if err != nil {
		return nil, Status(err)
	}
	return &pb.DeleteObjectResponse{}, Status(st.Delete(ctx, string(r.GetAddress())))
}

func (s objects) ListObjects(r *pb.ListObjectsRequest, out grpc.ServerStreamingServer[pb.ListObjectsResponse]) error {
	st, err := s.eng.Objects(out.Context(), graveler.RepositoryID(r.GetRepo()))
	if err != nil {
		return Status(err)
	}
	return parts(st.List(out.Context(), string(r.GetPrefix())), func(i object.Info) (*pb.ObjectInfo, int) {
		return infoPB(i), len(i.Address) + 80
	}, func(items []*pb.ObjectInfo) error { return out.Send(&pb.ListObjectsResponse{Objects: items}) })
}
