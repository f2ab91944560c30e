package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// A record: mark (4 bytes), length of the body (4), CRC-32C (4) of the segment's salt and the body, the body. With the salt nothing
// that a caller puts into an entry looks like a record. The body: index, term, synced (8 each),
// AppendedAt in nanoseconds since 1970 (8), type (1), length of the extensions (4), extensions, data. All big-endian.
const (
	recordMark = 0x4c465357 // "LFSW"
	headSize   = 12
	bodyMin    = 8*4 + 1 + 4
	maxBody    = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn is a record that isn't whole.
var errTorn = errors.New("torn record")

// appendRecord encodes an entry. synced is the last index that was durable when it was written.
func appendRecord(dst []byte, l *raft.Log, synced uint64, salt uint32) ([]byte, error) {
	n := bodyMin + len(l.Extensions) + len(l.Data)
	if n > maxBody {
		return dst, fmt.Errorf("a log entry of %d bytes: %w", n, graveler.TooLarge)
	}
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, recordMark)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint64(dst, l.Index)
	dst = binary.BigEndian.AppendUint64(dst, l.Term)
	dst = binary.BigEndian.AppendUint64(dst, synced)
	ns := int64(0)
	if !l.AppendedAt.IsZero() {
		ns = l.AppendedAt.UnixNano()
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(ns))
	dst = append(dst, byte(l.Type))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(l.Extensions)))
	dst = append(dst, l.Extensions...)
	dst = append(dst, l.Data...)
	binary.BigEndian.PutUint32(dst[at+8:], crc32.Update(salt, castagnoli, dst[at+headSize:]))
	return dst, nil
}

// decodeRecord decodes the record that b begins with, and returns its size. The entry shares b's memory.
func decodeRecord(b []byte, l *raft.Log, salt uint32) (size int, synced uint64, err error) {
	if len(b) < headSize || binary.BigEndian.Uint32(b) != recordMark {
		return 0, 0, errTorn
	}
	n := int(binary.BigEndian.Uint32(b[4:]))
	if n < bodyMin || n > maxBody || n > len(b)-headSize {
		return 0, 0, errTorn
	}
	body := b[headSize : headSize+n]
	if crc32.Update(salt, castagnoli, body) != binary.BigEndian.Uint32(b[8:]) {
		return 0, 0, errTorn
	}
	ext := int(binary.BigEndian.Uint32(body[33:]))
	if ext > n-bodyMin {
		return 0, 0, errTorn
	}
	*l = raft.Log{
		Index: binary.BigEndian.Uint64(body), Term: binary.BigEndian.Uint64(body[8:]), Type: raft.LogType(body[32]),
		Data: body[bodyMin+ext:],
	}
	if ns := int64(binary.BigEndian.Uint64(body[24:])); ns != 0 {
		l.AppendedAt = time.Unix(0, ns)
	}
	if ext > 0 {
		l.Extensions = body[bodyMin : bodyMin+ext]
	}
	return headSize + n, binary.BigEndian.Uint64(body[16:]), nil
}
