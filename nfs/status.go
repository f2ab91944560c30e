package nfs

import (
	"errors"
	"syscall"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// status is nfsstat3.
type status uint32

// The statuses of RFC 1813.
const (
	statusOK          status = 0
	statusPerm        status = 1
	statusNoEnt       status = 2
	statusIO          status = 5
	statusNXIO        status = 6
	statusAcces       status = 13
	statusExist       status = 17
	statusXDev        status = 18
	statusNoDev       status = 19
	statusNotDir      status = 20
	statusIsDir       status = 21
	statusInval       status = 22
	statusFBig        status = 27
	statusNoSpc       status = 28
	statusROFS        status = 30
	statusMLink       status = 31
	statusNameTooLong status = 63
	statusNotEmpty    status = 66
	statusDQuot       status = 69
	statusStale       status = 70
	statusBadHandle   status = 10001
	statusNotSync     status = 10002
	statusBadCookie   status = 10003
	statusNotSupp     status = 10004
	statusTooSmall    status = 10005
	statusServerFault status = 10006
	statusBadType     status = 10007
	statusJukebox     status = 10008
)

// Error makes a status an error, so that what fails for a reason of the protocol's can be returned as anything else.
func (s status) Error() string { return "nfs status " + itoa(uint32(s)) }

func itoa(v uint32) string {
	var b [10]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + v%10)
		if v /= 10; v == 0 {
			return string(b[i:])
		}
	}
}

// kinds is the status of each kind of error.
var kinds = map[graveler.Kind]status{
	graveler.Internal:    statusIO,
	graveler.NotFound:    statusNoEnt,
	graveler.Exists:      statusExist,
	graveler.Invalid:     statusInval,
	graveler.ReadOnly:    statusROFS,
	graveler.Protected:   statusAcces,
	graveler.Conflict:    statusIO, // as of a merge, which a control file asked for: NFSv3 has no EBUSY
	graveler.NotEmpty:    statusNotEmpty,
	graveler.NotDir:      statusNotDir,
	graveler.IsDir:       statusIsDir,
	graveler.Stale:       statusStale,
	graveler.TooLarge:    statusNameTooLong,
	graveler.NoSpace:     statusNoSpc,
	graveler.Unavailable: statusJukebox, // the client asks again after a while
	graveler.Canceled:    statusJukebox, // the server is stopping
	graveler.Corrupt:     statusIO,
	graveler.Denied:      statusPerm,
	graveler.NothingToDo: statusInval,
	graveler.Timeout:     statusJukebox,
}

// errnos is the status of the errnos that the core gives as such.
var errnos = map[syscall.Errno]status{
	syscall.EPERM: statusPerm, syscall.ENOENT: statusNoEnt, syscall.EIO: statusIO, syscall.ENXIO: statusNXIO, syscall.EACCES: statusAcces,
	syscall.EEXIST: statusExist, syscall.EXDEV: statusXDev, syscall.ENODEV: statusNoDev, syscall.ENOTDIR: statusNotDir,
	syscall.EISDIR: statusIsDir, syscall.EINVAL: statusInval, syscall.EFBIG: statusFBig, syscall.ENOSPC: statusNoSpc,
	syscall.EROFS: statusROFS, syscall.EMLINK: statusMLink, syscall.ENAMETOOLONG: statusNameTooLong, syscall.ENOTEMPTY: statusNotEmpty,
	syscall.EDQUOT: statusDQuot, syscall.ESTALE: statusStale, syscall.EOPNOTSUPP: statusNotSupp, syscall.EBADF: statusStale,
}

// statusOf maps an error to the status that a client sees.
func statusOf(err error) status {
	if err == nil {
		return statusOK
	}
	var s status
	if errors.As(err, &s) {
		return s
	}
	if errors.Is(err, syscall.EFBIG) {
		return statusFBig // TooLarge is a name's status
	}
	var no syscall.Errno
	var k graveler.Kind
	if errors.As(err, &no) && !errors.As(err, &k) {
		if s, ok := errnos[no]; ok {
			return s
		}
		return statusIO
	}
	return kinds[graveler.KindOf(err)]
}
