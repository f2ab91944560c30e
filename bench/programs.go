package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// programs measures ordinary programs on a plain directory and on a mount.
func programs(work, tree, bin string) error {
	data, mnt, plain := filepath.Join(work, "d"), filepath.Join(work, "m"), filepath.Join(work, "plain")
	if err := os.MkdirAll(plain, 0o755); err != nil {
		return err
	}
	up := func() (*exec.Cmd, error) {
		c := exec.Command(bin, "up", "--data", data, "--mount", mnt, "--log-level", "error")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := c.Start(); err != nil {
			return nil, err
		}
		buf := make([]byte, 4096)
		_, err = out.Read(buf)
		return c, err
	}
	down := func(c *exec.Cmd) {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	}
	c, err := up()
	if err != nil {
		return err
	}
	defer func() { down(c) }()
	if err := sh("LAKEFSFS_SERVER=unix://" + data + "/lakefsfs.sock " + bin + " repo create repo -q"); err != nil {
		return err
	}
	branch := filepath.Join(mnt, "repo/@main")
	w := os.Stdout
	fmt.Fprintf(w, "\n## Ordinary work: %s\n\n", tree)
	head(w, "work", "plain", "branch", "ratio")
	row := func(name, script string, a, b string) error {
		ta, err := timed(fmt.Sprintf(script, a))
		if err != nil {
			return err
		}
		tb, err := timed(fmt.Sprintf(script, b))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "| %s | %s | %s | %.2f |\n", name, ta.Round(time.Millisecond), tb.Round(time.Millisecond), ta.Seconds()/tb.Seconds())
		return err
	}
	if err := row("cp -a", "cp -a "+tree+" %s/src", plain, branch); err != nil {
		return err
	}
	if took, err := timed("echo all > " + branch + "/.lakefs/commit"); err != nil {
		return err
	} else {
		fmt.Fprintf(w, "| commit of it | | %s | |\n", took.Round(time.Millisecond))
	}
	// Cold: a daemon that was just started, and a kernel that has forgotten.
	down(c)
	if c, err = up(); err != nil {
		return err
	}
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // only root may
	works := []struct{ name, script string }{
		{"find", "find %s/src | wc -l > /dev/null"},
		{"du -s", "du -s %s/src > /dev/null"},
		{"read all", "find %s/src -type f -print0 | xargs -0 cat > /dev/null"},
	}
	for _, temp := range []string{"cold", "warm"} {
		for _, k := range works {
			if err := row(k.name+", "+temp, k.script, plain, branch); err != nil {
				return err
			}
		}
	}
	return row("rm -r", "rm -r %s/src", plain, branch)
}

func sh(script string) error {
	out, err := exec.Command("bash", "-c", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %v: %s", script, err, out)
	}
	return nil
}

func timed(script string) (time.Duration, error) {
	start := time.Now()
	err := sh(script)
	return time.Since(start), err
}
