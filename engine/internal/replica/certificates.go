package replica

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// TLSFiles are PEM files. They are read again when they change.
type TLSFiles struct {
	Cert, Key string // of this node, for connections that it takes and that it makes
	CA        string // the certificates that those of other nodes are signed with
}

// certificates are what the files hold now.
type certificates struct {
	files TLSFiles
	log   *slog.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  [3]fileStamp
	cert   *tls.Certificate
	ca     *x509.CertPool
}

type fileStamp struct {
	size int64
	at   time.Time
}

// loadTLS reads the files.
func loadTLS(files TLSFiles, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, log: log}
	return c, c.load()
}

func (c *certificates) load() error {
	var stamp [3]fileStamp
	for i, name := range []string{c.files.Cert, c.files.Key, c.files.CA} {
		st, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("TLS file: %v: %w", err, graveler.Invalid)
		}
		stamp[i] = fileStamp{st.Size(), st.ModTime()}
	}
	if c.cert != nil && stamp == c.stamp {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("TLS certificate %s with key %s: %v: %w", c.files.Cert, c.files.Key, err, graveler.Invalid)
	}
	pem, err := os.ReadFile(c.files.CA)
	if err != nil {
		return fmt.Errorf("TLS CA: %v: %w", err, graveler.Invalid)
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM(pem) {
		return fmt.Errorf("TLS CA %s: there is no certificate in it: %w", c.files.CA, graveler.Invalid)
	}
	if c.cert != nil {
		c.log.Info("the TLS files were read again", "cert", c.files.Cert)
	}
	c.stamp, c.cert, c.ca = stamp, &cert, ca
	return nil
}

// now returns what the files hold. Files that can't be read leave what was: they may be half way through their replacement.
func (c *certificates) now() (*tls.Certificate, *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) > time.Second {
		if err := c.load(); err != nil {
			c.log.Warn("the TLS files can't be read again; those from before are used", "err", err)
		}
		c.looked = time.Now()
	}
	return c.cert, c.ca
}

// server is the configuration for connections that others make.
func (c *certificates) server() *tls.Config {
	cert, ca := c.now()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca,
		SessionTicketsDisabled: true, // a session would outlive a CA that is withdrawn
	}
}

// client is the configuration for connections to a host.
func (c *certificates) client(host string) *tls.Config {
	cert, ca := c.now()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: ca, ServerName: host,
		// Given even if the server's CAs don't list its own: it then says why it refuses.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return nil, errors.New("no certificate")
			}
			return cert, nil
		},
	}
}
