package nfs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"sync"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// A file handle says itself what it names, in at most 64 bytes:
//
//	1  version of the form, 1
//	1  form of the file
//	2  of a control directory 1, of .lakefs/object 2, of a control file a hash of its name; else 0
//	4  the export's id
//	16 HMAC-SHA-256 of all the rest, cut
//	…  by form:
//	   the top      nothing
//	   a repository 8 hash of its name
//	   on a branch  8 hash of repository and branch; 8 inode number, 8 that of the directory where to look first; both 0 of the root
//	   in a commit  8 hash of the repository; 12 of the commit id; 4 number of the range; 12 hash of the path; all but the first two 0 of the root
//
// Names are not in it, so on a branch it stays the same through rename; and nothing of this process is, so it does through restart.
type formOf uint8

// Forms of handles.
const (
	formTop formOf = iota + 1
	formRepo
	formBranch
	formCommit
)

const (
	handleVersion = 1

	headSize  = 24
	macAt     = 8
	macSize   = 16
	maxHandle = 64

	ctlNone, ctlDir, ctlObject, ctlFirst = 0, 1, 2, 16
)

// KeySize is the size in bytes of the key that handles are made with.
const KeySize = 32

// handle is a file handle taken apart.
type handle struct {
	form   formOf
	ctl    uint16
	export uint32
	// of a repository or in a commit
	repo uint64
	// on a branch
	branch       uint64
	number, home uint64
	// in a commit
	commit [12]byte
	slot   uint32
	path   [12]byte
}

// sealer makes handles and tells its own from others'.
type sealer struct {
	key  []byte
	macs sync.Pool
}

func newSealer(key []byte) *sealer {
	return &sealer{key: key, macs: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

func (s *sealer) mac(b []byte) (out [macSize]byte) {
	m := s.macs.Get().(hash.Hash)
	defer s.macs.Put(m)
	m.Reset()
	m.Write(b[:macAt])
	m.Write(b[headSize:])
	var sum [sha256.Size]byte
	copy(out[:], m.Sum(sum[:0]))
	return out
}

// seal makes the bytes of a handle.
func (s *sealer) seal(h *handle) []byte {
	b := make([]byte, headSize, maxHandle)
	b[0], b[1] = handleVersion, byte(h.form)
	binary.BigEndian.PutUint16(b[2:], h.ctl)
	binary.BigEndian.PutUint32(b[4:], h.export)
	switch h.form {
	case formRepo:
		b = binary.BigEndian.AppendUint64(b, h.repo)
	case formBranch:
		b = binary.BigEndian.AppendUint64(b, h.branch)
		b = binary.BigEndian.AppendUint64(b, h.number)
		b = binary.BigEndian.AppendUint64(b, h.home)
	case formCommit:
		b = binary.BigEndian.AppendUint64(b, h.repo)
		b = append(b, h.commit[:]...)
		b = binary.BigEndian.AppendUint32(b, h.slot)
		b = append(b, h.path[:]...)
	}
	m := s.mac(b)
	copy(b[macAt:], m[:])
	return b
}

// isControl reports whether what looks like a handle is of a control file.
func isControl(b []byte) bool {
	return len(b) >= headSize && binary.BigEndian.Uint16(b[2:]) >= ctlFirst
}

var payload = map[formOf]int{formTop: 0, formRepo: 8, formBranch: 24, formCommit: 36}

// open takes a handle apart; false if this key didn't make it.
func (s *sealer) open(b []byte) (h handle, ok bool) {
	if len(b) < headSize || len(b) > maxHandle || b[0] != handleVersion {
		return h, false
	}
	h.form = formOf(b[1])
	if n, ok := payload[h.form]; !ok || n != len(b)-headSize {
		return h, false
	}
	m := s.mac(b)
	if !hmac.Equal(m[:], b[macAt:macAt+macSize]) {
		return h, false
	}
	h.ctl = binary.BigEndian.Uint16(b[2:])
	h.export = binary.BigEndian.Uint32(b[4:])
	p := b[headSize:]
	switch h.form {
	case formRepo:
		h.repo = binary.BigEndian.Uint64(p)
	case formBranch:
		h.branch, h.number, h.home = binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint64(p[16:])
	case formCommit:
		h.repo = binary.BigEndian.Uint64(p)
		copy(h.commit[:], p[8:])
		h.slot = binary.BigEndian.Uint32(p[20:])
		copy(h.path[:], p[24:])
	}
	return h, true
}

func hash64(parts ...string) uint64 {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	var sum [sha256.Size]byte
	return binary.BigEndian.Uint64(h.Sum(sum[:0]))
}

func repoHash(id graveler.RepositoryID) uint64 { return hash64("repository", string(id)) }

func branchHash(id graveler.RepositoryID, ref graveler.Ref) uint64 {
	return hash64("branch", string(id), string(ref))
}

// pathHash is the hash of a path in a commit, of a directory with a slash.
func pathHash(path string) (out [12]byte) {
	sum := sha256.Sum256([]byte(path))
	copy(out[:], sum[:])
	return out
}

// ctlHash is what a handle has of a control file's name.
func ctlHash(name string) uint16 {
	return uint16(hash64("control", name)%(1<<16-ctlFirst)) + ctlFirst
}

func commitPrefix(ref graveler.Ref) (out [12]byte) {
	hex.Decode(out[:], []byte(ref)[:min(len(ref), 2*len(out))])
	return out
}

// handleOf is the handle of what a node is.
func handleOf(i *vfs.Identity, export uint32, slot uint32, home uint64) handle {
	h := handle{export: export}
	switch {
	case i.Form == vfs.FormTop:
		h.form = formTop
		return h
	case i.Form == vfs.FormRepo:
		h.form, h.repo = formRepo, repoHash(i.Repo)
		return h
	case i.Branch:
		h.form, h.branch = formBranch, branchHash(i.Repo, i.Ref)
		h.number, h.home = i.Number, home
	default:
		h.form, h.repo, h.commit = formCommit, repoHash(i.Repo), commitPrefix(i.Ref)
		if i.Path != "" {
			h.slot, h.path = slot, pathHash(pathKey(i))
		}
	}
	switch i.Form {
	case vfs.FormControlDir:
		h.ctl = ctlDir
	case vfs.FormObject:
		h.ctl = ctlObject
	case vfs.FormControlFile:
		h.ctl = ctlHash(i.Name)
	}
	return h
}

// pathKey is the key that a path's handle is made of: of a directory, and of what belongs to it, with a slash.
func pathKey(i *vfs.Identity) string {
	if i.Form == vfs.FormFile || i.Path == "" {
		return i.Path
	}
	return i.Path + "/"
}
