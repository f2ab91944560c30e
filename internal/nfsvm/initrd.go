package nfsvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// writeInitrd writes the archive that the kernel begins with: the agent, the modules, and programs for the guest.
func writeInitrd(ctx context.Context, name string, o Options) (err error) {
	agent := name + ".agent"
	if err := Build(ctx, agent, "github.com/lakefsfs/lakefsfs/internal/nfsvm/agent"); err != nil {
		return err
	}
	defer os.Remove(agent)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := &cpio{w: bufio.NewWriterSize(f, 1<<20)}
	w.dir("modules")
	w.dir("programs")
	w.dir("dev")
	w.file("init", agent, 0o755)
	modules, err := filepath.Glob(filepath.Join(o.Dir, "modules", "*.ko"))
	if err != nil {
		return err
	}
	for _, m := range modules {
		w.file("modules/"+filepath.Base(m), m, 0o644)
	}
	for name, file := range o.Programs {
		w.file("programs/"+name, file, 0o755)
	}
	return w.close()
}

// Build builds a program of this module that runs anywhere, as the guest needs it.
func Build(ctx context.Context, file, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}

// cpio writes the format that the kernel unpacks ("newc", Documentation/driver-api/early-userspace/buffer-format.rst in its source).
// The first error stays.
type cpio struct {
	w   *bufio.Writer
	ino int
	n   int64 // bytes written
	err error
}

func (c *cpio) pad() {
	for c.n%4 != 0 && c.err == nil {
		c.err = c.w.WriteByte(0)
		c.n++
	}
}

func (c *cpio) header(name string, mode uint32, size int64) {
	if c.err != nil {
		return
	}
	c.ino++
	fields := []int64{int64(c.ino), int64(mode), 0, 0, 1, 0, size, 0, 0, 0, 0, int64(len(name) + 1), 0}
	var b strings.Builder
	b.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&b, "%08X", f)
	}
	b.WriteString(name + "\x00")
	n, err := c.w.WriteString(b.String())
	c.n, c.err = c.n+int64(n), err
	c.pad()
}

func (c *cpio) dir(name string) { c.header(name, 0o040755, 0) }

func (c *cpio) file(name, from string, perm uint32) {
	if c.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		c.err = err
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		c.err = err
		return
	}
	c.header(name, 0o100000|perm, fi.Size())
	if c.err != nil {
		return
	}
	n, err := io.CopyN(c.w, f, fi.Size())
	c.n, c.err = c.n+n, err
	c.pad()
}

func (c *cpio) close() error {
	c.header("TRAILER!!!", 0, 0)
	for c.n%512 != 0 && c.err == nil {
		c.err = c.w.WriteByte(0)
		c.n++
	}
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}
