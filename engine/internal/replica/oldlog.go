package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/lakefsfs/lakefsfs/engine/internal/replica/wal"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// The first versions kept raft's log in a Pebble store, DIR/log. Keys: "l" + index (8 bytes) → term (8), type (1), time (8), data;
// "k" + name → a value of the stable store.

// openLog opens the log, and first takes over one of the first versions.
func openLog(dir string, opt wal.Options, logger pebble.Logger) (*wal.Log, error) {
	old, now, tmp := filepath.Join(dir, "log"), filepath.Join(dir, "raft"), filepath.Join(dir, "raft.new")
	if _, err := os.Stat(old); err == nil {
		// Each step can be done again after a kill; the old log goes when the new one is whole.
		if _, err := os.Stat(now); errors.Is(err, fs.ErrNotExist) {
			if err := os.RemoveAll(tmp); err != nil {
				return nil, fmt.Errorf("take over the old raft log: %w", err)
			}
			if err := takeOver(old, tmp, logger); err != nil {
				return nil, fmt.Errorf("take over the old raft log: %w", err)
			}
			if err := os.Rename(tmp, now); err != nil {
				return nil, fmt.Errorf("take over the old raft log: %w", err)
			}
			if err := wal.SyncDir(dir); err != nil {
				return nil, fmt.Errorf("take over the old raft log: %w", err)
			}
		}
		if err := os.RemoveAll(old); err != nil {
			return nil, fmt.Errorf("remove the old raft log: %w", err)
		}
	}
	return wal.Open(now, opt)
}

func takeOver(old, dir string, logger pebble.Logger) error {
	db, err := pebble.Open(old, &pebble.Options{Logger: logger, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		return fmt.Errorf("%v: %w", err, graveler.Corrupt)
	}
	defer db.Close()
	l, err := wal.Open(dir, wal.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		switch {
		case k[0] == 'k':
			err = l.Set(k[1:], v)
		case k[0] == 'l' && len(k) == 9 && len(v) >= 17:
			err = l.StoreLog(&raft.Log{
				Index: binary.BigEndian.Uint64(k[1:]), Term: binary.BigEndian.Uint64(v), Type: raft.LogType(v[8]),
				AppendedAt: time.Unix(0, int64(binary.BigEndian.Uint64(v[9:]))), Data: append([]byte(nil), v[17:]...),
			})
		default:
			err = fmt.Errorf("a key %q: %w", k, graveler.Corrupt)
		}
		if err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	return l.Sync()
}
