package replica

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/s2"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// A state goes from node to node as its records, in the order of their keys, and not as Pebble's files: a node of an older version, which
// may have an older Pebble, can take it.
//
//	line    "lakefsfs state 1\n"
//	frame   length of the body (4 bytes), CRC-32C of the body and of all frames before it (4), body
//	body    kind (1 byte), then for
//	  'h'   index (8), term (8) of the last log entry in the state: the first frame
//	  'r'   records, compressed together: length of key and of value (uvarints), key, value
//	  'e'   how many records there were (8): the last frame
const streamLine = "lakefsfs state 1\n"

const (
	frameBytes = 256 << 10 // of records, before compression
	frameMax   = 80 << 20  // what a frame may have: one record may be as large as a log entry
	recordMax  = 64 << 20
	tableBytes = 32 << 20 // of a table that is built
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frames writes a stream.
type frames struct {
	w   io.Writer
	crc uint32
	buf []byte
}

func (f *frames) write(kind byte, body []byte) error {
	f.buf = append(append(f.buf[:0], 0, 0, 0, 0, 0, 0, 0, 0, kind), body...)
	f.crc = crc32.Update(f.crc, castagnoli, f.buf[8:])
	binary.BigEndian.PutUint32(f.buf, uint32(len(f.buf)-8))
	binary.BigEndian.PutUint32(f.buf[4:], f.crc)
	_, err := f.w.Write(f.buf)
	return err
}

// writeState writes the whole state as it is now, and tells the last log entry that is in it. It needs memory for a frame.
func (r *Replica) writeState(w io.Writer) (index, term uint64, err error) {
	st := r.state.hold()
	defer st.release()
	s := st.NewSnapshot()
	defer s.Close()
	return streamState(w, s)
}

func streamState(w io.Writer, s reader) (index, term uint64, err error) {
	if index, term, err = (view{s}).Applied(); err != nil {
		return 0, 0, err
	}
	if _, err := io.WriteString(w, streamLine); err != nil {
		return 0, 0, err
	}
	f := &frames{w: w}
	if err := f.write('h', binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, index), term)); err != nil {
		return 0, 0, err
	}
	it, err := s.NewIter(nil)
	if err != nil {
		return 0, 0, fmt.Errorf("read the state store: %v: %w", err, graveler.Corrupt)
	}
	defer it.Close()
	var plain, packed []byte
	flush := func() error {
		if len(plain) == 0 {
			return nil
		}
		packed = s2.Encode(packed[:cap(packed)], plain)
		plain = plain[:0]
		return f.write('r', packed)
	}
	n := uint64(0)
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		v, err := it.ValueAndErr()
		if err != nil {
			return 0, 0, fmt.Errorf("read the state store: %v: %w", err, graveler.Corrupt)
		}
		if len(k)+len(v) > recordMax {
			return 0, 0, fmt.Errorf("a record of %d bytes can't go into a stream: %w", len(k)+len(v), graveler.Invalid)
		}
		plain = binary.AppendUvarint(plain, uint64(len(k)))
		plain = binary.AppendUvarint(plain, uint64(len(v)))
		plain = append(append(plain, k...), v...)
		n++
		if len(plain) >= frameBytes {
			if err := flush(); err != nil {
				return 0, 0, err
			}
		}
	}
	if err := it.Error(); err != nil {
		return 0, 0, fmt.Errorf("read the state store: %v: %w", err, graveler.Corrupt)
	}
	if err := flush(); err != nil {
		return 0, 0, err
	}
	return index, term, f.write('e', binary.BigEndian.AppendUint64(nil, n))
}

// unframe reads a stream.
type unframe struct {
	r    *bufio.Reader
	crc  uint32
	body bytes.Buffer
}

func badStream(what string) error {
	return fmt.Errorf("the stream of a state: %s: %w", what, graveler.Corrupt)
}

// next returns a frame, whose body may be used until the next one is read.
func (u *unframe) next() (kind byte, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(u.r, head[:]); err != nil {
		return 0, nil, cutStream(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > frameMax {
		return 0, nil, badStream(fmt.Sprintf("a frame of %d bytes", n))
	}
	u.body.Reset()
	// What is damaged may announce much: memory is taken as bytes come.
	if _, err := io.CopyN(&u.body, u.r, int64(n)); err != nil {
		return 0, nil, cutStream(err)
	}
	b := u.body.Bytes()
	u.crc = crc32.Update(u.crc, castagnoli, b)
	if u.crc != binary.BigEndian.Uint32(head[4:]) {
		return 0, nil, badStream("a wrong checksum")
	}
	return b[0], b[1:], nil
}

func cutStream(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badStream("it ends early")
	}
	return fmt.Errorf("read the stream of a state: %w", err)
}

// readStream calls put for each record of a stream, in the order of their keys. put may not keep them.
func readStream(rd io.Reader, put func(k, v []byte) error) (index, term uint64, err error) {
	u := &unframe{r: bufio.NewReaderSize(rd, 64<<10)}
	line := make([]byte, len(streamLine))
	if _, err := io.ReadFull(u.r, line); err != nil {
		return 0, 0, cutStream(err)
	}
	if string(line) != streamLine {
		return 0, 0, badStream(fmt.Sprintf("it begins with %q, and this version reads %q", line, streamLine))
	}
	kind, body, err := u.next()
	if err != nil {
		return 0, 0, err
	}
	if kind != 'h' || len(body) != 16 {
		return 0, 0, badStream("no header")
	}
	index, term = be(body), be(body[8:])
	var plain, last []byte
	for n := uint64(0); ; {
		kind, body, err := u.next()
		if err != nil {
			return 0, 0, err
		}
		switch kind {
		case 'e':
			if len(body) != 8 || be(body) != n {
				return 0, 0, badStream("a wrong number of records")
			}
			if _, err := u.r.ReadByte(); err != io.EOF {
				return 0, 0, badStream("bytes after its end")
			}
			return index, term, nil
		case 'r':
			size, err := s2.DecodedLen(body)
			if err != nil || size > frameMax {
				return 0, 0, badStream("a frame that can't be unpacked")
			}
			if plain, err = s2.Decode(plain[:cap(plain)], body); err != nil {
				return 0, 0, badStream("a frame that can't be unpacked")
			}
			for rest := plain; len(rest) > 0; n++ {
				var k, v []byte
				if k, v, rest, err = cutRecord(rest); err != nil {
					return 0, 0, err
				}
				if n > 0 && bytes.Compare(k, last) <= 0 {
					return 0, 0, badStream("records out of order")
				}
				last = append(last[:0], k...)
				if err := put(k, v); err != nil {
					return 0, 0, err
				}
			}
		default:
			return 0, 0, badStream(fmt.Sprintf("a frame of an unknown kind %q", kind))
		}
	}
}

func cutRecord(b []byte) (k, v, rest []byte, err error) {
	nk, a := binary.Uvarint(b)
	if a <= 0 {
		return nil, nil, nil, badStream("a record that ends early")
	}
	nv, c := binary.Uvarint(b[a:])
	if c <= 0 {
		return nil, nil, nil, badStream("a record that ends early")
	}
	b = b[a+c:]
	if left := uint64(len(b)); nk == 0 || nk > left || nv > left-nk {
		return nil, nil, nil, badStream("a record that ends early")
	}
	return b[:nk], b[nk : nk+nv], b[nk+nv:], nil
}

// fill puts the records of a stream into a new state: as tables that the store takes in as they are.
func (n *newState) fill(rd io.Reader) (err error) {
	opt := n.all.opt()
	opt.EnsureDefaults()
	b := &tables{fs: n.all.fs, dir: n.dir(), opt: opt.MakeWriterOptions(6, n.db.TableFormat())}
	defer b.abort()
	if n.index, n.term, err = readStream(rd, b.put); err != nil {
		return err
	}
	if err := b.finish(); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	if len(b.names) > 0 {
		if err := n.db.Ingest(context.Background(), b.names); err != nil {
			return fmt.Errorf("take in tables: %w", err)
		}
	}
	index, term, err := (view{n.db}).Applied()
	if err != nil {
		return err
	}
	if index != n.index || term != n.term {
		return badStream(fmt.Sprintf("its header says entry %d of term %d, its records %d of %d", n.index, n.term, index, term))
	}
	return nil
}

// tables writes sorted records to table files.
type tables struct {
	fs    vfs.FS
	dir   string
	opt   sstable.WriterOptions
	w     *sstable.Writer
	names []string
}

func (t *tables) put(k, v []byte) error {
	if t.w == nil {
		name := t.fs.PathJoin(t.dir, fmt.Sprintf("in-%d.sst", len(t.names)))
		f, err := t.fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("write a table: %w", err)
		}
		t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), t.opt)
		t.names = append(t.names, name)
	}
	if err := t.w.Set(k, v); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	if t.w.Raw().EstimatedSize() >= tableBytes {
		return t.finish()
	}
	return nil
}

// finish ends the table that is being written; it is on the disk then.
func (t *tables) finish() error {
	if t.w == nil {
		return nil
	}
	w := t.w
	t.w = nil
	return w.Close()
}

func (t *tables) abort() {
	if t.w != nil {
		_ = t.w.Close() // its directory goes
		t.w = nil
	}
}
