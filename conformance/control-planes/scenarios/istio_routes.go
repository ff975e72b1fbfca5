package scenarios

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"time"

	"nuncio/conformance/control-planes/kit"
)

// threeApps are a service and one service for each of its versions.
func threeApps(m *mesh) (one, two *app) {
	one = m.app("app-1", true, "service: app, app: app, version: v1")
	two = m.app("app-2", true, "service: app, app: app, version: v2")
	m.service("app", appVIP, one, two)
	m.service("app-v1", "10.96.0.21", one)
	m.service("app-v2", "10.96.0.22", two)
	return one, two
}

// share asks until both apps have answered, and gives the part of the first, in percent.
func (m *mesh) share(client *http.Client, path string, total int, one, two *app) int {
	ones := 0
	for range total {
		s, err := ask(client, appHost, path)
		m.OK(err, "a request that is split")
		m.Expect(s.status == http.StatusOK, "a request that is split: %d %s", s.status, s.body)
		if s.echo.App == one.name {
			ones++
		} else {
			m.Expect(s.echo.App == two.name, "answered by %q", s.echo.App)
		}
	}
	return 100 * ones / total
}

// waypointHTTPRoute: Gateway API's routes, attached to the service. What an API server would fill in as a
// default is written out.
func waypointHTTPRoute(m *mesh) {
	one, two := threeApps(m)
	m.istiod.Apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: app, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}, headers: [{type: Exact, name: x-version, value: v2}]}]
    backendRefs: [{group: "", kind: Service, name: app-v2, port: 80, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /old}, queryParams: [{type: Exact, name: q, value: "1"}], method: GET}]
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-set, value: route}], add: [{name: x-added, value: route}], remove: [x-removed]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: x-answered, value: route}]}
    backendRefs: [{group: "", kind: Service, name: app-v1, port: 80, weight: 1}]
  - matches: [{path: {type: Exact, value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.test, statusCode: 301}}]
  - matches: [{path: {type: PathPrefix, value: /mirrored}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {group: "", kind: Service, name: app-v2, port: 80}}}]
    backendRefs: [{group: "", kind: Service, name: app-v1, port: 80, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{group: "", kind: Service, name: app-v1, port: 80, weight: 75}, {group: "", kind: Service, name: app-v2, port: 80, weight: 25}]
`)
	m.start()
	_, z := m.client("curl")
	client := z.Client(appHTTP, true)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for range 20 {
		m.expect("a header decides", client, from("app-2"), "/", "x-version", "v2")
	}
	s := m.expect("a rewritten request", client, from("app-1"), "/old/page?q=1", "x-removed", "yes", "x-added", "client")
	m.Expect(s.echo.Path == "/new/page?q=1", "the app was asked for %s", s.echo.Path)
	added := s.echo.Header.Values("x-added")
	m.Expect(s.echo.Header.Get("x-set") == "route" && fmt.Sprint(added) == "[client route]" && s.echo.Header.Get("x-removed") == "",
		"the app was sent %v", s.echo.Header)
	m.Expect(s.header.Get("x-answered") == "route", "the answer has %v", s.header)
	s = m.expect("a redirect", client, status(http.StatusMovedPermanently), "/moved")
	m.Expect(s.header.Get("location") == "http://elsewhere.test/moved", "redirected to %s", s.header.Get("location"))
	mirrored := two.hits.Load()
	for range 10 {
		m.expect("a mirrored request", client, from("app-1"), "/mirrored")
	}
	m.mirrored(two, mirrored+10)
	part := m.share(client, "/", 400, one, two)
	m.Expect(part > 65 && part < 85, "app-v1 got %d %% and not about 75", part)
	m.finish()
}

// mirrored waits until an app has got its copies.
func (m *mesh) mirrored(to *app, want int64) {
	m.Eventually(5*time.Second, "mirrored requests", func() error {
		if n := to.hits.Load(); n != want {
			return fmt.Errorf("%d and not %d", n, want)
		}
		return nil
	})
}

// waypointVirtualService: Istio's own routes: subsets, retries, faults, timeouts, mirrors.
func waypointVirtualService(m *mesh) {
	one, two := threeApps(m)
	m.istiod.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app, namespace: default}
spec:
  host: app.default.svc.cluster.local
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: default}
spec:
  hosts: [app.default.svc.cluster.local]
  http:
  - match: [{headers: {x-version: {exact: v2}}}]
    route: [{destination: {host: app.default.svc.cluster.local, subset: v2}}]
  - match: [{headers: {x-version: {regex: "v[13]"}}, queryParams: {q: {prefix: a}}}]
    route: [{destination: {host: app.default.svc.cluster.local, subset: v1}, headers: {response: {set: {x-regex: matched}}}}]
  - match: [{uri: {prefix: /retried}}]
    route: [{destination: {host: app-v1.default.svc.cluster.local}}]
    retries: {attempts: 3, retryOn: "5xx", perTryTimeout: 5s}
  - match: [{uri: {prefix: /once}}]
    route: [{destination: {host: app-v1.default.svc.cluster.local}}]
    retries: {attempts: 0}
  - match: [{uri: {prefix: /aborted}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: app-v1.default.svc.cluster.local}}]
  - match: [{uri: {prefix: /delayed}}]
    fault: {delay: {fixedDelay: 0.4s, percentage: {value: 100}}}
    route: [{destination: {host: app-v1.default.svc.cluster.local}}]
  - match: [{uri: {prefix: /late}}]
    timeout: 0.3s
    retries: {attempts: 0}
    route: [{destination: {host: app-v1.default.svc.cluster.local}}]
  - match: [{uri: {prefix: /mirrored}}]
    mirrors: [{destination: {host: app-v2.default.svc.cluster.local}, percentage: {value: 100}}]
    route: [{destination: {host: app-v1.default.svc.cluster.local}}]
  - match: [{uri: {prefix: /rewritten}}]
    rewrite: {uri: /fresh, authority: other.test}
    route: [{destination: {host: app-v1.default.svc.cluster.local}}]
  - match: [{uri: {exact: /direct}}]
    directResponse: {status: 299, body: {string: from the route}}
  - route:
    - {destination: {host: app.default.svc.cluster.local, subset: v1}, weight: 20}
    - {destination: {host: app.default.svc.cluster.local, subset: v2}, weight: 80}
`)
	m.start()
	_, z := m.client("curl")
	client := z.Client(appHTTP, true)
	for range 20 {
		m.expect("a header decides", client, from("app-2"), "/", "x-version", "v2")
	}
	s := m.expect("a regular expression and a query decide", client, from("app-1"), "/?q=abc", "x-version", "v3")
	m.Expect(s.header.Get("x-regex") == "matched", "the answer has %v", s.header)

	failures := 2
	one.handle = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case failures > 0 && r.URL.Path == "/retried" || r.URL.Path == "/once":
			failures--
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case r.URL.Path == "/late":
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Second):
			}
		}
		return false
	}
	before := one.hits.Load()
	retried, err := ask(client, appHost, "/retried")
	m.OK(err, "a retried request")
	m.Expect(retried.status == http.StatusOK && one.hits.Load() == before+3, "a retried request: %d after %d attempts", retried.status, one.hits.Load()-before)
	failures = 2
	before = one.hits.Load()
	once, err := ask(client, appHost, "/once")
	m.OK(err, "a request that is not retried")
	m.Expect(once.status == http.StatusServiceUnavailable && one.hits.Load() == before+1, "a request that is not retried: %d after %d attempts", once.status, one.hits.Load()-before)

	before = one.hits.Load()
	m.expect("an aborted request", client, status(http.StatusTeapot), "/aborted")
	m.Expect(one.hits.Load() == before, "an aborted request reached the app")
	began := time.Now()
	m.expect("a delayed request", client, from("app-1"), "/delayed")
	m.Expect(time.Since(began) >= 400*time.Millisecond, "a request delayed by 400 ms took %v", time.Since(began))
	m.expect("a late answer", client, status(http.StatusGatewayTimeout), "/late")
	mirrored := two.hits.Load()
	for range 10 {
		m.expect("a mirrored request", client, from("app-1"), "/mirrored")
	}
	m.mirrored(two, mirrored+10)
	s = m.expect("a rewritten request", client, from("app-1"), "/rewritten")
	m.Expect(s.echo.Path == "/fresh" && s.echo.Host == "other.test", "the app was asked %+v", s.echo)
	s = m.expect("a direct response", client, status(299), "/direct")
	m.Expect(s.body == "from the route", "a direct response says %q", s.body)
	part := m.share(client, "/", 400, one, two)
	m.Expect(part > 12 && part < 30, "v1 got %d %% and not about 20", part)
	m.finish()
}

// waypointTCPRoute: connections are split by a VirtualService's weights, all or nothing here.
func waypointTCPRoute(m *mesh) {
	threeApps(m)
	split := func(one, two int) {
		m.istiod.Apply(fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: default}
spec:
  hosts: [app.default.svc.cluster.local]
  tcp:
  - match: [{port: 9000}]
    route:
    - {destination: {host: app-v1.default.svc.cluster.local, port: {number: 9000}}, weight: %d}
    - {destination: {host: app-v2.default.svc.cluster.local, port: {number: 9000}}, weight: %d}
`, one, two))
	}
	split(100, 0)
	m.start()
	_, z := m.client("curl")
	m.speaks(z, appTCP, "app-1")
	// A connection that stays is not moved by a change.
	kept, err := z.Dial(context.Background(), appTCP)
	m.OK(err, "dialing a connection that stays")
	defer kept.Close()
	// The client speaks first: on the way somebody waits for its first bytes, HTTP or not.
	reader := bufio.NewReader(kept)
	says := func(line, want string) {
		_, err := fmt.Fprintln(kept, line)
		m.OK(err, "writing")
		heard, err := reader.ReadString('\n')
		m.OK(err, "reading")
		m.Expect(heard == want+"\n", "it says %q", heard)
	}
	says("hello", "app-1")
	says("again", "hello")
	split(0, 100)
	m.Eventually(10*time.Second, "the other app", func() error { return reaches(z, "app-2") })
	for range 10 {
		m.OK(reaches(z, "app-2"), "after the change")
	}
	says("still here", "again")
	m.finish()
}

func reaches(z *kit.Ztunnel, app string) error {
	name, err := talk(z, appTCP)
	if err == nil && name != app {
		err = fmt.Errorf("it is %s", name)
	}
	return err
}
