package replica

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// The keyspace of the state store. Names hold no NUL, so a NUL ends them.
//
//	r <repo>                          → Repository
//	b <repo> 0 <branch>               → Branch
//	t <repo> 0 <tag>                  → Tag
//	c <repo> 0 <commit>               → CommitData
//	h <repo> 0 <branch> 0 <^time>     → commit: where the branch stood from then on; ^ inverts, so newest first
//	u <repo>                          → Rules
//	s <token> 0 <path>                → staged record, see value below
//	p <content> 0 <token> 0 <path>    → nothing: where pending contents are named
//	q <token> 0 <path>                → content: the same by token
//	z <content>                       → Settled: what a content became, for a Stage that still takes it for pending
//	y <content>                       → Settled: the last snapshot of a pending content that another machine holds
//	g <token>                         → nothing: a bulk token that no branch has adopted yet
//	o <session>                       → Session
//	i <session> <seq>                 → Outcome: what a request of it returned; 8 bytes each
//	n <node>                          → Node: a member of the cluster
//	m cluster                         → Cluster: its name
//	m applied                         → index, term of the last applied log entry
//	m clock                           → how often the cluster's clock has ticked
//	m configuration                   → Settings: the raft configuration that was applied last
//	m version                         → newest version of a command that was applied
//
// A staged record is one byte, then for a put the protobuf Entry.
const (
	recTombstone = 0
	recPut       = 1
	recPending   = 2 // a put whose bytes are in a spill file
)

var (
	appliedKey  = []byte("mapplied")
	clockKey    = []byte("mclock")
	settingsKey = []byte("mconfiguration")
	versionKey  = []byte("mversion")
)

func key(kind byte, parts ...string) []byte {
	n := 1 + len(parts)
	for _, p := range parts {
		n += len(p)
	}
	k := append(make([]byte, 0, n), kind)
	for i, p := range parts {
		if i > 0 {
			k = append(k, 0)
		}
		k = append(k, p...)
	}
	return k
}

// within is the prefix of all keys under parts.
func within(kind byte, parts ...string) []byte { return append(key(kind, parts...), 0) }

// after is the first key that doesn't start with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func repoKey(r graveler.RepositoryID) []byte { return key('r', string(r)) }
func branchKey(r graveler.RepositoryID, b graveler.BranchID) []byte {
	return key('b', string(r), string(b))
}
func tagKey(r graveler.RepositoryID, t graveler.TagID) []byte { return key('t', string(r), string(t)) }
func commitKey(r graveler.RepositoryID, c graveler.CommitID) []byte {
	return key('c', string(r), string(c))
}
func stagedKey(t graveler.StagingToken, path string) []byte { return key('s', string(t), path) }

func nodeKey(id string) []byte         { return key('n', id) }
func sessionKey(session uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'o'}, session) }
func outcomeKey(session, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{'i'}, session), seq)
}

func headKey(r graveler.RepositoryID, b graveler.BranchID, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(within('h', string(r), string(b)), ^uint64(t.UnixNano()))
}

// lastPart is the last of a key's names, of which there are the given number.
func lastPart(k []byte, names int) string {
	s := string(k[1:])
	for range names - 1 {
		_, s, _ = strings.Cut(s, "\x00")
	}
	return s
}

func appendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }
