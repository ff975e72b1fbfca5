package scenarios

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// istioWaypoint: istiod drives the proxy as a waypoint of an ambient mesh.
func istioWaypoint() []Scenario {
	none := plane.IstiodOptions{}
	return []Scenario{
		{"istio/waypoint/http-and-tcp", inMesh(none, waypointTraffic)},
		{"istio/waypoint/authorization-by-principal", inMesh(none, waypointPrincipals)},
		{"istio/waypoint/authorization-of-tcp", inMesh(none, waypointTCPPolicy)},
		{"istio/waypoint/authorization-dry-run", inMesh(none, waypointDryRun)},
		{"istio/waypoint/grpc", inMesh(none, waypointGRPC)},
		{"istio/waypoint/jwt", inMesh(none, waypointJWT)},
		{"istio/waypoint/jwt-remote-keys", inMesh(plane.IstiodOptions{Env: []string{"PILOT_JWT_ENABLE_REMOTE_JWKS=envoy"}}, waypointRemoteKeys)},
		{"istio/waypoint/ext-authz", inMesh(plane.IstiodOptions{Mesh: authProviders}, waypointExtAuthz)},
		{"istio/waypoint/http-route", inMesh(none, waypointHTTPRoute)},
		{"istio/waypoint/virtual-service", inMesh(none, waypointVirtualService)},
		{"istio/waypoint/tcp-routes", inMesh(none, waypointTCPRoute)},
		{"istio/waypoint/telemetry", inMesh(plane.IstiodOptions{Mesh: prometheusProvider}, waypointTelemetry)},
		{"istio/waypoint/certificates", inMesh(none, waypointCertificates)},
		{"istio/waypoint/unknown-addresses", inMesh(none, waypointUnknown)},
		{"istio/waypoint/thousand-changes", inMesh(none, waypointChanges)},
	}
}

const (
	appVIP     = "10.96.0.10"
	appHTTP    = appVIP + ":80"
	appTCP     = appVIP + ":9000"
	waypointID = "spiffe://cluster.local/ns/default/sa/waypoint"
)

// waypointTraffic: HTTP and TCP, to a service's address and to a workload's, to a backend with a ztunnel
// and to one without.
func waypointTraffic(m *mesh) {
	captured := m.app("app-0", true, "service: app, app: app, version: v1")
	plain := m.app("plain-0", false, "service: plain, app: plain, version: v1")
	m.service("app", appVIP, captured)
	m.service("plain", "10.96.0.11", plain)
	m.start()
	_, z := m.client("curl")
	m.Expect(z.Peer() == waypointID, "the waypoint is %s", z.Peer())

	for _, keep := range []bool{false, true} {
		s := m.expect("HTTP to the service", z.Client(appHTTP, keep), from("app-0"), "/some?path=1")
		m.Expect(s.echo.Path == "/some?path=1" && s.echo.Host == appHost, "the app was asked %+v", s.echo)
		m.expect("HTTP to the workload", z.Client(captured.ip+":8080", keep), from("app-0"), "/")
	}
	m.speaks(z, appTCP, "app-0")
	m.speaks(z, captured.ip+":9000", "app-0")
	for _, stream := range captured.hbone.Streams() {
		m.Expect(stream.Peer == waypointID, "the backend's ztunnel was asked by %s", stream.Peer)
		m.Expect(stream.Authority == captured.ip+":8080" || stream.Authority == captured.ip+":9000", "the backend's ztunnel was asked for %s", stream.Authority)
	}
	m.Expect(len(captured.hbone.Streams()) >= 4, "only %d streams through the backend's ztunnel", len(captured.hbone.Streams()))
	m.expect("HTTP to a service without ztunnel", z.Client("10.96.0.11:80", false), from("plain-0"), "/")
	m.speaks(z, "10.96.0.11:9000", "plain-0")

	// A body that is larger than every buffer on the way, both ways.
	body := make([]byte, 2<<20)
	captured.handle = func(w http.ResponseWriter, r *http.Request) bool { return copyBack(w, r) }
	n, err := post(z.Client(appHTTP, false), appHost, body)
	m.OK(err, "a large body")
	m.Expect(n == len(body), "%d of %d bytes came back", n, len(body))
	captured.handle = nil
	m.finish()
}

// waypointPrincipals: two identities ask the same service at the same time. What one may, the other may not; and no
// request of one ever travels on a connection the other's requests made.
func waypointPrincipals(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	m.istiod.Apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: app}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/alice]}}]
  - from: [{source: {principals: [cluster.local/ns/default/sa/bob]}}]
    to: [{operation: {paths: [/shared*], methods: [GET]}}]
`)
	m.start()
	_, alice := m.client("alice")
	_, bob := m.client("bob")
	_, mallory := m.client("mallory")
	m.expect("alice may", alice.Client(appHTTP, true), from("app-0"), "/private", "x-identity", "alice")
	m.expect("bob may what is shared", bob.Client(appHTTP, true), from("app-0"), "/shared/x", "x-identity", "bob")
	denied := m.expect("bob may not the rest", bob.Client(appHTTP, true), status(http.StatusForbidden), "/private", "x-identity", "bob")
	m.Expect(denied.body == "RBAC: access denied", "denied with %q", denied.body)
	m.expect("mallory may nothing", mallory.Client(appHTTP, true), status(http.StatusForbidden), "/shared/x", "x-identity", "mallory")

	load := func(z *kit.Ztunnel, name, path string, want int) *kit.Load {
		return m.Load(kit.LoadOptions{
			URL: "http://" + appHost + path, Dial: dialTo(z, appHTTP),
			Request: func(r *http.Request) { r.Header.Set("x-identity", name) },
			Wrong: func(r *http.Response, body string) error {
				if r.StatusCode != want {
					return fmt.Errorf("%s %s: %d %.80s", name, path, r.StatusCode, body)
				}
				return nil
			},
		})
	}
	loads := []*kit.Load{
		load(alice, "alice", "/shared/x", 200), load(bob, "bob", "/shared/x", 200),
		load(alice, "alice", "/private", 200), load(bob, "bob", "/private", 403), load(mallory, "mallory", "/shared/x", 403),
	}
	m.Eventually(20*time.Second, "requests of all", func() error {
		for _, l := range loads {
			if l.Total() < 200 {
				return fmt.Errorf("%d", l.Total())
			}
		}
		return nil
	})
	for _, l := range loads {
		l.StopClean(m.T)
	}
	connections, mixed := backend.shared()
	m.Expect(len(mixed) == 0, "%d of %d connections carried requests of more than one identity", len(mixed), connections)
	m.Expect(connections >= 2, "%d connections", connections)
	if n := m.total(`rbac\.denied$`); n < 400 {
		m.Fatalf("%d denied requests are counted", n)
	}
	for identities := range backend.identities() {
		m.Expect(identities != "mallory", "a request of mallory reached the app")
	}
	m.finish()
}

// waypointTCPPolicy: a policy on a TCP port lets one identity through and closes the other's connections.
func waypointTCPPolicy(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	m.istiod.Apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: app}]
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/mallory]}}]
    to: [{operation: {ports: ["9000"]}}]
`)
	m.start()
	_, alice := m.client("alice")
	_, mallory := m.client("mallory")
	m.speaks(alice, appTCP, "app-0")
	before := backend.lines.Load()
	for range 5 {
		name, err := talk(mallory, appTCP)
		m.Expect(err != nil, "mallory reached %s", name)
	}
	m.Expect(backend.lines.Load() == before, "the app heard mallory")
	m.speaks(alice, appTCP, "app-0")
	m.finish()
}

// waypointDryRun: a policy that is tried out denies nothing and is counted.
func waypointDryRun(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	m.istiod.Apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app, namespace: default, annotations: {istio.io/dry-run: "true"}}
spec:
  targetRefs: [{kind: Service, group: "", name: app}]
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/mallory]}}]}]
`)
	m.start()
	_, alice := m.client("alice")
	_, mallory := m.client("mallory")
	m.expect("alice", alice.Client(appHTTP, true), from("app-0"), "/")
	for range 3 {
		m.expect("mallory, for now", mallory.Client(appHTTP, true), from("app-0"), "/")
	}
	m.Eventually(5*time.Second, "what would be denied is counted", func() error {
		denied, allowed := m.total(`istio_dry_run_deny_[.]shadow_denied$`), m.total(`istio_dry_run_deny_[.]shadow_allowed$`)
		if denied != 3 || allowed != 1 {
			return fmt.Errorf("%d denied, %d allowed", denied, allowed)
		}
		return nil
	})
	m.finish()
}

// waypointGRPC: a port that is named grpc speaks HTTP/2 all the way, with trailers.
func waypointGRPC(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	backend.handle = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("trailer", "grpc-status")
		w.Header().Set("x-protocol", r.Proto)
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte{0, 0, 0, 0, 0})
		w.Header().Set("grpc-status", "7")
		return true
	}
	m.serviceOf("app", appVIP, "{name: grpc, port: 7000, targetPort: 8080}", "{name: grpc, port: 8080, protocol: TCP}",
		"istio.io/use-waypoint: waypoint", []*pod{backend.pod})
	m.start()
	_, z := m.client("curl")
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			return z.Dial(ctx, appVIP+":7000")
		},
	}}
	m.Eventually(10*time.Second, "a gRPC call", func() error {
		request, err := http.NewRequest(http.MethodPost, "http://"+appHost+"/some.Service/Method", bytes.NewReader([]byte{0, 0, 0, 0, 0}))
		if err != nil {
			return err
		}
		request.Header.Set("content-type", "application/grpc")
		request.Header.Set("te", "trailers")
		resp, err := client.Do(request)
		if err != nil {
			return err
		}
		body, err := readAll(resp)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get("x-protocol") != "HTTP/2.0" || resp.Trailer.Get("grpc-status") != "7" || len(body) != 5 {
			return fmt.Errorf("%d %v %v %q", resp.StatusCode, resp.Header, resp.Trailer, body)
		}
		return nil
	})
	m.finish()
}
