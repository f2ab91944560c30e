package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gocloud.dev/gcerrors"
	"google.golang.org/api/googleapi"

	"github.com/lakefsfs/lakefsfs/graveler"
)

func TestKindOf(t *testing.T) {
	_, noFile := os.Open("/no/such/file")
	for _, tt := range []struct {
		err  error
		want graveler.Kind
	}{
		{noFile, graveler.NotFound},
		{&iofs.PathError{Op: "write", Err: syscall.ENOSPC}, graveler.NoSpace},
		{&iofs.PathError{Op: "open", Err: syscall.EACCES}, graveler.Denied},
		{&iofs.PathError{Op: "open", Err: syscall.EROFS}, graveler.ReadOnly},
		{&iofs.PathError{Op: "open", Err: syscall.ENAMETOOLONG}, graveler.TooLarge},
		{syscall.EDQUOT, graveler.NoSpace},
		{syscall.EIO, graveler.Unavailable},
		{syscall.ECONNREFUSED, graveler.Unavailable},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), graveler.Timeout},
		{fmt.Errorf("x: %w", context.Canceled), graveler.Canceled},
		{fmt.Errorf("x: %w", graveler.Corrupt), graveler.Corrupt},
		{&googleapi.Error{Code: 403}, graveler.Denied},
		{&googleapi.Error{Code: 404}, graveler.NotFound},
		{&googleapi.Error{Code: 429}, graveler.Unavailable},
		{&googleapi.Error{Code: 503}, graveler.Unavailable},
		{io.ErrUnexpectedEOF, graveler.Unavailable},
		{errors.New("anything"), graveler.Unavailable},
	} {
		if got := kindOf(tt.err); got != tt.want {
			t.Errorf("kindOf(%v) = %v, want %v", tt.err, got, tt.want)
		}
		if got := graveler.KindOf(wrap("read", "x", tt.err)); got != tt.want {
			t.Errorf("KindOf(wrap(%v)) = %v, want %v", tt.err, got, tt.want)
		}
	}
	for code := range gcerrors.ErrorCode(32) { // total: a kind that is an error of ours has no place here
		if k := kindOfCode(code); k == graveler.Internal {
			t.Errorf("kindOfCode(%v) = %v", code, k)
		}
	}
}

// s3At returns a store over an S3 server that answers as h does. The SDK, which tries again by itself, has no budget for it.
func s3At(t *testing.T, opt Options, h http.HandlerFunc) Store {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "y")
	st, err := Open(t.Context(), "s3://bucket?region=us-east-1&use_path_style=true&rate_limiter_capacity=1&endpoint="+srv.URL, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func TestUnavailableIsTriedAgain(t *testing.T) {
	var calls atomic.Int64
	st := s3At(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2: // the connection breaks in the middle
			w.Header().Set("Content-Length", "4")
			w.Write([]byte("da"))
		default:
			w.Write([]byte("data"))
		}
	})
	p := make([]byte, 4)
	n, err := st.ReadAt(t.Context(), Object{Address: "x", Type: graveler.AddressRelative, Size: 4}, p, 0)
	if n != 4 || err != nil || string(p) != "data" || calls.Load() != 3 {
		t.Errorf("ReadAt = %q, %v after %d requests", p[:n], err, calls.Load())
	}
}

// What can be read again is sent again whole, from where it stood; what can't is not.
func TestUploadIsTriedAgain(t *testing.T) {
	var calls atomic.Int64
	var got atomic.Value
	st := s3At(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got.Store(string(b))
	})
	r := strings.NewReader("--data")
	r.Seek(2, io.SeekStart)
	i, err := st.Put(t.Context(), "x", r, PutOptions{Size: 4})
	if err != nil || i.Size != 4 || calls.Load() != 2 || got.Load() != "data" {
		t.Errorf("Put = %+v, %v after %d requests; the store has %q", i, err, calls.Load(), got.Load())
	}
	calls.Store(0)
	if _, err := st.Put(t.Context(), "x", io.LimitReader(r, 4), PutOptions{Size: -1}); graveler.KindOf(err) != graveler.Unavailable || calls.Load() != 1 {
		t.Errorf("Put of a stream: %v after %d requests", err, calls.Load())
	}
}

func TestStoreErrors(t *testing.T) {
	for _, tt := range []struct {
		status int
		want   graveler.Kind
		hint   string
	}{
		{403, graveler.Denied, "check the credentials"}, {404, graveler.NotFound, ""}, {500, graveler.Unavailable, ""},
		{503, graveler.Unavailable, ""}, {507, graveler.NoSpace, "free space"}, {400, graveler.Invalid, ""},
	} {
		st := s3At(t, Options{RetryFor: -1}, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(tt.status) })
		_, err := st.ReadAt(t.Context(), Object{Address: "x", Type: graveler.AddressRelative, Size: 4}, make([]byte, 4), 0)
		if graveler.KindOf(err) != tt.want || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("ReadAt with status %d: %v, want %v", tt.status, err, tt.want)
		}
		_, err = st.Put(t.Context(), "x", strings.NewReader("data"), PutOptions{Size: 4})
		if graveler.KindOf(err) != tt.want {
			t.Errorf("Put with status %d: %v, want %v", tt.status, err, tt.want)
		}
	}
}

func TestSilentStoreTimesOut(t *testing.T) {
	st := s3At(t, Options{RetryFor: -1, Timeout: 20 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	o := Object{Address: "x", Type: graveler.AddressRelative, Size: 4}
	if _, err := st.ReadAt(t.Context(), o, make([]byte, 4), 0); graveler.KindOf(err) != graveler.Timeout {
		t.Errorf("ReadAt: %v, want a timeout", err)
	}
	if _, err := st.Put(t.Context(), "x", strings.NewReader("data"), PutOptions{Size: 4}); graveler.KindOf(err) != graveler.Timeout {
		t.Errorf("Put: %v, want a timeout", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := st.ReadAt(ctx, o, make([]byte, 4), 0); graveler.KindOf(err) != graveler.Timeout {
		t.Errorf("ReadAt with a deadline: %v, want a timeout", err)
	}
}

func TestOpaqueTag(t *testing.T) {
	const tag = "0123456789abcdef0123456789abcdef"
	for _, sse := range []string{"", "AES256", "aws:kms"} {
		st := s3At(t, Options{RetryFor: -1}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"`+tag+`"`)
			w.Header().Set("Last-Modified", "Fri, 01 Mar 2024 00:00:00 GMT")
			if sse != "" {
				w.Header().Set("x-amz-server-side-encryption", sse)
			}
		})
		for md5, want := range map[string]bool{tag: sse == "aws:kms", strings.Repeat("f", 32): false} {
			got, err := st.(Tagger).OpaqueTag(t.Context(), Object{Address: "x", Type: graveler.AddressRelative, MD5: md5})
			if got != want || err != nil {
				t.Errorf("OpaqueTag(%s) with encryption %q = %v, %v", md5, sse, got, err)
			}
		}
		i, err := st.Stat(t.Context(), "x")
		if err != nil || i.ETag != tag || (i.MD5 == "") != (sse == "aws:kms") {
			t.Errorf("Stat with encryption %q = %+v, %v", sse, i, err)
		}
	}
}
