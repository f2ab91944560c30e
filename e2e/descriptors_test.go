package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Many files are open at once: each has its own bytes, through a commit and a change of each.
func TestManyOpenFiles(t *testing.T) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	n := int(min(10_000, l.Cur-800)) // this process and the daemon have the same limit
	if n < 10_000 {
		t.Logf("the limit of open files is %d: %d are opened", l.Cur, n)
	}
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	dir := w.at("repo/@main/many")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := func(i int) string { return fmt.Sprintf("file %d", i) }
	files := make([]*os.File, n)
	for i := range files {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatalf("after %d files: %v", i, err)
		}
		defer f.Close()
		if _, err := f.WriteString(text(i)); err != nil {
			t.Fatal(err)
		}
		files[i] = f
	}
	check := func(want func(int) string) {
		t.Helper()
		for i, f := range files {
			b := make([]byte, 100)
			k, err := f.ReadAt(b, 0)
			if got := string(b[:k]); got != want(i) {
				t.Fatalf("file %d has %q, %v", i, got, err)
			}
			if fi, err := f.Stat(); err != nil || fi.Size() != int64(len(want(i))) {
				t.Fatalf("file %d: %v %v", i, fi, err)
			}
		}
	}
	check(text)
	w.ok("commit", "repo/@main", "-m", "while all are open")
	check(text)
	more := func(i int) string { return text(i) + ", more" }
	for i, f := range files {
		if _, err := f.WriteString(", more"); err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
	}
	check(more)
	for _, f := range files {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.ok("commit", "repo/@main", "-m", "when all are closed")
	for i := 0; i < n; i += 7 {
		for ref, want := range map[string]string{"main": more(i), "main~1": text(i)} {
			b, err := os.ReadFile(w.at(fmt.Sprintf("repo/@%s/many/%d", ref, i)))
			if err != nil || string(b) != want {
				t.Fatalf("file %d of %s has %q, %v", i, ref, b, err)
			}
		}
	}
}

// A daemon that may have few descriptors tells who opens one file too many, and serves everybody else on.
func TestFewDescriptors(t *testing.T) {
	w := newWorld(t)
	w.stop(os.Interrupt)
	w.fds = 1024
	w.start()
	w.ok("repo", "create", "repo")
	main := w.at("repo/@main")
	w.sh(main, "mkdir old open && for i in $(seq 1500); do echo $i > old/$i; done && lakefsfs commit -q -m old")
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	var err error
	for len(open) < 2000 {
		var f *os.File
		if f, err = os.Create(fmt.Sprintf("%s/open/%d", main, len(open))); err != nil {
			break
		}
		if _, err := fmt.Fprint(f, len(open)); err != nil {
			t.Fatal(err)
		}
		open = append(open, f)
	}
	if !errors.Is(err, syscall.ENFILE) || len(open) < 400 {
		t.Fatalf("after %d files: %v", len(open), err)
	}
	// All that needs no more of them goes on: reading what is stored, names, commits, a change of what is open.
	w.sh(main, `cat old/* | sort -n | md5sum > /tmp/all.$$ && rm /tmp/all.$$ && ls -lR > /dev/null && mkdir d && mv old/7 d/8 && rm old/9 && ln -s old d/link`)
	w.ok("commit", "repo/@main", "-m", "while no more can be opened")
	w.ok("fsck", "repo")
	for i, f := range open {
		if _, err := fmt.Fprint(f, " more"); err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
	}
	for i, f := range open {
		b := make([]byte, 50)
		if k, _ := f.ReadAt(b, 0); string(b[:k]) != fmt.Sprintf("%d more", i) {
			t.Fatalf("file %d has %q", i, b[:k])
		}
	}
	// Room again, when one is closed.
	open[0].Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // nobody waits for the release
		f, err := os.Create(main + "/open/another")
		if err == nil {
			f.Close()
			break
		}
		if !errors.Is(err, syscall.ENFILE) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for _, f := range open[1:] {
		f.Close()
	}
	// Far more than there are descriptors, to be stored at a time.
	w.sh(main, "mkdir new && for i in $(seq 3000); do echo $i > new/$i; done")
	w.ok("commit", "repo/@main", "-m", "many")
	w.stop(os.Interrupt)
	w.fds = 0
	w.start()
	if got := w.sh(main, "cat new/* | sort -n | md5sum; cat open/17; cat d/8"); got != w.sh("/", "seq 3000 | md5sum; echo 17 more7") {
		t.Errorf("read %q", got)
	}
}
