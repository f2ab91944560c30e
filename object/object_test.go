package object_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/object/objecttest"
)

func open(t *testing.T, url string, opt object.Options) object.Store {
	t.Helper()
	st, err := object.Open(t.Context(), url, opt)
	if err != nil {
		t.Fatalf("Open(%q): %v", url, err)
	}
	return st
}

func TestFile(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return open(t, "file://"+t.TempDir()+"/new/ns", object.Options{}) })
}

func TestLocalScheme(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store {
		return open(t, "local://r/ns/", object.Options{LocalRoot: t.TempDir()})
	})
}

func TestMem(t *testing.T) {
	for _, prefix := range []string{"", "/a", "/a/b/"} {
		t.Run("prefix="+prefix, func(t *testing.T) {
			objecttest.Run(t, func(t *testing.T) object.Store {
				return open(t, "mem://"+strings.NewReplacer("/", ".", "#", "-").Replace(t.Name())+prefix, object.Options{})
			})
		})
	}
}

func TestS3(t *testing.T) {
	url := objecttest.S3(t)
	n := 0
	objecttest.Run(t, func(t *testing.T) object.Store {
		n++ // each test has a prefix of its own in the bucket
		return open(t, strings.Replace(url, "/ns?", fmt.Sprintf("/ns/%d?", n), 1), object.Options{})
	})
}

func TestGCS(t *testing.T) {
	url := objecttest.GCS(t)
	n := 0
	objecttest.Run(t, func(t *testing.T) object.Store {
		n++
		return open(t, fmt.Sprintf("%s/%d", url, n), object.Options{})
	})
}

func TestCounting(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store {
		return objecttest.NewCounting(open(t, "file://"+t.TempDir(), object.Options{}))
	})
}

func TestFaultyWithoutFaults(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store {
		return objecttest.NewFaultyLocal(open(t, "file://"+t.TempDir(), object.Options{}).(object.Local), 1, objecttest.Faults{})
	})
}
