package daemon

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/lakefsfs/lakefsfs/engine/remote"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// serve lets clients of other machines in, where serve.listen says so.
func (d *Daemon) serve() error {
	c := &d.cfg.Serve
	if c.Listen == "" {
		return nil
	}
	opt := remote.ServerOptions{Serving: d.serving}
	if c.Tokens != "" {
		tokens, err := remote.OpenTokens(c.Tokens, d.log)
		if err != nil {
			return err
		}
		opt.Tokens = tokens
	}
	if d.cfg.TLS.Insecure {
		if !remote.Loopback(c.Listen) {
			return fmt.Errorf("serve.listen %s with tls.insecure: only loopback addresses are served without TLS: %w", c.Listen, graveler.Invalid)
		}
		d.log.Warn("clients are served without TLS, as tls.insecure says", "address", c.Listen)
	} else {
		conf, err := d.cfg.TLS.server()
		if err != nil {
			return err
		}
		opt.GRPC = append(opt.GRPC, grpc.Creds(credentials.NewTLS(conf)))
	}
	lis, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("serve clients: %w", err)
	}
	d.tcp = remote.NewServer(opt)
	remote.Register(d.tcp, d.meta.own)
	go d.tcp.Serve(lis)
	d.log.Info("serving clients", "address", lis.Addr())
	return nil
}

// serving reports whether clients that ask this node get on: it leads, or knows who does.
func (d *Daemon) serving(ctx context.Context) bool {
	members, err := d.meta.own.Members(ctx)
	if err != nil {
		return false
	}
	for _, m := range members {
		if m.Leader {
			return true
		}
	}
	return false
}

// server is the TLS configuration of a listener for clients. Their certificates are looked at if they show one.
func (c *TLSConfig) server() (*tls.Config, error) {
	load := remote.Certificate(c.Cert, c.Key)
	if _, err := load(); err != nil {
		return nil, err
	}
	conf := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w: %w", err, graveler.Invalid)
		}
		conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no certificate: %w", c.CA, graveler.Invalid)
		}
	}
	return conf, nil
}

// DialOptions is how servers on other machines are asked.
func (c *Config) DialOptions() (remote.DialOptions, error) {
	o := remote.DialOptions{TokenFile: c.Engine.TokenFile, CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key, Insecure: c.TLS.Insecure, RetryFor: c.Engine.Retry}
	if o.TokenFile == "" {
		o.Token = os.Getenv("LAKEFSFS_TOKEN")
	}
	if o.TokenFile == "" && o.Token == "" && c.Serve.Tokens != "" {
		// A node knows the tokens that it is to accept itself.
		token, err := adminToken(c.Serve.Tokens)
		if err != nil {
			return o, err
		}
		o.Token = token
	}
	return o, nil
}

// adminToken finds a token of role admin in a file of tokens.
func adminToken(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("serve.tokens: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) == 3 && fields[2] == "admin" && !strings.HasPrefix(fields[0], "#") {
			return fields[0], nil
		}
	}
	return "", fmt.Errorf("serve.tokens: %s has no token of role admin, which nodes know each other by; add a line TOKEN nodes admin: %w", file, graveler.Invalid)
}
