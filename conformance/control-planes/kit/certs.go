package kit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Authority issues certificates that live as long as a scenario.
type Authority struct {
	t    *T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	PEM  string
}

// Authority makes a new certificate authority.
func (t *T) Authority() *Authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	t.OK(err, "key")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "conformance"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	t.OK(err, "certificate")
	cert, err := x509.ParseCertificate(der)
	t.OK(err, "certificate")
	return &Authority{t: t, cert: cert, key: key, PEM: pemText("CERTIFICATE", der)}
}

// Pool trusts this authority only.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue gives the PEM texts of a certificate with this serial number, and of its key, for 127.0.0.1
// and the DNS name.
func (a *Authority) Issue(serial int64, dns string) (cert, key string) {
	return a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: dns},
		DNSNames: []string{dns}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

// Identity is Issue for a workload: one URI is all that names it.
func (a *Authority) Identity(serial int64, spiffe string) (cert, key string) {
	uri, err := url.Parse(spiffe)
	a.t.OK(err, "identity")
	return a.issue(&x509.Certificate{SerialNumber: big.NewInt(serial), URIs: []*url.URL{uri}})
}

func (a *Authority) issue(template *x509.Certificate) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.t.OK(err, "key")
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	a.t.OK(err, "certificate")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	a.t.OK(err, "key")
	return pemText("CERTIFICATE", der), pemText("PRIVATE KEY", pkcs8)
}

// Pair is Issue, parsed.
func (a *Authority) Pair(serial int64, dns string) tls.Certificate {
	cert, key := a.Issue(serial, dns)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	a.t.OK(err, "key pair")
	return pair
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
