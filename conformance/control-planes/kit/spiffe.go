package kit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"sync/atomic"
	"time"
)

var workloadSerial atomic.Int64

// Identity is the SPIFFE name of a service account in the trust domain cluster.local.
func Identity(namespace, account string) string {
	return "spiffe://cluster.local/ns/" + namespace + "/sa/" + account
}

// Workload gives the PEM texts of a workload certificate and its key, valid until `end`.
func (a *Authority) Workload(spiffe string, end time.Time) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.t.OK(err, "key")
	name, err := url.Parse(spiffe)
	a.t.OK(err, "SPIFFE name")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + workloadSerial.Add(1)),
		NotBefore:    time.Now().Add(-2 * time.Hour), NotAfter: end,
		URIs:        []*url.URL{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	a.t.OK(err, "certificate")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	a.t.OK(err, "key")
	return pemText("CERTIFICATE", der), pemText("PRIVATE KEY", pkcs8)
}

// WorkloadPair is Workload, parsed.
func (a *Authority) WorkloadPair(spiffe string, end time.Time) tls.Certificate {
	cert, key := a.Workload(spiffe, end)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	a.t.OK(err, "key pair")
	return pair
}

// Spiffe is the URI name in the peer's certificate.
func Spiffe(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 || len(state.PeerCertificates[0].URIs) == 0 {
		return ""
	}
	return state.PeerCertificates[0].URIs[0].String()
}

// VerifySpiffe trusts a peer whose certificate this authority signed, whatever host it names: workloads
// are known by their URI.
func (a *Authority) VerifySpiffe() func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
}
