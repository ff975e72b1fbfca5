package scenarios

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// change: the configuration moves fast under load, and nobody who asks ever notices.
func change() []Scenario {
	var out []Scenario
	out = append(out, both("change/listener-certificate-rotated-by-sds", rotateListener)...)
	out = append(out, both("change/client-certificate-and-ca-rotated-by-sds", rotateUpstream)...)
	out = append(out, both("change/50-updates-a-second", churn)...)
	out = append(out, both("change/listener-rebuilt-under-load", rebuildListener)...)
	out = append(out, both("change/200-clusters-at-once", manyClusters)...)
	out = append(out, both("change/response-of-8-megabytes", largeResponse)...)
	return out
}

// indent puts a PEM text in a YAML block scalar.
func indent(text string, by int) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+strings.Repeat(" ", by))
}

// identity is a TLS certificate as a secret.
func identity(name, cert, key string) plane.Resource {
	return plane.Secret(fmt.Sprintf(`
name: %s
tls_certificate:
  certificate_chain:
    inline_string: |
      %s
  private_key:
    inline_string: |
      %s
`, name, indent(cert, 6), indent(key, 6)))
}

// trusted is a certificate authority as a secret.
func trusted(name, ca string) plane.Resource {
	return plane.Secret(fmt.Sprintf(`
name: %s
validation_context:
  trusted_ca:
    inline_string: |
      %s
`, name, indent(ca, 6)))
}

const downstreamTLS = `
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        tls_certificate_sds_secret_configs: [{name: server, sds_config: {resource_api_version: V3, ads: {}}}]
`

// serial is the key of a load that counts answers by the serial number of the certificate shown.
func serial(r *http.Response) string { return r.TLS.PeerCertificates[0].SerialNumber.String() }

func rotateListener(s *site) {
	one := s.Upstream("one", nil)
	ca := s.Authority()
	xds := plane.NewSnapshots(s.T)
	rotate := func(n int64) {
		cert, key := ca.Issue(n, "localhost")
		xds.Set(staticCluster("back", one.Port), routes("routes", "back", "1"),
			listener("front", s.port, rds("routes"), downstreamTLS), identity("server", cert, key))
	}
	rotate(100)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	o := kit.LoadOptions{
		URL: fmt.Sprintf("https://127.0.0.1:%d/", s.port), Key: serial,
		TLS: &tls.Config{RootCAs: ca.Pool()},
	}
	// One load keeps its connections, which a rotation must leave alone; one shakes hands each time.
	kept := s.Load(o)
	o.FreshConnections = true
	fresh := s.Load(o)
	waitFor(s, kept, "100", 20)
	for n := int64(101); n <= 105; n++ {
		rotate(n)
		waitFor(s, fresh, strconv.FormatInt(n, 10), 10)
	}
	waitFor(s, kept, "100", 20)
	fresh.StopClean(s.T)
	kept.StopClean(s.T)
	s.Expect(kept.Total() == kept.Seen("100"), "%d of %d requests on kept connections saw a new certificate, so the connections were cut", kept.Total()-kept.Seen("100"), kept.Total())
	s.Expect(proxy.Stat("listener_manager.listener_modified") == 0, "a rotation rebuilt the listener")
	proxy.Stop()
}

const upstreamTLS = `
transport_socket:
  name: tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    sni: upstream.test
    common_tls_context:
      tls_certificate_sds_secret_configs: [{name: client, sds_config: {resource_api_version: V3, ads: {}}}]
      combined_validation_context:
        default_validation_context:
          match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: upstream.test}}]
        validation_context_sds_secret_config: {name: ca, sds_config: {resource_api_version: V3, ads: {}}}
`

// rotateUpstream: mutual TLS to the upstream; our certificate rotates, and then the authority we trust.
func rotateUpstream(s *site) {
	clients, servers, strangers := s.Authority(), s.Authority(), s.Authority()
	one := s.Upstream("one", &tls.Config{
		Certificates: []tls.Certificate{servers.Pair(7, "upstream.test")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clients.Pool(),
	})
	// A fresh connection for each request shows each rotation in time.
	one.Header = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.Header().Set("x-serial", r.TLS.PeerCertificates[0].SerialNumber.String())
	}
	xds := plane.NewSnapshots(s.T)
	set := func(n int64, ca *kit.Authority) {
		cert, key := clients.Issue(n, "client.test")
		xds.Set(staticCluster("back", one.Port, upstreamTLS), routes("routes", "back", "1"),
			listener("front", s.port, rds("routes")), identity("client", cert, key), trusted("ca", ca.PEM))
	}
	set(100, servers)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	o := loadOf(s)
	o.Key = func(r *http.Response) string { return r.Header.Get("x-serial") }
	load := s.Load(o)
	for n := int64(101); n <= 105; n++ {
		set(n, servers)
		waitFor(s, load, strconv.FormatInt(n, 10), 10)
	}
	load.StopClean(s.T)
	// An authority that did not sign the upstream's certificate: no connection is made any more.
	set(106, strangers)
	s.status("/", 503)
	set(107, servers)
	s.status("/", 200)
	proxy.Stop()
}

// churn sends 50 snapshots a second, each with other endpoints, routes and clusters.
func churn(s *site) {
	one, two := s.Upstream("one", nil), s.Upstream("two", nil)
	xds := plane.NewSnapshots(s.T)
	config := func(n int) []plane.Resource {
		ports := [][]int{{one.Port}, {two.Port}, {one.Port, two.Port}}[n%3]
		extra := fmt.Sprintf("extra-%d", n%7)
		return []plane.Resource{
			edsCluster("back"), endpoints("back", ports...),
			edsCluster(extra), endpoints(extra, one.Port, two.Port),
			staticCluster("rebuilt", one.Port, fmt.Sprintf("per_connection_buffer_limit_bytes: %d", 30000+n)),
			listener("front", s.port, rds("routes")), routes("routes", []string{"back", "rebuilt"}[n%2], strconv.Itoa(n)),
		}
	}
	xds.Set(config(0)...)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	s.status("/", 200)
	o := loadOf(s)
	o.Key = version
	load := s.Load(o)
	n := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(s.LoadTime(4 * time.Second)); time.Now().Before(end); {
		<-tick.C
		n++
		xds.Set(config(n)...)
	}
	waitFor(s, load, strconv.Itoa(n), 20)
	load.StopClean(s.T)
	s.Expect(len(proxy.Rejections()) == 0, "refused updates: %v", proxy.Rejections())
	proxy.Stop()
}

// rebuildListener changes the listener itself ten times; connections of the old one are drained.
func rebuildListener(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewSnapshots(s.T)
	set := func(n int) {
		inline := fmt.Sprintf(`route_config: {name: inline, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: back}}], response_headers_to_add: [{header: {key: x-version, value: "%d"}}]}]}`, n)
		xds.Set(staticCluster("back", one.Port), listener("front", s.port, inline))
	}
	set(0)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	o := loadOf(s)
	o.Key = version
	kept := s.Load(o)
	o.FreshConnections = true
	fresh := s.Load(o)
	for n := 1; n <= 10; n++ {
		set(n)
		waitFor(s, fresh, strconv.Itoa(n), 5)
	}
	// Connections that were kept are told to go within the drain time (1 s).
	waitFor(s, kept, "10", 5)
	fresh.StopClean(s.T)
	kept.StopClean(s.T)
	proxy.Stop()
}

// manyClusters: a big response is one step, and its removal another.
func manyClusters(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewSnapshots(s.T)
	base := []plane.Resource{edsCluster("back"), endpoints("back", one.Port), listener("front", s.port, rds("routes"))}
	xds.Set(append(base, routes("routes", "back", "0"))...)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	load := s.Load(loadOf(s))
	before := proxy.Stat("cluster_manager.active_clusters")
	many := append([]plane.Resource{}, base...)
	var pairs []string
	for i := range 200 {
		name := fmt.Sprintf("many-%d", i)
		many = append(many, edsCluster(name), endpoints(name, one.Port))
		pairs = append(pairs, fmt.Sprintf("/%d/", i), name)
	}
	// The server sends routes as soon as it has them: a request may come before its cluster is there,
	// which is why the load asks a path that stays with the old cluster.
	xds.Set(append(many, routesByPath("routes", append(pairs, "/", "back")...))...)
	for _, i := range []int{0, 99, 199} {
		s.body(fmt.Sprintf("/%d/", i), "one")
	}
	s.stat(proxy, "cluster_manager.active_clusters", before+200)
	xds.Set(append(base, routes("routes", "back", "2"))...)
	s.stat(proxy, "cluster_manager.active_clusters", before)
	load.StopClean(s.T)
	proxy.Stop()
}

// largeResponse is past the 4 MB at which gRPC libraries stop by default; Envoy has no limit.
func largeResponse(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewSnapshots(s.T)
	config := []plane.Resource{listener("front", s.port, rds("routes")), routes("routes", "back", "1"), staticCluster("back", one.Port)}
	ballast := strings.Repeat("x", 1<<20)
	for i := range 8 {
		extra := fmt.Sprintf("metadata: {filter_metadata: {ballast: {text: %s}}}", ballast)
		config = append(config, staticCluster(fmt.Sprintf("heavy-%d", i), one.Port, extra))
	}
	xds.Set(config...)
	proxy := s.proxy(xds.Port)
	proxy.Ready(14 * time.Second)
	s.body("/", "one")
	s.stat(proxy, "cluster_manager.active_clusters", 10)
	proxy.Stop()
}
