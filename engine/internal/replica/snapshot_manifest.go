package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// A snapshot on an object store is Pebble's files of a state and a manifest that names them, written last: without it there is no snapshot.
//
//	clusters/CLUSTER                       that the cluster keeps its snapshots here; written again with each
//	CLUSTER/manifests/INDEX-TERM-UNIQUE    a line "lakefsfs snapshot 1 SHA256\n", then what that is the hash of: a manifest as JSON
//	CLUSTER/tables/SHA256.UNIQUE           a file of Pebble's, shared by all manifests that name it
const (
	clustersPrefix = "clusters/"
	manifestsDir   = "/manifests/"
	tablesDir      = "/tables/"
	manifestLine   = "lakefsfs snapshot 1 "
	manifestMax    = 64 << 20
)

// manifest is what is known of a snapshot.
type manifest struct {
	Program string       `json:"program"` // version of the program that took it
	Cluster string       `json:"cluster"`
	Former  []string     `json:"former,omitempty"` // clusters whose state it began with, newest first
	Index   uint64       `json:"index"`            // of the last log entry in it
	Term    uint64       `json:"term"`
	Taken   time.Time    `json:"taken"`
	Format  uint64       `json:"format"`            // Pebble's number of its files' format
	Members []memberInfo `json:"members,omitempty"` // of the cluster, when it was taken
	// Configured is the index of the log entry that made these the members.
	Configured uint64         `json:"configured,omitempty"`
	Pending    map[string]int `json:"pending,omitempty"` // machine → how many contents were on its disk only; "" is the one that ran the engine
	Files      []file         `json:"files"`
}

// memberInfo is one node of a cluster.
type memberInfo struct {
	ID    string `json:"id"`
	Peer  string `json:"peer"` // HOST:PORT
	Serve string `json:"serve,omitempty"`
	Voter bool   `json:"voter"`
}

// file is one file of a snapshot.
type file struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Object string `json:"object,omitempty"` // under CLUSTER/tables/; "" if it has no byte
}

func (m *manifest) bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

func (m *manifest) address(f file) string { return m.Cluster + tablesDir + f.Object }

func (m *manifest) info(at, address string) engine.SnapshotInfo {
	if u, err := url.Parse(at); err == nil {
		at = u.JoinPath(address).String() // parameters stay behind the path
	}
	return engine.SnapshotInfo{URL: at, Index: m.Index, Taken: m.Taken, Tables: len(m.Files), Bytes: m.bytes()}
}

func encodeManifest(m *manifest) ([]byte, error) {
	body, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, err
	}
	return sealed(body), nil
}

// sealed is a manifest's body with its line.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append([]byte(manifestLine+hex.EncodeToString(sum[:])+"\n"), body...)
}

var (
	fileName   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,199}$`)
	objectName = regexp.MustCompile(`^[0-9a-f]{64}\.[0-9a-z]{20}$`)
	hexSum     = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// decodeManifest reads a manifest, and refuses as Corrupt one that isn't whole, or that names what no snapshot has.
func decodeManifest(b []byte) (*manifest, error) {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("manifest of a snapshot: %s: %w", fmt.Sprintf(format, a...), graveler.Corrupt)
	}
	line, body, ok := bytes.Cut(b, []byte("\n"))
	sum, known := strings.CutPrefix(string(line), manifestLine)
	if !ok || !known {
		return nil, bad("it doesn't begin as this version reads it")
	}
	if is := sha256.Sum256(body); hex.EncodeToString(is[:]) != sum {
		return nil, bad("its bytes are not those of its hash")
	}
	m := &manifest{}
	if err := json.Unmarshal(body, m); err != nil {
		return nil, bad("%v", err)
	}
	if !clusterName.MatchString(m.Cluster) {
		return nil, bad("the cluster %q", m.Cluster)
	}
	for _, c := range m.Former {
		if !clusterName.MatchString(c) {
			return nil, bad("the cluster %q", c)
		}
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if !fileName.MatchString(f.Name) || seen[f.Name] || f.Name == "LOCK" {
			return nil, bad("the file %q", f.Name)
		}
		seen[f.Name] = true
		if f.Size < 0 || !hexSum.MatchString(f.SHA256) {
			return nil, bad("size or hash of the file %q", f.Name)
		}
		if f.Size > 0 != (f.Object != "") || f.Object != "" && (!objectName.MatchString(f.Object) || f.Object[:64] != f.SHA256) {
			return nil, bad("the object %q of the file %q", f.Object, f.Name)
		}
	}
	return m, nil
}

// place is where a manifest lies, which tells its order among those of its cluster.
type place struct {
	cluster     string
	index, term uint64
	address     string
	modified    time.Time // by the store's clock
}

// id is what people call a snapshot.
func (p place) id() string { return strings.Replace(p.address, manifestsDir, "/", 1) }

func manifestAddress(m *manifest, unique string) string {
	return fmt.Sprintf("%s%s%020d-%010d-%s", m.Cluster, manifestsDir, m.Index, m.Term, unique)
}

var manifestName = regexp.MustCompile(`^([0-9a-z]{20})/manifests/([0-9]{20})-([0-9]{10,20})-[0-9a-z]{20}$`)

func placeOf(address string, modified time.Time) (place, bool) {
	part := manifestName.FindStringSubmatch(address)
	if part == nil {
		return place{}, false
	}
	p := place{cluster: part[1], address: address, modified: modified}
	for i, to := range []*uint64{&p.index, &p.term} {
		if _, err := fmt.Sscanf(part[2+i], "%d", to); err != nil {
			return place{}, false
		}
	}
	return p, true
}

func (p place) before(q place) bool {
	if p.index != q.index {
		return p.index < q.index
	}
	if p.term != q.term {
		return p.term < q.term
	}
	return p.address < q.address
}
