package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/xid"
	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// holderFile, in the data directory, has the name under which this machine holds bytes for an engine elsewhere. It is locked by the
// daemon that has the directory.
const holderFile = "holder"

// holder reads the name of this machine as a holder, or makes one. The file stays locked until it is closed.
func holder(data string) (_ engine.HolderID, _ io.Closer, err error) {
	f, err := os.OpenFile(filepath.Join(data, holderFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("the name of this machine: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil, fmt.Errorf("%s is in use by another lakefsfs process; stop it, or choose another data directory: %w", data, graveler.Unavailable)
	}
	b, err := io.ReadAll(io.LimitReader(f, 100))
	if err != nil {
		return "", nil, fmt.Errorf("the name of this machine: %w", err)
	}
	name := strings.TrimSpace(string(b))
	if id, err := xid.FromString(name); err == nil {
		return engine.HolderID(id.String()), f, nil
	}
	// Its name is durable before the first content has it. A file that is there without a whole name was never used.
	name = xid.New().String()
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(name+"\n"), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return "", nil, fmt.Errorf("the name of this machine: %w", err)
	}
	return engine.HolderID(name), f, nil
}

// metadataDir is where a data directory has its metadata.
func metadataDir(data string) string { return filepath.Join(data, "meta") }

// bootstrapFile, in the data directory, allows the next start to begin a cluster.
const bootstrapFile = "bootstrap"

// AllowBootstrap lets the daemon of a data directory begin a cluster when it is started with cluster.listen next time.
func AllowBootstrap(data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(data, bootstrapFile), nil, 0o600); err != nil {
		return fmt.Errorf("allow a cluster to begin: %w", err)
	}
	return nil
}

func mayBootstrap(data string) bool {
	_, err := os.Stat(filepath.Join(data, bootstrapFile))
	return err == nil
}

// bootstrapped takes the permission back: it is for one start.
func bootstrapped(data string) error {
	if err := os.Remove(filepath.Join(data, bootstrapFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
