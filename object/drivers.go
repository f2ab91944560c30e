package object

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/rs/xid"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
	_ "gocloud.dev/blob/gcsblob"   // gs://
	"gocloud.dev/blob/memblob"
	"gocloud.dev/blob/s3blob"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// memBuckets are the mem:// buckets of this process, so that each name is one bucket for as long as the process lives.
var memBuckets = struct {
	sync.Mutex
	m map[string]*blob.Bucket
}{m: map[string]*blob.Bucket{}}

// processID tells this process's mem:// buckets from those of another.
var processID = xid.New().String()

// openBucket opens the bucket of a URL, whatever its path.
func openBucket(ctx context.Context, u *url.URL) (*blob.Bucket, error) {
	if u.Scheme == "mem" {
		memBuckets.Lock()
		defer memBuckets.Unlock()
		b := memBuckets.m[u.Host]
		if b == nil {
			b = memblob.OpenBucket(nil)
			memBuckets.m[u.Host] = b
		}
		return b, nil
	}
	bare := *u
	bare.Path, bare.RawPath = "", ""
	if u.Scheme == "s3" {
		bare.RawQuery = s3Query(u.Query())
	}
	b, err := blob.OpenBucket(ctx, bare.String())
	if err != nil {
		return nil, fmt.Errorf("open bucket %s://%s: %v; check the URL's parameters and the credentials of the environment: %w", u.Scheme, u.Host, err, graveler.Invalid)
	}
	if u.Scheme == "s3" {
		return pooled(ctx, b, u)
	}
	return b, nil
}

// s3Idle is how many connections to S3 are kept for the next request. The SDK keeps 10, and of more requests at a time each would
// have to make its own, with a handshake that takes longer than a small object.
const s3Idle = 128

// pooled returns b, which it closes, with a client that keeps more connections.
func pooled(ctx context.Context, b *blob.Bucket, u *url.URL) (*blob.Bucket, error) {
	var c *s3.Client
	if !b.As(&c) {
		return b, nil
	}
	opt := c.Options()
	h, ok := opt.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		return b, nil
	}
	opt.HTTPClient = h.WithTransportOptions(func(t *http.Transport) { t.MaxIdleConns, t.MaxIdleConnsPerHost = s3Idle, s3Idle })
	bopt := s3blob.Options{KMSEncryptionID: u.Query().Get("kmskeyid"), RequestChecksumCalculation: opt.RequestChecksumCalculation}
	for _, sse := range types.ServerSideEncryption("").Values() {
		if strings.EqualFold(string(sse), u.Query().Get("ssetype")) {
			bopt.EncryptionType = sse
		}
	}
	more, err := s3blob.OpenBucket(ctx, s3.New(opt), u.Host, &bopt)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket s3://%s: %v: %w", u.Host, err, graveler.Invalid), b.Close())
	}
	return more, b.Close()
}

// s3Query adds a default to the parameters of an S3 bucket. The SDK wants to check responses against checksums that S3 keeps
// of whole objects; ours are of parts of them, so it would only log each time that it can't.
func s3Query(q url.Values) string {
	const validation = "response_checksum_validation"
	if !q.Has(validation) {
		q.Set(validation, "when_required")
	}
	return q.Encode()
}

// opaque reports whether the bucket says that its tag of an object is no checksum, though it looks like one.
// See "ETag" in https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: only plaintext and SSE-S3 objects have an MD5.
func opaque(a *blob.Attributes) bool {
	var head s3.HeadObjectOutput
	if !a.As(&head) {
		return false
	}
	return head.SSECustomerAlgorithm != nil || head.ServerSideEncryption == types.ServerSideEncryptionAwsKms ||
		head.ServerSideEncryption == types.ServerSideEncryptionAwsKmsDsse
}

func opaqueTag(ctx context.Context, b *blob.Bucket, key string, o Object, opt Options) (yes bool, err error) {
	err = retry(ctx, opt, func(ctx context.Context) error {
		a, err := b.Attributes(ctx, key)
		if err == nil {
			yes = opaque(a) && strings.Trim(a.ETag, `"`) == o.MD5
		}
		return err
	})
	return yes, err
}
