package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lakefsfs/lakefsfs/graveler"
)

const (
	caYears   = 10
	nodeYears = 2
)

func (a *app) certsCmd() *cobra.Command {
	return cmd("certs DIR HOST...", "make certificates for nodes: an authority once, then one certificate for each host", between(2, -1), func(_ context.Context, args []string) error {
		dir := args[0]
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		ca, err := loadCA(dir)
		if errors.Is(err, fs.ErrNotExist) {
			ca, err = newCA(dir)
		}
		if err != nil {
			return err
		}
		for _, host := range args[1:] {
			if err := ca.issue(dir, host); err != nil {
				return err
			}
			a.say("%s", filepath.Join(dir, host+".crt"))
		}
		a.say("set tls.ca to %s on each node and client, and on node HOST tls.cert and tls.key to HOST.crt and HOST.key.\nKeep ca.key off the nodes: who has it can make certificates", filepath.Join(dir, "ca.crt"))
		return nil
	})
}

// authority signs the certificates of a cluster's nodes.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(dir string) (*authority, error) {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "lakefsfs cluster"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, key, err := sign(t, nil, caYears)
	if err != nil {
		return nil, err
	}
	// The key comes first: an authority is there when its certificate is.
	if err := writePEM(filepath.Join(dir, "ca.key"), 0o600, key); err != nil {
		return nil, err
	}
	if err := writePEM(filepath.Join(dir, "ca.crt"), 0o644, cert); err != nil {
		return nil, err
	}
	return loadCA(dir)
}

func loadCA(dir string) (*authority, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, fmt.Errorf("the authority's key is needed to make certificates: %v: %w", err, graveler.NotFound)
	}
	bad := func(err error) error {
		return fmt.Errorf("the authority in %s can't be read (%v); move it away to make another: %w", dir, err, graveler.Corrupt)
	}
	cb, _ := pem.Decode(certPEM)
	kb, _ := pem.Decode(keyPEM)
	if cb == nil || kb == nil {
		return nil, bad(fmt.Errorf("no PEM"))
	}
	ca := &authority{}
	if ca.cert, err = x509.ParseCertificate(cb.Bytes); err != nil {
		return nil, bad(err)
	}
	if ca.key, err = x509.ParseECPrivateKey(kb.Bytes); err != nil {
		return nil, bad(err)
	}
	return ca, nil
}

// issue makes a node's certificate, for a host's name or address. One that is there is renewed.
func (ca *authority) issue(dir, host string) error {
	if host == "" || host == "ca" || strings.ContainsAny(host, "/\\ :*\x00") && net.ParseIP(host) == nil {
		return usagef("host %q: give a name or an address without a port", host)
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: host}, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // nodes are both
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	if host == "localhost" {
		t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	cert, key, err := sign(t, ca, nodeYears)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, host+".key"), 0o600, key); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, host+".crt"), 0o644, cert)
}

// sign makes a key and its certificate, signed by ca or, with nil, by itself.
func sign(t *x509.Certificate, ca *authority, years int) (cert, key *pem.Block, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	now := time.Now()
	t.NotBefore, t.NotAfter = now.Add(-time.Hour), now.AddDate(years, 0, 0) // clocks differ
	parent, signer := t, k
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	c, err := x509.CreateCertificate(rand.Reader, t, parent, k.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	b, err := x509.MarshalECPrivateKey(k)
	return &pem.Block{Type: "CERTIFICATE", Bytes: c}, &pem.Block{Type: "EC PRIVATE KEY", Bytes: b}, err
}

// writePEM writes a file whole or not at all.
func writePEM(name string, mode fs.FileMode, b *pem.Block) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, pem.EncodeToMemory(b), mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
