package graveler

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Metadata keys with a meaning. Those under ::lakefs:: are lakeFS's (lakectl local and lakeFS Mount read them); those under
// ::lakefsfs:: hold what lakeFS has no key for.
const (
	MetaPermissions = "::lakefs::posix-permissions" // JSON, see Permissions
	MetaMtime       = "::lakefs::client-mtime"      // seconds since 1970, decimal; the nanoseconds are in Entry.Modified
	MetaSymlink     = "::lakefs::symlink-target"    // a symbolic link's target; the object is empty
	MetaSymlinkB64  = "::lakefsfs::symlink-target"  // the same in base64, where it is not UTF-8
	MetaXattrB64    = "::lakefsfs::xattr:"          // + name: an extended attribute's value in base64, where it is not UTF-8 or the name is not in "user."
	MetaLinks       = "::lakefsfs::links"           // of a file with several names: all of them, see Entry.Links
	MetaInode       = "::lakefsfs::inode"           // of a file that took the place of one alike: its number, see Entry.Another
	MetaDevice      = "::lakefsfs::device"          // of a device node: its number, decimal, as st_rdev has it
	MetaMergeKey    = ".lakefs.merge.strategy"      // of a merge commit: default, dest-wins or source-wins
)

// Permissions is MetaPermissions' JSON value. Mode is an io/fs.FileMode.
type Permissions struct {
	UID  uint32
	GID  uint32
	Mode fs.FileMode
}

// ParsePermissions decodes MetaPermissions' value.
func ParsePermissions(s string) (Permissions, error) {
	if p, ok := parsePlain(s); ok {
		return p, nil
	}
	var p Permissions
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return Permissions{}, fmt.Errorf("posix permissions %q: %w", s, Invalid)
	}
	return p, nil
}

// parsePlain reads what String writes, which is nearly all there is, at a twentieth of the cost.
func parsePlain(s string) (p Permissions, ok bool) {
	var n [3]uint64
	for i, key := range [...]string{`{"UID":`, `,"GID":`, `,"Mode":`} {
		if s, ok = strings.CutPrefix(s, key); !ok {
			return p, false
		}
		end := 0
		for end < len(s) && '0' <= s[end] && s[end] <= '9' {
			end++
		}
		var err error
		if n[i], err = strconv.ParseUint(s[:end], 10, 32); err != nil || end > 1 && s[0] == '0' {
			return p, false
		}
		s = s[end:]
	}
	return Permissions{UID: uint32(n[0]), GID: uint32(n[1]), Mode: fs.FileMode(n[2])}, s == "}"
}

// String encodes p for MetaPermissions, in lakectl's field order.
func (p Permissions) String() string {
	return fmt.Sprintf(`{"UID":%d,"GID":%d,"Mode":%d}`, p.UID, p.GID, uint32(p.Mode))
}

// Mtime is the entry's modification time as a file system shows it: the client's where it is known, else the entry's.
func (e *Entry) Mtime() time.Time {
	if s, ok := e.Metadata[MetaMtime]; ok {
		if sec, err := strconv.ParseInt(s, 10, 64); err == nil {
			if e.Modified.Unix() == sec {
				return e.Modified
			}
			return time.Unix(sec, 0)
		}
	}
	return e.Modified
}

// ShowMtime sets the time of modification where the entry keeps it: in its metadata, if a time is there, which no copy may share, or in
// Modified.
func (e *Entry) ShowMtime(t time.Time) {
	if _, ok := e.Metadata[MetaMtime]; ok {
		e.SetMtime(t)
	} else {
		e.Modified = t
	}
}

// SetMtime records t as the client's modification time, in both places. It changes e.Metadata, which must be e's own.
func (e *Entry) SetMtime(t time.Time) {
	if e.Metadata == nil {
		e.Metadata = make(map[string]string, 2)
	}
	e.Metadata[MetaMtime] = strconv.FormatInt(t.Unix(), 10)
	e.Modified = t
}

// maxLinks bounds what the names of one file take in each of their entries, in bytes.
const maxLinks = 32 << 10

// Links lists the names of a file that has several (hard links): paths in the version, sorted, the entry's own among them. It is
// nil for a file of one name. Each name is an entry of its own; they share content and inode number and are changed together. A
// name that an outsider changed alone no longer belongs: see SameFile.
func (e *Entry) Links() []string {
	s, ok := e.Metadata[MetaLinks]
	if !ok {
		return nil
	}
	var quoted []string
	if json.Unmarshal([]byte(s), &quoted) != nil {
		return nil
	}
	paths := quoted[:0]
	for _, q := range quoted {
		p, err := strconv.Unquote(`"` + q + `"`)
		if err != nil {
			return nil
		}
		paths = append(paths, p)
	}
	return paths
}

// SetLinks makes paths the names of the entry's file; one or none means that it has one name. It changes e.Metadata, which must be
// e's own. TooLarge if the names take more room than an entry has for them.
func (e *Entry) SetLinks(paths []string) error {
	if len(paths) < 2 {
		delete(e.Metadata, MetaLinks)
		return nil
	}
	paths = slices.Clone(paths)
	slices.Sort(paths)
	for i, p := range paths {
		// Metadata is UTF-8, paths need not be.
		q := strconv.QuoteToASCII(p)
		paths[i] = q[1 : len(q)-1]
	}
	b, err := json.Marshal(paths)
	if err != nil {
		return fmt.Errorf("names of a file: %v: %w", err, Invalid)
	}
	if len(b) > maxLinks {
		return fmt.Errorf("a file with %d names: %w", len(paths), TooLarge)
	}
	if e.Metadata == nil {
		e.Metadata = make(map[string]string, 1)
	}
	e.Metadata[MetaLinks] = string(b)
	return nil
}

// SameFile reports whether two entries that name each other in their Links are one file.
func (e *Entry) SameFile(o *Entry) bool {
	return e.Inode != 0 && e.Inode == o.Inode && e.Metadata[MetaLinks] != "" && e.Metadata[MetaLinks] == o.Metadata[MetaLinks]
}

// InodeOf is the number of a file whose entry has none: it is made of the path, so that it stays the same as long as the path does.
// The path of a directory ends in a slash.
func InodeOf(path string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(path) {
		h = (h ^ uint64(path[i])) * prime
	}
	return h | 1
}
