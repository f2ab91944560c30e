package nfs

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// Sizes of messages, in bytes.
const (
	maxData   = 1 << 20           // of a READ or a WRITE: what FSINFO tells
	maxRecord = maxData + 64<<10  // of a call
	smallCall = 4 << 10           // what a call without data fits in
	maxFrags  = maxRecord/512 + 8 // of a call: more of them, smaller, is an attack
)

// buffers are used again: small ones for calls and replies without data, large ones for those with.
var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallCall); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, maxRecord); return &b }}
)

// buffer is a pooled buffer of at least n bytes, which must be at most maxRecord.
func buffer(n int) *[]byte {
	if n <= smallCall {
		return smallBuffers.Get().(*[]byte)
	}
	return largeBuffers.Get().(*[]byte)
}

func freeBuffer(b *[]byte) {
	switch {
	case b == nil:
	case cap(*b) == smallCall:
		*b = (*b)[:smallCall]
		smallBuffers.Put(b)
	case cap(*b) == maxRecord:
		*b = (*b)[:maxRecord]
		largeBuffers.Put(b)
	}
}

var errRecord = errors.New("record over the limit")

// readRecord reads a record, of one fragment or several, into a pooled buffer. admit is called before memory is taken for n bytes.
func readRecord(r *bufio.Reader, admit func(n int) error) (*[]byte, error) {
	var buf *[]byte
	size := 0
	fail := func(err error) (*[]byte, error) {
		freeBuffer(buf)
		return nil, err
	}
	for frag := 0; ; frag++ {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if frag > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fail(err)
		}
		v := binary.BigEndian.Uint32(head[:])
		n, last := int(v&^xdr.LastFragment), v&xdr.LastFragment != 0
		if n > maxRecord-size || frag > maxFrags {
			return fail(fmt.Errorf("%w: fragment %d of %d bytes after %d", errRecord, frag, n, size))
		}
		if buf == nil || size+n > cap(*buf) {
			if err := admit(size + n); err != nil {
				return fail(err)
			}
			// What is to come as further fragments may be more than the first tells.
			b := buffer(size + n)
			if buf != nil {
				copy(*b, (*buf)[:size])
				freeBuffer(buf)
			}
			buf = b
		}
		if _, err := io.ReadFull(r, (*buf)[:cap(*buf)][size:size+n]); err != nil {
			return fail(err)
		}
		if size += n; last {
			*buf = (*buf)[:size]
			return buf, nil
		}
	}
}
