package graveler

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
	"strconv"
	"sync"
)

// Type bytes of the ident encoding (lakeFS pkg/ident).
const (
	identBytes  = 0
	identString = 1
	identInt64  = 2
	identSlice  = 3
	identMap    = 4
	identEmbed  = 5
)

// Ident hashes values in lakeFS's ident encoding: each has a type byte, an int64 is 02 08 and 8 bytes big-endian, and
// bytes and strings are preceded by their length as such an int64. The zero value is not usable; call NewIdent.
type Ident struct {
	h   hash.Hash
	buf []byte
}

// NewIdent returns an empty Ident.
func NewIdent() *Ident { return &Ident{h: sha256.New()} }

// NewIdentOver returns an Ident that writes to h, so that other bytes can be hashed before it.
func NewIdentOver(h hash.Hash) *Ident { return &Ident{h: h} }

// Sum returns the hash of all that was added.
func (d *Ident) Sum() []byte { return d.h.Sum(nil) }

func (d *Ident) flush() *Ident {
	d.h.Write(d.buf)
	d.buf = d.buf[:0]
	return d
}

func (d *Ident) int64(v int64) {
	d.buf = append(d.buf, identInt64, 8)
	d.buf = binary.BigEndian.AppendUint64(d.buf, uint64(v))
}

func (d *Ident) bytes(typ byte, n int) {
	d.buf = append(d.buf, typ)
	d.int64(int64(n))
}

func (d *Ident) string(s string) {
	d.bytes(identString, len(s))
	d.buf = append(d.buf, s...)
}

// Int64 adds an integer.
func (d *Ident) Int64(v int64) *Ident { d.int64(v); return d.flush() }

// String adds a string.
func (d *Ident) String(s string) *Ident { d.string(s); return d.flush() }

// Strings adds a slice of strings.
func (d *Ident) Strings(ss []string) *Ident {
	d.bytes(identSlice, len(ss))
	for _, s := range ss {
		d.string(s)
	}
	return d.flush()
}

// Map adds a map, by sorted keys.
func (d *Ident) Map(m map[string]string) *Ident {
	d.bytes(identMap, len(m))
	if len(m) > 0 {
		keys := slices.AppendSeq(make([]string, 0, len(m)), maps.Keys(m))
		slices.Sort(keys)
		for _, k := range keys {
			d.string(k)
			d.string(m[k])
		}
	}
	return d.flush()
}

// Embed adds the hash of another Ident.
func (d *Ident) Embed(sum []byte) *Ident {
	d.buf = append(d.buf, identEmbed)
	d.bytes(identBytes, len(sum))
	d.buf = append(d.buf, sum...)
	return d.flush()
}

// idents are those that Identity uses again: it is called for each entry of a commit.
var idents = sync.Pool{New: func() any { return NewIdent() }}

// Identity returns what makes an entry's content equal to another's: a hash over size, etag, metadata and content type.
// Address and time are left out, so the same content written twice is no change.
func (e *Entry) Identity() []byte {
	d := idents.Get().(*Ident)
	defer idents.Put(d)
	d.h.Reset()
	d.Int64(e.Size).String(e.ETag).Map(e.Metadata)
	if e.ContentType != "" {
		d.String(e.ContentType)
	}
	return d.Sum()
}

// Another reports whether e, in base's place, is another file although its identity is the same: its number tells. Rare, since the
// time of modification is part of the identity; but two files must not have one number, so it counts as a change.
func (e *Entry) Another(base *Entry) bool {
	return e.Inode != 0 && base.Inode != 0 && e.Inode != base.Inode
}

// SetApart makes the identity of e differ from that of another file that is otherwise the same, by its number.
func (e *Entry) SetApart() {
	e.Metadata = maps.Clone(e.Metadata)
	if e.Metadata == nil {
		e.Metadata = make(map[string]string, 1)
	}
	e.Metadata[MetaInode] = strconv.FormatUint(e.Inode, 10)
}

// ComputeID returns the id that c's fields give it.
func (c *Commit) ComputeID() CommitID {
	parents := make([]string, len(c.Parents))
	for i, p := range c.Parents {
		parents[i] = string(p)
	}
	sum := NewIdent().String("commit:v1").String(c.Committer).String(c.Message).String(string(c.MetaRange)).
		Int64(c.Created.Unix()).Map(c.Metadata).Embed(NewIdent().Strings(parents).Sum()).Sum()
	return CommitID(hex.EncodeToString(sum))
}
