package scenarios

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// istioGateways is the proxy as an ingress gateway, started by pilot-agent and configured by istiod from
// Istio's and Kubernetes' own gateway objects. Certificates come as secrets over ADS.
func istioGateways() []Scenario {
	return []Scenario{
		{"istio/gateway/https", func(t *kit.T) { gatewayHTTPS(newGateway(t)) }},
		{"istio/gateway/rotation", func(t *kit.T) { gatewayRotation(newGateway(t)) }},
		{"istio/gateway/httproute", func(t *kit.T) { gatewayHTTPRoute(newGateway(t)) }},
		{"istio/gateway/passthrough", func(t *kit.T) { gatewayPassthrough(newGateway(t)) }},
	}
}

// gateway is a gateway with a port for HTTP and one for HTTPS, and two services behind it.
type gateway struct {
	*kit.T
	istiod    *plane.Istiod
	agent     *plane.PilotAgent
	authority *kit.Authority
	one, two  *kit.Upstream
	http      int
	https     int
}

func newGateway(t *kit.T) *gateway {
	g := &gateway{
		T: t, istiod: newIstiod(t), authority: t.Authority(), http: t.Port(), https: t.Port(),
		one: t.Upstream("one", nil), two: t.Upstream("two", nil),
	}
	labels := map[string]string{"istio": "ingressgateway"}
	pod := member{
		name: "gateway", namespace: "istio-system", ip: "127.0.0.9", labels: labels,
		ports: []memberPort{{"http", g.http, g.http}, {"https", g.https, g.https}},
	}
	g.istiod.Apply(pod.objects(), webMember("one", 80, g.one.Port).objects(), webMember("two", 80, g.two.Port).objects())
	g.agent = g.istiod.PilotAgent(plane.PilotAgentOptions{
		Name: "gateway", Namespace: "istio-system", Account: "gateway", Gateway: true, IP: "127.0.0.9", Labels: pod.podLabels(),
	})
	g.agent.Healthy(pilotAgentLimit)
	return g
}

// done is what every scenario ends with: all that istiod sent was taken.
func (g *gateway) done() {
	g.istiod.Synced(10*time.Second, 1)
	g.istiod.NoRejects()
	g.Expect(len(g.agent.Rejections()) == 0, "refused updates: %v", g.agent.Rejections())
}

// services routes each host to a service of its own.
func (g *gateway) services(hosts ...string) string {
	out := ""
	for i, host := range hosts {
		out += fmt.Sprintf(`
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: host-%d, namespace: default}
spec:
  hosts: [%s]
  gateways: [istio-system/front]
  http: [{route: [{destination: {host: %s.default.svc.cluster.local, port: {number: 80}}}]}]
`, i, host, []string{"one", "two"}[i%2])
	}
	return out
}

// secure asks the HTTPS port for a host and gives the server's certificate too.
func (g *gateway) secure(host string, own *tls.Certificate, protocols ...string) (hostAnswer, *tls.ConnectionState, error) {
	config := &tls.Config{RootCAs: g.authority.Pool(), ServerName: host, NextProtos: protocols}
	if own != nil {
		config.Certificates = []tls.Certificate{*own}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: len(protocols) > 0}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/", g.https), nil)
	g.OK(err, "request")
	request.Host = host
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return hostAnswer{}, nil, err
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	return hostAnswer{answer{resp.StatusCode, body, resp.Header}, resp.Close}, resp.TLS, err
}

// serves waits until a host is answered by a service under a certificate of this serial number.
func (g *gateway) serves(host, service string, serial int64, own *tls.Certificate, protocols ...string) {
	g.Eventually(15*time.Second, fmt.Sprintf("https://%s is answered by %s with certificate %d", host, service, serial), func() error {
		a, state, err := g.secure(host, own, protocols...)
		if err != nil {
			return err
		}
		got := state.PeerCertificates[0].SerialNumber.Int64()
		if a.status != 200 || a.body != service || got != serial {
			return fmt.Errorf("%d %.60q with certificate %d", a.status, a.body, got)
		}
		if len(protocols) > 0 && state.NegotiatedProtocol != protocols[0] {
			return fmt.Errorf("it speaks %q", state.NegotiatedProtocol)
		}
		return nil
	})
}

func gatewayHTTPS(g *gateway) {
	const ns = "istio-system"
	cert, key := g.authority.Issue(30, "c.example")
	clients := g.Authority()
	g.istiod.Apply(
		tlsSecret(g.authority, ns, "cert-a", "a.example", 10),
		tlsSecret(g.authority, ns, "cert-b", "b.example", 20),
		secretObject(ns, "cert-c", "tls.crt", cert, "tls.key", key, "ca.crt", clients.PEM),
		fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: %d, name: http, protocol: HTTP}, hosts: [a.example]}
  - {port: {number: %[2]d, name: https-a, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: cert-a}}
  - {port: {number: %[2]d, name: https-b, protocol: HTTPS}, hosts: [b.example], tls: {mode: SIMPLE, credentialName: cert-b}}
  - {port: {number: %[2]d, name: https-c, protocol: HTTPS}, hosts: [c.example], tls: {mode: MUTUAL, credentialName: cert-c}}
`, g.http, g.https)+g.services("a.example", "b.example", "c.example"))
	askUntil(g.T, g.http, "a.example", "/", 200, "one")
	askUntil(g.T, g.http, "b.example", "/", 404, "")
	g.serves("a.example", "one", 10, nil)
	g.serves("b.example", "two", 20, nil, "h2", "http/1.1")
	pair := clients.Pair(5, "client")
	g.serves("c.example", "one", 30, &pair)

	_, _, err := g.secure("c.example", nil)
	g.Expect(err != nil, "c.example answers a client without a certificate")
	stranger := g.Authority().Pair(6, "stranger")
	_, _, err = g.secure("c.example", &stranger)
	g.Expect(err != nil, "c.example answers a client of another authority")
	_, _, err = g.secure("d.example", nil)
	g.Expect(err != nil, "a name without a certificate is answered")

	// A listener with a secret that is not there yet does not take the place of the one that serves.
	g.istiod.Apply(fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: %[1]d, name: https-a, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: cert-a}}
  - {port: {number: %[1]d, name: https-d, protocol: HTTPS}, hosts: [d.example], tls: {mode: SIMPLE, credentialName: cert-d}}
`, g.https), g.services("a.example", "d.example"))
	g.Eventually(10*time.Second, "a listener warms", func() error {
		if n := g.agent.Stat("listener_manager.total_listeners_warming"); n != 1 {
			return fmt.Errorf("%d listeners warm", n)
		}
		return nil
	})
	g.serves("a.example", "one", 10, nil)
	g.istiod.Apply(tlsSecret(g.authority, ns, "cert-d", "d.example", 40))
	g.serves("d.example", "two", 40, nil)
	_, _, err = g.secure("b.example", nil)
	g.Expect(err != nil, "b.example is answered after it was removed")
	g.done()
}

func gatewayRotation(g *gateway) {
	const ns = "istio-system"
	g.istiod.Apply(tlsSecret(g.authority, ns, "cert-a", "a.example", 1), fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: %d, name: https-a, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: cert-a}}
`, g.https)+g.services("a.example"))
	g.serves("a.example", "one", 1, nil)
	options := kit.LoadOptions{
		URL: fmt.Sprintf("https://127.0.0.1:%d/", g.https), Clients: 2,
		TLS:     &tls.Config{RootCAs: g.authority.Pool(), ServerName: "a.example"},
		Request: func(r *http.Request) { r.Host = "a.example" },
	}
	kept := g.Load(options)
	options.FreshConnections = true
	fresh := g.Load(options)
	for serial := int64(2); serial <= 10; serial++ {
		g.istiod.Apply(tlsSecret(g.authority, ns, "cert-a", "a.example", serial))
		g.serves("a.example", "one", serial, nil)
	}
	kept.StopClean(g.T)
	fresh.StopClean(g.T)
	g.Note("9 rotations under %d requests", kept.Total()+fresh.Total())
	g.done()
}

func gatewayHTTPRoute(g *gateway) {
	g.istiod.Apply(tlsSecret(g.authority, "istio-system", "cert-a", "a.example", 7), fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: gateway.istio-system.svc.cluster.local}]
  listeners:
  - {name: http, port: %d, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - name: https
    hostname: a.example
    port: %d
    protocol: HTTPS
    allowedRoutes: {namespaces: {from: All}}
    tls: {mode: Terminate, certificateRefs: [{name: cert-a}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: routes, namespace: default}
spec:
  parentRefs: [{name: front, namespace: istio-system}]
  hostnames: [a.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /two}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /renamed}}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-route, value: rewritten}]}}
    backendRefs: [{name: two, port: 80}]
  - matches: [{headers: [{name: x-who, value: two}], path: {type: Exact, value: /who}}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-added, value: "yes"}]}}]
    backendRefs: [{name: two, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example, statusCode: 301}}]
  - matches: [{path: {type: PathPrefix, value: /split}}]
    backendRefs: [{name: one, port: 80, weight: 1}, {name: two, port: 80, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /nowhere}}]
    backendRefs: [{name: absent, port: 80}]
  - backendRefs: [{name: one, port: 80}]
`, g.http, g.https))
	// Without a cluster, istiod may have looked at the proxy before it knew all of the gateway: it looks again.
	g.Eventually(15*time.Second, "the gateway's listener is there", func() error {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", g.http), time.Second)
		if err == nil {
			return conn.Close()
		}
		time.Sleep(500 * time.Millisecond)
		_, pushed := g.istiod.Get("/debug/adsz?push=true")
		return errors.Join(err, pushed)
	})
	askUntil(g.T, g.http, "a.example", "/", 200, "one")
	g.serves("a.example", "one", 7, nil)
	askUntil(g.T, g.http, "other.example", "/", 404, "")
	var path, added string
	g.two.Header = func(_ http.ResponseWriter, r *http.Request) { path, added = r.URL.Path, r.Header.Get("x-added") }
	client := keepAlive()
	defer client.CloseIdleConnections()
	ask := func(path string, headers ...string) hostAnswer {
		request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", g.http, path), nil)
		g.OK(err, "request")
		request.Host = "a.example"
		for i := 0; i+1 < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		a, err := askedOf(client, request)
		g.OK(err, path)
		return a
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := ask("/two/x")
	g.Expect(a.body == "two" && path == "/renamed/x" && a.header.Get("x-route") == "rewritten", "/two/x: %d %q as %s, %v", a.status, a.body, path, a.header)
	a = ask("/who", "x-who", "two")
	g.Expect(a.body == "two" && added == "yes", "/who with the header: %d %q, x-added %q", a.status, a.body, added)
	a = ask("/who")
	g.Expect(a.body == "one", "/who without the header: %d %q", a.status, a.body)
	a = ask("/moved/x")
	g.Expect(a.status == 301 && a.header.Get("location") == "https://new.example/moved/x", "/moved/x: %d to %s", a.status, a.header.Get("location"))
	a = ask("/nowhere")
	g.Expect(a.status == 500, "a route to a service that does not exist: %d", a.status)
	seen := map[string]int{}
	for range 200 {
		seen[ask("/split").body]++
	}
	g.Expect(seen["one"]+seen["two"] == 200 && seen["one"] > 50 && seen["two"] > 50, "a split in halves: %v", seen)
	g.done()
}

func gatewayPassthrough(g *gateway) {
	upstreams := map[string]*kit.Upstream{}
	objects := ""
	for i, host := range []string{"a.example", "b.example"} {
		name := []string{"secure-a", "secure-b"}[i]
		pair := g.authority.Pair(int64(100+i), host)
		upstreams[host] = g.Upstream(name, &tls.Config{Certificates: []tls.Certificate{pair}})
		m := member{name: name, namespace: "default", ports: []memberPort{{"https", 443, upstreams[host].Port}}}
		objects += m.objects() + fmt.Sprintf(`
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s, namespace: default}
spec:
  hosts: [%[2]s]
  gateways: [istio-system/front]
  tls:
  - match: [{port: %[3]d, sniHosts: [%[2]s]}]
    route: [{destination: {host: %[1]s.default.svc.cluster.local, port: {number: 443}}}]
---
`, name, host, g.https)
	}
	echo := g.EchoServer()
	objects += member{name: "echo", namespace: "default", ports: []memberPort{{"tcp", 9000, echo}}}.objects()
	g.istiod.Apply(objects, fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: %d, name: tls, protocol: TLS}, hosts: [a.example, b.example], tls: {mode: PASSTHROUGH}}
  - {port: {number: %d, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo, namespace: default}
spec:
  hosts: ["*"]
  gateways: [istio-system/front]
  tcp:
  - match: [{port: %[2]d}]
    route: [{destination: {host: echo.default.svc.cluster.local, port: {number: 9000}}}]
`, g.https, g.http))
	// The certificate is the service's own: nobody between has opened the connection.
	g.serves("a.example", "secure-a", 100, nil)
	g.serves("b.example", "secure-b", 101, nil)
	_, _, err := g.secure("c.example", nil)
	g.Expect(err != nil, "a name without a route is answered")
	g.Eventually(10*time.Second, "TCP is passed on", func() error { return echoes(fmt.Sprintf("127.0.0.1:%d", g.http)) })
	g.done()
}

// echoes sends a line and wants it back.
func echoes(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	const line = "one line there and back\n"
	if _, err := io.WriteString(conn, line); err != nil {
		return err
	}
	back := make([]byte, len(line))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	if string(back) != line {
		return fmt.Errorf("%q came back", back)
	}
	return nil
}
