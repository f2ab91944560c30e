package object_test

import (
	"strings"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

func TestCanonicalURL(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"file:///srv/lake/", "file:///srv/lake"},
		{"file:///srv//lake/./r1", "file:///srv/lake/r1"},
		{"file://localhost/srv", "file:///srv"},
		{"/srv/a b", "file:///srv/a%20b"},
		{"/srv/100%?#", "file:///srv/100%25%3F%23"},
		{"mem://x", "mem://x"},
		{"s3://bucket/prefix/", "s3://bucket/prefix"},
		{"s3://bucket/?region=r&endpoint=http://h:1", "s3://bucket?endpoint=http%3A%2F%2Fh%3A1&region=r"},
		{"gs://bucket", "gs://bucket"},
		{"azblob://container/p", "azblob://container/p"},
		{"local://r1/sub", "local://r1/sub"},
	} {
		got, err := object.CanonicalURL(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("CanonicalURL(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
		if again, err := object.CanonicalURL(got); again != got || err != nil {
			t.Errorf("CanonicalURL(%q) = %q, %v, want it unchanged", got, again, err)
		}
		if err := object.ValidateURL(tt.in); err != nil {
			t.Errorf("ValidateURL(%q): %v", tt.in, err)
		}
	}
}

func TestRefusedURLs(t *testing.T) {
	for _, tt := range []struct{ in, hint string }{
		{"", "s3://bucket/prefix"},
		{"srv/lake", "file:///dir"},
		{"bucket", "s3://bucket/prefix"},
		{"file://srv/lake", "file:///srv/lake"},
		{"file:///", "names no directory"},
		{"file:relative", "file:///dir"},
		{"file:///a?b", "%3F"},
		{"file:///a/../../etc", "without .."},
		{"s3:///x", "names no bucket"},
		{"s3://b/x#y", "%23"},
		{"s3://b/x/../y", "without .."},
		{"s3://key:secret@b/x", "environment"},
		{"s3://b?%zz=1", "parameters"},
		{"local:///x", "local://name"},
		{"http://host/x", "scheme"},
	} {
		err := object.ValidateURL(tt.in)
		if graveler.KindOf(err) != graveler.Invalid || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("ValidateURL(%q) = %v, want Invalid that says %q", tt.in, err, tt.hint)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("ValidateURL(%q) tells a secret: %v", tt.in, err)
		}
		if _, err := object.Open(t.Context(), tt.in, object.Options{LocalRoot: t.TempDir()}); err == nil {
			t.Errorf("Open(%q): no error", tt.in)
		}
	}
	if _, err := object.Open(t.Context(), "local://x", object.Options{}); graveler.KindOf(err) != graveler.Invalid {
		t.Errorf("Open(local://x) without a root: %v", err)
	}
	if _, err := object.Open(t.Context(), "s3://b?use_path_style=perhaps", object.Options{}); graveler.KindOf(err) != graveler.Invalid {
		t.Errorf("Open with a bad parameter: %v", err)
	}
}

func FuzzCanonicalURL(f *testing.F) {
	for _, s := range []string{"file:///a/b", "s3://b/p?x=y", "/a%", "local://a/..", "mem://x#y", "gs://b/%2e%2e/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := object.CanonicalURL(s)
		if err != nil {
			if graveler.KindOf(err) != graveler.Invalid {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if again, err := object.CanonicalURL(c); err != nil || again != c {
			t.Fatalf("%q → %q → %q, %v", s, c, again, err)
		}
	})
}
