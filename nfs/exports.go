package nfs

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"sync"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// Squash tells whose word for who asks is not taken.
type Squash uint8

// Squashes.
const (
	SquashRoot Squash = iota // root's
	SquashAll                // anybody's
	SquashNone               // nobody's
)

// Anonymous is the uid and gid of who is squashed, unless an export says another.
const Anonymous = 65534

// Export is a place that clients may mount.
type Export struct {
	Path     string // "/", "/repo" or "/repo/@ref"
	ReadOnly bool
	Networks []netip.Prefix // of clients; none lets all in
	Squash   Squash
	AnonUID  uint32
	AnonGID  uint32
	UIDs     map[uint32]uint32 // what a client's uid means here; of what isn't in it, the same number
	GIDs     map[uint32]uint32
	// Async answers changes of names before they survive a power cut, as they then do a little later. What a client asks to be
	// durable, by fsync, is so in any case.
	Async bool
}

// ParseExportPath checks an export's path, and tells the place that it is.
func ParseExportPath(path string) (graveler.Place, error) {
	if path == "/" {
		return graveler.Place{}, nil
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok || strings.HasSuffix(path, "/") {
		return graveler.Place{}, fmt.Errorf("export %q: write it as /, /repo or /repo/@ref: %w", path, graveler.Invalid)
	}
	p, err := graveler.ParsePlace(rest)
	if err != nil {
		return p, err
	}
	if p.Path != "" {
		return p, fmt.Errorf("export %q: a directory below a ref can be mounted, but not exported alone: %w", path, graveler.Invalid)
	}
	return p, nil
}

// exports are the exports of one path, which may differ in whom they admit.
type exports struct {
	id    uint32 // of the path, in handles
	path  string
	place graveler.Place
	list  []*export

	mu   sync.Mutex
	tree *tree // nil until what it shows is there
}

func newExports(path string) (*exports, error) {
	place, err := ParseExportPath(path)
	if err != nil {
		return nil, err
	}
	h := fnv.New32a()
	h.Write([]byte(path))
	return &exports{id: h.Sum32(), path: path, place: place}, nil
}

// admit returns the first export that a client at an address may use, nil if there is none.
func (x *exports) admit(a netip.Addr) *export {
	for _, e := range x.list {
		if e.admits(a) {
			return e
		}
	}
	return nil
}

// export is an Export that is being served.
type export struct {
	Export
	toUID, toGID map[uint32]uint32 // the maps' inverses
}

func newExport(e Export) (*export, error) {
	x := &export{Export: e}
	var err error
	if x.toUID, err = inverse(e.UIDs); err == nil {
		x.toGID, err = inverse(e.GIDs)
	}
	if err != nil {
		return nil, fmt.Errorf("export %q: %w", e.Path, err)
	}
	return x, nil
}

func inverse(m map[uint32]uint32) (map[uint32]uint32, error) {
	out := make(map[uint32]uint32, len(m))
	for k, v := range m {
		if _, ok := out[v]; ok {
			return nil, fmt.Errorf("two numbers are mapped to %d: %w", v, graveler.Invalid)
		}
		out[v] = k
	}
	return out, nil
}

func mapped(m map[uint32]uint32, v uint32) uint32 {
	if to, ok := m[v]; ok {
		return to
	}
	return v
}

// admits reports whether a client at an address may use the export.
func (x *export) admits(a netip.Addr) bool {
	for _, n := range x.Networks {
		if n.Contains(a) {
			return true
		}
	}
	return len(x.Networks) == 0
}

// who is the credential of a call, as an export takes it.
type who struct {
	uid, gid uint32
	groups   []uint32
}

// squash is who a call's caller is here.
func (x *export) squash(c *xdr.Call) who {
	if c.Flavor != xdr.AuthSys || x.Squash == SquashAll {
		return who{uid: x.AnonUID, gid: x.AnonGID}
	}
	s := &c.Sys
	w := who{uid: mapped(x.UIDs, s.UID), gid: mapped(x.GIDs, s.GID), groups: make([]uint32, s.NGroups)}
	for i := range w.groups {
		w.groups[i] = mapped(x.GIDs, s.Groups[i])
	}
	if x.Squash == SquashRoot {
		if w.uid == 0 {
			return who{uid: x.AnonUID, gid: x.AnonGID}
		}
		if w.gid == 0 {
			w.gid = x.AnonGID
		}
		for i := range w.groups {
			if w.groups[i] == 0 {
				w.groups[i] = x.AnonGID
			}
		}
	}
	return w
}

func (w *who) in(gid uint32) bool {
	if w.gid == gid {
		return true
	}
	for _, g := range w.groups {
		if g == gid {
			return true
		}
	}
	return false
}
