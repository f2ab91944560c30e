package fs

import (
	"bytes"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/internal/fsx"
)

// fsxProgram is fsx.Run in a process of its own, which may map a file that we serve.
func fsxProgram(args []string) error {
	seed, _ := strconv.ParseUint(args[0], 10, 64)
	n, _ := strconv.Atoi(args[1])
	return fsx.Run(fsx.Options{Dirs: args[2:], Seed: seed, Operations: n})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// LAKEFSFS_FSX sets the count of operations of each.
func TestRandomFileOperations(t *testing.T) {
	n := 4000
	if s := os.Getenv("LAKEFSFS_FSX"); s != "" {
		n, _ = strconv.Atoi(s)
	} else if testing.Short() {
		n = 1000
	}
	for _, c := range []struct {
		name   string
		mounts int
		opt    Options
	}{{"passthrough", 1, Options{}}, {"asked", 1, Options{NoPassthrough: true}}, {"two mounts", 2, Options{}}, {"two mounts asked", 2, Options{NoPassthrough: true}}} {
		t.Run(c.name, func(t *testing.T) {
			var log lockedBuffer
			c.opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
			m := mountWith(t, c.opt)
			dirs := []string{m.path("")}
			if c.mounts > 1 {
				dirs = append(dirs, m.another(t, "repo/@main"))
			}
			cmd := other(t, "fsx", append([]string{strconv.Itoa(int(time.Now().UnixNano() % 1e9)), strconv.Itoa(n)}, dirs...)...)
			var out bytes.Buffer
			cmd.Stderr = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			for {
				select {
				case err := <-done:
					if err != nil {
						t.Fatalf("%v: %s\n%s", err, out.String(), log.String())
					}
					return
				case <-time.After(50 * time.Millisecond):
					os.WriteFile(m.path(".lakefs/commit"), []byte("c\n"), 0)
				}
			}
		})
	}
}
