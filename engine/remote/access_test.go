package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	a.ok(err)
	a.cert, err = x509.ParseCertificate(der)
	a.ok(err)
	a.write("ca.crt", "CERTIFICATE", der)
	return a
}

func (a *authority) ok(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.ok(err)
	return k
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	a.ok(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// issue makes a certificate for 127.0.0.1.
func (a *authority) issue(name string, serial int64) (cert, key string) {
	k := a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	a.ok(err)
	kder, err := x509.MarshalECPrivateKey(k)
	a.ok(err)
	return a.write(name+".crt", "CERTIFICATE", der), a.write(name+".key", "EC PRIVATE KEY", kder)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const (
	roToken    = "ro-token-0123456789"
	rwToken    = "rw-token-0123456789"
	adminToken = "admin-token-0123456789"
)

// Each client may do what its role says, over TLS that it trusts, and no token gets into the log.
func TestTokens(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("server", 2)
	var logged lockedBuffer
	file := filepath.Join(t.TempDir(), "tokens")
	text := "# clients\n\n" + roToken + " reader ro\n" + rwToken + " writer rw\n" + adminToken + " boss admin\n"
	a.ok(os.WriteFile(file, []byte(text), 0o600))
	tokens, err := OpenTokens(file, slog.New(slog.NewTextHandler(&logged, nil)))
	a.ok(err)
	load := Certificate(cert, key)
	l := listen(t, "tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	e := openLocal(t)
	serve(t, l, e, ServerOptions{Tokens: tokens, GRPC: []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
	}))}})
	client := func(token string) *Client {
		return dial(t, addr, DialOptions{CA: a.dir + "/ca.crt", Token: token, RetryFor: 500 * time.Millisecond})
	}
	ctx := t.Context()
	boss, writer, reader := client(adminToken), client(rwToken), client(roToken)
	create(t, boss)
	stage := func(c *Client) error { return c.Stage(ctx, repo, "main", []graveler.Change{{Path: "f"}}) }
	denied := func(name string, err error) {
		t.Helper()
		if graveler.KindOf(err) != graveler.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.ok(stage(writer))
	denied("stage of a reader", stage(reader))
	if _, err := reader.Stat(ctx, repo, "main", "f"); err != nil {
		t.Error(err)
	}
	denied("a repository of a writer", second(writer.CreateRepository(ctx, engine.CreateRepository{ID: "other"})))
	denied("rules of a writer", writer.SetRules(ctx, repo, nil))
	denied("no token", second(client("").ListRepositories(ctx)))
	denied("a wrong token", second(client("wrong-token-0123456789").ListRepositories(ctx)))
	denied("half a token", second(client(roToken[:16]).ListRepositories(ctx)))
	denied("garbage of a writer", second(writer.CollectGarbage(ctx, engine.GCRequest{Repo: repo})))
	// A file of the server's own.
	secret := filepath.Join(t.TempDir(), "secret")
	a.ok(os.WriteFile(secret, []byte("secret"), 0o600))
	for name, c := range map[string]*Client{"reader": reader, "writer": writer} {
		st, err := c.Objects(ctx, repo)
		a.ok(err)
		for _, addr := range []string{"file://" + secret, "FILE://" + secret, "local://" + secret} {
			for _, typ := range []graveler.AddressType{graveler.AddressFull, graveler.AddressByPrefix} {
				b := make([]byte, 6)
				if n, err := st.ReadAt(ctx, object.Object{Address: addr, Type: typ, Size: -1}, b, 0); err == nil || string(b[:n]) == "secret" {
					t.Errorf("%s read %s", name, addr)
				}
			}
		}
		denied("delete of a "+name, st.Delete(ctx, "data/x"))
	}
	// Who doesn't know the authority doesn't speak with the server; nor without TLS.
	if _, err := dial(t, addr, DialOptions{Token: adminToken, RetryFor: 300 * time.Millisecond}).ListRepositories(ctx); graveler.KindOf(err) != graveler.Unavailable {
		t.Error(err)
	}
	if _, err := dial(t, addr, DialOptions{Token: adminToken, Insecure: true, RetryFor: 300 * time.Millisecond}).ListRepositories(ctx); graveler.KindOf(err) != graveler.Unavailable {
		t.Error(err)
	}
	// A changed file counts, one with an error doesn't.
	a.ok(os.WriteFile(file, []byte(strings.ReplaceAll(text, rwToken, "another-token-012345")), 0o600))
	eventually(t, func() bool { return graveler.KindOf(stage(writer)) == graveler.Denied })
	a.ok(stage(client("another-token-012345")))
	a.ok(os.WriteFile(file, []byte("nonsense\n"), 0o600))
	eventually(t, func() bool {
		_, err := reader.Repository(ctx, repo)
		return err == nil && strings.Contains(logged.String(), "line 1")
	})
	// A renewed certificate is used by new connections.
	a.issue("server", 3)
	if c, err := load(); err != nil || c.Leaf == nil || c.Leaf.SerialNumber.Int64() != 3 {
		t.Errorf("%v", err)
	}
	a.ok(os.WriteFile(cert, []byte("half"), 0o600))
	if c, err := load(); err != nil || c.Leaf.SerialNumber.Int64() != 3 {
		t.Errorf("%v", err)
	}
	// Health needs no token, reflection does.
	p := boss.pool.peers[0]
	cc, err := p.conn()
	a.ok(err)
	in, err := reflection.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	a.ok(err)
	a.ok(in.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}))
	if r, err := in.Recv(); err != nil || !strings.Contains(r.String(), "lakefsfs.v1.Entries") {
		t.Errorf("%v %v", r, err)
	}
	np := client("").pool.peers[0]
	ncc, err := np.conn()
	a.ok(err)
	h, err := grpc_health_v1.NewHealthClient(ncc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", h, err)
	}
	for _, tok := range []string{roToken, rwToken, adminToken, "another-token-012345"} {
		if strings.Contains(logged.String(), tok) {
			t.Errorf("the log has a token: %s", logged.String())
		}
	}
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("it doesn't come to that")
		}
	}
}

func TestTokenFiles(t *testing.T) {
	for text, want := range map[string]string{
		"short x ro\n":                            "16 characters",
		roToken + " x\n":                          "a line is",
		roToken + " x all\n":                      "ro, rw or admin",
		roToken + " x ro\n" + roToken + " y ro\n": "another client's",
		roToken + " x ro\n" + rwToken + " x rw\n": "of that name",
	} {
		_, err := parseTokens(text)
		if graveler.KindOf(err) != graveler.Invalid || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), roToken) {
			t.Errorf("%q: %v", text, err)
		}
	}
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(roToken+" x ro\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTokens(file, slog.New(slog.DiscardHandler)); graveler.KindOf(err) != graveler.Invalid {
		t.Errorf("a file that others can read: %v", err)
	}
}

func FuzzTokens(f *testing.F) {
	f.Add("# x\n" + roToken + " x ro\n")
	f.Fuzz(func(t *testing.T, text string) {
		cs, err := parseTokens(text)
		if err != nil && (graveler.KindOf(err) != graveler.Invalid || cs != nil) {
			t.Error(err)
		}
		for _, c := range cs {
			if c.role < Reader || c.role > Operator || c.name == "" {
				t.Errorf("%+v", c)
			}
		}
	})
}

// A node that can't serve says so, and all the same gives signs of life.
func TestHealth(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	up := make(chan bool, 1)
	up <- false
	serve(t, l, openLocal(t), ServerOptions{Serving: func(context.Context) bool { v := <-up; up <- v; return v }})
	c := dial(t, l.Addr().String(), DialOptions{Insecure: true})
	cc, err := c.pool.peers[0].conn()
	if err != nil {
		t.Fatal(err)
	}
	h := grpc_health_v1.NewHealthClient(cc)
	in, err := h.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_SERVING} {
		r, err := in.Recv()
		if err != nil || r.Status != want {
			t.Fatalf("%v %v", r, err)
		}
		if r, err := h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil || r.Status != want {
			t.Fatalf("%v %v", r, err)
		}
		<-up
		up <- true
	}
}
