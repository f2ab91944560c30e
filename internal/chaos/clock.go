package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ClockEnv names the file from which a program that BuildMovable built reads, in nanoseconds, by how much its clock is off.
const ClockEnv = "LAKEFSFS_TEST_CLOCK"

// BuildMovable builds a main package of this module so that its clock can be moved. The system's clock can't be, as it is everybody's;
// so time.Now is given one more step. What measures how long something takes is left alone, as it is when a system's clock is set.
func BuildMovable(bin, pkgDir string) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find the toolchain: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go")
	b, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	const at = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(b), at) != 1 {
		return errors.New("this toolchain's time.Now is not as it was")
	}
	moved := strings.Replace(string(b), at, at+"\tsec, nsec = movedBy(sec, nsec)\n", 1) + `
var offBy int64

func movedBy(sec int64, nsec int32) (int64, int32) {
	off := offBy
	sec += off / 1e9
	nsec += int32(off % 1e9)
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	} else if nsec >= 1e9 {
		sec, nsec = sec+1, nsec-1e9
	}
	return sec, nsec
}
`
	reads := `package main

import (
	"os"
	"strconv"
	"strings"
	"time"
	_ "unsafe"
)

//go:linkname offBy time.offBy
var offBy int64

func init() {
	file := os.Getenv("` + ClockEnv + `")
	if file == "" {
		return
	}
	read := func() {
		if b, err := os.ReadFile(file); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				offBy = n
			}
		}
	}
	read()
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			read()
		}
	}()
}
`
	dir, err := os.MkdirTemp("", "movable")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if pkgDir, err = filepath.Abs(pkgDir); err != nil {
		return err
	}
	overlay := map[string]map[string]string{"Replace": {
		src: filepath.Join(dir, "time.go"),
		filepath.Join(pkgDir, "movable_clock.go"): filepath.Join(dir, "movable_clock.go"),
	}}
	js, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"time.go": moved, "movable_clock.go": reads, "overlay.json": string(js)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags=-checklinkname=0", "-o", bin, ".")
	cmd.Dir = pkgDir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build with a clock that can be moved: %w\n%s", err, out)
	}
	return nil
}

// SetClock moves the clock of a node, now or when it starts: by so much from the system's. The program is one that BuildMovable built.
func (n *Node) SetClock(off time.Duration) error {
	f := n.clock()
	if err := os.WriteFile(f+".new", fmt.Append(nil, int64(off)), 0o600); err != nil {
		return err
	}
	return os.Rename(f+".new", f)
}

func (n *Node) clock() string { return filepath.Join(filepath.Dir(n.Log), "clock") }
