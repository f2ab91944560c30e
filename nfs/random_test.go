package nfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
)

// twin does everything twice: over NFS, and in a directory of the local disk, which tells what has to come of it.
type twin struct {
	t     *testing.T
	s     *site
	u     *nfstest.User
	root  nfstest.FH
	local string
	fhs   map[uint64]known // by the local file's number
	rnd   *rand.Rand
}

// known is the first handle that a local file's counterpart had. The file is kept open, so that no other one gets its number.
type known struct {
	fh nfstest.FH
	fd int
}

var errnoStatus = map[syscall.Errno]status{
	syscall.ENOENT: statusNoEnt, syscall.EEXIST: statusExist, syscall.ENOTDIR: statusNotDir, syscall.EISDIR: statusIsDir,
	syscall.ENOTEMPTY: statusNotEmpty, syscall.EINVAL: statusInval, syscall.EPERM: statusPerm,
}

// at finds a path over NFS.
func (w *twin) at(p string) (nfstest.FH, *nfstest.Attr, error) {
	fh := w.root
	a, err := w.u.Getattr(fh)
	for _, n := range strings.Split(p, "/") {
		if n != "" && n != "." && err == nil {
			fh, a, err = w.u.Lookup(fh, n)
		}
	}
	return fh, a, err
}

func (w *twin) same(what string, local, remote error) bool {
	w.t.Helper()
	want := statusOK
	if local != nil {
		var no syscall.Errno
		if !errors.As(local, &no) {
			w.t.Fatal(local)
		}
		if want = errnoStatus[no]; want == statusOK {
			w.t.Fatalf("%s: %v", what, local)
		}
	}
	got := statusOK
	var st nfstest.Status
	if errors.As(remote, &st) {
		got = status(st)
	} else if remote != nil {
		w.t.Fatalf("%s: %v", what, remote)
	}
	if got != want {
		w.t.Fatalf("%s: %v, on the disk %v", what, got, local)
	}
	return local == nil
}

// paths lists what there is, directories first if dirs.
func (w *twin) paths(want func(d fs.DirEntry) bool) []string {
	var out []string
	filepath.WalkDir(w.local, func(p string, d fs.DirEntry, err error) error {
		if err == nil && want(d) {
			out = append(out, strings.TrimPrefix(strings.TrimPrefix(p, w.local), "/"))
		}
		return nil
	})
	return out
}

func (w *twin) pick(l []string) string {
	if len(l) == 0 {
		return "nothing"
	}
	return l[w.rnd.IntN(len(l))]
}

func (w *twin) anyPath() string { return w.pick(w.paths(func(fs.DirEntry) bool { return true })) }
func (w *twin) aDir() string    { return w.pick(w.paths(fs.DirEntry.IsDir)) }
func (w *twin) aFile() string {
	return w.pick(w.paths(func(d fs.DirEntry) bool { return d.Type().IsRegular() }))
}

// place is a path that may be there or not.
func (w *twin) place() string {
	if w.rnd.IntN(3) == 0 {
		if p := w.anyPath(); p != "" {
			return p
		}
	}
	return path.Join(w.aDir(), fmt.Sprintf("n%d", w.rnd.IntN(12)))
}

func (w *twin) disk(p string) string { return filepath.Join(w.local, p) }

func (w *twin) step() {
	u := w.u
	switch op := w.rnd.IntN(100); {
	case op < 20: // write to a new or an old file
		p := w.place()
		d, n := path.Split(p)
		dfh, _, err := w.at(d)
		if err != nil {
			w.t.Fatal(p, err)
		}
		f, lerr := os.OpenFile(w.disk(p), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		_, rerr := u.Create(dfh, n, nfstest.Guarded, nfstest.Set{Mode: nfstest.P(uint32(0o644))})
		if w.same("create "+p, lerr, rerr) {
			f.Close()
		}
	case op < 45:
		p := w.aFile()
		fh, _, err := w.at(p)
		if err != nil {
			return
		}
		b := make([]byte, w.rnd.IntN(5000)+1)
		for i := range b {
			b[i] = byte(w.rnd.IntN(256))
		}
		off := int64(w.rnd.IntN(20000))
		f, lerr := os.OpenFile(w.disk(p), os.O_WRONLY, 0)
		if lerr == nil {
			_, lerr = f.WriteAt(b, off)
			f.Close()
		}
		_, rerr := u.Write(fh, uint64(off), b, uint32(w.rnd.IntN(3)))
		w.same("write "+p, lerr, rerr)
	case op < 52:
		p := w.aFile()
		fh, _, err := w.at(p)
		if err != nil {
			return
		}
		n := int64(w.rnd.IntN(25000))
		_, rerr := u.Setattr(fh, nfstest.Set{Size: nfstest.P(uint64(n))}, nil)
		w.same("truncate "+p, os.Truncate(w.disk(p), n), rerr)
	case op < 60:
		p := w.place()
		d, n := path.Split(p)
		dfh, _, err := w.at(d)
		if err != nil {
			w.t.Fatal(p, err)
		}
		_, rerr := u.Mkdir(dfh, n, 0o755)
		w.same("mkdir "+p, os.Mkdir(w.disk(p), 0o755), rerr)
	case op < 75:
		a, b := w.anyPath(), w.place()
		if a == "" || b == "" {
			return
		}
		ad, an := path.Split(a)
		bd, bn := path.Split(b)
		afh, _, err := w.at(ad)
		if err != nil {
			return
		}
		bfh, _, err := w.at(bd)
		if err != nil {
			return
		}
		w.same("rename "+a+" "+b, syscall.Rename(w.disk(a), w.disk(b)), u.Rename(afh, an, bfh, bn))
	case op < 83:
		p := w.place()
		if p == "" {
			return
		}
		d, n := path.Split(p)
		dfh, _, err := w.at(d)
		if err != nil {
			return
		}
		if w.rnd.IntN(2) == 0 {
			_, rerr := u.Remove(dfh, n)
			w.same("remove "+p, syscall.Unlink(w.disk(p)), rerr)
		} else {
			_, rerr := u.Rmdir(dfh, n)
			w.same("rmdir "+p, syscall.Rmdir(w.disk(p)), rerr)
		}
	case op < 90:
		a, b := w.aFile(), w.place()
		fh, _, err := w.at(a)
		if err != nil || b == "" {
			return
		}
		d, n := path.Split(b)
		dfh, _, err := w.at(d)
		if err != nil {
			return
		}
		_, rerr := u.Link(fh, dfh, n)
		w.same("link "+a+" "+b, syscall.Link(w.disk(a), w.disk(b)), rerr)
	case op < 94:
		p := w.place()
		d, n := path.Split(p)
		dfh, _, err := w.at(d)
		if err != nil {
			return
		}
		_, rerr := u.Symlink(dfh, n, "to/"+n)
		w.same("symlink "+p, syscall.Symlink("to/"+n, w.disk(p)), rerr)
	case op < 98:
		p := w.aFile()
		fh, _, err := w.at(p)
		if err != nil {
			return
		}
		m := uint32(w.rnd.IntN(0o1000))
		_, rerr := u.Setattr(fh, nfstest.Set{Mode: &m}, nil)
		w.same("chmod "+p, syscall.Chmod(w.disk(p), m), rerr)
	case op < 99:
		w.s.srv.open.closeIdle(time.Now().Add(time.Hour), 0)
	default:
		w.s.restart()
		w.u = w.s.dial().Root()
	}
}

// compare compares everything.
func (w *twin) compare(after int) {
	w.t.Helper()
	seen := map[uint64]bool{}
	for _, p := range w.paths(func(fs.DirEntry) bool { return true }) {
		var st syscall.Stat_t
		if err := syscall.Lstat(w.disk(p), &st); err != nil {
			w.t.Fatal(err)
		}
		fh, a, err := w.at(p)
		if err != nil {
			w.t.Fatalf("after %d: %q: %v", after, p, err)
		}
		seen[st.Ino] = true
		if first, ok := w.fhs[st.Ino]; !ok {
			fd, err := unix.Open(w.disk(p), unix.O_PATH|unix.O_NOFOLLOW, 0)
			if err != nil {
				w.t.Fatal(err)
			}
			w.fhs[st.Ino] = known{fh, fd}
		} else if first.fh != fh {
			was, _ := w.s.srv.seal.open([]byte(first.fh))
			is, _ := w.s.srv.seal.open([]byte(fh))
			w.t.Fatalf("after %d: %q (mode %o) has another handle than before: %+v, it was %+v", after, p, st.Mode, is, was)
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			l, err := w.u.List(fh, w.rnd.IntN(2) == 0)
			if err != nil {
				w.t.Fatal(p, err)
			}
			got := namesOf(l)
			slices.Sort(got)
			var want []string
			ents, _ := os.ReadDir(w.disk(p))
			for _, e := range ents {
				want = append(want, e.Name())
			}
			if !slices.Equal(got, want) {
				w.t.Fatalf("after %d: %q has %v, on the disk %v", after, p, got, want)
			}
		case syscall.S_IFLNK:
			to, err := w.u.Readlink(fh)
			if want, _ := os.Readlink(w.disk(p)); err != nil || to != want {
				w.t.Fatalf("after %d: %q leads to %q, %v; on the disk %q", after, p, to, err, want)
			}
		default:
			b, eof, err := w.u.Read(fh, 0, maxData)
			want, _ := os.ReadFile(w.disk(p))
			if err != nil || !eof || !bytes.Equal(b, want) {
				w.t.Fatalf("after %d: %q has %d bytes, or other ones, %v, %v; on the disk %d", after, p, len(b), eof, err, len(want))
			}
			if a.Mode != st.Mode&0o7777 || a.Nlink != uint32(st.Nlink) || a.Size != uint64(st.Size) {
				w.t.Fatalf("after %d: %q: %+v, on the disk mode %o, %d links, %d bytes", after, p, a, st.Mode&0o7777, st.Nlink, st.Size)
			}
		}
	}
	for ino, k := range w.fhs {
		_, err := w.u.Getattr(k.fh)
		if seen[ino] {
			is(w.t, "handle of what is there", err, statusOK)
			continue
		}
		is(w.t, "handle of what was removed", err, statusStale)
		unix.Close(k.fd)
		delete(w.fhs, ino)
	}
}

func TestRandom(t *testing.T) {
	steps, seeds := 1500, 2
	if testing.Short() {
		steps, seeds = 400, 1
	}
	for range seeds {
		seed := uint64(time.Now().UnixNano())
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := newSite(t)
			u, root := s.root("/repo/@main")
			w := &twin{t: t, s: s, u: u, root: root, local: t.TempDir(), fhs: map[uint64]known{}, rnd: rand.New(rand.NewPCG(seed, 1))}
			os.Chmod(w.local, 0o755)
			defer func() {
				for _, k := range w.fhs {
					unix.Close(k.fd)
				}
			}()
			for i := range steps {
				w.step()
				if i%50 == 49 {
					w.compare(i)
				}
				if i%300 == 299 {
					s.commit(fmt.Sprint("after ", i))
					w.compare(i)
				}
			}
		})
	}
}
