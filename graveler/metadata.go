package graveler

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
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
	var p Permissions
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return Permissions{}, fmt.Errorf("posix permissions %q: %w", s, Invalid)
	}
	return p, nil
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

// SetMtime records t as the client's modification time, in both places. It changes e.Metadata, which must be e's own.
func (e *Entry) SetMtime(t time.Time) {
	if e.Metadata == nil {
		e.Metadata = make(map[string]string, 2)
	}
	e.Metadata[MetaMtime] = strconv.FormatInt(t.Unix(), 10)
	e.Modified = t
}
