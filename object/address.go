package object

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/rs/xid"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// DataPrefix is where new objects are put, under a storage namespace.
const DataPrefix = "data/"

// A partition of data/ takes this many objects or lives this long; then a new one starts. lakeFS's figures.
const (
	partitionObjects = 50_000
	partitionAge     = time.Hour
	// partitionEpoch minus the time makes newer partitions sort first.
	partitionEpoch = 64060588800
)

var partition struct {
	sync.Mutex
	id      xid.ID
	started time.Time
	objects int
}

// NewAddress returns a fresh address for an object's bytes: data/<partition>/<unique>, newer partitions sorting first.
func NewAddress() string {
	partition.Lock()
	defer partition.Unlock()
	now := time.Now()
	if partition.objects == 0 || partition.objects >= partitionObjects || now.Sub(partition.started) > partitionAge {
		partition.id = xid.NewWithTime(time.Unix(partitionEpoch-now.Unix(), 0))
		partition.started, partition.objects = now, 0
	}
	partition.objects++
	return DataPrefix + partition.id.String() + "/" + xid.New().String()
}

// relative checks an address relative to a namespace: it must not climb out of it.
func relative(address string) error {
	if address == "" || strings.HasPrefix(address, "/") || strings.IndexByte(address, 0) >= 0 {
		return fmt.Errorf("object address %q: %w", address, graveler.Invalid)
	}
	for seg := range strings.SplitSeq(address, "/") {
		if seg == ".." || seg == "." || seg == "" {
			return fmt.Errorf("object address %q leaves its namespace: %w", address, graveler.Invalid)
		}
	}
	return nil
}

// full reports whether an object's address is a URL.
func (o Object) full() bool {
	return o.Type == graveler.AddressFull || o.Type == graveler.AddressByPrefix && strings.Contains(o.Address, "://")
}

// Schemes of storage namespaces.
var schemes = []string{"file", "mem", "s3", "gs", "azblob"}

// parseURL reads a storage namespace's or an object's URL.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("storage URL %q: write it as file:///dir, mem://name, s3://bucket/prefix, gs://bucket/prefix or azblob://container/prefix: %w", s, graveler.Invalid)
	}
	switch u.Scheme {
	case "file", "local":
		if u.Scheme == "file" && u.Host != "" && u.Host != "localhost" {
			return nil, fmt.Errorf("storage URL %q: a file URL has three slashes, file:///%s: %w", s, u.Host+u.Path, graveler.Invalid)
		}
		if u.Path == "" || u.Path == "/" && u.Scheme == "file" {
			return nil, fmt.Errorf("storage URL %q names no directory: %w", s, graveler.Invalid)
		}
		u.Path = path.Clean(u.Path)
	case "mem", "s3", "gs", "azblob":
		if u.Host == "" {
			return nil, fmt.Errorf("storage URL %q names no bucket: %w", s, graveler.Invalid)
		}
	default:
		return nil, fmt.Errorf("storage URL %q: the scheme %q is not known; known are %s: %w", s, u.Scheme, strings.Join(schemes, ", "), graveler.Invalid)
	}
	return u, nil
}

// ValidateURL returns an Invalid error that says what to write instead, unless s is a storage namespace's URL.
func ValidateURL(s string) error {
	_, err := parseURL(s)
	return err
}
