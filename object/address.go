package object

import (
	"fmt"
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

// relative checks the address of an object to read, relative to a namespace: it must not climb out of it.
func relative(address string) error {
	if address == "" || strings.HasPrefix(address, "/") || strings.IndexByte(address, 0) >= 0 || climbs(address) {
		return fmt.Errorf("object address %q is not one inside the storage namespace: %w", address, graveler.Invalid)
	}
	return nil
}

// writable checks the address of an object to write: moreover it must be the only spelling of itself, as a file's name.
func writable(address string) error {
	if err := relative(address); err != nil {
		return err
	}
	for seg := range strings.SplitSeq(address, "/") {
		if seg == "." || seg == "" || strings.HasPrefix(seg, tempPrefix) {
			return fmt.Errorf("object address %q has the segment %q, which can't be written: %w", address, seg, graveler.Invalid)
		}
	}
	return nil
}

// climbs reports whether a slash-separated path has a ".." segment.
func climbs(p string) bool {
	for strings.Contains(p, "..") {
		seg, rest, _ := strings.Cut(p, "/")
		if seg == ".." {
			return true
		}
		p = rest
	}
	return false
}

// full reports whether an object's address is a URL.
func (o Object) full() bool {
	return o.Type == graveler.AddressFull || o.Type == graveler.AddressByPrefix && strings.Contains(o.Address, "://")
}
