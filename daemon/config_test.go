package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("data: /a\ncache:\n  memory: 5000000\n  disk: 1\nsync:\n  every: 50ms\nmounts:\n  - dir: /m\n    place: repo/@main\n    read_only: true\n")
	t.Setenv("LAKEFSFS_CACHE_DISK", "2")
	t.Setenv("LAKEFSFS_LOG_LEVEL", "warn")
	c, err := Load(file, map[string]any{"log.level": "debug"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != "/a" || c.Cache.Memory != 5000000 || c.Cache.Disk != 2 || c.Log.Level != "debug" || c.Sync.Every != 50*time.Millisecond ||
		len(c.Mounts) != 1 || c.Mounts[0] != (MountConfig{Place: "repo/@main", Dir: "/m", ReadOnly: true}) {
		t.Errorf("%+v", c)
	}
	os.Unsetenv("LAKEFSFS_LOG_LEVEL")
	for text, want := range map[string]string{
		"cache:\n  memroy: 1\n":                `"cache.memory"`,
		"dat: /x\n":                            `"data"`,
		"log:\n  level: loud\n":                "debug, info, warn or error",
		"cache:\n  memory: lots\n":             "memory",
		"mounts:\n  - place: x!\n":             "dir",
		"mounts:\n  - dri: /x\n":               "dri",
		"listen: tcp://x\n":                    "unix://",
		"namespace: ftp://x\n":                 "ftp",
		"sync:\n  every: 5\n":                  "every",
		"a: [\n":                               "file",
		"mounts:\n  - dir: /m\n    place: X\n": "mounts[0]",
	} {
		write(text)
		if _, err := Load(file, nil); !errors.Is(err, graveler.Invalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := Load(file+"x", nil); err == nil {
		t.Error("a missing file is no error")
	}
	t.Setenv("LAKEFSFS_CACHE_MEMRY", "1")
	if _, err := Load("", nil); err == nil || !strings.Contains(err.Error(), "cache.memory") {
		t.Errorf("unknown variable: %v", err)
	}
}

func TestKeysAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if !strings.Contains(string(b), "| `"+k.Name+"` |") {
			t.Errorf("docs/config.md lacks %s", k.Name)
		}
		if k.Doc == "" && k.Name != "mounts" {
			t.Errorf("%s has no text", k.Name)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("data: /x\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = Load(file, nil)
	})
}
