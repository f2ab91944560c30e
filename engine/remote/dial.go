package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// DialOptions say how a client reaches servers on other machines, and how long it tries. The zero value is right for a socket.
type DialOptions struct {
	Token     string        // of this client; "" for none
	TokenFile string        // file that holds it, read when it is needed
	CA        string        // PEM file of the authorities that servers' certificates are of; "" for the system's
	Cert, Key string        // PEM files of this client's own certificate; "" for none
	Insecure  bool          // without TLS: of addresses of this machine alone
	RetryFor  time.Duration // how long servers are tried again that don't answer, where the call has no deadline; 0 is 30 s

	dial func(ctx context.Context, network, addr string) (net.Conn, error) // of tests
}

const defaultRetry = 30 * time.Second

// Loopback reports whether HOST:PORT is an address of this machine alone.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// credentials are what a connection to a peer needs.
func (o *DialOptions) credentials(p *peer) ([]grpc.DialOption, error) {
	if p.unix {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
	}
	var opts []grpc.DialOption
	if o.Insecure {
		if !Loopback(p.addr) {
			return nil, fmt.Errorf("server %s: without TLS only servers on this machine are spoken to: %w", p.addr, graveler.Invalid)
		}
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	} else {
		cfg, err := o.tls(p.addr)
		if err != nil {
			return nil, err
		}
		opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	}
	if o.Token != "" || o.TokenFile != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer{o}))
	}
	return opts, nil
}

func (o *DialOptions) tls(addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, badAddress(addr)
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS13}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("certificate authorities: %w: %w", err, graveler.Invalid)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authorities: %s holds no certificate: %w", o.CA, graveler.Invalid)
		}
	}
	if o.Cert != "" || o.Key != "" {
		load := Certificate(o.Cert, o.Key)
		if _, err := load(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return cfg, nil
}

// bearer gives the token with each call.
type bearer struct{ o *DialOptions }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token := b.o.Token
	if token == "" {
		text, err := os.ReadFile(b.o.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		token = strings.TrimSpace(string(text))
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is false, since without TLS only this machine is spoken to.
func (b bearer) RequireTransportSecurity() bool { return !b.o.Insecure }
