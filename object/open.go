package object

import (
	"context"
	"fmt"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Options of Open. The zero value has the defaults.
type Options struct {
	// LocalRoot is the directory that holds the namespaces of a lakeFS local adapter: local://NAME/… is LocalRoot/NAME/….
	// "" takes the directory above a file:// namespace, where that adapter puts them.
	LocalRoot string
	// RetryFor bounds how long a request that changes nothing by being sent again is tried again while the store is
	// unavailable; 0 is 30 s, negative is one try.
	RetryFor time.Duration
	// Timeout bounds one try; 0 is 30 s. An upload may take longer as long as it goes on.
	Timeout time.Duration
}

func (opt *Options) setDefaults() {
	if opt.RetryFor == 0 {
		opt.RetryFor = 30 * time.Second
	}
	if opt.Timeout <= 0 {
		opt.Timeout = 30 * time.Second
	}
}

// Open returns the store of a storage namespace: file:///dir, mem://name, s3://bucket/prefix, gs://bucket/prefix or
// azblob://container/prefix, and local://name under Options.LocalRoot. An unreachable bucket shows at first use.
//
// Buckets take the parameters of gocloud.dev: for S3 endpoint, region, use_path_style (or s3ForcePathStyle), profile,
// request_checksum_calculation and others; credentials come from the environment as the vendor's own tools have it
// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY, …).
//
// A file:// store is a Local, and all stores are Named.
func Open(ctx context.Context, namespace string, opt Options) (Store, error) {
	opt.setDefaults()
	canonical, err := CanonicalURL(namespace)
	if err != nil {
		return nil, err
	}
	u, err := parseURL(canonical)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		return openFile(u.Path, opt)
	case "local":
		if opt.LocalRoot == "" {
			return nil, fmt.Errorf("storage URL %q: where local:// lies is not known; set the local root, or give the directory as file:///…: %w", namespace, graveler.Invalid)
		}
		dir, err := localFile(opt.LocalRoot, u.Host+u.Path)
		if err != nil {
			return nil, err
		}
		return openFile(dir, opt)
	}
	return openBucketStore(ctx, u, opt)
}
