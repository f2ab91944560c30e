package nfs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/internal/nfsvm/wire"
)

// One file, 100,000 random operations by one mount, and by two that take turns.
func TestSoakFile(t *testing.T) {
	long(t)
	t.Parallel()
	g, s := newGuest(t), newServer(t)
	g.server(s, "repo/@main", "/mnt/one", "rw")
	g.server(s, "repo/@main", "/mnt/two", "nosharecache")
	seed := time.Now().UnixNano() % 1e9
	began := time.Now()
	g.ok("/", fmt.Sprintf("mkdir /mnt/one/a /mnt/one/b && battery fsx %d 100000 /mnt/one/a", seed))
	t.Logf("100,000 operations by one mount in %s", time.Since(began).Round(time.Second))
	began = time.Now()
	g.ok("/", fmt.Sprintf("battery fsx %d 30000 /mnt/one/b /mnt/two/b", seed+1))
	t.Logf("30,000 operations by two mounts in turn in %s", time.Since(began).Round(time.Second))
}

// What programs do with trees.
func TestSoakPrograms(t *testing.T) {
	long(t)
	t.Parallel()
	g, s := newGuest(t), newServer(t)
	g.server(s, "repo/@main", "/mnt/one", "rw")
	for _, c := range []struct{ name, script string }{
		{"tar", `tar -C /usr -cf tree.tar share/perl5 lib/git-core && mkdir x && tar -C x -xpf tree.tar && echo 3 >/proc/sys/vm/drop_caches && tar -C x --compare -f tree.tar && find x -newer tree.tar ! -type d ! -type l | wc -l`},
		{"rsync", `rsync -aH --numeric-ids /usr/lib/git-core /usr/share/perl5 r/ && echo 3 >/proc/sys/vm/drop_caches && test -z "$(rsync -aHi --numeric-ids /usr/lib/git-core /usr/share/perl5 r/)" && test -z "$(rsync -aHic --numeric-ids /usr/lib/git-core r/)"`},
		{"git", `git config --global user.email a@b && git config --global user.name n && git init -q g && cd g && for i in $(seq 150); do echo $i >f$i; done && git add . && git commit -qm 1 && for i in $(seq 5); do echo $i >>f7 && git commit -qam $i; done && git gc -q && git fsck && test -z "$(git status --short)" && cd .. && git clone -q g g2 && git clone -q --no-hardlinks g g3 && git -C g3 fsck && diff -r --exclude=.git g g2`},
		{"rm", `mkdir big && cd big && for d in $(seq 10); do mkdir $d && (cd $d && seq 1000 | xargs touch); done && cd .. && echo 3 >/proc/sys/vm/drop_caches && test $(find big -type f | wc -l) = 10000 && rm -rf big && test ! -e big`},
		{"cp", `mkdir s && for i in $(seq 20); do mkdir s/$i; for j in $(seq 50); do head -c $((j*97)) /dev/urandom >s/$i/$j; done; done && cp -a s t && echo 3 >/proc/sys/vm/drop_caches && diff -r s t && ln -s t/1/1 u && cmp u s/1/1`},
	} {
		began := time.Now()
		r := g.sh("/mnt/one", c.script)
		if r.Code != 0 {
			t.Errorf("%s: exit %d: %s", c.name, r.Code, r.Output())
		}
		t.Logf("%s: %s", c.name, time.Since(began).Round(time.Second))
	}
}

// A directory of 100,000 files is listed right, while others are added to it by FUSE.
func TestSoakListing(t *testing.T) {
	long(t)
	t.Parallel()
	g, s := newGuest(t), newServer(t)
	const n = 100000
	if err := os.Mkdir(s.at("big"), 0o755); err != nil {
		t.Fatal(err)
	}
	touch := func(name string) error {
		f, err := os.Create(s.at("big/" + name))
		if err != nil {
			return err
		}
		return f.Close()
	}
	for i := range n {
		if err := touch(strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	g.server(s, "repo/@main", "/mnt/one", "rw")
	var stop atomic.Bool
	added := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil && !stop.Load(); i++ {
			err = touch("x" + strconv.Itoa(i))
			// Linux' client reads a directory from the start again for each change that it sees.
			time.Sleep(time.Second)
		}
		added <- err
	}()
	r := g.sh("/mnt/one", fmt.Sprintf("for i in 1 2 3; do echo 3 >/proc/sys/vm/drop_caches; battery listed %d 1 big; done", n))
	stop.Store(true)
	if err := <-added; err != nil {
		t.Error(err)
	}
	if r.Code != 0 {
		t.Errorf("exit %d: %s", r.Code, r.Output())
	}
	t.Log(r.Output())
}

// Two machines and a FUSE mount take turns with one file and one directory: each sees at its open what the one before has closed.
func TestSoakClients(t *testing.T) {
	long(t)
	t.Parallel()
	a, b, s := newGuest(t), newGuest(t), newServer(t)
	a.server(s, "repo/@main", "/mnt/one", "rw")
	b.server(s, "repo/@main", "/mnt/one", "rw")
	sh := []func(script string) string{
		func(script string) string { return a.ok("/mnt/one", script) },
		func(script string) string { return b.ok("/mnt/one", script) },
		func(script string) string {
			c := exec.Command("bash", "-euo", "pipefail", "-c", script)
			c.Dir = s.at("")
			var errs bytes.Buffer
			c.Stderr = &errs
			out, err := c.Output()
			if err != nil {
				t.Fatalf("by FUSE: %s: %v: %s", script, err, errs.Bytes())
			}
			return string(out)
		},
	}
	sh[0]("mkdir d")
	want := ""
	for i := range 60 {
		// Not each after the same one.
		turn := (i + i/7) % len(sh)
		if got := sh[turn]("cat d/* 2>/dev/null || true"); got != want {
			t.Fatalf("turn %d, %d reads %q, want %q", i, turn, got, want)
		}
		switch i % 3 {
		case 0:
			sh[turn](fmt.Sprintf("rm -f d/*; echo %d >d/f%d", i, i%2))
			want = fmt.Sprintf("%d\n", i)
		case 1:
			sh[turn](fmt.Sprintf("echo %d >>d/f%d", i, (i-1)%2))
			want += fmt.Sprintf("%d\n", i)
		case 2:
			sh[turn](fmt.Sprintf("mv d/f%d d/moved%d && sed -i s/^/x/ d/moved%[2]d", (i-2)%2, i))
			want = "x" + strings.ReplaceAll(strings.TrimSuffix(want, "\n"), "\n", "\nx") + "\n"
		}
	}
}

// The daemon is killed and started again while a disk image is written, an archive unpacked and the model checked.
func TestSoakRestarts(t *testing.T) {
	long(t)
	t.Parallel()
	g, s := newGuest(t), newServer(t)
	g.server(s, "repo/@main", "/mnt/one", "rw")
	g.server(s, "repo/@main", "/mnt/two", "nosharecache")
	g.ok("/tmp", "head -c 100M /dev/urandom >image && tar -C /usr -cf tree.tar share/perl5 lib/git-core && mkdir /mnt/one/x")
	jobs := map[string]string{
		"dd":    "for i in 1 2 3; do dd if=/tmp/image of=/mnt/one/image$i bs=1M conv=fsync status=none && dd if=/mnt/one/image$i of=/dev/null bs=1M iflag=direct status=none; done",
		"tar":   "for i in 1 2; do rm -rf /mnt/one/x/* && tar -C /mnt/one/x -xpf /tmp/tree.tar; done",
		"model": fmt.Sprintf("battery model %d 240s /mnt/two/model", time.Now().UnixNano()%1e6),
	}
	type end struct {
		name, output string
		code         int
		err          error
	}
	ended := make(chan end, len(jobs))
	for name, script := range jobs {
		go func() {
			r, err := g.vm.Run(g.ctx, wire.Request{Argv: []string{"bash", "-euo", "pipefail", "-c", script}})
			ended <- end{name, r.Output(), r.Code, err}
		}()
	}
	kills := 0
	var longest time.Duration
	for left := len(jobs); left > 0; {
		select {
		case e := <-ended:
			left--
			t.Logf("%s: %s", e.name, e.output)
			// A retried call that was carried out before the kill: see modelCommand. rm and tar don't know.
			if e.err != nil || e.code != 0 {
				t.Errorf("%s: %v, exit %d: %s", e.name, e.err, e.code, e.output)
			}
		case <-time.After(time.Duration(5+kills%7) * time.Second):
			began := time.Now()
			s.stop(syscall.SIGKILL)
			s.start()
			longest = max(longest, time.Since(began))
			kills++
		}
	}
	t.Logf("%d kills, the longest start took %s", kills, longest.Round(time.Millisecond))
	g.ok("/", "echo 3 >/proc/sys/vm/drop_caches; for i in 1 2 3; do cmp /tmp/image /mnt/one/image$i; done; tar -C /mnt/one/x --compare -f /tmp/tree.tar")
	s.commit()
	if out, err := exec.Command("cmp", s.at("image1"), s.at("image3")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(s.at("x"), "lib/git-core")); err != nil {
		t.Error(err)
	}
}
