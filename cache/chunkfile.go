package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// A file of the disk tier is a chunk and a trailer, integers little-endian:
//
//	data | magic "LKF1" | flags uint32 | length of data uint64 | fileKey [20]byte | CRC-32C of all before uint32
const trailerBytes = 4 + 4 + 8 + 20 + 4

const flagLast = 1 // no chunk comes after this one

var (
	fileMagic = []byte("LKF1")
	crcTable  = crc32.MakeTable(crc32.Castagnoli)
)

// fileKey names a chunk on disk, in any process.
type fileKey [20]byte

func (k fileKey) String() string { return hex.EncodeToString(k[:]) }

// fileKeyOf is the first part of the SHA-256 of all that a key says, the namespace by its URL.
func fileKeyOf(url string, k key) fileKey {
	b := make([]byte, 0, 256)
	for _, s := range []string{url, strconv.FormatBool(k.full), k.address, k.md5, strconv.Itoa(int(k.index))} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return fileKey(sum[:])
}

// trailerOf is what follows data in its file.
func trailerOf(k fileKey, data []byte, last bool) []byte {
	t := make([]byte, 0, trailerBytes)
	t = append(t, fileMagic...)
	var flags uint32
	if last {
		flags |= flagLast
	}
	t = binary.LittleEndian.AppendUint32(t, flags)
	t = binary.LittleEndian.AppendUint64(t, uint64(len(data)))
	t = append(t, k[:]...)
	crc := crc32.Update(crc32.Checksum(data, crcTable), crcTable, t)
	return binary.LittleEndian.AppendUint32(t, crc)
}

// parseFile returns the chunk in a file's bytes, without a copy; Corrupt if they are not as they were written.
func parseFile(k fileKey, b []byte) (data []byte, last bool, err error) {
	n := len(b) - trailerBytes
	if n < 0 {
		return nil, false, fmt.Errorf("it is cut short at %d bytes: %w", len(b), graveler.Corrupt)
	}
	t := b[n:]
	switch {
	case !bytes.Equal(t[:4], fileMagic):
		return nil, false, fmt.Errorf("it does not end in a trailer: %w", graveler.Corrupt)
	case binary.LittleEndian.Uint64(t[8:]) != uint64(n), !bytes.Equal(t[16:36], k[:]):
		return nil, false, fmt.Errorf("it holds another chunk: %w", graveler.Corrupt)
	case crc32.Checksum(b[:len(b)-4], crcTable) != binary.LittleEndian.Uint32(t[36:]):
		return nil, false, fmt.Errorf("its checksum is wrong: %w", graveler.Corrupt)
	}
	return b[:n:n], binary.LittleEndian.Uint32(t[4:])&flagLast != 0, nil
}
