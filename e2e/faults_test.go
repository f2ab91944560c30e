package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// logged is how many lines of the daemon's log have a text.
func (w *world) logged(text string) int {
	b, err := os.ReadFile(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(b) {
		if bytes.Contains(line, []byte(text)) {
			n++
		}
	}
	return n
}

// A store that fails one request in ten: what is read, written and committed is right all the same.
func TestFailingStore(t *testing.T) {
	p := objecttest.NewProxy(t, objecttest.S3(t))
	w := newWorld(t)
	w.ok("repo", "create", "repo", "--storage-namespace", p.URL)
	p.Set(objecttest.ProxyFaults{FailOneIn: 10})
	main := w.at("repo/@main")
	w.sh(main, "for i in $(seq 150); do echo file $i > f$i; done; lakefsfs commit -q -m one && echo more > f1 && lakefsfs commit -q -m two")
	w.stop(os.Interrupt)
	os.RemoveAll(w.data + "/cache")
	w.start()
	if got := w.sh(main, "cat f? f?? f??? | sort -n -k2 | md5sum; cat f1"); got != w.sh("/", "(echo more; for i in $(seq 2 150); do echo file $i; done) | sort -n -k2 | md5sum; echo more") {
		t.Errorf("read %q", got)
	}
	if p.Failed() == 0 {
		t.Error("no request failed")
	}
}

// A store that doesn't answer holds up nobody else; who waits for it can be ended by a signal, and gets EIO in the end.
func TestHangingStore(t *testing.T) {
	direct := objecttest.S3(t)
	smallFiles(t, direct, 20)
	p := objecttest.NewProxy(t, direct)
	t.Setenv("LAKEFSFS_STORE_TIMEOUT", "1m")
	t.Setenv("LAKEFSFS_STORE_RETRY", "0s")
	w := newWorld(t)
	w.ok("repo", "attach", "repo", "--storage-namespace", p.URL)
	dir := w.at("repo/@main/d")
	if err := readSmall(dir, []string{"00000.txt"}, 1); err != nil {
		t.Fatal(err)
	}
	p.Set(objecttest.ProxyFaults{Match: "/data/00007", Hang: true})
	cat := exec.Command("cat", dir+"/00007.txt")
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cat.Wait() }()
	for end := time.Now().Add(20 * time.Second); !asked(p, "/data/00007"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the object isn't asked for")
		}
	}
	// All else goes on, in the same directory and at the same file.
	w.sh(dir, "ls > /dev/null && stat 00007.txt > /dev/null && cat 00003.txt > /dev/null && echo new > new && cat new > /dev/null && mv new newer && rm newer && chmod 600 00007.txt")
	select {
	case err := <-ended:
		t.Fatalf("cat ended: %v", err)
	default:
	}
	cat.Process.Signal(os.Interrupt)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("a signal doesn't end who waits for the store")
		cat.Process.Kill()
	}
	// And by the deadline.
	w.stop(os.Interrupt)
	t.Setenv("LAKEFSFS_STORE_TIMEOUT", "500ms")
	w.start()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "cat", dir+"/00007.txt").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Input/output error") {
		t.Errorf("cat of what the store keeps back: %q, %v", out, err)
	}
	if n := w.logged("did not answer"); n != 1 {
		t.Errorf("%d lines of the log tell why", n)
	}
	p.Set(objecttest.ProxyFaults{})
	if err := readSmall(dir, []string{"00007.txt"}, 1); err != nil {
		t.Errorf("when it answers again: %v", err)
	}
}

func asked(p *objecttest.Proxy, suffix string) bool {
	for key := range p.Gets() {
		if strings.HasSuffix(key, suffix) {
			return true
		}
	}
	return false
}

// A store that answers with other bytes gives EIO and one line in the log, never those bytes.
func TestLyingStore(t *testing.T) {
	direct := objecttest.S3(t)
	smallFiles(t, direct, 20)
	p := objecttest.NewProxy(t, direct)
	w := newWorld(t)
	w.ok("repo", "attach", "repo", "--storage-namespace", p.URL)
	dir := w.at("repo/@main/d")
	p.Set(objecttest.ProxyFaults{Match: "/data/00007", Wrong: true})
	if b, err := os.ReadFile(dir + "/00007.txt"); !errors.Is(err, unix.EIO) || len(b) > 0 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if n := w.logged("data/00007"); n != 1 {
		t.Errorf("%d lines of the log name the object", n)
	}
	if err := readSmall(dir, []string{"00006.txt", "00008.txt"}, 1); err != nil {
		t.Errorf("the others: %v", err)
	}
	p.Set(objecttest.ProxyFaults{})
	if err := readSmall(dir, []string{"00007.txt"}, 1); err != nil {
		t.Errorf("when it tells the truth again: %v", err)
	}
}

// A full disk under the cache: reads go on from the store, with one line in the log.
func TestFullCacheDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	disk := t.TempDir()
	if err := unix.Mount("lakefsfs-test", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	direct := objecttest.S3(t)
	const n = 400 // of 1,100 bytes each, so of 4 KiB on the disk
	smallFiles(t, direct, n)
	t.Setenv("LAKEFSFS_CACHE_DIR", disk)
	w := newWorld(t)
	w.ok("repo", "attach", "repo", "--storage-namespace", direct)
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%05d.txt", i))
	}
	for range 2 {
		if err := readSmall(w.at("repo/@main/d"), names, 4); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.logged("cache directory takes no files"); n != 1 {
		t.Errorf("%d lines of the log tell of the full disk", n)
	}
}
