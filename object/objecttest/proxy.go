package objecttest

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// ProxyFaults says what a Proxy does to requests.
type ProxyFaults struct {
	Match     string        // only requests whose path has it are harmed
	Delay     time.Duration // before every request, harmed or not
	FailOneIn int           // the mean number of requests between two that get status 503; 0 is never, 1 always
	Hang      bool          // no answer until the client gives up or Set is called
	Wrong     bool          // a byte of what is read is wrong
}

// Proxy stands between a client and an S3 server: it counts requests, and delays or spoils them. It does what Faulty does,
// where another process is the client.
type Proxy struct {
	URL string // of the store through the proxy, for object.Open

	mu      sync.Mutex // guards the fields below
	faults  ProxyFaults
	changed chan struct{} // closed by Set
	rand    *rand.Rand
	gets    map[string]int
	now     int
	most    int
	failed  int
}

// NewProxy starts a proxy before the S3 server of a URL that S3 gave. It ends with the test.
func NewProxy(t testing.TB, storeURL string) *Proxy {
	t.Helper()
	u, err := url.Parse(storeURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	server, err := url.Parse(q.Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{changed: make(chan struct{}), rand: rand.New(rand.NewPCG(1, 2)), gets: map[string]int{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	// The request keeps its Host, which its signature is of.
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = server.Scheme, server.Host, r.In.Host
		},
		Transport:      transport,
		ModifyResponse: p.spoil,
		ErrorHandler:   func(w http.ResponseWriter, r *http.Request, err error) { w.WriteHeader(http.StatusBadGateway) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.before(w, r) {
			rp.ServeHTTP(w, r)
		}
		p.mu.Lock()
		p.now--
		p.mu.Unlock()
	}))
	t.Cleanup(func() {
		p.Set(ProxyFaults{})
		srv.CloseClientConnections()
		srv.Close()
		transport.CloseIdleConnections()
	})
	q.Set("endpoint", srv.URL)
	u.RawQuery = q.Encode()
	p.URL = u.String()
	return p
}

// Set changes what is done to requests from now on. Those that hang go on.
func (p *Proxy) Set(f ProxyFaults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
	close(p.changed)
	p.changed = make(chan struct{})
}

// Gets is how often each object was asked for, by its key, failed requests included.
func (p *Proxy) Gets() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.gets)
}

// Failed is how many requests got an error on purpose.
func (p *Proxy) Failed() int { p.mu.Lock(); defer p.mu.Unlock(); return p.failed }

// Most is how many requests were under way at one time.
func (p *Proxy) Most() int { p.mu.Lock(); defer p.mu.Unlock(); return p.most }

// before reports whether the server is to answer.
func (p *Proxy) before(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	f, changed := p.faults, p.changed
	p.now++
	p.most = max(p.most, p.now)
	if r.Method == http.MethodGet {
		p.gets[strings.TrimPrefix(r.URL.Path, "/")]++
	}
	harm := strings.Contains(r.URL.Path, f.Match)
	fail := harm && f.FailOneIn > 0 && p.rand.IntN(f.FailOneIn) == 0
	if fail {
		p.failed++
	}
	p.mu.Unlock()
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return false
		}
	}
	switch {
	case harm && f.Hang:
		select {
		case <-changed:
		case <-r.Context().Done():
			return false
		}
	case fail:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "<Error><Code>ServiceUnavailable</Code><Message>injected</Message></Error>")
		return false
	}
	return true
}

// spoil makes the first byte of an object wrong.
func (p *Proxy) spoil(resp *http.Response) error {
	p.mu.Lock()
	f := p.faults
	p.mu.Unlock()
	if f.Wrong && resp.Request.Method == http.MethodGet && resp.StatusCode/100 == 2 && strings.Contains(resp.Request.URL.Path, f.Match) {
		resp.Body = &wrongBody{ReadCloser: resp.Body}
	}
	return nil
}

type wrongBody struct {
	io.ReadCloser
	done bool
}

func (b *wrongBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && !b.done {
		p[0] ^= 0x40
		b.done = true
	}
	return n, err
}
