package graveler

import (
	"context"
	"errors"
	iofs "io/fs"
	"strconv"
)

// Kind classifies an error by what the caller can do about it. Values travel on the wire: append only, never reorder.
// A Kind is itself an error, to be wrapped: fmt.Errorf("resolve %s@%s: %w", repo, ref, graveler.NotFound).
type Kind uint8

// The kinds. Internal is the zero value: an error that was born without a kind.
const (
	Internal    Kind = iota // a defect of ours
	NotFound                // the thing named does not exist
	Exists                  // the thing to be made exists already
	Invalid                 // the request can never succeed as it is
	ReadOnly                // a write to a version that can't change
	Protected               // a write that a rule of the repository forbids
	Conflict                // the state moved, or a merge met conflicting changes
	NotEmpty                // a directory or branch that must be empty isn't
	NotDir                  // a file where a directory is needed
	IsDir                   // a directory where a file is needed
	Stale                   // a handle or id of something that is gone
	TooLarge                // over a limit of the format or the system
	NoSpace                 // no room on disk or in a quota
	Unavailable             // a store or node did not answer; the same request may succeed later
	Canceled                // the caller gave up
	Corrupt                 // bytes that are not what was written
	Denied                  // the store or the system refuses for lack of permission
	NothingToDo             // a commit with no change
	Timeout                 // a deadline passed before a store or node answered
	maxKind
)

var kindText = [...]string{
	Internal: "internal error", NotFound: "not found", Exists: "already exists", Invalid: "invalid argument",
	ReadOnly: "read-only", Protected: "protected by a rule", Conflict: "conflict", NotEmpty: "not empty",
	NotDir: "not a directory", IsDir: "is a directory", Stale: "stale", TooLarge: "too large", NoSpace: "no space left",
	Unavailable: "unavailable", Canceled: "canceled", Corrupt: "corrupt data", Denied: "permission denied",
	NothingToDo: "nothing to commit", Timeout: "timed out",
}

// Kinds lists every kind, for tables that must be total.
func Kinds() []Kind {
	ks := make([]Kind, maxKind)
	for i := range ks {
		ks[i] = Kind(i)
	}
	return ks
}

// Error returns the kind in words.
func (k Kind) Error() string {
	if int(k) < len(kindText) {
		return kindText[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Is makes errors.Is(err, fs.ErrNotExist) and its like hold for the kinds that mean the same.
func (k Kind) Is(target error) bool {
	switch target {
	case iofs.ErrNotExist:
		return k == NotFound
	case iofs.ErrExist:
		return k == Exists
	case iofs.ErrPermission:
		return k == Denied || k == Protected
	case iofs.ErrInvalid:
		return k == Invalid
	case context.Canceled:
		return k == Canceled
	case context.DeadlineExceeded:
		return k == Timeout
	}
	return false
}

// KindOf returns the first Kind in err's chain. Errors of contexts and of io/fs have their obvious kinds; anything else is Internal.
func KindOf(err error) Kind {
	var k Kind
	switch {
	case errors.As(err, &k):
		return k
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, iofs.ErrNotExist):
		return NotFound
	case errors.Is(err, iofs.ErrExist):
		return Exists
	case errors.Is(err, iofs.ErrPermission):
		return Denied
	}
	return Internal
}
