package nfs

import (
	"testing"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// verifiersStay tells whether the kernel says what a verifier that stays is made of.
func verifiersStay(t *testing.T) bool {
	t.Helper()
	dir := t.TempDir()
	before := diskVerifier(t, dir)
	return diskVerifier(t, dir) == before
}

func diskVerifier(t *testing.T, dir string) uint64 {
	t.Helper()
	v, err := writeVerifier(make([]byte, KeySize), dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerifiersDiffer(t *testing.T) {
	dir, key := t.TempDir(), make([]byte, KeySize)
	key[0] = 1
	v := diskVerifier(t, dir)
	if other, err := writeVerifier(key, dir); err != nil || other == v || diskVerifier(t, t.TempDir()) == v {
		t.Errorf("another key or another directory has the same verifier, %v", err)
	}
	for _, unknown := range []string{"", dir + "/nothing"} {
		if before := diskVerifier(t, unknown); diskVerifier(t, unknown) == before {
			t.Errorf("of %q nothing is known, and the verifier stays", unknown)
		}
	}
	s := Server{verf: 1, verfControl: 2}
	if s.verifier(&node{form: vfs.FormControlFile}) != 2 || s.verifier(&node{form: vfs.FormFile}) != 1 {
		t.Error("what was written to a control file is lost by a restart")
	}
}
