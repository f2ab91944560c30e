// Package fs shows a vfs.FS to the kernel by FUSE.
package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// Options of a mount.
type Options struct {
	Dir        string
	ReadOnly   bool
	AllowOther bool          // other users may enter
	Data       string        // a directory on the disk whose room statfs tells; "" is Dir's
	Deadline   time.Duration // of one request; 0 is 2 minutes
	Source     string        // what mount(8) shows as the device
	// NoPassthrough makes the kernel ask for all reads and writes, even where it could go to a local file itself.
	NoPassthrough bool
	Logger        *slog.Logger
}

// Mount is a mounted tree.
type Mount struct {
	dir  string
	srv  *fuse.Server
	stop context.CancelFunc
	done chan struct{}
	once sync.Once
	err  error
}

// New mounts a tree, and returns when it can be used. A mount that a killed daemon left at the same place is taken away first.
func New(tree *vfs.FS, opt Options) (*Mount, error) {
	if opt.Deadline == 0 {
		opt.Deadline = 2 * time.Minute
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := checkDir(opt.Dir)
	if err != nil {
		return nil, err
	}
	if opt.Source == "" {
		opt.Source = "lakefsfs"
	}
	if opt.Data == "" {
		opt.Data = filepath.Dir(dir)
	}
	s := &server{RawFileSystem: fuse.NewDefaultRawFileSystem(), fs: tree, log: opt.Logger, deadline: opt.Deadline, statfs: opt.Data, still: tree.Still()}
	mo := &fuse.MountOptions{
		AllowOther: opt.AllowOther, FsName: opt.Source, Name: "lakefs",
		MaxWrite: 1 << 20, MaxBackground: 128, MaxReadAhead: 1 << 20,
		Options:     []string{"default_permissions"},
		DirectMount: os.Geteuid() == 0, EnableSymlinkCaching: true, EnableLocks: true,
		// The first: a write isn't preceded by a look for file capabilities, but for a file's first. Not CAP_ATOMIC_O_TRUNC: with it
		// the kernel forgets a new file's attributes, and asks for them again.
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
		MaxStackDepth:     1,
		Logger:            slog.NewLogLogger(opt.Logger.Handler(), slog.LevelWarn),
	}
	if opt.ReadOnly || s.still {
		mo.Options = append(mo.Options, "ro")
	}
	srv, err := fuse.NewServer(s, dir, mo)
	if err != nil {
		return nil, mountError(dir, err)
	}
	closeOnExec()
	s.srv = srv
	tree.SetInvalidator(s)
	if !opt.NoPassthrough {
		tree.SetPasser(&passer{srv: srv})
	}
	ctx, cancel := context.WithCancel(context.Background())
	tree.Watch(ctx)
	m := &Mount{dir: dir, srv: srv, stop: func() { cancel(); tree.Wait() }, done: make(chan struct{})}
	go func() {
		srv.Serve()
		cancel()
		tree.Close()
		close(m.done)
	}()
	if err := srv.WaitMount(); err != nil {
		m.Unmount()
		return nil, mountError(dir, err)
	}
	return m, nil
}

// closeOnExec keeps the programs that this process starts from having its connections to the kernel too: with one of them the mount
// of a killed daemon would go on, and answer nobody. The library opens them without that flag where it mounts by itself.
func closeOnExec() {
	const fds = "/proc/self/fd/"
	ents, err := os.ReadDir(fds)
	if err != nil {
		return
	}
	for _, e := range ents {
		if to, err := os.Readlink(fds + e.Name()); err == nil && to == "/dev/fuse" {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				syscall.CloseOnExec(fd)
			}
		}
	}
}

func mountError(dir string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("mount at %s: FUSE is not there (%v); install fuse3 and load the fuse module: %w", dir, err, graveler.Unavailable)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("mount at %s: not permitted (%v); with allow_other, /etc/fuse.conf must have user_allow_other: %w", dir, err, graveler.Denied)
	}
	return fmt.Errorf("mount at %s: %v: %w", dir, err, graveler.Unavailable)
}

// checkDir checks a mount point and returns its whole path.
func checkDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if stale(abs) {
		if err := detach(abs); err != nil {
			return "", fmt.Errorf("%s is a mount whose daemon is gone, and can't be unmounted: %v: %w", abs, err, graveler.Unavailable)
		}
	}
	fi, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("mount point %s is not there; make it with mkdir -p: %w", abs, graveler.NotFound)
	case err != nil:
		return "", fmt.Errorf("mount point %s: %w", abs, err)
	case !fi.IsDir():
		return "", fmt.Errorf("mount point %s is no directory: %w", abs, graveler.NotDir)
	}
	if mounted, err := isMountPoint(abs); err != nil {
		return "", err
	} else if mounted {
		return "", fmt.Errorf("%s is a mount point already; unmount it, or choose another directory: %w", abs, graveler.Exists)
	}
	ents, err := os.ReadDir(abs)
	if err != nil {
		return "", fmt.Errorf("mount point %s: %w", abs, err)
	}
	if len(ents) > 0 {
		return "", fmt.Errorf("mount point %s is not empty; its files would be hidden: %w", abs, graveler.NotEmpty)
	}
	return abs, nil
}

// stale reports whether a directory is the mount of a daemon that was killed. The kernel may still know its attributes, so only
// an open tells.
func stale(dir string) bool {
	f, err := os.Open(dir)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, syscall.ENOTCONN)
}

func isMountPoint(dir string) (bool, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, nil
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && unescape(f[4]) == real {
			return true, nil
		}
	}
	return false, nil
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// detach unmounts lazily: at once for new users, when they leave for those inside.
func detach(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		return runFusermount("-u", "-z", dir)
	}
	return err
}

// Dir is where it is mounted.
func (m *Mount) Dir() string { return m.dir }

// Done is closed when the mount is gone, by Unmount or by anyone else.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Unmount unmounts. If the mount is in use it is detached: gone for new users, while those inside get errors. It returns when
// no request is being answered any more.
func (m *Mount) Unmount() error {
	m.once.Do(func() {
		select {
		case <-m.done:
			return
		default:
		}
		if err := m.srv.Unmount(); err != nil {
			if derr := detach(m.dir); derr != nil {
				m.err = fmt.Errorf("unmount %s: %v: %w", m.dir, err, graveler.Unavailable)
				return
			}
			m.err = fmt.Errorf("%s was in use and is detached: what is open there is cut off: %w", m.dir, graveler.Conflict)
		}
		select {
		case <-m.done:
		case <-time.After(10 * time.Second):
		}
	})
	m.stop()
	return m.err
}
