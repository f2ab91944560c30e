// Package xdr reads and writes XDR (RFC 4506), the form of ONC RPC's messages: big-endian words of four bytes, and bytes padded to
// them. It knows no message; a Reader never reads or allocates beyond what it was given.
package xdr

import (
	"encoding/binary"
	"errors"
)

// ErrShort tells that a message ends before what it must have, or has a length over the limit that the reader set.
var ErrShort = errors.New("xdr: message is too short, or a length in it too large")

// Reader takes values off a message. After the first failure every read gives zero values and Err tells.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader reads b, and gives parts of it away: it must stay as it is while they are used.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Err is ErrShort if any read failed.
func (r *Reader) Err() error {
	if r.bad {
		return ErrShort
	}
	return nil
}

// Rest is what was not read yet.
func (r *Reader) Rest() []byte { return r.b }

func (r *Reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// Uint32 reads a word.
func (r *Reader) Uint32() uint32 {
	p := r.take(4)
	if p == nil {
		return 0
	}
	return binary.BigEndian.Uint32(p)
}

// Uint64 reads a double word.
func (r *Reader) Uint64() uint64 {
	p := r.take(8)
	if p == nil {
		return 0
	}
	return binary.BigEndian.Uint64(p)
}

// Bool reads a boolean; what is neither 0 nor 1 is a failure.
func (r *Reader) Bool() bool {
	v := r.Uint32()
	if v > 1 {
		r.bad, r.b = true, nil
		return false
	}
	return v == 1
}

// Fixed reads n bytes and their padding.
func (r *Reader) Fixed(n int) []byte {
	p := r.take(n)
	r.take(-n & 3)
	if r.bad {
		return nil
	}
	return p
}

// Bytes reads bytes with their length, which may be at most limit.
func (r *Reader) Bytes(limit int) []byte {
	n := r.Uint32()
	if uint64(n) > uint64(limit) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.Fixed(int(n))
}

// String reads a string of at most limit bytes.
func (r *Reader) String(limit int) string { return string(r.Bytes(limit)) }

// Writer is a message that grows.
type Writer []byte

// Uint32 adds a word.
func (w *Writer) Uint32(v uint32) { *w = binary.BigEndian.AppendUint32(*w, v) }

// Uint64 adds a double word.
func (w *Writer) Uint64(v uint64) { *w = binary.BigEndian.AppendUint64(*w, v) }

// Bool adds a boolean.
func (w *Writer) Bool(v bool) {
	if v {
		w.Uint32(1)
	} else {
		w.Uint32(0)
	}
}

// Fixed adds bytes and their padding.
func (w *Writer) Fixed(p []byte) {
	*w = append(*w, p...)
	w.pad(len(p))
}

// Bytes adds bytes with their length.
func (w *Writer) Bytes(p []byte) {
	w.Uint32(uint32(len(p)))
	w.Fixed(p)
}

// String adds a string.
func (w *Writer) String(s string) {
	w.Uint32(uint32(len(s)))
	*w = append(*w, s...)
	w.pad(len(s))
}

func (w *Writer) pad(n int) {
	for range -n & 3 {
		*w = append(*w, 0)
	}
}

// SetUint32 replaces the word at a position.
func (w Writer) SetUint32(at int, v uint32) { binary.BigEndian.PutUint32(w[at:], v) }
