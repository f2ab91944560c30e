package object

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Files are written with a name where the file system has none without: the outcome is the same, and no name stays.
func TestNamedTempFiles(t *testing.T) {
	dir := t.TempDir()
	for _, named := range []bool{false, true} {
		st, err := Open(t.Context(), "file://"+dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := st.(*fileStore)
		s.named = named
		for _, b := range []string{"one", "another"} {
			if _, err := s.Put(t.Context(), "data/x", strings.NewReader(b), PutOptions{Size: -1}); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(dir + "/data/x")
			if err != nil || string(got) != b {
				t.Errorf("named=%v: the file has %q, %v, want %q", named, got, err, b)
			}
			if fi, err := os.Stat(dir + "/data/x"); err != nil || fi.Mode().Perm()&0o600 != 0o600 {
				t.Errorf("named=%v: mode %v, %v", named, fi.Mode(), err)
			}
		}
		broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("broken")))
		if _, err := s.Put(t.Context(), "data/x", broken, PutOptions{Size: -1}); err == nil {
			t.Error("Put of a broken reader: no error")
		}
		ents, err := os.ReadDir(dir + "/data")
		if err != nil || len(ents) != 1 {
			t.Errorf("named=%v: left in the directory: %v, %v", named, ents, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A directory that goes while a file is being written into it comes back.
func TestDirectoryGoes(t *testing.T) {
	dir := t.TempDir()
	st, err := Open(t.Context(), "file://"+dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	r := readerFunc(func([]byte) (int, error) { return 0, errors.Join(os.RemoveAll(dir+"/data"), io.EOF) })
	_, err = st.Put(t.Context(), "data/p/x", r, PutOptions{Size: -1})
	if err != nil {
		t.Skipf("this file system has no files without a name: %v", err)
	}
	if _, err := st.Stat(t.Context(), "data/p/x"); err != nil {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) {
	n, err := f(p)
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}

func TestFullDisk(t *testing.T) {
	err := wrap("write", "x", &os.PathError{Op: "write", Path: "/dev/full", Err: writeFull(t)})
	if graveler.KindOf(err) != graveler.NoSpace || !strings.Contains(err.Error(), "free space") {
		t.Errorf("a full disk: %v", err)
	}
}

func writeFull(t *testing.T) error {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full")
	}
	defer f.Close()
	_, err = f.Write([]byte("x"))
	return errors.Unwrap(err)
}

// What is read fresh is seen to be gone, though the file was open here when another process removed it.
func TestFreshFile(t *testing.T) {
	dir := t.TempDir()
	st, err := Open(t.Context(), "file://"+dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Put(t.Context(), "data/x", strings.NewReader("text"), PutOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Object{
		{Address: "data/x", Type: graveler.AddressRelative, Size: 4},
		{Address: "file://" + dir + "/data/x", Type: graveler.AddressFull, Size: 4},
	} {
		if _, err := st.ReadAt(t.Context(), o, make([]byte, 4), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(dir + "/data/x"); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Object{
		{Address: "data/x", Type: graveler.AddressRelative, Size: 4, Fresh: true},
		{Address: "file://" + dir + "/data/x", Type: graveler.AddressFull, Size: 4, Fresh: true},
	} {
		if _, err := st.ReadAt(t.Context(), o, make([]byte, 4), 0); !errors.Is(err, graveler.NotFound) {
			t.Errorf("%s: %v", o.Address, err)
		}
	}
}
