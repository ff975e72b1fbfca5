package scenarios

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// transports: the ways in which control planes are reached.
func transports() []Scenario {
	var out []Scenario
	out = append(out, both("transport/mutual-tls-from-files", mutualTLS)...)
	out = append(out, both("transport/unix-socket", unixSocket)...)
	out = append(out, both("transport/server-limits-connection-age", connectionAge)...)
	out = append(out, both("transport/second-server-takes-over", secondServer)...)
	return out
}

func served(s *site, port int, version string) []plane.Resource {
	return []plane.Resource{
		edsCluster("back"), endpoints("back", port),
		listener("front", s.port, rds("routes")), routes("routes", "back", version),
	}
}

// showsVersion waits until the routes of this version serve.
func (s *site) showsVersion(want string) {
	s.Eventually(35*time.Second, "version "+want+" serves", func() error {
		a, err := s.ask("/")
		if got := a.header.Get("x-version"); err == nil && got != want {
			err = fmt.Errorf("version %q", got)
		}
		return err
	})
}

// mutualTLS is Envoy Gateway's way: certificate and authority from files by SDS, exchanged while
// the proxy runs.
func mutualTLS(s *site) {
	ca, one := s.Authority(), s.Upstream("one", nil)
	serials := make(chan string, 100)
	config := &tls.Config{
		Certificates: []tls.Certificate{ca.Pair(7, "control.test")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
		VerifyConnection: func(c tls.ConnectionState) error {
			serials <- c.PeerCertificates[0].SerialNumber.String()
			return nil
		},
	}
	xds := plane.NewSnapshots(s.T, grpc.Creds(credentials.NewTLS(config)))
	xds.Set(served(s, one.Port, "1")...)
	identityFile := s.replaceSecret("client.yaml", ca, 100)
	authorityFile := s.Write("ca.yaml", fmt.Sprintf(`
resources:
- "@type": %s
  name: ca
  validation_context:
    trusted_ca:
      inline_string: |
        %s
`, plane.SecretType, indent(ca.PEM, 8)))
	extra := fmt.Sprintf(`
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: control.test
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: client, sds_config: {resource_api_version: V3, path_config_source: {path: %s}}}]
          combined_validation_context:
            default_validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: control.test}}]}
            validation_context_sds_secret_config: {name: ca, sds_config: {resource_api_version: V3, path_config_source: {path: %s}}}
`, identityFile, authorityFile)
	proxy := s.Proxy("proxy", s.admin, adsBootstrapOver(s.admin, s.d, "", "", at(xds.Port), extra), "-l", "info")
	proxy.Ready(15 * time.Second)
	s.showsVersion("1")
	s.Expect(<-serials == "100", "another client certificate than the one configured")
	// A new certificate is shown by the next connection.
	s.replaceSecret("client.yaml", ca, 101)
	s.Eventually(35*time.Second, "the new client certificate", func() error {
		xds.Stop()
		xds.Start()
		select {
		case serial := <-serials:
			if serial != "101" {
				return fmt.Errorf("serial %s", serial)
			}
			return nil
		case <-time.After(5 * time.Second):
			return fmt.Errorf("no connection")
		}
	})
	xds.Set(served(s, one.Port, "2")...)
	s.showsVersion("2")
	proxy.Stop()
}

// replaceSecret puts a certificate in place as control planes do, by an atomic move.
func (s *site) replaceSecret(name string, ca *kit.Authority, serial int64) string {
	cert, key := ca.Issue(serial, "client.test")
	return s.Replace(name, fmt.Sprintf(`
resources:
- "@type": %s
  name: client
  tls_certificate:
    certificate_chain:
      inline_string: |
        %s
    private_key:
      inline_string: |
        %s
`, plane.SecretType, indent(cert, 8), indent(key, 8)))
}

// unixSocket is Istio's way.
func unixSocket(s *site) {
	one := s.Upstream("one", nil)
	path := filepath.Join(s.SocketDir(), "xds.sock")
	xds := plane.NewSnapshotsAt(s.T, path)
	xds.Set(served(s, one.Port, "1")...)
	host := fmt.Sprintf("{endpoint: {address: {pipe: {path: %s}}}}", path)
	proxy := s.Proxy("proxy", s.admin, adsBootstrapOver(s.admin, s.d, "", "", host, ""), "-l", "info")
	proxy.Ready(15 * time.Second)
	s.showsVersion("1")
	xds.Stop()
	xds.Set(served(s, one.Port, "2")...)
	xds.Start()
	s.showsVersion("2")
	proxy.Stop()
}

// connectionAge: the server says GOAWAY every second, as istiod does every half hour.
func connectionAge(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewSnapshots(s.T, grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: time.Second, MaxConnectionAgeGrace: 200 * time.Millisecond,
	}))
	xds.Set(served(s, one.Port, "0")...)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	load := s.Load(loadOf(s))
	for n := 1; n <= 4; n++ {
		mark := xds.Mark()
		xds.Await(s.T, mark, "a new stream", func(r plane.Request) bool { return r.Nonce == "" && r.Node.GetId() != "" })
		xds.Set(served(s, one.Port, fmt.Sprint(n))...)
		s.showsVersion(fmt.Sprint(n))
	}
	load.StopClean(s.T)
	proxy.Stop()
}

// secondServer: two endpoints in the control plane's cluster; whichever lives is used.
func secondServer(s *site) {
	one := s.Upstream("one", nil)
	first, second := plane.NewSnapshots(s.T), plane.NewSnapshots(s.T)
	first.Set(served(s, one.Port, "1")...)
	second.Set(served(s, one.Port, "1")...)
	first.Stop()
	hosts := at(first.Port) + ", " + at(second.Port)
	proxy := s.Proxy("proxy", s.admin, adsBootstrapOver(s.admin, s.d, "", "", hosts, ""), "-l", "info")
	proxy.Ready(15 * time.Second)
	s.showsVersion("1")
	load := s.Load(loadOf(s))
	second.Stop()
	first.Start()
	first.Set(served(s, one.Port, "2")...)
	s.showsVersion("2")
	load.StopClean(s.T)
	proxy.Stop()
}
