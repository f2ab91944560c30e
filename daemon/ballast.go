package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ballast is a file that only takes room. The kernel writes to local files without asking, to the disk's last block; then the ballast
// goes, and what makes room again, a removal, has the room that it takes itself.
type ballast struct {
	path string
	log  *slog.Logger
	mu   sync.Mutex
	stop chan struct{}
}

const (
	// The ballast takes a tenth of the disk, but not more than this many bytes.
	maxBallast   = 64 << 20
	ballastCheck = 5 * time.Second
)

func newBallast(data string, log *slog.Logger) *ballast {
	b := &ballast{path: filepath.Join(data, "ballast"), log: log, stop: make(chan struct{})}
	b.put()
	go func() {
		t := time.NewTicker(ballastCheck)
		defer t.Stop()
		for {
			select {
			case <-b.stop:
				return
			case <-t.C:
				b.put()
			}
		}
	}()
	return b
}

func (b *ballast) close() { close(b.stop) }

// put puts the ballast in its place, if there is plenty of room.
func (b *ballast) put() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if fi, err := os.Stat(b.path); err == nil && fi.Size() > 0 {
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(b.path), &st); err != nil {
		return
	}
	size := min(maxBallast, st.Blocks*uint64(st.Bsize)/10)
	if st.Bavail*uint64(st.Bsize) < 4*size {
		return
	}
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		// Where the file system can't, there is no ballast: writing zeros would make none where they are compressed.
		if err = unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); err != nil {
			os.Remove(b.path)
		}
		f.Close()
	}
	if err != nil {
		b.log.Debug("no ballast", "file", b.path, "err", err)
	}
}

// drop gives the ballast's room away.
func (b *ballast) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := os.Remove(b.path); err == nil {
		b.log.Warn("the disk is full; the reserve is free now, for what makes room", "file", b.path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		b.log.Error("free the reserve", "file", b.path, "err", err)
	}
}
