package daemon

import (
	"os"
	"runtime/debug"
)

// Version is what lakefsfs version tells. The build sets it; what go install built knows it by itself.
var Version string

func init() {
	if Version != "" {
		return
	}
	Version = "devel"
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		Version = bi.Main.Version
	}
}

// State tells how the daemon stands.
func (d *Daemon) State() State {
	return State{Data: d.cfg.Data, PID: os.Getpid(), Version: Version, Replica: d.meta.replica(), Mounts: d.Mounts(), Exports: d.Exports()}
}
