package scenarios

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// istioSidecars is a client and a server, each with the proxy as its sidecar. Nothing redirects traffic to
// them here: they run in Istio's interception mode NONE, in which a client asks its sidecar by the service's
// port on 127.0.0.1, and a server's sidecar listens where a Sidecar object says.
func istioSidecars() []Scenario {
	return []Scenario{
		{"istio/sidecar/mtls", func(t *kit.T) { sidecarMutualTLS(newSidecars(t)) }},
		{"istio/sidecar/authorization", func(t *kit.T) { sidecarAuthorization(newSidecars(t)) }},
		{"istio/sidecar/rotation", func(t *kit.T) { sidecarRotation(newSidecars(t)) }},
		{"istio/sidecar/telemetry", sidecarTelemetry},
	}
}

const (
	serverHost = "server.default.svc.cluster.local"
	serverIP   = "127.0.0.2"
	clientID   = "spiffe://cluster.local/ns/default/sa/client"
	serverID   = "spiffe://cluster.local/ns/default/sa/server"
)

type sidecars struct {
	*kit.T
	istiod         *plane.Istiod
	authority      *kit.Authority
	app            *kit.Upstream
	client, server *plane.PilotAgent
	// The service's ports, where the client's sidecar listens, and the pod's, where the server's does.
	http, tcp, inHTTP, inTCP int
	// xfcc is what the app was told of its last client.
	xfcc atomic.Value
}

func newSidecars(t *kit.T) *sidecars {
	s := &sidecars{
		T: t, istiod: newIstiod(t), authority: t.Authority(), app: t.Upstream("app", nil),
		http: t.Port(), tcp: t.Port(), inHTTP: t.Port(), inTCP: t.Port(),
	}
	s.app.Header = func(_ http.ResponseWriter, r *http.Request) {
		s.xfcc.Store(strings.Join(r.Header.Values("x-forwarded-client-cert"), ","))
	}
	server := member{
		name: "server", namespace: "default", ip: serverIP, meshed: true,
		ports: []memberPort{{"http", s.http, s.inHTTP}, {"tcp", s.tcp, s.inTCP}},
	}
	client := member{name: "client", namespace: "default", ip: "127.0.0.3"}
	s.istiod.Apply(server.objects(), fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: server, namespace: default}
spec:
  workloadSelector: {labels: {app: server}}
  ingress:
  - {port: {number: %d, protocol: HTTP, name: http}, bind: %[5]s, captureMode: NONE, defaultEndpoint: "127.0.0.1:%[2]d"}
  - {port: {number: %[3]d, protocol: TCP, name: tcp}, bind: %[5]s, captureMode: NONE, defaultEndpoint: "127.0.0.1:%[4]d"}
  egress: [{hosts: ["~/*"]}]
`, s.inHTTP, s.app.Port, s.inTCP, t.EchoServer(), serverIP))
	start := func(m member) *plane.PilotAgent {
		return s.istiod.PilotAgent(plane.PilotAgentOptions{
			Name: m.name, Namespace: m.namespace, Account: m.name, IP: m.ip, Labels: m.podLabels(), Authority: s.authority,
		})
	}
	s.server, s.client = start(server), start(client)
	s.server.Healthy(2 * pilotAgentLimit)
	s.client.Healthy(2 * pilotAgentLimit)
	askUntil(t, s.http, serverHost, "/", 200, "app")
	return s
}

// done is what every scenario ends with: all that istiod sent was taken by both.
func (s *sidecars) done() {
	s.istiod.Synced(10*time.Second, 2)
	s.istiod.NoRejects()
	for _, agent := range []*plane.PilotAgent{s.client, s.server} {
		s.Expect(len(agent.Rejections()) == 0, "%s refused updates: %v", agent.Name, agent.Rejections())
	}
}

// plainly asks the server's sidecar without a sidecar of one's own.
func (s *sidecars) plainly(headers ...string) (hostAnswer, error) {
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s:%d/", serverIP, s.inHTTP), nil)
	s.OK(err, "request")
	request.Host = serverHost
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return askedOf(&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}, request)
}

// through asks by the client's sidecar.
func (s *sidecars) through(path string, headers ...string) hostAnswer {
	client := keepAlive()
	defer client.CloseIdleConnections()
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", s.http, path), nil)
	s.OK(err, "request")
	request.Host = serverHost
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	a, err := askedOf(client, request)
	s.OK(err, "GET "+path)
	return a
}

// served is the serial number of the certificate the server's sidecar shows to a client with this one.
func (s *sidecars) served(pair tls.Certificate) (int64, error) {
	config := &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"istio-http/1.1"}}
	conn, err := tls.Dial("tcp", fmt.Sprintf("%s:%d", serverIP, s.inHTTP), config)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	// With TLS 1.3 a refused client learns of it when it reads.
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n", serverHost); err != nil {
		return 0, err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return 0, err
	}
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func (s *sidecars) pair(authority *kit.Authority, identity string) tls.Certificate {
	cert, key := authority.Identity(77, identity)
	pair, err := tls.X509KeyPair([]byte(cert+authority.PEM), []byte(key))
	s.OK(err, "key pair")
	return pair
}

// load asks by the client's sidecar until it is stopped.
func (s *sidecars) load(fresh bool) *kit.Load {
	return s.Load(kit.LoadOptions{
		URL: fmt.Sprintf("http://127.0.0.1:%d/", s.http), Clients: 2, FreshConnections: fresh,
		Request: func(r *http.Request) { r.Host = serverHost },
	})
}

const strict = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
`

func sidecarMutualTLS(s *sidecars) {
	// As Istio documents it: who answers, the client certificate's hash, and who asks.
	want := regexp.MustCompile(`^By=` + serverID + `;Hash=[0-9a-f]{64};Subject="";URI=` + clientID + `$`)
	s.through("/")
	s.Expect(want.MatchString(s.xfcc.Load().(string)), "the app is told %q of its client", s.xfcc.Load())
	s.through("/", "x-forwarded-client-cert", "By=forged;URI=spiffe://cluster.local/ns/default/sa/admin")
	s.Expect(want.MatchString(s.xfcc.Load().(string)), "the app is told %q of a client that forges", s.xfcc.Load())
	tcp := fmt.Sprintf("127.0.0.1:%d", s.tcp)
	s.Eventually(10*time.Second, "TCP by the sidecars", func() error { return echoes(tcp) })

	// PERMISSIVE, the default: who has no sidecar is served too, but nobody vouches for it.
	a, err := s.plainly("x-forwarded-client-cert", "URI="+clientID)
	s.OK(err, "plain text under PERMISSIVE")
	s.Expect(a.status == 200 && s.xfcc.Load() == "", "plain text under PERMISSIVE: %d, the app is told %q", a.status, s.xfcc.Load())
	s.OK(echoes(fmt.Sprintf("%s:%d", serverIP, s.inTCP)), "plain TCP under PERMISSIVE")

	kept, fresh := s.load(false), s.load(true)
	s.istiod.Apply(strict)
	s.Eventually(10*time.Second, "plain text is refused under STRICT", func() error {
		if a, err := s.plainly(); err == nil {
			return fmt.Errorf("%d", a.status)
		}
		return nil
	})
	s.Eventually(10*time.Second, "plain TCP is refused under STRICT", func() error {
		if echoes(fmt.Sprintf("%s:%d", serverIP, s.inTCP)) == nil {
			return fmt.Errorf("it is answered")
		}
		return nil
	})
	s.OK(echoes(tcp), "TCP by the sidecars under STRICT")
	_, err = s.served(s.pair(s.authority, clientID))
	s.OK(err, "a client with a certificate of the mesh")
	_, err = s.served(s.pair(s.Authority(), clientID))
	s.Expect(err != nil, "a certificate of another authority is taken")
	_, err = s.served(s.pair(s.authority, "spiffe://elsewhere/ns/default/sa/client"))
	s.Expect(err != nil, "a certificate of another trust domain is taken")
	_, err = s.served(tls.Certificate{})
	s.Expect(err != nil, "a client without a certificate is served")
	waitForLoad(s.T, kept, 50)
	s.istiod.Delete(strict)
	s.Eventually(10*time.Second, "plain text is served again", func() error { _, err := s.plainly(); return err })
	kept.StopClean(s.T)
	fresh.StopClean(s.T)
	s.done()
}

func waitForLoad(t *kit.T, load *kit.Load, more int) {
	goal := load.Total() + more
	t.Eventually(20*time.Second, "the load goes on", func() error {
		if n := load.Total(); n < goal {
			return fmt.Errorf("%d of %d", n, goal)
		}
		return nil
	})
}

func sidecarAuthorization(s *sidecars) {
	policy := func(name, action, rules string) string {
		return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: default}
spec: {selector: {matchLabels: {app: server}}, action: %s, rules: %s}
`, name, action, rules)
	}
	refused := func(what string) {
		s.Eventually(10*time.Second, what+" is refused", func() error {
			a, err := s.plainly()
			if err == nil && (a.status != 403 || a.body != "RBAC: access denied") {
				err = fmt.Errorf("%d %.60q", a.status, a.body)
			}
			return err
		})
	}
	tcp := fmt.Sprintf("127.0.0.1:%d", s.tcp)
	allow := policy("allow", "ALLOW", `[{from: [{source: {principals: ["cluster.local/ns/default/sa/client"]}}]}]`)
	s.istiod.Apply(allow)
	refused("plain text without a principal")
	askUntil(s.T, s.http, serverHost, "/", 200, "app")
	s.OK(echoes(tcp), "TCP by who is allowed")
	s.Eventually(10*time.Second, "plain TCP is refused", func() error {
		if echoes(fmt.Sprintf("%s:%d", serverIP, s.inTCP)) == nil {
			return fmt.Errorf("it is answered")
		}
		return nil
	})
	s.istiod.Apply(policy("deny", "DENY", `[{to: [{operation: {paths: ["/closed*"], methods: [GET]}}]}]`))
	askUntil(s.T, s.http, serverHost, "/closed/x", 403, "RBAC: access denied")
	a := s.through("/")
	s.Expect(a.status == 200, "what no policy denies: %d", a.status)

	s.istiod.Apply(policy("allow", "ALLOW", `[{from: [{source: {principals: ["cluster.local/ns/default/sa/other"]}}]}]`))
	askUntil(s.T, s.http, serverHost, "/", 403, "RBAC: access denied")
	s.Expect(echoes(tcp) != nil, "TCP by who is not allowed is answered")
	_, stats, err := s.server.Get("/stats?usedonly&filter=rbac\\.denied$")
	s.OK(err, "/stats")
	s.Expect(strings.Contains(stats, "http.") && strings.Contains(stats, "tcp."), "refusals are not counted: %q", stats)
	s.istiod.Delete(allow)
	askUntil(s.T, s.http, serverHost, "/", 200, "app")
	s.done()
}

func sidecarRotation(s *sidecars) {
	kept, fresh := s.load(false), s.load(true)
	pair := s.pair(s.authority, clientID)
	for serial := int64(100); serial < 106; serial++ {
		s.server.Certify(serial)
		s.client.Certify(serial)
		s.Eventually(15*time.Second, fmt.Sprintf("the server's sidecar shows certificate %d", serial), func() error {
			got, err := s.served(pair)
			if err == nil && got != serial {
				err = fmt.Errorf("it shows %d", got)
			}
			return err
		})
	}
	waitForLoad(s.T, fresh, 50)
	kept.StopClean(s.T)
	fresh.StopClean(s.T)
	s.done()
}

// sidecarTelemetry: each side names the other, by what they told one another over the connection.
func sidecarTelemetry(t *kit.T) {
	if t.Public {
		t.Note("left out: the metrics are Istio's own")
		return
	}
	s := newSidecars(t)
	s.through("/")
	a, err := s.plainly()
	s.OK(err, "plain text")
	s.Expect(a.header.Get("x-envoy-peer-metadata") == "", "a client without a sidecar is told of the server's metadata")
	s.OK(echoes(fmt.Sprintf("127.0.0.1:%d", s.tcp)), "TCP by the sidecars")
	ends := map[string]string{
		"source_workload": "client", "source_workload_namespace": "default", "source_app": "client", "source_canonical_service": "client",
		"source_canonical_revision": "v1", "destination_workload": "server", "destination_workload_namespace": "default",
		"destination_app": "server", "destination_canonical_service": "server", "destination_canonical_revision": "v1",
		"source_principal": clientID, "destination_principal": serverID,
	}
	with := func(more ...string) map[string]string {
		all := map[string]string{}
		for name, value := range ends {
			all[name] = value
		}
		for i := 0; i+1 < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	atSource := with("reporter", "source", "connection_security_policy", "unknown", "response_flags", "-",
		"destination_service", serverHost, "destination_service_name", "server", "destination_service_namespace", "default")
	atDestination := with("reporter", "destination", "connection_security_policy", "mutual_tls", "response_flags", "-")
	stranger := map[string]string{
		"reporter": "destination", "source_workload": "unknown", "source_principal": "unknown", "destination_workload": "server",
		"connection_security_policy": "none", "request_protocol": "http", "response_code": "200",
	}
	and := func(labels map[string]string, name, value string) map[string]string {
		all := map[string]string{name: value}
		for name, value := range labels {
			all[name] = value
		}
		return all
	}
	for _, c := range []struct {
		agent  *plane.PilotAgent
		metric string
		labels map[string]string
	}{
		{s.client, "istio_requests_total", and(and(atSource, "response_code", "200"), "request_protocol", "http")},
		{s.server, "istio_requests_total", and(and(atDestination, "response_code", "200"), "request_protocol", "http")},
		{s.server, "istio_requests_total", stranger},
		{s.client, "istio_request_duration_milliseconds", atSource},
		{s.server, "istio_response_bytes", atDestination},
		{s.client, "istio_tcp_connections_opened_total", and(atSource, "request_protocol", "tcp")},
		{s.server, "istio_tcp_connections_opened_total", and(atDestination, "request_protocol", "tcp")},
		{s.client, "istio_tcp_sent_bytes_total", atSource},
		{s.server, "istio_tcp_received_bytes_total", atDestination},
	} {
		s.Eventually(15*time.Second, fmt.Sprintf("%s of %s", c.metric, c.agent.Name), func() error {
			return reported(c.agent, c.metric, c.labels)
		})
	}
	s.done()
}

// reported wants a metric above zero with these labels among its own.
func reported(agent *plane.PilotAgent, name string, labels map[string]string) error {
	_, body, err := agent.Ask(agent.Prometheus, "/stats/prometheus")
	if err != nil {
		return err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		return err
	}
	if families[name] == nil {
		return fmt.Errorf("no %s", name)
	}
	var closest []string
	for i, metric := range families[name].Metric {
		missing := unlike(metric, labels)
		if len(missing) == 0 && (metric.GetCounter().GetValue() > 0 || metric.GetHistogram().GetSampleCount() > 0) {
			return nil
		}
		if i == 0 || len(missing) < len(closest) {
			closest = missing
		}
	}
	return fmt.Errorf("of %d series the closest differs in %s", len(families[name].Metric), strings.Join(closest, ", "))
}

func unlike(metric *dto.Metric, labels map[string]string) []string {
	found := map[string]string{}
	for _, pair := range metric.Label {
		found[pair.GetName()] = pair.GetValue()
	}
	var out []string
	for name, want := range labels {
		if found[name] != want {
			out = append(out, fmt.Sprintf("%s=%q, not %q", name, found[name], want))
		}
	}
	return out
}
