package nfsvm

import (
	"os"
	"path/filepath"
	"testing"
)

// Need returns Options.Dir of what make deps left in this checkout. Tests that need a guest fail where there is none: only
// LAKEFSFS_TEST_NO_VM=1 in the environment lets them be skipped.
func Need(t testing.TB) string {
	t.Helper()
	return need(t, "nfsvm")
}

// NeedCthon is Need of the guest in which the Connectathon tests run, which make nfs-soak leaves.
func NeedCthon(t testing.TB) string {
	t.Helper()
	return need(t, "nfsvm-cthon")
}

func need(t testing.TB, name string) string {
	t.Helper()
	if os.Getenv("LAKEFSFS_TEST_NO_VM") != "" {
		t.Skip("LAKEFSFS_TEST_NO_VM is set: no test with a kernel's NFS client")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == "/" {
			t.Fatal("the tests are not run in a checkout")
		}
	}
	return filepath.Join(dir, ".tools", name)
}
