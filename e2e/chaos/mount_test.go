package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	harness "github.com/lakefsfs/lakefsfs/internal/chaos"
)

// mounted starts a daemon without metadata that mounts a place from a cluster, as on another machine, and returns the mount point.
func mounted(t *testing.T, c *harness.Cluster, name, place string) string {
	t.Helper()
	dir := filepath.Join(c.Dir, name)
	mnt := filepath.Join(dir, "mnt")
	if err := os.MkdirAll(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := fmt.Sprintf("data: %s/data\nlisten: unix://%s/s\nengine:\n  address: %s\ntls:\n  insecure: true\nlog:\n  format: text\nmounts:\n  - place: %s\n    dir: %s\n",
		dir, dir, strings.Join(c.Serve(), ","), place, mnt)
	if err := os.WriteFile(dir+"/config.yaml", []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(built, "lakefsfs"), "daemon", "--config", dir+"/config.yaml")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Errorf("the daemon of %s doesn't end", name)
			cmd.Process.Kill()
			<-done
		}
		unix.Unmount(mnt, unix.MNT_DETACH)
		if t.Failed() {
			t.Logf("%s said at the end:\n%s", name, tail(dir+"/log", 3000))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := harness.Wait(ctx, func() bool {
		select {
		case <-done:
			t.Fatalf("the daemon of %s ended: %s", name, tail(dir+"/log", 2000))
		default:
		}
		return mountedAt(mnt)
	}); err != nil {
		t.Fatalf("%s is not mounted: %v\n%s", name, err, tail(dir+"/log", 2000))
	}
	return mnt
}

func mountedAt(dir string) bool {
	var here, above unix.Stat_t
	return unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

// sh runs a shell script, which must succeed. It is killed when ctx ends.
func sh(ctx context.Context, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", script, err, out[max(0, len(out)-2000):])
	}
	return string(out), nil
}

// checker makes files in a directory, as programs save them, and reads all back again and again: none fails, none is ever other than it
// was written.
func checker(ctx context.Context, dir string) (saved int, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	const names = 50
	var have [names][]byte
	for i := 0; ctx.Err() == nil; i++ {
		n := i * 7 % names
		text := bytes.Repeat(fmt.Appendf(nil, "%d of %d\n", i, n), 1+i%300)
		tmp, name := fmt.Sprintf("%s/.tmp%d", dir, n), fmt.Sprintf("%s/f%d", dir, n)
		f, err := os.Create(tmp)
		if err != nil {
			return saved, err
		}
		_, err = f.Write(text)
		if err == nil && i%3 == 0 {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Rename(tmp, name)
		}
		if err != nil {
			return saved, err
		}
		have[n] = text
		saved++
		if n = (i*13 + 5) % names; have[n] != nil {
			name := fmt.Sprintf("%s/f%d", dir, n)
			b, err := os.ReadFile(name)
			if err != nil {
				return saved, err
			}
			if !bytes.Equal(b, have[n]) {
				return saved, fmt.Errorf("%s holds %d bytes that are not the %d that were saved", name, len(b), len(have[n]))
			}
			if i%11 == 0 {
				if err := os.Remove(name); err != nil {
					return saved, err
				}
				if _, err := os.Stat(name); !os.IsNotExist(err) {
					return saved, fmt.Errorf("%s was removed: %v", name, err)
				}
				have[n] = nil
			}
		}
	}
	for n, text := range have {
		b, err := os.ReadFile(fmt.Sprintf("%s/f%d", dir, n))
		if text == nil && os.IsNotExist(err) {
			continue
		}
		if err != nil || !bytes.Equal(b, text) {
			return saved, fmt.Errorf("at the end f%d holds %d bytes, and %d were saved: %v", n, len(b), len(text), err)
		}
	}
	return saved, nil
}

// TestMount unpacks a tree, again and again, and saves files on a mount that asks a cluster, while its leaders are killed. Nothing fails and
// nothing is lost: neither on that mount, nor in the commit of it, nor on another machine's mount. LAKEFSFS_TEST_KILLS says how many.
func TestMount(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some 30 s")
	}
	t.Parallel() // each waits most of the time
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	kills := int(number(t, "LAKEFSFS_TEST_KILLS", 3))
	c := newCluster(t, harness.Options{Nodes: 3})
	cl := client(t, c.Serve()...)
	if _, err := cl.CreateRepository(t.Context(), engine.CreateRepository{ID: repo}); err != nil {
		t.Fatal(err)
	}
	mnt := mounted(t, c, "m1", repo+"/@main")
	goroot, err := sh(t.Context(), "go env GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(strings.TrimSpace(goroot), "src", "net")
	tarball := filepath.Join(c.Dir, "src.tar")
	if _, err := sh(t.Context(), fmt.Sprintf("tar -cf %s -C %s .", tarball, src)); err != nil {
		t.Fatal(err)
	}

	// Whatever hangs is ended, and fails.
	all, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*time.Minute+5*time.Minute)
	defer cancel()
	working, stop := context.WithCancel(all)
	defer stop()
	var beside sync.WaitGroup
	var trees, saves atomic.Int64
	beside.Go(func() {
		for i := 0; working.Err() == nil; i++ {
			dir := fmt.Sprintf("%s/tree%d", mnt, i%4)
			if _, err := sh(all, fmt.Sprintf("rm -rf %[1]s && mkdir %[1]s && tar -xf %[2]s -C %[1]s && diff -r --no-dereference %[3]s %[1]s", dir, tarball, src)); err != nil {
				t.Error(err)
				return
			}
			trees.Add(1)
		}
	})
	beside.Go(func() {
		n, err := checker(working, mnt+"/checked")
		if err != nil {
			t.Errorf("the checker: %v", err)
		}
		saves.Store(int64(n))
	})
	for k := range kills {
		lead, err := caughtUp(all, c)
		if err != nil {
			t.Fatal(err)
		}
		pause(all, time.Duration(500+1000*(k%3))*time.Millisecond)
		if err := lead.Kill(); err != nil {
			t.Fatal(err)
		}
		pause(all, time.Duration(500+1500*(k%3))*time.Millisecond)
		if err := lead.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := caughtUp(all, c); err != nil {
		t.Fatal(err)
	}
	stop()
	beside.Wait()
	if trees.Load() == 0 && !t.Failed() {
		t.Error("no tree was unpacked")
	}
	cm, err := cl.Commit(all, engine.CommitRequest{Repo: repo, Branch: "main", Message: "all"})
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	other := mounted(t, c, "m2", repo+"/@"+string(cm.ID))
	for i := range min(4, trees.Load()) {
		if _, err := sh(all, fmt.Sprintf("diff -r --no-dereference %s %s/tree%d", src, other, i)); err != nil {
			t.Errorf("the commit on another machine: %v", err)
		}
	}
	if _, err := sh(all, fmt.Sprintf("diff -r %s/checked %s/checked", mnt, other)); err != nil {
		t.Errorf("the commit on another machine: %v", err)
	}
	for p, err := range cl.Check(all, engine.CheckRequest{Repo: repo, Ref: graveler.Ref(cm.ID), Data: true}) {
		if err != nil || p.Level == "error" {
			t.Errorf("fsck: %+v, %v", p, err)
		}
	}
	for _, n := range c.Nodes {
		for _, crash := range n.Crashes() {
			t.Errorf("%s\n%s", crash, tail(n.Log, 2000))
		}
	}
	t.Logf("%d kills of the leader: %d trees unpacked and compared, %d files saved, nothing failed", kills, trees.Load(), saves.Load())
}
