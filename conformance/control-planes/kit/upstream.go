package kit

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
)

// Upstream is an HTTP/1.1 server that answers 200 with its own name.
type Upstream struct {
	Name string
	Port int
	Hits atomic.Int64
	// Header, if set, sees every request before it is answered.
	Header func(http.ResponseWriter, *http.Request)
}

// Upstream starts a server on a free port; with a TLS configuration it speaks TLS.
func (t *T) Upstream(name string, config *tls.Config) *Upstream {
	u := &Upstream{Name: name}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	t.OK(err, "upstream")
	u.Port = listener.Addr().(*net.TCPAddr).Port
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	// A refused handshake is what some scenarios want: not worth a line on the terminal.
	quiet := log.New(io.Discard, "", 0)
	server := &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.Hits.Add(1)
		if u.Header != nil {
			u.Header(w, r)
		}
		w.Header().Set("x-upstream", u.Name)
		fmt.Fprint(w, u.Name)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return u
}

// EchoServer sends back what comes, at the port returned.
func (t *T) EchoServer() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	t.OK(err, "echo server")
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}
