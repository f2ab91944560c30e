package object

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rs/xid"
	"golang.org/x/sys/unix"
)

// tempPrefix marks files that are being written. They are not objects.
const tempPrefix = ".lakefsfs-tmp-"

// fileMode is that of objects: plain files, which a lakeFS server of another user may read.
const fileMode = 0o644

// tempFile is a file that is not yet an object. Where the file system can, it has no name until it becomes one, so that
// nothing is left of it when the process is killed.
type tempFile struct {
	*os.File
	dir  string
	name string // "" if it has none
}

func createTemp(dir string, named bool) (*tempFile, error) {
	if !named {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, fileMode)
		switch err {
		case nil:
			return &tempFile{File: os.NewFile(uintptr(fd), filepath.Join(dir, tempPrefix)), dir: dir}, nil
		case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL: // as in "O_TMPFILE" of open(2), and what FUSE says
		case unix.EPERM: // ext4 says it of a directory that was just deleted (ext4_new_inode); below it is ENOENT
		default:
			return nil, &iofs.PathError{Op: "create in", Path: dir, Err: err}
		}
	}
	name := filepath.Join(dir, tempPrefix+xid.New().String())
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	return &tempFile{File: f, dir: dir, name: name}, nil
}

// become makes the file the one at name, in place of another.
func (f *tempFile) become(name string) error {
	if f.name == "" {
		err := f.link(name)
		if !errors.Is(err, iofs.ErrExist) {
			return err
		}
		f.name = filepath.Join(f.dir, tempPrefix+xid.New().String())
		if err := f.link(f.name); err != nil {
			return err
		}
	}
	if err := os.Rename(f.name, name); err != nil {
		return err
	}
	f.name = ""
	return nil
}

// link gives a file without a name one, as open(2) has it under "O_TMPFILE".
func (f *tempFile) link(name string) error {
	proc := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if err := unix.Linkat(unix.AT_FDCWD, proc, unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "link", Old: proc, New: name, Err: err}
	}
	return nil
}

// close closes the file, and deletes it if it has become none.
func (f *tempFile) close() {
	if f.name != "" {
		os.Remove(f.name)
	}
	f.Close()
}
