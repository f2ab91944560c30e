package fs

import (
	"errors"
	"syscall"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// errnos is the errno of each kind.
var errnos = map[graveler.Kind]syscall.Errno{
	graveler.Internal:    syscall.EIO,
	graveler.NotFound:    syscall.ENOENT,
	graveler.Exists:      syscall.EEXIST,
	graveler.Invalid:     syscall.EINVAL,
	graveler.ReadOnly:    syscall.EROFS,
	graveler.Protected:   syscall.EACCES,
	graveler.Conflict:    syscall.EBUSY,
	graveler.NotEmpty:    syscall.ENOTEMPTY,
	graveler.NotDir:      syscall.ENOTDIR,
	graveler.IsDir:       syscall.EISDIR,
	graveler.Stale:       syscall.ESTALE,
	graveler.TooLarge:    syscall.ENAMETOOLONG,
	graveler.NoSpace:     syscall.ENOSPC,
	graveler.Unavailable: syscall.EIO,
	graveler.Canceled:    syscall.EINTR,
	graveler.Corrupt:     syscall.EIO,
	graveler.Denied:      syscall.EPERM,
	graveler.NothingToDo: syscall.ENODATA,
	graveler.Timeout:     syscall.EIO, // what programs expect of a disk; the log says why
}

// errnoOf maps an error to the errno that a program sees.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var no syscall.Errno
	if errors.As(err, &no) && no != 0 {
		var k graveler.Kind
		if !errors.As(err, &k) {
			return no
		}
	}
	if errors.Is(err, syscall.EFBIG) {
		return syscall.EFBIG // TooLarge is a name's errno
	}
	return errnos[graveler.KindOf(err)]
}
