package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

// smallFile is the content of file i of a repository of small files.
func smallFile(i int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("file %05d\n", i)), 100) }

// smallFiles writes a namespace with a commit of n small files in one directory, d.
func smallFiles(t *testing.T, url string, n int) {
	t.Helper()
	st, err := object.Open(t.Context(), url, object.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	changes := make([]graveler.Change, n)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			b := smallFile(i)
			info, err := st.Put(t.Context(), fmt.Sprintf("data/%05d", i), bytes.NewReader(b), object.PutOptions{Size: int64(len(b))})
			changes[i] = graveler.Change{Path: fmt.Sprintf("d/%05d.txt", i), Entry: graveler.Entry{
				Address: info.Address, AddressType: graveler.AddressRelative, Size: info.Size, ETag: info.MD5, Modified: time.Unix(1, 0),
			}}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	s := committed.New(st, committed.Options{})
	meta, _, err := s.Apply(t.Context(), "", graveler.SliceCursor(changes))
	if err != nil {
		t.Fatal(err)
	}
	c := graveler.Commit{Committer: "t", Message: "all", Created: time.Unix(1, 0), MetaRange: meta, Version: 1, Generation: 1}
	c.ID = c.ComputeID()
	if _, err := s.DumpRefs(t.Context(), committed.RefsDump{Commits: []graveler.Commit{c}, Branches: []graveler.Branch{{ID: "main", Commit: c.ID}}}); err != nil {
		t.Fatal(err)
	}
}

// readSmall reads files of a directory in the order of their names, by so many readers that share the work.
func readSmall(dir string, names []string, readers int) error {
	next := make(chan string)
	var g errgroup.Group
	for range readers {
		g.Go(func() (err error) {
			for name := range next {
				var i int
				if err != nil {
					continue // the sender must not wait for ever
				}
				if _, err = fmt.Sscanf(name, "%d.txt", &i); err != nil {
					continue
				}
				var b []byte
				if b, err = os.ReadFile(dir + "/" + name); err == nil && !bytes.Equal(b, smallFile(i)) {
					err = fmt.Errorf("%s has wrong bytes", name)
				}
			}
			return err
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	return g.Wait()
}

// Small files read in order from a slow object store are fetched ahead of their readers, each once.
func TestColdSmallFiles(t *testing.T) {
	n := 600
	if os.Getenv("LAKEFSFS_TEST_ALL") != "" {
		n = 20_000
	}
	direct := objecttest.S3(t)
	smallFiles(t, direct, n)
	for _, readers := range []int{1, 8} {
		t.Run(fmt.Sprintf("readers=%d", readers), func(t *testing.T) {
			p := objecttest.NewProxy(t, direct)
			p.Set(objecttest.ProxyFaults{Delay: 10 * time.Millisecond})
			w := newWorld(t)
			w.ok("repo", "attach", "repo", "--storage-namespace", p.URL)
			dir := w.at("repo/@main/d")
			ents, err := os.ReadDir(dir)
			if err != nil || len(ents) != n {
				t.Fatalf("%d names, %v", len(ents), err)
			}
			var names []string
			for _, e := range ents {
				names = append(names, e.Name())
			}
			slices.Sort(names)
			start, used := time.Now(), w.processor()
			if err := readSmall(dir, names, readers); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			t.Logf("%d files, %d readers: %v, %.0f files/s; the daemon used %.2f s of processors; at most %d requests at a time", n, readers, took, float64(n)/took.Seconds(), w.processor()-used, p.Most())
			objects := 0
			for key, times := range p.Gets() {
				if strings.Contains(key, "/data/") {
					objects++
					if times != 1 {
						t.Errorf("%s was asked for %d times", key, times)
					}
				}
			}
			if objects != n {
				t.Errorf("%d objects were asked for, want %d", objects, n)
			}
			if p.Most() <= readers {
				t.Errorf("at most %d requests were under way at a time", p.Most())
			}
		})
	}
}
