package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What programs ask of a disk, on a branch, and that it is all there after a commit, a kill and a restart.
func TestPrograms(t *testing.T) {
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	main := w.at("repo/@main")
	src := t.TempDir()
	w.sh(src, `mkdir -p a/b 'odd name' && echo text > a/f && ln a/f a/b/g && ln -s ../f a/b/l && echo x > 'odd name/new
line' && chmod 640 a/f && setfattr -n user.k -v value a/f && truncate -s 3M a/sparse && dd if=/dev/urandom of=a/big bs=1M count=3 status=none && touch -d 2001-02-03T04:05:06.789 a/big`)
	rsync := func(to string) string {
		t.Helper()
		return w.sh(src, "rsync -aHAX --itemize-changes ./ '"+to+"/'")
	}
	rsync(w.at("repo/@main/copy"))
	if got := rsync(w.at("repo/@main/copy")); got != "" {
		t.Errorf("the second rsync copies %q", got)
	}
	// A database with a write-ahead log in shared memory, by four writers at a time.
	w.sh(main, `sqlite3 db 'pragma journal_mode=wal; create table t(who int, n int)' >/dev/null
p=
for w in 1 2 3 4; do (for n in $(seq 20); do sqlite3 -cmd '.timeout 60000' db "insert into t values($w,$n)" || exit 1; done) & p="$p $!"; done
for i in $p; do wait $i || exit 1; done`)
	// Version control, and its packing.
	w.sh(main, `git init -q g && cd g && git config user.name x && git config user.email x@x && for i in $(seq 30); do echo $i > f$i; git add . && git commit -q -m $i; done && git gc -q && git fsck`)
	// An editor's save: write aside, sync, rename.
	w.sh(main, `for i in $(seq 50); do echo "version $i" > note.tmp && sync note.tmp && mv note.tmp note; done`)
	w.sh(main, `python3 -m venv --without-pip env && env/bin/python -c 'import json; print(json.dumps(1))'`)

	stat := func(name string) unix.Stat_t {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(main+"/"+name, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	names := []string{"copy", "copy/a/f", "copy/a/b/g", "copy/a/b/l", "note", "db", "g/.git/HEAD"}
	numbers := map[string]uint64{}
	for _, n := range names {
		numbers[n] = stat(n).Ino
	}
	check := func(when string) {
		t.Helper()
		for _, n := range names {
			if got := stat(n).Ino; got != numbers[n] {
				t.Errorf("%s: %s has number %d, had %d", when, n, got, numbers[n])
			}
		}
		if f := stat("copy/a/f"); f.Nlink != 2 || f.Ino != stat("copy/a/b/g").Ino {
			t.Errorf("%s: two names of a file: %+v", when, f)
		}
		if got := rsync(w.at("repo/@main/copy")); got != "" {
			t.Errorf("%s: rsync copies %q", when, got)
		}
		if got := strings.TrimSpace(w.sh(main, "sqlite3 db 'pragma integrity_check; select count(*), count(distinct who*1000+n) from t'")); got != "ok\n80|80" {
			t.Errorf("%s: the database says %q", when, got)
		}
		if got := w.sh(main, "cd g && git fsck 2>&1 && git status --short && cat f30 ../note"); got != "30\nversion 50\n" {
			t.Errorf("%s: %q", when, got)
		}
	}
	check("staged")
	w.killed()
	check("killed")
	w.ok("commit", "repo/@main", "-m", "all of it")
	check("committed")
	w.stop(os.Interrupt)
	w.start()
	check("restarted")
}

// Many branches of one tree, edited by many processes at the same time: no copy of the data is made, and each has its own changes.
func TestManyBranches(t *testing.T) {
	w := newWorld(t)
	w.ok("repo", "create", "repo")
	main := w.at("repo/@main")
	w.sh(main, "mkdir d && for i in $(seq 50); do dd if=/dev/urandom of=d/$i bs=64k count=1 status=none; done && lakefsfs commit -q -m base")
	const branches = 200
	before := strings.Fields(w.sh(w.data, "du -s objects"))[0]
	w.sh(w.at("repo"), fmt.Sprintf(`seq %d | xargs -P 16 -I{} sh -ec 'mkdir @b{} && cd @b{} && cmp d/1 ../@main/d/1 && echo {} > mine && echo {} >> d/7 && rm d/9 && mv d/8 d/eight && ln d/10 ten'`, branches))
	for i := 1; i <= branches; i += 13 {
		got := w.sh(w.at(fmt.Sprintf("repo/@b%d", i)), "cat mine && tail -n 1 d/7 | tail -c 4 | grep -ao '[0-9]*$' && ls d | wc -l && test ! -e d/9 && cmp d/eight ../@main/d/8 && cmp ten ../@main/d/10")
		if want := fmt.Sprintf("%d\n%d\n49\n", i, i); got != want {
			t.Errorf("branch %d: %q, want %q", i, got, want)
		}
	}
	if got := w.sh(main, "ls | wc -l && ls d | wc -l"); got != "1\n50\n" {
		t.Errorf("main: %q", got)
	}
	w.sh(w.at("repo"), fmt.Sprintf("seq %d | xargs -P 8 -I{} lakefsfs commit -q repo/@b{} -m mine", branches))
	after := strings.Fields(w.sh(w.data, "du -s objects"))[0]
	var kb, was int
	fmt.Sscan(after, &kb)
	fmt.Sscan(before, &was)
	// A changed file of 64 KiB, a line, two tables: far from the 3.2 MiB of all files.
	if grown := (kb - was) / branches; grown > 400 {
		t.Errorf("a branch takes %d KiB", grown)
	}
}
