package remote

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// A status travels in the trailer of an answer, of which some clients take no more than 8 KiB, base64 and all.
const (
	maxText      = 3 << 10
	maxMessage   = 1 << 10 // of the words that are in the status itself, again
	maxConflicts = 1 << 10 // bytes of paths
)

// codeOf is the code of gRPC that is nearest to a kind.
func codeOf(k graveler.Kind) codes.Code {
	switch k {
	case graveler.NotFound:
		return codes.NotFound
	case graveler.Exists:
		return codes.AlreadyExists
	case graveler.Invalid:
		return codes.InvalidArgument
	case graveler.ReadOnly, graveler.Protected, graveler.NotEmpty, graveler.NotDir, graveler.IsDir, graveler.Stale, graveler.NothingToDo:
		return codes.FailedPrecondition
	case graveler.Conflict:
		return codes.Aborted
	case graveler.TooLarge:
		return codes.OutOfRange
	case graveler.NoSpace:
		return codes.ResourceExhausted
	case graveler.Unavailable:
		return codes.Unavailable
	case graveler.Canceled:
		return codes.Canceled
	case graveler.Corrupt:
		return codes.DataLoss
	case graveler.Denied:
		return codes.PermissionDenied
	case graveler.Timeout:
		return codes.DeadlineExceeded
	case graveler.Internal:
		return codes.Internal
	}
	return codes.Internal
}

// kindOf is the kind of a status without a Failure: it comes of gRPC itself, or of something between the client and the server.
func kindOf(c codes.Code) graveler.Kind {
	switch c {
	case codes.Canceled:
		return graveler.Canceled
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
		return graveler.Invalid
	case codes.DeadlineExceeded:
		return graveler.Timeout
	case codes.NotFound:
		return graveler.NotFound
	case codes.AlreadyExists:
		return graveler.Exists
	case codes.PermissionDenied, codes.Unauthenticated:
		return graveler.Denied
	case codes.ResourceExhausted: // gRPC says so of a message that is larger than it takes
		return graveler.TooLarge
	case codes.Aborted:
		return graveler.Conflict
	case codes.Unavailable, codes.Unimplemented:
		return graveler.Unavailable
	case codes.DataLoss:
		return graveler.Corrupt
	case codes.OK, codes.Unknown, codes.Internal:
		return graveler.Internal
	}
	return graveler.Internal
}

// errBusy is the error of a server that has too much to do; nothing was done.
type busyError struct{ what string }

func (e busyError) Error() string { return "the server has " + e.what + "; ask again after a while" }
func (busyError) Unwrap() error   { return graveler.Unavailable }

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const dots = "…"
	return s[:n-len(dots)] + dots
}

// failureOf says in a message what err is. NotLeader, conflicts, doubt and the end of a session travel as what they are.
func failureOf(err error) *pb.Failure {
	f := &pb.Failure{Kind: pb.Kind(graveler.KindOf(err)), Text: []byte(clip(err.Error(), maxText))}
	if mc, ok := errors.AsType[*graveler.MergeConflict](err); ok {
		f.Conflict = &pb.Conflict{More: mc.More}
		size := 0
		for _, p := range mc.Paths {
			if size += len(p); size > maxConflicts {
				f.Conflict.More = true
				break
			}
			f.Conflict.Paths = append(f.Conflict.Paths, []byte(p))
		}
	}
	if nl, ok := errors.AsType[*engine.NotLeader](err); ok {
		f.NotLeader = &pb.NotLeader{Leader: strings.ToValidUTF8(nl.Leader, "?")}
	}
	_, f.SessionEnded = errors.AsType[*engine.SessionEnded](err)
	f.InDoubt = errors.Is(err, engine.InDoubt)
	_, f.Busy = errors.AsType[busyError](err)
	return f
}

// Status makes of an error what a method of a gRPC service returns for it; nil of nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := statusOf(err); ok {
		return err
	}
	f := failureOf(err)
	st := status.New(codeOf(graveler.Kind(f.Kind)), strings.ToValidUTF8(clip(err.Error(), maxMessage), "?"))
	if f.Busy {
		st = status.New(codes.ResourceExhausted, st.Message())
	}
	if with, err := st.WithDetails(f); err == nil {
		st = with
	}
	return st.Err()
}

// statusOf tells whether err is a status already.
func statusOf(err error) (*status.Status, bool) {
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return s.GRPCStatus(), true
	}
	return nil, false
}

// remoteError has the server's words and what they mean.
type remoteError struct {
	text string
	err  error // a Kind, or an error of a type of the contract
	busy bool
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.err }

func (e *remoteError) GRPCStatus() *status.Status {
	return status.New(codeOf(graveler.KindOf(e.err)), e.text)
}

// errorOf is the error that a Failure tells of.
func errorOf(f *pb.Failure) *remoteError {
	k := graveler.Internal
	if n := f.GetKind(); n >= 0 && int(n) < len(graveler.Kinds()) {
		k = graveler.Kind(n)
	}
	e := &remoteError{text: string(f.GetText()), err: k, busy: f.GetBusy()}
	switch {
	case f.GetConflict() != nil:
		e.err = conflictOf(f.GetConflict())
	case f.GetNotLeader() != nil:
		e.err = &engine.NotLeader{Leader: f.GetNotLeader().GetLeader()}
	case f.GetSessionEnded():
		e.err = &engine.SessionEnded{}
	case f.GetInDoubt():
		e.err = engine.InDoubt
	}
	return e
}

func conflictOf(c *pb.Conflict) *graveler.MergeConflict {
	mc := &graveler.MergeConflict{More: c.GetMore()}
	for _, p := range c.GetPaths() {
		mc.Paths = append(mc.Paths, string(p))
	}
	return mc
}

// answered is the error that a server of lakefsfs gave, if that is what err is.
func answered(err error) (*remoteError, bool) {
	if e, ok := errors.AsType[*remoteError](err); ok {
		return e, true
	}
	st, ok := statusOf(err)
	if !ok {
		return nil, false
	}
	for _, d := range st.Details() {
		if f, ok := d.(*pb.Failure); ok {
			return errorOf(f), true
		}
	}
	return nil, false
}

// errorFrom is the error of the contract that an error of a call stands for.
func errorFrom(err error) error {
	if e, ok := answered(err); ok {
		return e
	}
	if st, ok := statusOf(err); ok {
		return &remoteError{text: st.Message(), err: kindOf(st.Code())}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &remoteError{text: err.Error(), err: graveler.KindOf(err)}
}
