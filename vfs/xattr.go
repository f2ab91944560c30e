package vfs

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Extended attributes. An entry's user metadata is user.<key>; what lakeFS's metadata can't hold, other namespaces and values
// that are no UTF-8, is kept in base64 under a key of our own.
const (
	xattrUser    = "user."
	xattrLake    = "user.lakefs."
	xattrSum     = xattrLake + "checksum"
	xattrAddress = xattrLake + "physical_address"
	xattrCommit  = xattrLake + "commit"
	maxXattr     = 64 << 10
	maxXattrs    = 256 << 10 // of a file, together
)

// current returns a node with its entry up to date.
func (f *FS) current(ctx context.Context, id NodeID) (*node, graveler.Entry, error) {
	n, err := f.node(id)
	if err != nil {
		return nil, graveler.Entry{}, err
	}
	if n.v == nil || n.kind == kindCtlDir || n.kind == kindCtlFile {
		return nil, graveler.Entry{}, syscall.ENODATA
	}
	f.moving.RLock()
	defer f.moving.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	err = f.refresh(ctx, n)
	e := n.entry
	if n.kind == kindDir && !n.has {
		e = graveler.Entry{}
	}
	return n, e, err
}

// Getxattr returns an attribute's value; the errno ENODATA if there is none.
func (f *FS) Getxattr(ctx context.Context, id NodeID, name string) ([]byte, error) {
	// The kernel asks for these before each write. None is ever there.
	if name == "security.capability" {
		return nil, syscall.ENODATA
	}
	n, e, err := f.current(ctx, id)
	if err != nil {
		return nil, err
	}
	switch name {
	case xattrCommit:
		if n.v.writable {
			r, err := f.eng.Resolve(ctx, n.v.repo, n.v.ref)
			return []byte(r.Commit.ID), err
		}
		return []byte(n.v.commit.ID), nil
	case xattrSum:
		if n.kind != kindDir && e.ETag != "" {
			return []byte(e.ETag), nil
		}
	case xattrAddress:
		if n.kind != kindDir && e.Address != "" {
			return []byte(f.physical(ctx, n, &e)), nil
		}
	default:
		if v, ok := e.Metadata[graveler.MetaXattrB64+name]; ok {
			b, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				return nil, graveler.Corrupt
			}
			return b, nil
		}
		if key, ok := userKey(name); ok {
			if v, ok := e.Metadata[key]; ok {
				return []byte(v), nil
			}
		}
	}
	return nil, syscall.ENODATA
}

// physical is the URL of an entry's object.
func (f *FS) physical(ctx context.Context, n *node, e *graveler.Entry) string {
	if e.AddressType == graveler.AddressFull || strings.Contains(e.Address, "://") {
		return e.Address
	}
	r, err := f.eng.Repository(ctx, n.v.repo)
	if err != nil {
		return e.Address
	}
	return strings.TrimSuffix(r.StorageNamespace, "/") + "/" + e.Address
}

// userKey is the metadata key of a user.* attribute that is kept as user metadata.
func userKey(name string) (string, bool) {
	key, ok := strings.CutPrefix(name, xattrUser)
	return key, ok && key != "" && !strings.HasPrefix(key, "::") && !strings.HasPrefix(name, xattrLake)
}

// Listxattr lists the attributes' names.
func (f *FS) Listxattr(ctx context.Context, id NodeID) ([]string, error) {
	_, e, err := f.current(ctx, id)
	if errors.Is(err, syscall.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for key := range e.Metadata {
		if name, ok := strings.CutPrefix(key, graveler.MetaXattrB64); ok {
			names = append(names, name)
		} else if !strings.HasPrefix(key, "::") {
			names = append(names, xattrUser+key)
		}
	}
	slices.Sort(names)
	return names, nil // what lakefs says of a file is found by name: programs that copy attributes could not set it
}

// Xattr flags, as setxattr(2)'s.
const (
	XattrCreate  = 1
	XattrReplace = 2
)

// Setxattr sets an attribute.
func (f *FS) Setxattr(ctx context.Context, id NodeID, name string, value []byte, flags int) error {
	n, err := f.settable(id, name)
	if err != nil {
		return err
	}
	if len(value) > maxXattr {
		return graveler.NoSpace
	}
	return f.restage(ctx, n, func(e *graveler.Entry) error {
		raw := graveler.MetaXattrB64 + name
		key, user := userKey(name)
		_, had := e.Metadata[raw]
		if _, ok := e.Metadata[key]; user && ok {
			had = true
		}
		switch {
		case had && flags&XattrCreate != 0:
			return graveler.Exists
		case !had && flags&XattrReplace != 0:
			return syscall.ENODATA
		}
		delete(e.Metadata, raw)
		if user {
			delete(e.Metadata, key)
		}
		if user && graveler.ValidUTF8(key) && graveler.ValidUTF8(string(value)) {
			e.Metadata[key] = string(value)
		} else {
			e.Metadata[raw] = base64.StdEncoding.EncodeToString(value)
		}
		total := 0
		for k, v := range e.Metadata {
			total += len(k) + len(v)
		}
		if total > maxXattrs {
			return graveler.NoSpace
		}
		return nil
	})
}

func (f *FS) settable(id NodeID, name string) (*node, error) {
	n, err := f.node(id)
	if err != nil {
		return nil, err
	}
	if n.kind != kindDir && n.kind != kindFile {
		return nil, graveler.Denied
	}
	if err := f.writable(n.v); err != nil {
		return nil, err
	}
	if strings.HasPrefix(name, xattrLake) {
		return nil, syscall.EPERM // what lakefs says of a file
	}
	if strings.HasPrefix(name, "system.") || !graveler.ValidUTF8(name) {
		return nil, syscall.EOPNOTSUPP
	}
	if n.parent == nil {
		return nil, syscall.EOPNOTSUPP
	}
	return n, nil
}

// Removexattr removes an attribute.
func (f *FS) Removexattr(ctx context.Context, id NodeID, name string) error {
	n, err := f.settable(id, name)
	if err != nil {
		return err
	}
	return f.restage(ctx, n, func(e *graveler.Entry) error {
		raw := graveler.MetaXattrB64 + name
		key, user := userKey(name)
		_, hadRaw := e.Metadata[raw]
		_, hadKey := e.Metadata[key]
		if !hadRaw && !(user && hadKey) {
			return syscall.ENODATA
		}
		delete(e.Metadata, raw)
		if user {
			delete(e.Metadata, key)
		}
		return nil
	})
}
