package scenarios

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"nuncio/conformance/control-planes/kit"
)

// waypointChanges: a thousand changes of every kind under load, pushed one by one.
func waypointChanges(m *mesh) {
	one, two := threeApps(m)
	extra := m.app("extra-0", true, "service: extra, app: extra, version: v1")
	m.istiod.Apply(versionRoute(0))
	m.start()
	_, alice := m.client("alice")
	_, bob := m.client("bob")
	m.expect("the first version", alice.Client(appHTTP, true), from("app-1"), "/")
	load := func(z *kit.Ztunnel, fresh bool) *kit.Load {
		return m.Load(kit.LoadOptions{
			URL: "http://" + appHost + "/", Dial: dialTo(z, appHTTP), Clients: 2, Pause: 10 * time.Millisecond, FreshConnections: fresh,
			Key: func(r *http.Response) string { return r.Header.Get("x-version") },
		})
	}
	loads := []*kit.Load{load(alice, false), load(alice, true), load(bob, false), load(bob, true)}
	const changes = 1000
	began := time.Now()
	for n := 1; n <= changes; n++ {
		switch n % 5 {
		case 0:
			m.istiod.Apply(versionRoute(n))
		case 1:
			hosts := [][]*app{{one}, {two}, {one, two}}[n%3]
			m.service("app-v1", "10.96.0.21", hosts...)
		case 2:
			m.istiod.Apply(fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app, namespace: default}
spec:
  host: app-v2.default.svc.cluster.local
  trafficPolicy: {connectionPool: {http: {maxRetries: %d}}, loadBalancer: {simple: %s}}
`, 10+n, []string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"}[n%3]))
		case 3:
			m.istiod.Apply(fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: app}]
  rules: [{from: [{source: {principals: ["*/alice", "*/bob", "*/number-%d"]}}]}]
`, n))
		case 4:
			if n%2 == 0 {
				m.service("extra", "10.96.0.40", extra)
			} else {
				m.istiod.Delete("apiVersion: v1\nkind: Service\nmetadata: {name: extra, namespace: default}")
			}
		}
		if n == 4 {
			m.service("extra", "10.96.0.40", extra)
		}
	}
	sent := time.Since(began)
	m.istiod.Apply(versionRoute(changes))
	last := fmt.Sprint(changes)
	m.Eventually(60*time.Second, "the last version", func() error {
		for _, l := range loads {
			if l.Seen(last) < 10 {
				return fmt.Errorf("%d answers of it, %v", l.Seen(last), l.Keys())
			}
		}
		return nil
	})
	total := 0
	for _, l := range loads {
		l.StopClean(m.T)
		total += l.Total()
	}
	m.Note("%d changes in %.1f s, %d listener and %d cluster updates, %d requests", changes, sent.Seconds(),
		m.proxy.Stat("listener_manager.lds.update_success"), m.proxy.Stat("cluster_manager.cds.update_success"), total)
	m.Expect(m.proxy.Stat("listener_manager.lds.update_rejected") == 0, "a listener was refused")
	m.finish()
}

// versionRoute marks answers with a number and goes now to one app's service and now to the other's.
func versionRoute(n int) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: default}
spec:
  hosts: [app.default.svc.cluster.local]
  http:
  - headers: {response: {set: {x-version: "%d"}}}
    route: [{destination: {host: app-v%d.default.svc.cluster.local}}]
`, n, 1+n/5%2)
}

// waypointCertificates: the waypoint's certificate and those of its peers: rotated, expired, of nobody.
func waypointCertificates(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	m.startWith("proxyStatsMatcher: {inclusionRegexps: ['listener.*ssl.*']}")
	curl, z := m.client("curl")
	kept := m.Load(kit.LoadOptions{URL: "http://" + appHost + "/", Dial: dialTo(z, appHTTP), Clients: 2})
	m.Eventually(10*time.Second, "requests", func() error {
		if kept.Total() < 20 {
			return fmt.Errorf("%d", kept.Total())
		}
		return nil
	})
	refused := func(what string, try func() (*kit.Ztunnel, error)) {
		z, err := try()
		if err == nil {
			// With TLS 1.3 a client learns that it was refused when it first reads.
			_, err = ask(z.Client(appHTTP, false), appHost, "/")
			z.Close()
		}
		m.Expect(err != nil, "%s was taken", what)
	}
	refused("a client without a certificate", func() (*kit.Ztunnel, error) { return curl.try() })
	refused("an expired certificate", func() (*kit.Ztunnel, error) {
		return curl.try(m.ca.WorkloadPair(curl.identity(), time.Now().Add(-time.Minute)))
	})
	refused("a certificate of another trust domain", func() (*kit.Ztunnel, error) {
		return curl.try(m.ca.WorkloadPair("spiffe://other.domain/ns/default/sa/curl", m.lively))
	})
	stranger := m.Authority()
	refused("a certificate of another authority", func() (*kit.Ztunnel, error) {
		return curl.try(stranger.WorkloadPair(curl.identity(), m.lively))
	})
	m.Eventually(5*time.Second, "refused handshakes are counted", func() error {
		if n := m.total(`^listener\..*\.ssl\.(fail_verify_san|fail_verify_no_cert|fail_verify_error|connection_error)$`); n < 4 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})

	serial := func() string {
		fresh := curl.tunnel()
		defer fresh.Close()
		return fresh.Serial()
	}
	for range 3 {
		before := serial()
		m.rotate(m.lively)
		m.Eventually(10*time.Second, "the new certificate is shown", func() error {
			if serial() == before {
				return fmt.Errorf("still %s", before)
			}
			return nil
		})
	}
	m.expect("a request after the rotations", curl.tunnel().Client(appHTTP, false), from("app-0"), "/")
	kept.StopClean(m.T)
	m.finish()
}

// total is the sum of the proxy's statistics whose name matches.
func (m *mesh) total(pattern string) int {
	_, body, err := m.proxy.Get("/stats?usedonly&filter=" + url.QueryEscape(pattern))
	m.OK(err, "/stats")
	sum := 0
	for _, line := range strings.Split(body, "\n") {
		var value int
		if at := strings.LastIndex(line, ": "); at > 0 {
			if _, err := fmt.Sscan(line[at+2:], &value); err == nil {
				sum += value
			}
		}
	}
	return sum
}

// waypointUnknown: a CONNECT to what istiod knows nothing of ends that stream and nothing else.
func waypointUnknown(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	m.start()
	_, z := m.client("curl")
	client := z.Client(appHTTP, true)
	m.expect("a request", client, from("app-0"), "/")
	load := m.Load(kit.LoadOptions{URL: "http://" + appHost + "/", Dial: dialTo(z, appHTTP), Clients: 2})
	for _, authority := range []string{"10.99.0.1:80", appVIP + ":81", "unknown.test:80", "[fd00::1]:80", "no-port"} {
		_, err := ask(z.Client(authority, false), appHost, "/")
		m.Expect(err != nil, "CONNECT %q was served", authority)
		_, err = talk(z, authority)
		m.Expect(err != nil, "TCP to %q was served", authority)
	}
	m.expect("another request on the same tunnel", client, from("app-0"), "/")
	load.StopClean(m.T)
	m.Expect(len(backend.hbone.Streams()) > 0, "nothing reached the backend")
	for _, s := range backend.hbone.Streams() {
		m.Expect(s.Authority == backend.ip+":8080", "the backend's ztunnel was asked for %s", s.Authority)
	}
	m.finish()
}

const prometheusProvider = `
defaultProviders: {metrics: [prometheus]}
extensionProviders: [{name: prometheus, prometheus: {}}]
`

// waypointTelemetry: what istiod's telemetry counts, with every label.
func waypointTelemetry(m *mesh) {
	if m.Public {
		m.Note("left out: the statistics are Istio's own")
		return
	}
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	// Who is not known when the tunnel is opened stays unknown.
	curl := m.pod("curl", true, "app: curl, version: v1")
	m.start()
	z := curl.tunnel()
	client := z.Client(appHTTP, true)
	m.expect("a request", client, from("app-0"), "/")
	labels := func(protocol, code string) string {
		out := fmt.Sprintf(`reporter="waypoint",source_workload="curl",source_canonical_service="curl",source_canonical_revision="v1",`+
			`source_workload_namespace="default",source_principal="%s",source_app="curl",source_version="v1",source_cluster="Kubernetes",`+
			`destination_workload="app-0",destination_workload_namespace="default",destination_principal="%s",destination_app="app",`+
			`destination_version="v1",destination_service="app.default.svc.cluster.local",destination_canonical_service="app",`+
			`destination_canonical_revision="v1",destination_service_name="app",destination_service_namespace="default",`+
			`destination_cluster="Kubernetes",request_protocol="%s",`, curl.identity(), backend.identity(), protocol)
		if code != "" {
			out += fmt.Sprintf(`response_code="%s",grpc_response_status="",`, code)
		}
		return out + `response_flags="-",connection_security_policy="mutual_tls"`
	}
	backend.handle = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}
	for range 9 {
		m.expect("a request", client, from("app-0"), "/")
	}
	m.expect("a request", client, status(http.StatusNotFound), "/missing")
	m.speaks(z, appTCP, "app-0")
	for _, want := range []string{
		"istio_requests_total{" + labels("http", "200") + "} 10",
		"istio_requests_total{" + labels("http", "404") + "} 1",
		"istio_request_duration_milliseconds_count{" + labels("http", "200") + "} 10",
		"istio_request_bytes_count{" + labels("http", "200") + "} 10",
		"istio_response_bytes_count{" + labels("http", "200") + "} 10",
		"istio_tcp_connections_opened_total{" + labels("tcp", "") + "} 1",
	} {
		m.prometheus(want)
	}
	m.finish()
}

// prometheus waits for a line of the waypoint's metrics, from the port they are scraped at.
func (m *mesh) prometheus(want string) {
	name, _, _ := strings.Cut(want, "{")
	client := &http.Client{Timeout: 10 * time.Second}
	m.Eventually(10*time.Second, want, func() error {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/stats/prometheus", m.stats))
		if err != nil {
			return err
		}
		text, err := readAll(resp)
		if err != nil {
			return err
		}
		var like []string
		for _, line := range strings.Split(text, "\n") {
			if line == want {
				return nil
			}
			if strings.HasPrefix(line, name+"{") {
				like = append(like, line)
			}
		}
		return fmt.Errorf("there is %s", strings.Join(like, "; "))
	})
}
