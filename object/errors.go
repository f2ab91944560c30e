package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net"
	"syscall"

	"gocloud.dev/gcerrors"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// kindOf gives a store's error its Kind.
func kindOf(err error) graveler.Kind {
	var netErr net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return graveler.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return graveler.Timeout
	case errors.Is(err, iofs.ErrNotExist):
		return graveler.NotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return graveler.NoSpace
	case errors.Is(err, iofs.ErrPermission), errors.Is(err, syscall.EROFS):
		return graveler.Denied
	case errors.Is(err, syscall.ENAMETOOLONG):
		return graveler.TooLarge
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return graveler.NotFound
	case gcerrors.AlreadyExists:
		return graveler.Exists
	case gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return graveler.Invalid
	case gcerrors.PermissionDenied:
		return graveler.Denied
	case gcerrors.Canceled:
		return graveler.Canceled
	case gcerrors.DeadlineExceeded:
		return graveler.Timeout
	}
	if errors.As(err, &netErr) && netErr.Timeout() {
		return graveler.Timeout
	}
	var k graveler.Kind
	if errors.As(err, &k) {
		return k
	}
	return graveler.Unavailable
}

func wrap(op, address string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var k graveler.Kind
	if errors.As(err, &k) {
		return fmt.Errorf("%s %s: %w", op, address, err)
	}
	return fmt.Errorf("%s %s: %v: %w", op, address, err, kindOf(err))
}
