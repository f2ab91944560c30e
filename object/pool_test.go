package object

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Requests to S3 that are made at a time find a connection again that an earlier one left.
func TestConnectionsAreKept(t *testing.T) {
	const at = 40 // more than the SDK keeps by itself
	var conns atomic.Int64
	arrived := make(chan struct{}, at)
	release := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		w.Write([]byte("data"))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "y")
	st, err := Open(t.Context(), "s3://bucket?region=us-east-1&use_path_style=true&endpoint="+srv.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	round := func() {
		var wg sync.WaitGroup
		for range at {
			wg.Go(func() {
				if _, err := st.ReadAt(t.Context(), Object{Address: "x", Type: graveler.AddressRelative, Size: 4}, make([]byte, 4), 0); err != nil {
					t.Error(err)
				}
			})
		}
		for range at {
			<-arrived
		}
		for range at {
			release <- struct{}{}
		}
		wg.Wait()
	}
	round()
	first := conns.Load()
	for range 3 {
		round()
	}
	if n := conns.Load(); first != at || n > first+first/4 {
		t.Errorf("%d connections for %d requests at a time, then %d", first, at, n)
	}
}
