package daemon

import (
	"os"
	"runtime/debug"
)

// workMemory is what the daemon may have in memory, in bytes, besides its caches: what requests leave behind until it is collected, the
// metadata store's own buffers, and tables that are being read.
const workMemory = 512 << 20

// boundMemory has the memory collected earlier when all together nears what the configuration allows. Hold d.mu.
func (d *Daemon) boundMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return // the user has said how much
	}
	debug.SetMemoryLimit(d.cfg.Cache.Memory + int64(max(len(d.mounts), 1))*d.cfg.Cache.Nodes + workMemory)
}
