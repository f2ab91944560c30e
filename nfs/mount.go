package nfs

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs/xdr"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// mountProcs are the procedures of MOUNT version 3, by number.
var mountProcs = []procedure{
	{name: "mount null", run: func(context.Context, *request) error { return nil }},
	{name: "mount", run: mnt},
	{name: "mount dump", run: dump},
	{name: "unmount", run: umnt},
	{name: "unmount all", run: umntAll},
	{name: "mount export", run: exportList},
}

// mountList is who mounted what, as far as is known: clients that go away don't always tell. Nothing depends on it.
type mountList struct {
	mu   sync.Mutex
	list []mounted
}

type mounted struct{ client, path string }

const maxMounted = 1000

func (m *mountList) add(x mounted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.list, x) && len(m.list) < maxMounted {
		m.list = append(m.list, x)
	}
}

func (m *mountList) remove(match func(x mounted) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = slices.DeleteFunc(m.list, match)
}

// mountStatus are the statuses that mountstat3 has too; any other is I/O error.
var mountStatus = []status{statusOK, statusPerm, statusNoEnt, statusIO, statusAcces, statusNotDir, statusInval, statusNameTooLong, statusNotSupp, statusServerFault}

// exportOf finds the export that a path lies in, and the rest of the path.
func (s *Server) exportOf(path string) (*exports, string) {
	path = "/" + strings.Trim(path, "/")
	for p := path; ; {
		if x := s.byPath[p]; x != nil {
			return x, strings.Trim(path[len(p):], "/")
		}
		if p == "/" {
			return nil, ""
		}
		if i := strings.LastIndexByte(p, '/'); i > 0 {
			p = p[:i]
		} else {
			p = "/"
		}
	}
}

func mnt(ctx context.Context, q *request) error {
	path := q.args.String(1024)
	if q.args.Err() != nil {
		return errGarbage
	}
	fh, err := q.mount(ctx, path)
	if err != nil {
		st := statusOf(err)
		if st == statusStale {
			st = statusNoEnt
		}
		if !slices.Contains(mountStatus, st) {
			st = statusIO
		}
		q.s.log.Info("nfs: mount refused", "client", q.c.peer, "path", path, "err", err)
		return st
	}
	q.s.log.Info("nfs: mounted", "client", q.c.peer, "path", path)
	q.s.mounts.add(mounted{q.c.peer.Addr().String(), path})
	q.w.Uint32(uint32(statusOK))
	q.w.Bytes([]byte(fh))
	q.w.Uint32(2)
	q.w.Uint32(xdr.AuthSys)
	q.w.Uint32(xdr.AuthNone)
	return nil
}

// mount finds the directory that a client wants to mount: an export, or one below it.
func (q *request) mount(ctx context.Context, path string) (string, error) {
	x, rest := q.s.exportOf(path)
	if x == nil {
		return "", statusAcces
	}
	if err := q.enter(x); err != nil {
		return "", err
	}
	t, err := q.s.treeOf(ctx, x)
	if err != nil {
		return "", err
	}
	id, err := t.fs.Parent(ctx, vfs.RootID)
	if err != nil {
		return "", err
	}
	n, err := q.s.adopt(ctx, x, t, id, nil)
	if err != nil {
		return "", err
	}
	at := q.pin(n)
	for name := range strings.SplitSeq(rest, "/") {
		if name == "" {
			continue
		}
		if !graveler.FileName(name) {
			return "", statusNoEnt
		}
		id, _, err := t.fs.Lookup(ctx, (*at).id, name)
		if err != nil {
			return "", err
		}
		c, err := q.child(ctx, *at, id, name)
		if err != nil {
			return "", err
		}
		q.s.nodes.unpin(*at)
		*at = c
	}
	a, err := q.attr(ctx, at)
	if err != nil {
		return "", err
	}
	if !isDir(&a) {
		return "", statusNotDir
	}
	return (*at).fh, nil
}

func dump(_ context.Context, q *request) error {
	q.s.mounts.mu.Lock()
	defer q.s.mounts.mu.Unlock()
	for _, m := range q.s.mounts.list {
		q.w.Bool(true)
		q.w.String(m.client)
		q.w.String(m.path)
	}
	q.w.Bool(false)
	return nil
}

func umnt(_ context.Context, q *request) error {
	path := q.args.String(1024)
	if q.args.Err() != nil {
		return errGarbage
	}
	one := mounted{q.c.peer.Addr().String(), path}
	q.s.mounts.remove(func(x mounted) bool { return x == one })
	return nil
}

func umntAll(_ context.Context, q *request) error {
	client := q.c.peer.Addr().String()
	q.s.mounts.remove(func(x mounted) bool { return x.client == client })
	return nil
}

// exportList lists the exports that the client may use, and the networks that are let in.
func exportList(_ context.Context, q *request) error {
	var paths []string
	for p, x := range q.s.byPath {
		if x.admit(q.c.peer.Addr()) != nil {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		q.w.Bool(true)
		q.w.String(p)
		for _, e := range q.s.byPath[p].list {
			for _, n := range e.Networks {
				q.w.Bool(true)
				q.w.String(n.String())
			}
		}
		q.w.Bool(false)
	}
	q.w.Bool(false)
	return nil
}
