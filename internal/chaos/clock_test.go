package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A program's clock jumps while it runs, forth and back, and how long things take stays as it is.
func TestClock(t *testing.T) {
	if os.Getenv("LAKEFSFS_TEST_CHAOS") == "" {
		t.Skip("the whole standard library is built for it: set LAKEFSFS_TEST_CHAOS, as make chaos does")
	}
	dir := t.TempDir()
	main := `package main

import (
	"fmt"
	"time"
)

func main() {
	begin := time.Now()
	for {
		var s string
		if _, err := fmt.Scan(&s); err != nil {
			return
		}
		fmt.Println(time.Now().UnixNano(), int64(time.Since(begin)))
	}
}
`
	must(t, os.WriteFile(dir+"/main.go", []byte(main), 0o600))
	must(t, os.WriteFile(dir+"/go.mod", []byte("module x\n\ngo 1.26\n"), 0o600))
	bin := filepath.Join(dir, "prog")
	must(t, BuildMovable(bin, dir))
	n := &Node{Log: dir + "/log"}
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), ClockEnv+"="+n.clock())
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Wait()
	defer in.Close()
	for _, off := range []time.Duration{0, time.Hour, -time.Hour, -1, 999_999_999, 400 * 24 * time.Hour} {
		must(t, n.SetClock(off))
		off0 := time.Duration(0)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("moved by %s, it is off by %s", off, off0)
			}
			_, err := in.Write([]byte("x\n"))
			must(t, err)
			b := make([]byte, 100)
			k, err := out.Read(b)
			must(t, err)
			f := strings.Fields(string(b[:k]))
			now, err := strconv.ParseInt(f[0], 10, 64)
			must(t, err)
			took, err := strconv.ParseInt(f[1], 10, 64)
			must(t, err)
			if took < 0 || took > int64(time.Minute) {
				t.Fatalf("moved by %s, it thinks that it has run for %s", off, time.Duration(took))
			}
			if off0 = time.Until(time.Unix(0, now)); (off0 - off).Abs() < 100*time.Millisecond {
				break
			}
		}
	}
}
