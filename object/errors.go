package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net/http"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"gocloud.dev/gcerrors"
	"google.golang.org/api/googleapi"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// kindOf gives a store's error its Kind. It is total: what isn't known to be final is Unavailable, and worth another try.
func kindOf(err error) graveler.Kind {
	var k graveler.Kind
	switch {
	case errors.As(err, &k):
		return k
	case errors.Is(err, context.Canceled):
		return graveler.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return graveler.Timeout
	}
	if k, ok := kindOfErrno(err); ok {
		return k
	}
	if k, ok := kindOfStatus(httpStatus(err)); ok {
		return k
	}
	return kindOfCode(gcerrors.Code(err))
}

func kindOfErrno(err error) (graveler.Kind, bool) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return 0, false
	}
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.EISDIR:
		return graveler.NotFound, true
	case syscall.EEXIST:
		return graveler.Exists, true
	case syscall.ENOSPC, syscall.EDQUOT:
		return graveler.NoSpace, true
	case syscall.EACCES, syscall.EPERM:
		return graveler.Denied, true
	case syscall.EROFS:
		return graveler.ReadOnly, true
	case syscall.ENAMETOOLONG, syscall.EFBIG:
		return graveler.TooLarge, true
	case syscall.EINVAL, syscall.ELOOP:
		return graveler.Invalid, true
	}
	return 0, false
}

// httpStatus is the status of the answer that became err, 0 if it was none.
func httpStatus(err error) int {
	var aws interface{ HTTPStatusCode() int }
	var gcs *googleapi.Error
	var azure *azcore.ResponseError
	switch {
	case errors.As(err, &aws):
		return aws.HTTPStatusCode()
	case errors.As(err, &gcs):
		return gcs.Code
	case errors.As(err, &azure):
		return azure.StatusCode
	}
	return 0
}

// kindOfStatus reads the statuses that S3, GCS and Azure agree on. The answer to others is left to gocloud.
func kindOfStatus(status int) (graveler.Kind, bool) {
	switch status {
	case http.StatusNotFound:
		return graveler.NotFound, true
	case http.StatusUnauthorized, http.StatusForbidden:
		return graveler.Denied, true
	case http.StatusBadRequest, http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusMethodNotAllowed,
		http.StatusRequestedRangeNotSatisfiable, http.StatusLengthRequired, http.StatusNotImplemented:
		return graveler.Invalid, true
	case http.StatusConflict, http.StatusPreconditionFailed:
		return graveler.Conflict, true
	case http.StatusRequestEntityTooLarge:
		return graveler.TooLarge, true
	case http.StatusInsufficientStorage:
		return graveler.NoSpace, true
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return graveler.Unavailable, true
	}
	return graveler.Unavailable, status >= 500
}

func kindOfCode(code gcerrors.ErrorCode) graveler.Kind {
	switch code {
	case gcerrors.NotFound:
		return graveler.NotFound
	case gcerrors.AlreadyExists:
		return graveler.Exists
	case gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return graveler.Invalid
	case gcerrors.FailedPrecondition:
		return graveler.Conflict
	case gcerrors.PermissionDenied:
		return graveler.Denied
	case gcerrors.Canceled:
		return graveler.Canceled
	case gcerrors.DeadlineExceeded:
		return graveler.Timeout
	}
	return graveler.Unavailable
}

// hints tell what to do about an error that a setting causes.
var hints = map[graveler.Kind]string{
	graveler.Denied:  "; check the credentials and the rights on the store",
	graveler.NoSpace: "; free space on the store",
}

// wrap says what was done to what, and gives the error its Kind. nil and io.EOF stay as they are.
func wrap(op, address string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var k graveler.Kind
	if errors.As(err, &k) {
		return fmt.Errorf("%s object %s: %w", op, address, err)
	}
	if errors.Is(err, iofs.ErrClosed) {
		return fmt.Errorf("%s object %s: the store is closed: %w", op, address, graveler.Canceled)
	}
	k = kindOf(err)
	return fmt.Errorf("%s object %s: %v%s: %w", op, address, err, hints[k], k)
}

// short is the error of an object that has other bytes than were written to it.
func short(o Object, size int64) error {
	return fmt.Errorf("the store has %d bytes where %d were written; restore the object: %w", size, o.Size, graveler.Corrupt)
}
