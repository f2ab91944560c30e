package nfs

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs/nfstest"
)

// many stages files in a directory of the branch, without a client.
func (s *site) many(dir string, n int) []string {
	s.t.Helper()
	var names []string
	var changes []graveler.Change
	flush := func() {
		if err := s.eng.Stage(s.t.Context(), "repo", "main", changes); err != nil {
			s.t.Fatal(err)
		}
		changes = changes[:0]
	}
	for i := range n {
		name := fmt.Sprintf("file-%07d", i)
		names = append(names, name)
		changes = append(changes, graveler.Change{Path: dir + "/" + name, Entry: graveler.Entry{AddressType: graveler.AddressRelative, ETag: "d41d8cd98f00b204e9800998ecf8427e"}})
		if len(changes) == 2000 {
			flush()
		}
	}
	flush()
	return names
}

func namesOf(l []nfstest.Entry) []string {
	var out []string
	for _, e := range l {
		out = append(out, e.Name)
	}
	return out
}

func TestList(t *testing.T) {
	s := newSite(t)
	want := s.many("big", 5000)
	u, root := s.root("/repo/@main")
	big := find(t, u, root, "big")
	for _, plus := range []bool{false, true} {
		l, err := u.List(big, plus)
		is(t, "list", err, statusOK)
		if !slices.Equal(namesOf(l), want) {
			t.Fatalf("plus %v: listed %d names, or other ones", plus, len(l))
		}
		seen := map[uint64]bool{}
		for _, e := range l {
			if seen[e.Cookie] || seen[e.FileID] || e.Cookie > 1<<63-1 {
				t.Fatalf("%s: cookie %x, number %x", e.Name, e.Cookie, e.FileID)
			}
			seen[e.Cookie], seen[e.FileID] = true, true
			if plus && (e.Attr == nil || e.Attr.FileID != e.FileID || e.FH == "") {
				t.Fatalf("%s has no attributes, or others: %+v", e.Name, e)
			}
		}
		if plus {
			for _, i := range []int{0, 999, 4999} {
				if find(t, u, big, l[i].Name) != l[i].FH {
					t.Errorf("%s has another handle by its name", l[i].Name)
				}
			}
		}
	}
	p, err := u.Readdir(root, 0, 0, 4096)
	is(t, "readdir", err, statusOK)
	at, err := u.Getattr(root)
	is(t, "getattr", err, statusOK)
	if !p.EOF || len(p.Entries) != 3 || p.Entries[0].Name != "." || p.Entries[0].FileID != at.FileID || p.Entries[1].Name != ".." || p.Entries[1].FileID == 0 || p.Entries[2].Name != "big" {
		t.Errorf("root %+v", p)
	}
	// Replies are as small as the client wants them.
	for _, n := range []uint32{512, 1024, 5000, 60000} {
		p, err := u.Readdirplus(big, 0, 0, n, n)
		is(t, "readdirplus", err, statusOK)
		if size := len(p.Entries) * 180; uint32(size) > n || uint32(size) < n/2 {
			t.Errorf("%d entries for %d bytes", len(p.Entries), n)
		}
	}
	_, err = u.Readdir(big, 0, 0, 100)
	is(t, "readdir into next to nothing", err, statusTooSmall)
	_, err = u.Readdir(big, 12345, 0, 4096)
	is(t, "readdir from a cookie that never was", err, statusBadCookie)
}

// TestListFromAnywhere goes on from each cookie, also of a server that has just begun.
func TestListFromAnywhere(t *testing.T) {
	s := newSite(t)
	want := s.many("big", 3000)
	u, root := s.root("/repo/@main")
	big := find(t, u, root, "big")
	all, err := u.List(big, false)
	is(t, "list", err, statusOK)
	for i := 0; i < len(all); i += 271 {
		if i%2 == 0 {
			s.restart()
			u = s.dial().Root()
		}
		p, err := u.Readdir(big, all[i].Cookie, 0, 2000)
		is(t, "readdir", err, statusOK)
		if got := namesOf(p.Entries); len(got) == 0 || !slices.Equal(got, want[i+1:i+1+len(got)]) {
			t.Fatalf("after %s come %v", all[i].Name, got)
		}
	}
	s.commit("m")
	tag := find(t, u, root, "..", "@main~0", "big")
	p, err := u.Readdir(tag, 0, 0, 4096)
	is(t, "readdir of a commit", err, statusOK)
	if p.Verf == 0 {
		t.Error("a commit's verifier is that of a branch")
	}
	_, err = u.Readdir(tag, p.Entries[5].Cookie, p.Verf+1, 4096)
	is(t, "readdir with another verifier", err, statusBadCookie)
}

// TestListWhileChanging removes what was listed while listing goes on, and adds more: what was there all the time is listed once.
func TestListWhileChanging(t *testing.T) {
	s := newSite(t)
	s.many("big", 4000)
	u, root := s.root("/repo/@main")
	big := find(t, u, root, "big")
	var group sync.WaitGroup
	stop := make(chan struct{})
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := u.Create(big, fmt.Sprintf("new-%d", i), nfstest.Guarded, nfstest.Set{}); err != nil {
				t.Error(err)
				return
			}
			if _, err := u.Create(big, fmt.Sprintf("a-%d", i), nfstest.Guarded, nfstest.Set{}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	times := map[string]int{}
	for cookie := uint64(0); ; {
		p, err := u.Readdirplus(big, cookie, 0, 4096, 16<<10)
		is(t, "readdirplus", err, statusOK)
		for i, e := range p.Entries {
			cookie = e.Cookie
			times[e.Name]++
			if e.Name != "." && e.Name != ".." && (i%2 == 0 || i == len(p.Entries)-1) { // the one to go on from too
				if _, err := u.Remove(big, e.Name); err != nil {
					t.Fatal(err)
				}
			}
		}
		if p.EOF {
			break
		}
	}
	close(stop)
	group.Wait()
	for i := range 4000 {
		if n := times[fmt.Sprintf("file-%07d", i)]; n != 1 {
			t.Fatalf("file %d was listed %d times", i, n)
		}
	}
	for name, n := range times {
		if n != 1 {
			t.Errorf("%s was listed %d times", name, n)
		}
	}
}

// TestMillion lists and goes through a directory of very many entries, with bounded memory. Long; the soak runs it.
func TestMillion(t *testing.T) {
	n := 1_000_000
	if os.Getenv("LAKEFSFS_TEST_ALL") == "" {
		n = 30_000
	}
	s := newSite(t)
	s.cfg.Nodes = 10_000
	s.restart()
	want := s.many("big", n)
	u, root := s.root("/repo/@main")
	big := find(t, u, root, "big")
	calls, at := 0, 0
	var some []nfstest.Entry
	for cookie := uint64(0); ; calls++ {
		p, err := u.Readdirplus(big, cookie, 0, 128<<10, 128<<10)
		is(t, "readdirplus", err, statusOK)
		for _, e := range p.Entries {
			cookie = e.Cookie
			if e.Name == "." || e.Name == ".." {
				continue
			}
			if e.Name != want[at] {
				t.Fatalf("name %d is %q, not %q", at, e.Name, want[at])
			}
			if at++; at%(n/1000) == 0 {
				some = append(some, e)
			}
		}
		if p.EOF {
			break
		}
	}
	if at != n {
		t.Errorf("%d names of %d", at, n)
	}
	// Each call costs its own length.
	if read := s.listed.names.Load(); read > int64(n+n/10+2048) {
		t.Errorf("for %d names in %d calls, %d were read", n, calls, read)
	}
	for _, e := range some {
		a, err := u.Getattr(e.FH)
		is(t, "getattr", err, statusOK)
		if a.FileID != e.FileID {
			t.Fatalf("%s: number %x, listed %x", e.Name, a.FileID, e.FileID)
		}
	}
	if k := s.tree("/").fs.Nodes(); k > 25_000 {
		t.Errorf("%d nodes are kept for 10,000 handles", k)
	}
}

// A client may go on from any name that it was given, when that is gone, though the reply was the directory's last.
func TestListingGoesOnFromARemovedName(t *testing.T) {
	s := newSite(t)
	u, root := s.root("/repo/@main")
	for i := range 20 {
		put(t, u, root, fmt.Sprintf("f%02d", i), "")
	}
	p, err := u.Readdir(root, 0, 0, 32<<10)
	is(t, "readdir", err, statusOK)
	var at uint64
	for _, e := range p.Entries {
		if e.Name == "f09" {
			at = e.Cookie
		}
	}
	for i := range 10 {
		_, err := u.Remove(root, fmt.Sprintf("f%02d", i))
		is(t, "remove", err, statusOK)
	}
	// Pages that others read push out the one that the client read.
	for i := range pagesKept + 1 {
		put(t, u, root, fmt.Sprintf("g%02d", i), "")
		if _, err := u.Readdir(root, 0, 0, 32<<10); err != nil {
			t.Fatal(err)
		}
	}
	p, err = u.Readdir(root, at, 0, 32<<10)
	is(t, "readdir from a removed name", err, statusOK)
	if len(p.Entries) != 10+pagesKept+1 || p.Entries[0].Name != "f10" {
		t.Errorf("%d entries from %+v", len(p.Entries), p.Entries[:min(1, len(p.Entries))])
	}
}
