package vfs

import (
	"context"
	"syscall"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// lookupCtl finds a control file. A directory below the version's root has the object of its own key alone.
func (f *FS) lookupCtl(ctx context.Context, p *node, name string) (*node, error) {
	f.moving.RLock()
	defer f.moving.RUnlock()
	f.mu.Lock()
	dir := p.parent.path()
	f.mu.Unlock()
	if dir != "" {
		if name != ObjectName {
			return nil, graveler.NotFound
		}
		e, err := f.eng.Stat(ctx, p.v.repo, p.v.ref, dir)
		if err != nil {
			return nil, err
		}
		n := f.child(p, name, kindObject, p.v, 0)
		n.mu.Lock()
		n.set(e)
		n.mu.Unlock()
		return n, nil
	}
	if f.cfg.Control == nil {
		return nil, graveler.NotFound
	}
	for _, known := range f.cfg.Control.Names(p.v.writable) {
		if known == name {
			return f.child(p, name, kindCtlFile, p.v, 0), nil
		}
	}
	return nil, graveler.NotFound
}

func (f *FS) openCtl(ctx context.Context, n *node, write bool) (Opened, error) {
	c := &ctlFile{}
	if write {
		if err := f.writable(n.v); err != nil {
			return Opened{}, err
		}
		if !f.cfg.Control.Writable(n.name) {
			return Opened{}, graveler.Denied
		}
	} else {
		text, err := f.cfg.Control.Read(ctx, n.v.repo, n.v.ref, n.name)
		if err != nil {
			return Opened{}, err
		}
		c.text = text
	}
	return Opened{Handle: f.addHandle(&file{n: n, write: write, ctl: c}), Direct: true}, nil
}

// maxControl bounds what is written to a control file.
const maxControl = 1 << 20

// writeCtl gathers what is written, and carries it out when it ends in a newline: shells don't report an error of close.
func (f *FS) writeCtl(ctx context.Context, fl *file, who Caller, p []byte) (int, error) {
	if !fl.write {
		return 0, syscall.EBADF
	}
	c := fl.ctl
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.in)+len(p) > maxControl {
		return 0, graveler.TooLarge
	}
	c.in = append(c.in, p...)
	c.done = false
	if len(p) > 0 && p[len(p)-1] == '\n' {
		return len(p), f.runCtl(ctx, fl, who)
	}
	return len(p), nil
}

func (f *FS) flushCtl(ctx context.Context, fl *file, who Caller) error {
	c := fl.ctl
	c.mu.Lock()
	defer c.mu.Unlock()
	if !fl.write || c.done || len(c.in) == 0 {
		return nil
	}
	return f.runCtl(ctx, fl, who)
}

func (f *FS) runCtl(ctx context.Context, fl *file, who Caller) error {
	in := fl.ctl.in
	fl.ctl.in, fl.ctl.done = nil, true
	return f.cfg.Control.Write(ctx, who.UID, fl.n.v.repo, graveler.BranchID(fl.n.v.ref), fl.n.name, in)
}
