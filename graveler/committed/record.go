package committed

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/gravelerpb"
)

// maxPart is lakeFS's bound of an identity's or a record's data, in bytes.
const maxPart = 640 << 16

var marshal = proto.MarshalOptions{Deterministic: true}

// appendValue encodes a record's value: signed varint length and bytes of the identity, then of the data.
func appendValue(dst, identity, data []byte) []byte {
	dst = binary.AppendVarint(dst, int64(len(identity)))
	dst = append(dst, identity...)
	dst = binary.AppendVarint(dst, int64(len(data)))
	return append(dst, data...)
}

// splitValue takes a record's value apart. The parts share its memory.
func splitValue(v string) (identity, data string, err error) {
	if identity, v, err = cutPart(v); err != nil {
		return "", "", err
	}
	data, _, err = cutPart(v)
	return identity, data, err
}

func cutPart(v string) (part, rest string, err error) {
	n, w := binary.Varint(bytesOf(v[:min(len(v), binary.MaxVarintLen64)]))
	if w <= 0 || n < 0 || n > maxPart || n > int64(len(v)-w) {
		return "", "", fmt.Errorf("record value of %d bytes is cut short or has a bad length: %w", len(v), graveler.Corrupt)
	}
	return v[w : w+int(n)], v[w+int(n):], nil
}

// bytesOf lends a string's bytes to a reader that doesn't change them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// entryMessage is an entry's message, used again for the next.
type entryMessage struct {
	pb gravelerpb.Entry
	at timestamppb.Timestamp
}

var entryMessages = sync.Pool{New: func() any { return new(entryMessage) }}

// EncodeEntry encodes an entry as a range holds it (protobuf catalog.Entry).
func EncodeEntry(e *graveler.Entry) ([]byte, error) { return appendEntry(nil, e) }

// appendEntry appends what EncodeEntry gives.
func appendEntry(dst []byte, e *graveler.Entry) ([]byte, error) {
	m := entryMessages.Get().(*entryMessage)
	defer entryMessages.Put(m)
	m.pb.Address, m.pb.Size, m.pb.ETag, m.pb.Metadata, m.pb.ContentType = e.Address, e.Size, e.ETag, e.Metadata, e.ContentType
	m.pb.AddressType, m.pb.Pending = gravelerpb.Entry_AddressType(e.AddressType), string(e.Pending)
	m.pb.Inode, m.pb.Changed, m.pb.Accessed, m.pb.Home = e.Inode, nanos(e.Changed), nanos(e.Accessed), e.Home
	m.pb.LastModified = nil
	if !e.Modified.IsZero() {
		m.at.Seconds, m.at.Nanos = e.Modified.Unix(), int32(e.Modified.Nanosecond())
		m.pb.LastModified = &m.at
	}
	b, err := marshal.MarshalAppend(dst, &m.pb)
	m.pb.Metadata = nil
	if err != nil {
		return nil, fmt.Errorf("encode entry: text that is not UTF-8: %w", graveler.Invalid)
	}
	return b, nil
}

// nanos is a time as the fields of our own hold it, timeOf the inverse; the zero time is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// inodeField is the number of Entry.inode.
const inodeField = 1001

// WithInode gives an encoded entry a number, unless it has one: a copy, or b itself.
func WithInode(b []byte, inode uint64) ([]byte, error) {
	for rest := b; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, fmt.Errorf("encoded entry: %v: %w", protowire.ParseError(n), graveler.Corrupt)
		}
		if num == inodeField {
			return b, nil
		}
		m := protowire.ConsumeFieldValue(num, typ, rest[n:])
		if m < 0 {
			return nil, fmt.Errorf("encoded entry: %v: %w", protowire.ParseError(m), graveler.Corrupt)
		}
		rest = rest[n+m:]
	}
	out := append(make([]byte, 0, len(b)+12), b...)
	return protowire.AppendVarint(protowire.AppendTag(out, inodeField, protowire.VarintType), inode), nil
}

// DecodeEntry decodes what EncodeEntry or lakeFS encoded.
func DecodeEntry(b []byte) (graveler.Entry, error) {
	var pb gravelerpb.Entry
	if err := proto.Unmarshal(b, &pb); err != nil {
		return graveler.Entry{}, fmt.Errorf("decode entry: %v: %w", err, graveler.Corrupt)
	}
	e := graveler.Entry{
		Address: pb.Address, AddressType: graveler.AddressType(pb.AddressType), Size: pb.Size, ETag: pb.ETag,
		Metadata: pb.Metadata, ContentType: pb.ContentType, Pending: graveler.ContentID(pb.Pending),
		Inode: pb.Inode, Changed: timeOf(pb.Changed), Accessed: timeOf(pb.Accessed), Home: pb.Home,
	}
	if e.Size < 0 {
		return graveler.Entry{}, fmt.Errorf("decode entry: negative size: %w", graveler.Corrupt)
	}
	if pb.LastModified != nil {
		e.Modified = pb.LastModified.AsTime()
	}
	return e, nil
}

// EncodeCommit encodes a commit (protobuf CommitData).
func EncodeCommit(c *graveler.Commit) ([]byte, error) {
	pb := &gravelerpb.CommitData{
		Id: string(c.ID), Committer: c.Committer, Message: c.Message, CreationDate: timestamppb.New(c.Created),
		MetaRangeId: string(c.MetaRange), Metadata: c.Metadata, Version: int32(c.Version), Generation: int32(c.Generation),
	}
	for _, p := range c.Parents {
		pb.Parents = append(pb.Parents, string(p))
	}
	b, err := marshal.Marshal(pb)
	if err != nil {
		return nil, fmt.Errorf("encode commit: text that is not UTF-8: %w", graveler.Invalid)
	}
	return b, nil
}

// DecodeCommit decodes what EncodeCommit or lakeFS encoded. It does not check the id.
func DecodeCommit(b []byte) (graveler.Commit, error) {
	var pb gravelerpb.CommitData
	if err := proto.Unmarshal(b, &pb); err != nil {
		return graveler.Commit{}, fmt.Errorf("decode commit: %v: %w", err, graveler.Corrupt)
	}
	c := graveler.Commit{
		ID: graveler.CommitID(pb.Id), Committer: pb.Committer, Message: pb.Message, MetaRange: graveler.MetaRangeID(pb.MetaRangeId),
		Metadata: pb.Metadata, Version: int(pb.Version), Generation: int(pb.Generation),
	}
	if pb.CreationDate != nil {
		c.Created = pb.CreationDate.AsTime()
	} else {
		c.Created = time.Unix(0, 0).UTC()
	}
	for _, p := range pb.Parents {
		c.Parents = append(c.Parents, graveler.CommitID(p))
	}
	return c, nil
}

// RangeInfo is one range of a metarange.
type RangeInfo struct {
	ID             graveler.RangeID
	MinKey, MaxKey string
	EstimatedSize  uint64 // as the writer estimated it, before closing
	Count          int64
}

func decodeRange(key, value string) (RangeInfo, error) {
	id, data, err := splitValue(value)
	if err != nil {
		return RangeInfo{}, err
	}
	var pb gravelerpb.RangeData
	if err := proto.Unmarshal(bytesOf(data), &pb); err != nil {
		return RangeInfo{}, fmt.Errorf("decode range record %q: %v: %w", key, err, graveler.Corrupt)
	}
	r := RangeInfo{ID: graveler.RangeID(id), MinKey: string(pb.MinKey), MaxKey: string(pb.MaxKey), EstimatedSize: pb.EstimatedSize, Count: pb.Count}
	if !validID(id) || r.MaxKey != key || r.MinKey > r.MaxKey {
		return RangeInfo{}, fmt.Errorf("range record %q is inconsistent: %w", key, graveler.Corrupt)
	}
	return r, nil
}

func encodeRange(r *RangeInfo) ([]byte, error) {
	data, err := marshal.Marshal(&gravelerpb.RangeData{
		MinKey: []byte(r.MinKey), MaxKey: []byte(r.MaxKey), EstimatedSize: r.EstimatedSize, Count: r.Count,
	})
	if err != nil {
		return nil, err
	}
	return appendValue(nil, []byte(r.ID), data), nil
}

func validID(id string) bool {
	if len(id) != 64 {
		return false
	}
	_, err := hex.DecodeString(id)
	return err == nil
}
