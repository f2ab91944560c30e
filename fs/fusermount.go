package fs

import (
	"fmt"
	"os/exec"
	"strings"
)

// runFusermount runs the helper that unmounts for ordinary users.
func runFusermount(args ...string) error {
	bin, err := exec.LookPath("fusermount3")
	if err != nil {
		if bin, err = exec.LookPath("fusermount"); err != nil {
			return fmt.Errorf("fusermount3 is not installed")
		}
	}
	if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
