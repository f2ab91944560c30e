package xdr

import "fmt"

// The words of ONC RPC version 2 (RFC 5531) that its server and its client share.
const (
	MsgCall, MsgReply = 0, 1
	RPCVersion        = 2
	LastFragment      = 1 << 31 // in a fragment's header: it ends the record

	ReplyAccepted, ReplyDenied = 0, 1

	AcceptSuccess      = 0
	AcceptProgUnavail  = 1
	AcceptProgMismatch = 2
	AcceptProcUnavail  = 3
	AcceptGarbage      = 4
	AcceptSystemErr    = 5

	DeniedMismatch = 0
	DeniedAuth     = 1

	AuthBadCred = 1
	AuthTooWeak = 5

	AuthNone = 0
	AuthSys  = 1
)

// maxAuth is the longest credential or verifier.
const maxAuth = 400

// Call is the head of a call.
type Call struct {
	XID, RPC, Prog, Vers, Proc uint32
	Flavor                     uint32 // of the credential
	Sys                        Sys    // the credential, if its flavor is AuthSys
	BadCred                    bool   // the credential can't be read
}

// Sys is an AUTH_SYS credential: what the client says who asks.
type Sys struct {
	Machine  string
	UID, GID uint32
	Groups   [16]uint32
	NGroups  int
}

// ReadCall reads a call's head; the arguments follow.
func ReadCall(r *Reader) (c Call, err error) {
	c.XID = r.Uint32()
	if t := r.Uint32(); r.Err() == nil && t != MsgCall {
		return c, fmt.Errorf("xdr: message of type %d is no call", t)
	}
	c.RPC, c.Prog, c.Vers, c.Proc = r.Uint32(), r.Uint32(), r.Uint32(), r.Uint32()
	c.Flavor = r.Uint32()
	cred := r.Bytes(maxAuth)
	r.Uint32() // the verifier's flavor
	r.Bytes(maxAuth)
	if err := r.Err(); err != nil {
		return c, err
	}
	if c.Flavor == AuthSys {
		c.BadCred = !c.Sys.read(cred)
	}
	return c, nil
}

func (s *Sys) read(b []byte) bool {
	r := NewReader(b)
	r.Uint32() // a stamp
	s.Machine = r.String(255)
	s.UID, s.GID = r.Uint32(), r.Uint32()
	n := r.Uint32()
	if n > uint32(len(s.Groups)) {
		return false
	}
	s.NGroups = int(n)
	for i := range s.NGroups {
		s.Groups[i] = r.Uint32()
	}
	return r.Err() == nil
}

// WriteCall writes a call's head with an AUTH_SYS credential, or none if sys is nil.
func WriteCall(w *Writer, xid, prog, vers, proc uint32, sys *Sys) {
	w.Uint32(xid)
	w.Uint32(MsgCall)
	w.Uint32(RPCVersion)
	w.Uint32(prog)
	w.Uint32(vers)
	w.Uint32(proc)
	if sys == nil {
		w.Uint32(AuthNone)
		w.Uint32(0)
	} else {
		w.Uint32(AuthSys)
		var c Writer
		c.Uint32(0)
		c.String(sys.Machine)
		c.Uint32(sys.UID)
		c.Uint32(sys.GID)
		c.Uint32(uint32(sys.NGroups))
		for _, g := range sys.Groups[:sys.NGroups] {
			c.Uint32(g)
		}
		w.Bytes(c)
	}
	w.Uint32(AuthNone)
	w.Uint32(0)
}

// WriteAccepted writes the head of an accepted reply; results follow where status is AcceptSuccess.
func WriteAccepted(w *Writer, xid, status uint32) {
	w.Uint32(xid)
	w.Uint32(MsgReply)
	w.Uint32(ReplyAccepted)
	w.Uint32(AuthNone)
	w.Uint32(0)
	w.Uint32(status)
}

// WriteDenied writes a reply that denies a call: with DeniedMismatch, the versions of RPC that there are; with DeniedAuth, why.
func WriteDenied(w *Writer, xid, why, detail uint32) {
	w.Uint32(xid)
	w.Uint32(MsgReply)
	w.Uint32(ReplyDenied)
	w.Uint32(why)
	if why == DeniedMismatch {
		w.Uint32(RPCVersion)
		w.Uint32(RPCVersion)
		return
	}
	w.Uint32(detail)
}
