package nfstest

import (
	"errors"
	"fmt"
	"time"

	"github.com/lakefsfs/lakefsfs/nfs/xdr"
)

// User is a client with somebody's credential.
type User struct {
	C   *Client
	Sys *xdr.Sys
}

// FH is a file handle.
type FH string

// Attr is fattr3.
type Attr struct {
	Type, Mode, Nlink, UID, GID uint32
	Size, Used                  uint64
	Major, Minor                uint32
	FSID, FileID                uint64
	Atime, Mtime, Ctime         time.Time
}

// Wcc is wcc_data.
type Wcc struct {
	Before       bool
	Size         uint64
	Mtime, Ctime time.Time
	After        *Attr
}

// Entry is one of a directory.
type Entry struct {
	FileID uint64
	Name   string
	Cookie uint64
	Attr   *Attr
	FH     FH
}

// Set is sattr3; nil fields stay.
type Set struct {
	Mode, UID, GID *uint32
	Size           *uint64
	Atime, Mtime   *time.Time
	Now            bool // atime and mtime are set to the server's
}

// P makes a pointer.
func P[T any](v T) *T { return &v }

func readTime(r *xdr.Reader) time.Time { return time.Unix(int64(r.Uint32()), int64(r.Uint32())) }

// ReadAttr reads fattr3.
func ReadAttr(r *xdr.Reader) *Attr {
	a := &Attr{Type: r.Uint32(), Mode: r.Uint32(), Nlink: r.Uint32(), UID: r.Uint32(), GID: r.Uint32(), Size: r.Uint64(), Used: r.Uint64(), Major: r.Uint32(), Minor: r.Uint32(), FSID: r.Uint64(), FileID: r.Uint64()}
	a.Atime, a.Mtime, a.Ctime = readTime(r), readTime(r), readTime(r)
	return a
}

// ReadPost reads post_op_attr, nil if there are none.
func ReadPost(r *xdr.Reader) *Attr {
	if !r.Bool() {
		return nil
	}
	return ReadAttr(r)
}

// ReadWcc reads wcc_data.
func ReadWcc(r *xdr.Reader) (w Wcc) {
	if w.Before = r.Bool(); w.Before {
		w.Size, w.Mtime, w.Ctime = r.Uint64(), readTime(r), readTime(r)
	}
	w.After = ReadPost(r)
	return w
}

func (s *Set) write(w *xdr.Writer) {
	word := func(v *uint32) {
		w.Bool(v != nil)
		if v != nil {
			w.Uint32(*v)
		}
	}
	word(s.Mode)
	word(s.UID)
	word(s.GID)
	w.Bool(s.Size != nil)
	if s.Size != nil {
		w.Uint64(*s.Size)
	}
	for _, t := range []*time.Time{s.Atime, s.Mtime} {
		switch {
		case s.Now:
			w.Uint32(1)
		case t == nil:
			w.Uint32(0)
		default:
			w.Uint32(2)
			w.Uint32(uint32(t.Unix()))
			w.Uint32(uint32(t.Nanosecond()))
		}
	}
}

// Call makes a call of NFS and reads its status; what follows is the reply's, also of a failure.
func (u *User) Call(proc uint32, args xdr.Writer) (xdr.Reader, error) { return u.call(NFS, proc, args) }

func (u *User) call(prog, proc uint32, args xdr.Writer) (xdr.Reader, error) {
	b, err := u.C.Raw(0, prog, 3, proc, u.Sys, args)
	if err != nil {
		return xdr.Reader{}, err
	}
	r, err := Accepted(b)
	if err != nil {
		return r, err
	}
	if s := r.Uint32(); s != 0 {
		return r, Status(s)
	}
	return r, r.Err()
}

// Mount asks for the handle of an exported path.
func (u *User) Mount(path string) (FH, error) {
	var w xdr.Writer
	w.String(path)
	r, err := u.call(Mount, 1, w)
	if err != nil {
		return "", err
	}
	fh := FH(r.String(64))
	return fh, r.Err()
}

func fhArgs(fh FH) xdr.Writer {
	var w xdr.Writer
	w.String(string(fh))
	return w
}

func nameArgs(fh FH, name string) xdr.Writer {
	w := fhArgs(fh)
	w.String(name)
	return w
}

// Getattr returns attributes.
func (u *User) Getattr(fh FH) (*Attr, error) {
	r, err := u.Call(1, fhArgs(fh))
	if err != nil {
		return nil, err
	}
	a := ReadAttr(&r)
	return a, r.Err()
}

// Setattr sets attributes; guard is the ctime that the file must have, or nil.
func (u *User) Setattr(fh FH, s Set, guard *time.Time) (Wcc, error) {
	w := fhArgs(fh)
	s.write(&w)
	w.Bool(guard != nil)
	if guard != nil {
		w.Uint32(uint32(guard.Unix()))
		w.Uint32(uint32(guard.Nanosecond()))
	}
	r, err := u.Call(2, w)
	if err != nil {
		return Wcc{}, err
	}
	wcc := ReadWcc(&r)
	return wcc, r.Err()
}

// Lookup finds a name.
func (u *User) Lookup(dir FH, name string) (FH, *Attr, error) {
	r, err := u.Call(3, nameArgs(dir, name))
	if err != nil {
		return "", nil, err
	}
	fh := FH(r.String(64))
	a := ReadPost(&r)
	ReadPost(&r)
	if err := r.Err(); err != nil {
		return "", nil, err
	}
	if len(r.Rest()) > 0 {
		return "", nil, errors.New("bytes after the reply")
	}
	return fh, a, nil
}

// Access asks what the user may do.
func (u *User) Access(fh FH, want uint32) (uint32, error) {
	w := fhArgs(fh)
	w.Uint32(want)
	r, err := u.Call(4, w)
	if err != nil {
		return 0, err
	}
	ReadPost(&r)
	got := r.Uint32()
	return got, r.Err()
}

// Readlink returns a symbolic link's target.
func (u *User) Readlink(fh FH) (string, error) {
	r, err := u.Call(5, fhArgs(fh))
	if err != nil {
		return "", err
	}
	ReadPost(&r)
	s := r.String(4096)
	return s, r.Err()
}

// Read reads bytes.
func (u *User) Read(fh FH, off uint64, count uint32) ([]byte, bool, error) {
	w := fhArgs(fh)
	w.Uint64(off)
	w.Uint32(count)
	r, err := u.Call(6, w)
	if err != nil {
		return nil, false, err
	}
	ReadPost(&r)
	n := r.Uint32()
	eof := r.Bool()
	b := r.Bytes(2 << 20)
	if r.Err() == nil && int(n) != len(b) {
		return nil, false, fmt.Errorf("count %d of %d bytes", n, len(b))
	}
	return b, eof, r.Err()
}

// Written is what WRITE tells.
type Written struct {
	Wcc    Wcc
	Count  uint32
	Stable uint32
	Verf   uint64
}

// Stabilities of a write.
const (
	Unstable = 0
	DataSync = 1
	FileSync = 2
)

// Write writes bytes.
func (u *User) Write(fh FH, off uint64, p []byte, stable uint32) (Written, error) {
	w := fhArgs(fh)
	w.Uint64(off)
	w.Uint32(uint32(len(p)))
	w.Uint32(stable)
	w.Bytes(p)
	r, err := u.Call(7, w)
	if err != nil {
		return Written{}, err
	}
	out := Written{Wcc: ReadWcc(&r), Count: r.Uint32(), Stable: r.Uint32(), Verf: r.Uint64()}
	return out, r.Err()
}

// Made is what CREATE and its like tell.
type Made struct {
	FH   FH
	Attr *Attr
	Dir  Wcc
}

func (u *User) make(proc uint32, w xdr.Writer) (m Made, err error) {
	r, err := u.Call(proc, w)
	if err != nil {
		return m, err
	}
	if r.Bool() {
		m.FH = FH(r.String(64))
	}
	m.Attr, m.Dir = ReadPost(&r), ReadWcc(&r)
	return m, r.Err()
}

// Ways to create.
const (
	Unchecked = 0
	Guarded   = 1
	Exclusive = 2
)

// Create makes a file.
func (u *User) Create(dir FH, name string, how uint32, s Set) (Made, error) {
	w := nameArgs(dir, name)
	w.Uint32(how)
	s.write(&w)
	return u.make(8, w)
}

// CreateExclusive makes a file for a verifier.
func (u *User) CreateExclusive(dir FH, name string, verf uint64) (Made, error) {
	w := nameArgs(dir, name)
	w.Uint32(Exclusive)
	w.Uint64(verf)
	return u.make(8, w)
}

// Mkdir makes a directory.
func (u *User) Mkdir(dir FH, name string, mode uint32) (Made, error) {
	w := nameArgs(dir, name)
	(&Set{Mode: &mode}).write(&w)
	return u.make(9, w)
}

// Symlink makes a symbolic link.
func (u *User) Symlink(dir FH, name, target string) (Made, error) {
	w := nameArgs(dir, name)
	(&Set{}).write(&w)
	w.String(target)
	return u.make(10, w)
}

// Mknod makes a special file of a type, a device's with a number.
func (u *User) Mknod(dir FH, name string, typ, mode, major, minor uint32) (Made, error) {
	w := nameArgs(dir, name)
	w.Uint32(typ)
	(&Set{Mode: &mode}).write(&w)
	if typ == 3 || typ == 4 {
		w.Uint32(major)
		w.Uint32(minor)
	}
	return u.make(11, w)
}

// Remove removes a file.
func (u *User) Remove(dir FH, name string) (Wcc, error) { return u.wcc(12, nameArgs(dir, name)) }

// Rmdir removes a directory.
func (u *User) Rmdir(dir FH, name string) (Wcc, error) { return u.wcc(13, nameArgs(dir, name)) }

func (u *User) wcc(proc uint32, w xdr.Writer) (Wcc, error) {
	r, err := u.Call(proc, w)
	if err != nil {
		return Wcc{}, err
	}
	wcc := ReadWcc(&r)
	return wcc, r.Err()
}

// Rename renames.
func (u *User) Rename(from FH, oldName string, to FH, newName string) error {
	w := nameArgs(from, oldName)
	w.String(string(to))
	w.String(newName)
	r, err := u.Call(14, w)
	if err != nil {
		return err
	}
	ReadWcc(&r)
	ReadWcc(&r)
	return r.Err()
}

// Link gives a file one name more.
func (u *User) Link(file, dir FH, name string) (*Attr, error) {
	w := fhArgs(file)
	w.String(string(dir))
	w.String(name)
	r, err := u.Call(15, w)
	if err != nil {
		return nil, err
	}
	a := ReadPost(&r)
	ReadWcc(&r)
	return a, r.Err()
}

// Page is what READDIR and READDIRPLUS tell.
type Page struct {
	Verf    uint64
	Entries []Entry
	EOF     bool
}

// Readdir reads names from a cookie on.
func (u *User) Readdir(dir FH, cookie, verf uint64, count uint32) (Page, error) {
	w := fhArgs(dir)
	w.Uint64(cookie)
	w.Uint64(verf)
	w.Uint32(count)
	r, err := u.Call(16, w)
	return page(r, err, false)
}

// Readdirplus reads names and attributes from a cookie on.
func (u *User) Readdirplus(dir FH, cookie, verf uint64, dirCount, maxCount uint32) (Page, error) {
	w := fhArgs(dir)
	w.Uint64(cookie)
	w.Uint64(verf)
	w.Uint32(dirCount)
	w.Uint32(maxCount)
	r, err := u.Call(17, w)
	return page(r, err, true)
}

func page(r xdr.Reader, err error, plus bool) (p Page, _ error) {
	if err != nil {
		return p, err
	}
	ReadPost(&r)
	p.Verf = r.Uint64()
	for r.Bool() {
		e := Entry{FileID: r.Uint64(), Name: r.String(4096), Cookie: r.Uint64()}
		if plus {
			e.Attr = ReadPost(&r)
			if r.Bool() {
				e.FH = FH(r.String(64))
			}
		}
		p.Entries = append(p.Entries, e)
	}
	p.EOF = r.Bool()
	if r.Err() == nil && len(r.Rest()) > 0 {
		return p, errors.New("bytes after the reply")
	}
	return p, r.Err()
}

// List reads all names of a directory, without the two that each has.
func (u *User) List(dir FH, plus bool) ([]Entry, error) {
	var out []Entry
	for cookie, verf := uint64(0), uint64(0); ; {
		var p Page
		var err error
		if plus {
			p, err = u.Readdirplus(dir, cookie, verf, 8<<10, 32<<10)
		} else {
			p, err = u.Readdir(dir, cookie, verf, 8<<10)
		}
		if err != nil {
			return out, err
		}
		for _, e := range p.Entries {
			cookie = e.Cookie
			if e.Name != "." && e.Name != ".." {
				out = append(out, e)
			}
		}
		if verf = p.Verf; p.EOF {
			return out, nil
		}
		if len(p.Entries) == 0 {
			return out, errors.New("a page without names, and not the last")
		}
	}
}

// Info is what FSINFO tells.
type Info struct{ RtMax, RtPref, WtMax, WtPref, DtPref, Properties uint32 }

// FSInfo asks what the server can.
func (u *User) FSInfo(fh FH) (i Info, err error) {
	r, err := u.Call(19, fhArgs(fh))
	if err != nil {
		return i, err
	}
	ReadPost(&r)
	i.RtMax, i.RtPref = r.Uint32(), r.Uint32()
	r.Uint32()
	i.WtMax, i.WtPref = r.Uint32(), r.Uint32()
	r.Uint32()
	i.DtPref = r.Uint32()
	r.Uint64()
	r.Uint64()
	i.Properties = r.Uint32()
	return i, r.Err()
}

// FSStat asks for the bytes there are, and those that are free.
func (u *User) FSStat(fh FH) (total, free uint64, err error) {
	r, err := u.Call(18, fhArgs(fh))
	if err != nil {
		return 0, 0, err
	}
	ReadPost(&r)
	total, free = r.Uint64(), r.Uint64()
	return total, free, r.Err()
}

// Commit makes what was written durable.
func (u *User) Commit(fh FH) (verf uint64, err error) {
	w := fhArgs(fh)
	w.Uint64(0)
	w.Uint32(0)
	r, err := u.Call(21, w)
	if err != nil {
		return 0, err
	}
	ReadWcc(&r)
	verf = r.Uint64()
	return verf, r.Err()
}
