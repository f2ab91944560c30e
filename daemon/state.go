package daemon

import (
	"os"
	"runtime/debug"
)

// Version is set by the build; State and lakefsfs version tell it.
var Version = func() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "devel"
}()

// State tells how the daemon stands.
func (d *Daemon) State() State {
	return State{Data: d.cfg.Data, PID: os.Getpid(), Version: Version, Replica: d.eng.Replica(), Mounts: d.Mounts()}
}
