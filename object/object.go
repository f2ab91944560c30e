// Package object is immutable bytes by address: objects, ranges and metaranges on an object store. It knows nothing of
// entries or versions. Open gives the Store of a storage namespace's URL.
package object

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Object names bytes to read, with what is known of them.
type Object struct {
	Address string
	Type    graveler.AddressType
	Size    int64  // bytes; negative if unknown. An object found to be of another size is Corrupt
	MD5     string // hex; "" if unknown. Whoever reads the whole object can verify it
	Fresh   bool   // read from the store itself, past any cache
	Part    bool   // no more of it is wanted than is asked for: a cache that hasn't got it needn't fetch it whole
}

// Of returns the object that holds e's bytes. ETags that are no MD5 (multipart uploads) are not taken for one.
func Of(e *graveler.Entry) Object {
	o := Object{Address: e.Address, Type: e.AddressType, Size: e.Size}
	if isMD5(e.ETag) {
		o.MD5 = e.ETag
	}
	return o
}

func isMD5(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Info is what a store says of an object.
type Info struct {
	Address  string // relative to the store's root
	Size     int64
	Modified time.Time
	MD5      string // hex; "" if the store doesn't know
	ETag     string // the store's own tag, without quotes; "" if it has none. Only Stat tells it
}

// Store reads and writes the objects of one storage namespace. All errors have a graveler.Kind. Methods may be called from
// many goroutines.
type Store interface {
	// ReadAt fills p with o's bytes from off, as io.ReaderAt: fewer bytes only with io.EOF. A full or local:// address may
	// lie outside the namespace. NotFound if the object is gone.
	ReadAt(ctx context.Context, o Object, p []byte, off int64) (int, error)
	// Put writes an object at a relative address and returns its size and hex MD5 as computed from the bytes. The object
	// exists whole or not at all. An existing one is replaced: callers choose fresh addresses. If r is an io.Seeker, it is
	// read again from where it stood when the store was unavailable.
	Put(ctx context.Context, address string, r io.Reader, opt PutOptions) (Info, error)
	// Stat tells of an object at a relative address; NotFound if it is not there.
	Stat(ctx context.Context, address string) (Info, error)
	// Delete removes an object; it is no error if it is not there.
	Delete(ctx context.Context, address string) error
	// List yields the objects under a prefix of relative addresses in byte order, until the first error.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Close frees what the store holds.
	Close() error
}

// Named is a Store that knows which one it is.
type Named interface {
	Store
	// URL names the namespace: what two stores of one URL hold at an address is the same, in any process and at any time.
	URL() string
}

// Tagger is a Store whose tags are not always checksums.
type Tagger interface {
	Store
	// OpaqueTag reports whether the store itself says that o.MD5 is its tag of o and no checksum of its bytes, though it
	// looks like one: S3 tags objects so that it encrypts with a key of KMS or of the client.
	OpaqueTag(ctx context.Context, o Object) (bool, error)
}

// PutOptions says what is known of an object to write.
type PutOptions struct {
	ContentType string
	Size        int64 // bytes to come, or negative
}

// Local is a Store whose objects are files of this machine: they can be read and written without a copy.
type Local interface {
	Store
	// Path is the file that holds o, "" if it isn't a local file.
	Path(o Object) string
	// Adopt makes the file at path the object at address too: by a hard link where that can be, else by a copy. The caller
	// must not change the file any more, and removes path when the object is named somewhere.
	Adopt(ctx context.Context, address, path string) error
	// Sync makes all that Put and Adopt have written durable: it survives a power cut once Sync returns.
	Sync(ctx context.Context) error
}
