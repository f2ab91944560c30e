package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// requests counts what an object store was asked.
type requests struct {
	Get, Head, List, Put, Post, Delete int64
	In, Out                            int64 // bytes of content, to the store and from it
}

func (r requests) sub(o requests) requests {
	return requests{r.Get - o.Get, r.Head - o.Head, r.List - o.List, r.Put - o.Put, r.Post - o.Post, r.Delete - o.Delete, r.In - o.In, r.Out - o.Out}
}

// String is short, for a table's cell: what is not zero.
func (r requests) String() string {
	var b []string
	for _, k := range []struct {
		name string
		n    int64
	}{{"GET", r.Get}, {"HEAD", r.Head}, {"LIST", r.List}, {"PUT", r.Put}, {"POST", r.Post}, {"DEL", r.Delete}} {
		if k.n != 0 {
			b = append(b, fmt.Sprintf("%d %s", k.n, k.name))
		}
	}
	for _, k := range []struct {
		name string
		n    int64
	}{{"up", r.In}, {"down", r.Out}} {
		if k.n >= 50_000 {
			b = append(b, fmt.Sprintf("%.1f MB %s", float64(k.n)/1e6, k.name))
		}
	}
	if len(b) == 0 {
		return "0"
	}
	return strings.Join(b, ", ")
}

// proxy stands before an S3 server: it holds each request back as a far one would be, and counts.
type proxy struct {
	addr string
	srv  *http.Server

	mu     sync.Mutex
	counts requests
	open   int       // requests being answered
	last   time.Time // when the last one came or was answered
}

// newProxy listens on a port of loopback, before the server at backend.
func newProxy(backend string, delay time.Duration) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: l.Addr().String(), last: time.Now()}
	target := &url.URL{Scheme: "http", Host: backend}
	next := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true},
		ErrorLog:  log.New(io.Discard, "", 0), // a client that goes away, which the client knows
	}
	p.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.begin(r)
		out := &countingWriter{ResponseWriter: w}
		in := &countingBody{ReadCloser: r.Body}
		r.Body = in
		defer func() { p.end(in.n, out.n) }()
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
		next.ServeHTTP(out, r)
	})}
	go p.srv.Serve(l)
	return p, nil
}

func (p *proxy) begin(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open++
	p.last = time.Now()
	c := &p.counts
	_, object, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodGet && object == "":
		c.List++
	case r.Method == http.MethodGet:
		c.Get++
	case r.Method == http.MethodHead:
		c.Head++
	case r.Method == http.MethodPut:
		c.Put++
	case r.Method == http.MethodDelete:
		c.Delete++
	default:
		c.Post++
	}
}

func (p *proxy) end(in, out int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.last = time.Now()
	p.counts.In += in
	p.counts.Out += out
}

func (p *proxy) snapshot() requests {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// quiet waits until nothing has been asked for so long, counted from the call at the earliest, since writing back may begin late. It
// returns when the last request was answered, and gives up after most.
func (p *proxy) quiet(long, most time.Duration) (last time.Time, err error) {
	called := time.Now()
	for {
		p.mu.Lock()
		last, busy := p.last, p.open > 0 || time.Since(p.last) < long
		p.mu.Unlock()
		switch waited := time.Since(called); {
		case !busy && waited >= long:
			return last, nil
		case waited >= most:
			return last, fmt.Errorf("the store is still being written to after %s", most)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *proxy) close() { p.srv.Close() }

type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.n += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find what it needs.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type countingBody struct {
	io.ReadCloser
	n int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}
