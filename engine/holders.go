package engine

import (
	"context"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Holders is the part of an Engine about bytes that are not objects yet. Where an engine runs in the process that writes them, it sees
// to them itself. A machine that writes through an engine elsewhere holds the bytes of what it writes, until it has put them on the
// object store: it is their holder, and the contents' ids begin with its name.
type Holders interface {
	// Named tells of contents which repository's entries name them. Those that nothing names are left out: they can go.
	Named(ctx context.Context, contents []graveler.ContentID) (map[graveler.ContentID]graveler.RepositoryID, error)
	// Settle names the objects that contents became, in every entry that is pending on them. The objects are on the object store
	// durably. Contents that nothing names are passed over. A content is settled once; again changes nothing. Of a Snapshot it is
	// remembered that these were the bytes: that is what there is of the content while its holder is away.
	Settle(ctx context.Context, settled []Settled) error
	// Secure sees to it that the bytes of contents are objects, and tells which: it has their holders put them on the object store
	// now. Those that nobody writes to are settled with it; of one that is being written a snapshot is taken, and its entries stay
	// pending. Contents that no entry names are left out. If the holder is not there or doesn't answer, the snapshot that it had
	// remembered last is what counts, and Unavailable, which names the holder, is returned if there is none.
	Secure(ctx context.Context, contents []graveler.ContentID) ([]Settled, error)
	// Hold serves, as a holder, what Secure asks for, until ctx ends or the connection does, and returns why. One holder is served by
	// one call: a later one takes over. serve settles (with Settle) or takes snapshots, and leaves out contents that it doesn't have.
	Hold(ctx context.Context, holder HolderID, serve func(ctx context.Context, contents []graveler.ContentID) ([]Settled, error)) error
}

// HolderID names a machine, or rather a data directory on it, that holds bytes. It is of lower-case letters and digits.
type HolderID string

// ContentOf is the content id that a holder gives to what it made under a name of its own.
func (h HolderID) ContentOf(name string) graveler.ContentID {
	return graveler.ContentID(string(h) + "-" + name)
}

// HolderOf tells who holds a content: "" is the process that runs the engine.
func HolderOf(id graveler.ContentID) HolderID {
	h, _, ok := strings.Cut(string(id), "-")
	if !ok {
		return ""
	}
	return HolderID(h)
}

// Settled is what a content became.
type Settled struct {
	Content     graveler.ContentID
	Address     string
	AddressType graveler.AddressType
	Size        int64 // bytes
	ETag        string
	Modified    time.Time
	Snapshot    bool // it is still being written: these are its bytes as they were
}

// Fill makes a pending entry name what its content became.
func (s *Settled) Fill(e *graveler.Entry) {
	e.Pending, e.Address, e.AddressType, e.Size, e.ETag = "", s.Address, s.AddressType, s.Size, s.ETag
	e.ShowMtime(s.Modified)
}
