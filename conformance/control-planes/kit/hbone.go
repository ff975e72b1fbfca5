package kit

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Ztunnel is a node's ztunnel on the client's side: one mTLS connection with one workload's identity,
// a CONNECT stream for each of the workload's connections.
type Ztunnel struct {
	conn   *tls.Conn
	client *http2.ClientConn
	// Header is sent with each CONNECT.
	Header http.Header
}

// DialHBONE opens the tunnel's connection from a workload's address. The server must show a certificate
// of the authority.
func DialHBONE(from, address string, ca *Authority, certificates ...tls.Certificate) (*Ztunnel, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	raw, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		Certificates: certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, VerifyConnection: ca.VerifySpiffe(),
	})
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	client, err := (&http2.Transport{}).NewClientConn(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Ztunnel{conn: conn, client: client, Header: http.Header{}}, nil
}

// Peer is the SPIFFE name the other side showed.
func (z *Ztunnel) Peer() string { return Spiffe(z.conn.ConnectionState()) }

// Serial is the serial number of the certificate the other side showed.
func (z *Ztunnel) Serial() string {
	return z.conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// Close ends the connection with all its streams.
func (z *Ztunnel) Close() { _ = z.client.Close() }

// ConnectError is a refused CONNECT.
type ConnectError struct {
	Status int
	Body   string
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("CONNECT answered %d %.80s", e.Status, e.Body)
}

// Dial opens a stream to an address behind the tunnel.
func (z *Ztunnel) Dial(ctx context.Context, authority string) (net.Conn, error) {
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	request := (&http.Request{
		Method: http.MethodConnect, Host: authority, URL: &url.URL{Scheme: "https", Host: authority},
		Header: z.Header.Clone(), Body: reader,
	}).WithContext(ctx)
	timer := time.AfterFunc(10*time.Second, cancel)
	resp, err := z.client.RoundTrip(request)
	timer.Stop()
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		cancel()
		return nil, &ConnectError{resp.StatusCode, string(body)}
	}
	return &tunnelStream{body: resp.Body, writer: writer, cancel: cancel, authority: authority, local: z.conn.LocalAddr()}, nil
}

// Client is an HTTP client whose connections all go through the tunnel to one address.
func (z *Ztunnel) Client(authority string, keepAlive bool) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: !keepAlive, DisableCompression: true, MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return z.Dial(ctx, authority) },
	}}
}

type tunnelStream struct {
	body      io.ReadCloser
	writer    *io.PipeWriter
	cancel    context.CancelFunc
	authority string
	local     net.Addr
}

func (s *tunnelStream) Read(p []byte) (int, error)  { return s.body.Read(p) }
func (s *tunnelStream) Write(p []byte) (int, error) { return s.writer.Write(p) }
func (s *tunnelStream) CloseWrite() error           { return s.writer.Close() }
func (s *tunnelStream) Close() error {
	_ = s.writer.Close()
	s.cancel()
	return s.body.Close()
}
func (s *tunnelStream) LocalAddr() net.Addr                { return s.local }
func (s *tunnelStream) RemoteAddr() net.Addr               { return tunnelAddr(s.authority) }
func (s *tunnelStream) SetDeadline(t time.Time) error      { return nil }
func (s *tunnelStream) SetReadDeadline(t time.Time) error  { return nil }
func (s *tunnelStream) SetWriteDeadline(t time.Time) error { return nil }

type tunnelAddr string

func (tunnelAddr) Network() string  { return "hbone" }
func (a tunnelAddr) String() string { return string(a) }

// Tunnelled is one CONNECT stream a backend's ztunnel has taken.
type Tunnelled struct {
	Connection int
	Peer       string // SPIFFE name of the client
	Authority  string
	Header     http.Header
}

// HBONEServer is a node's ztunnel on the backend's side, on port 15008 of the workload's address: it
// passes each stream on to the address it names, in plain text.
type HBONEServer struct {
	Connections atomic.Int64
	mu          sync.Mutex
	streams     []Tunnelled
}

// Streams are those taken so far.
func (s *HBONEServer) Streams() []Tunnelled {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Tunnelled(nil), s.streams...)
}

// HBONEServer serves with the workload's certificate; clients must show one of the authority.
func (t *T) HBONEServer(ip string, ca *Authority, certificate tls.Certificate) *HBONEServer {
	s := &HBONEServer{}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "15008"))
	t.OK(err, "HBONE server")
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert, VerifyConnection: ca.VerifySpiffe(),
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for conn := range open {
			conn.Close()
		}
	})
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				mu.Lock()
				open[raw] = true
				mu.Unlock()
				s.serve(tls.Server(raw, config))
				mu.Lock()
				delete(open, raw)
				mu.Unlock()
			}()
		}
	}()
	return s
}

func (s *HBONEServer) serve(conn *tls.Conn) {
	defer conn.Close()
	if conn.Handshake() != nil {
		return
	}
	number := int(s.Connections.Add(1))
	peer := Spiffe(conn.ConnectionState())
	(&http2.Server{MaxConcurrentStreams: 1000}).ServeConn(conn, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.mu.Lock()
		s.streams = append(s.streams, Tunnelled{Connection: number, Peer: peer, Authority: r.Host, Header: r.Header.Clone()})
		s.mu.Unlock()
		splice(w, r)
	})})
}

// splice passes a stream's bytes on until both sides have ended.
func splice(w http.ResponseWriter, r *http.Request) {
	app, err := net.DialTimeout("tcp", r.Host, 5*time.Second)
	if err != nil {
		http.Error(w, strconv.Quote(err.Error()), http.StatusServiceUnavailable)
		return
	}
	defer app.Close()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	go func() {
		_, _ = io.Copy(app, r.Body)
		_ = app.(*net.TCPConn).CloseWrite()
	}()
	buffer := make([]byte, 16<<10)
	for {
		n, err := app.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
		if err != nil {
			return
		}
	}
}
