package scenarios

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nuncio/conformance/control-planes/kit"
)

// rateLimits drives the real rate-limit service over a real Redis with two proxies before it, so that
// a limit holds for both together.
func rateLimits() []Scenario {
	var out []Scenario
	for _, d := range descriptors {
		out = append(out, Scenario{"ratelimit/" + d.name, func(t *kit.T) { d.run(newLimited(t)) }})
	}
	out = append(out,
		Scenario{"ratelimit/headers", func(t *kit.T) { limitHeaders(newLimited(t)) }},
		Scenario{"ratelimit/per-route", func(t *kit.T) { limitPerRoute(newLimited(t)) }},
		Scenario{"ratelimit/service-killed", func(t *kit.T) { limitServiceKilled(newLimited(t)) }},
		Scenario{"ratelimit/under-load", func(t *kit.T) { limitUnderLoad(newLimited(t)) }},
	)
	return out
}

// limits is the service's configuration. Days, so that no window ends while a scenario counts.
const limits = `
domain: conformance
descriptors:
- {key: generic_key, value: total, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: generic_key, value: vhost, rate_limit: {unit: day, requests_per_unit: 3}}
- {key: generic_key, value: hits, rate_limit: {unit: day, requests_per_unit: 10}}
- {key: generic_key, value: load, rate_limit: {unit: day, requests_per_unit: 500}}
- {key: named, value: key, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: user, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: remote_address, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: masked_remote_address, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: header_match, value: premium, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: query_match, value: big, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: plan, value: gold, rate_limit: {unit: day, requests_per_unit: 2}}
- key: source_cluster
  value: conformance
  descriptors:
  - {key: destination_cluster, value: back, rate_limit: {unit: day, requests_per_unit: 2}}
`

const otherLimits = `
domain: other
descriptors:
- {key: generic_key, value: total, rate_limit: {unit: day, requests_per_unit: 1}}
`

// limitedRoutes are the routes of both listeners. The virtual host's own limit is for routes that
// have none, or that include it.
const limitedRoutes = `
      virtual_hosts:
      - name: all
        domains: ["*"]
        rate_limits: [{actions: [{generic_key: {descriptor_value: vhost}}]}]
        routes:
        - match: {prefix: /generic}
          route: {cluster: back, rate_limits: [{actions: [{generic_key: {descriptor_value: total}}]}]}
        - match: {prefix: /named}
          route: {cluster: back, rate_limits: [{actions: [{generic_key: {descriptor_key: named, descriptor_value: key}}]}]}
        - match: {prefix: /user}
          route: {cluster: back, rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]}
        - match: {prefix: /skip}
          route:
            cluster: back
            rate_limits:
            - actions:
              - {request_headers: {header_name: x-absent, descriptor_key: absent, skip_if_absent: true}}
              - {request_headers: {header_name: x-user, descriptor_key: user}}
        - match: {prefix: /address}
          route: {cluster: back, rate_limits: [{actions: [{remote_address: {}}]}]}
        - match: {prefix: /masked}
          route: {cluster: back, rate_limits: [{actions: [{masked_remote_address: {v4_prefix_mask_len: 16}}]}]}
        - match: {prefix: /header}
          route:
            cluster: back
            rate_limits:
            - actions: [{header_value_match: {descriptor_value: premium, headers: [{name: x-plan, string_match: {exact: premium}}]}}]
        - match: {prefix: /query}
          route:
            cluster: back
            rate_limits:
            - actions: [{query_parameter_value_match: {descriptor_value: big, query_parameters: [{name: size, string_match: {exact: big}}]}}]
        - match: {prefix: /clusters}
          route: {cluster: back, rate_limits: [{actions: [{source_cluster: {}}, {destination_cluster: {}}]}]}
        - match: {prefix: /metadata}
          metadata: {filter_metadata: {conformance: {plan: gold}}}
          route:
            cluster: back
            rate_limits:
            - actions: [{metadata: {descriptor_key: plan, source: ROUTE_ENTRY, metadata_key: {key: conformance, path: [{key: plan}]}}}]
        - match: {prefix: /hits}
          typed_per_filter_config:
            ratelimit:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
              rate_limits: [{actions: [{generic_key: {descriptor_value: hits}}], hits_addend: {number: 4}}]
          route: {cluster: back}
        - match: {prefix: /two}
          route:
            cluster: back
            rate_limits:
            - actions: [{generic_key: {descriptor_value: total}}]
            - actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]
        - match: {prefix: /load}
          route: {cluster: back, rate_limits: [{actions: [{generic_key: {descriptor_value: load}}]}]}
        - match: {prefix: /include}
          typed_per_filter_config:
            ratelimit:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
              vh_rate_limits: INCLUDE
          route: {cluster: back, rate_limits: [{actions: [{generic_key: {descriptor_value: total}}]}]}
        - match: {prefix: /ignore}
          typed_per_filter_config:
            ratelimit:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
              vh_rate_limits: IGNORE
          route: {cluster: back}
        - match: {prefix: /other-domain}
          typed_per_filter_config:
            ratelimit:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
              domain: other
          route: {cluster: back, rate_limits: [{actions: [{generic_key: {descriptor_value: total}}]}]}
        - match: {prefix: /own-limits}
          typed_per_filter_config:
            ratelimit:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
              rate_limits: [{actions: [{generic_key: {descriptor_key: named, descriptor_value: key}}]}]
          route: {cluster: back}
        - match: {prefix: /disabled}
          typed_per_filter_config:
            ratelimit:
              "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
              disabled: true
          route: {cluster: back, rate_limits: [{actions: [{generic_key: {descriptor_value: total}}]}]}
        - match: {prefix: /}
          route: {cluster: back}
`

// limited is two proxies, each with a listener that lets pass and one that refuses when the service fails.
type limited struct {
	*kit.T
	back    *kit.Upstream
	grpc    int
	redis   int
	service *kit.Process
	proxies [2]*kit.Proxy
	open    [2]int // ports of the listeners that let pass
	closed  [2]int // ports of those that refuse
	client  *http.Client
	turn    int
}

func newLimited(t *kit.T) *limited {
	l := &limited{T: t, back: t.Upstream("back", nil), grpc: t.Port(), redis: t.Port(), client: &http.Client{Timeout: 5 * time.Second}}
	t.Start("redis", nil, "redis-server", "--port", fmt.Sprint(l.redis), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	l.listening(l.redis, "redis")
	config := filepath.Join(t.Dir, "runtime", "config")
	t.OK(os.MkdirAll(config, 0o755), "runtime folder")
	t.Write("runtime/config/limits.yaml", limits)
	t.Write("runtime/config/other.yaml", otherLimits)
	l.startService()
	for i := range l.proxies {
		admin := t.Port()
		l.open[i], l.closed[i] = t.Port(), t.Port()
		l.proxies[i] = t.Proxy(fmt.Sprintf("proxy-%d", i), admin, l.bootstrap(admin, i))
	}
	for _, p := range l.proxies {
		p.Ready(15 * time.Second)
	}
	t.Cleanup(l.client.CloseIdleConnections)
	return l
}

func (l *limited) startService() {
	l.service = l.Start("ratelimit", []string{
		"HOST=127.0.0.1", fmt.Sprintf("PORT=%d", l.Port()),
		"GRPC_HOST=127.0.0.1", fmt.Sprintf("GRPC_PORT=%d", l.grpc),
		"DEBUG_HOST=127.0.0.1", fmt.Sprintf("DEBUG_PORT=%d", l.Port()),
		"REDIS_SOCKET_TYPE=tcp", fmt.Sprintf("REDIS_URL=127.0.0.1:%d", l.redis),
		"RUNTIME_ROOT=" + l.Dir, "RUNTIME_SUBDIRECTORY=runtime", "RUNTIME_WATCH_ROOT=false",
		"USE_STATSD=false", "DISABLE_STATS=true", "LOG_LEVEL=info", "LIMIT_RESPONSE_HEADERS_ENABLED=true",
	}, filepath.Join(l.Tools, "ratelimit"))
	l.listening(l.grpc, "the rate-limit service")
}

func (l *limited) listening(port int, who string) {
	l.Eventually(10*time.Second, who+" listens", func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (l *limited) bootstrap(admin, i int) string {
	front := func(name string, port int, deny bool) string {
		return fmt.Sprintf(`
  - name: %s
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %s
          http_filters:
          - name: ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: conformance
              failure_mode_deny: %v
              enable_x_ratelimit_headers: DRAFT_VERSION_03
              timeout: 2s
              rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: ratelimit}}}
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:%s`, name, port, name, deny, strings.ReplaceAll(limitedRoutes, "\n", "\n      "))
	}
	return fmt.Sprintf(`
node: {id: conformance, cluster: conformance}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
static_resources:
  listeners:%s%s
  clusters:
  - name: back
    connect_timeout: 1s
    load_assignment:
      cluster_name: back
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
  - name: ratelimit
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: ratelimit
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`, admin, front("open", l.open[i], false), front("closed", l.closed[i], true), l.back.Port, l.grpc)
}

// get asks a port; headers are name, value, ...
func (l *limited) get(port int, path string, headers ...string) *http.Response {
	r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	l.OK(err, "request")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := l.client.Do(r)
	l.OK(err, "GET "+path)
	resp.Body.Close()
	return resp
}

// next asks the two proxies in turn.
func (l *limited) next(path string, headers ...string) *http.Response {
	l.turn++
	return l.get(l.open[l.turn%2], path, headers...)
}

// pass expects that exactly n requests pass and that two more are refused with 429.
func (l *limited) pass(n int, path string, headers ...string) {
	for i := 1; i <= n+2; i++ {
		resp := l.next(path, headers...)
		want := http.StatusOK
		if i > n {
			want = http.StatusTooManyRequests
		}
		l.Expect(resp.StatusCode == want, "%s %v: request %d of a limit of %d is answered %d", path, headers, i, n, resp.StatusCode)
		limited := resp.Header.Get("x-envoy-ratelimited") == "true"
		l.Expect(limited == (i > n), "%s: x-envoy-ratelimited is %v on request %d of %d", path, limited, i, n)
	}
}

// free expects that no limit is on a path.
func (l *limited) free(path string, headers ...string) {
	for i := range 8 {
		resp := l.next(path, headers...)
		l.Expect(resp.StatusCode == http.StatusOK, "%s %v: request %d is answered %d", path, headers, i+1, resp.StatusCode)
	}
}

var descriptors = []struct {
	name string
	run  func(*limited)
}{
	{"generic-key", func(l *limited) { l.pass(5, "/generic"); l.pass(2, "/named") }},
	{"request-header", func(l *limited) {
		l.pass(2, "/user", "x-user", "ann")
		l.pass(2, "/user", "x-user", "ben")
		l.free("/user") // no header, no descriptor, no limit
		l.pass(2, "/skip", "x-user", "eve")
	}},
	{"remote-address", func(l *limited) {
		l.pass(2, "/address", "x-forwarded-for", "192.0.2.1")
		l.pass(2, "/address", "x-forwarded-for", "192.0.2.2")
		l.pass(2, "/masked", "x-forwarded-for", "198.51.100.1")
		resp := l.next("/masked", "x-forwarded-for", "198.51.7.7")
		l.Expect(resp.StatusCode == 429, "another address of the same /16 is answered %d", resp.StatusCode)
	}},
	{"header-match", func(l *limited) {
		l.pass(2, "/header", "x-plan", "premium")
		l.free("/header", "x-plan", "basic")
	}},
	{"query-match", func(l *limited) { l.pass(2, "/query?size=big"); l.free("/query?size=small") }},
	{"clusters", func(l *limited) { l.pass(2, "/clusters") }},
	{"route-metadata", func(l *limited) { l.pass(2, "/metadata") }},
	{"several-descriptors", func(l *limited) {
		// The tightest wins, and the other one counts too: 2 + 2 + 2 requests use up total's 5.
		l.pass(2, "/two", "x-user", "ann")
		for range 3 {
			l.next("/generic")
		}
		resp := l.next("/two", "x-user", "ben")
		l.Expect(resp.StatusCode == 429, "the second descriptor's limit is reached, but the answer is %d", resp.StatusCode)
	}},
	{"hits-addend", func(l *limited) { l.pass(2, "/hits") }}, // 4 + 4 of 10, the third would be 12
}

func limitHeaders(l *limited) {
	for used := 1; used <= 6; used++ {
		resp := l.next("/generic")
		h := resp.Header
		remaining := max(0, 5-used)
		l.Expect(h.Get("x-ratelimit-limit") == "5, 5;w=86400", "x-ratelimit-limit is %q", h.Get("x-ratelimit-limit"))
		l.Expect(h.Get("x-ratelimit-remaining") == fmt.Sprint(remaining), "x-ratelimit-remaining is %q, want %d", h.Get("x-ratelimit-remaining"), remaining)
		l.Expect(h.Get("x-ratelimit-reset") != "", "no x-ratelimit-reset")
		// Those the service itself asks to be added to the response.
		l.Expect(h.Get("RateLimit-Limit") != "", "no RateLimit-Limit from the service")
		l.Expect(h.Get("RateLimit-Remaining") == fmt.Sprint(remaining), "RateLimit-Remaining is %q", h.Get("RateLimit-Remaining"))
	}
	over := l.proxies[0].Stat("cluster.back.ratelimit.over_limit") + l.proxies[1].Stat("cluster.back.ratelimit.over_limit")
	ok := l.proxies[0].Stat("cluster.back.ratelimit.ok") + l.proxies[1].Stat("cluster.back.ratelimit.ok")
	l.Expect(over == 1 && ok == 5, "cluster.back.ratelimit: ok %d, over_limit %d, want 5 and 1", ok, over)
}

func limitPerRoute(l *limited) {
	l.pass(1, "/other-domain")
	l.free("/disabled")
	l.free("/ignore")
	l.pass(3, "/") // the virtual host's limit
	resp := l.next("/include")
	l.Expect(resp.StatusCode == 429, "the included limit of the virtual host is used up, but the answer is %d", resp.StatusCode)
	l.pass(2, "/own-limits")
}

func limitServiceKilled(l *limited) {
	l.pass(5, "/generic")
	l.service.Kill()
	for i := range l.proxies {
		resp := l.get(l.open[i], "/generic")
		l.Expect(resp.StatusCode == 200, "failure_mode_deny false, but the answer is %d", resp.StatusCode)
		resp = l.get(l.closed[i], "/generic")
		l.Expect(resp.StatusCode == 500, "failure_mode_deny true, but the answer is %d", resp.StatusCode)
		l.Expect(l.proxies[i].Stat("cluster.back.ratelimit.error") >= 2, "ratelimit.error is not counted")
		l.Expect(l.proxies[i].Stat("cluster.back.ratelimit.failure_mode_allowed") >= 1, "ratelimit.failure_mode_allowed is not counted")
	}
	l.startService()
	// Back in force, with what Redis remembers, as soon as the proxies have connected again.
	for i := range l.proxies {
		for _, port := range []int{l.open[i], l.closed[i]} {
			l.Eventually(10*time.Second, "limited again", func() error {
				if resp := l.get(port, "/generic"); resp.StatusCode != 429 {
					return fmt.Errorf("the answer is %d", resp.StatusCode)
				}
				return nil
			})
		}
	}
	for _, p := range l.proxies {
		p.Stop()
	}
}

// limitUnderLoad asks both proxies at once, past the limit: exactly 500 pass.
func limitUnderLoad(l *limited) {
	var loads []*kit.Load
	for i := range l.proxies {
		loads = append(loads, l.Load(kit.LoadOptions{
			URL: fmt.Sprintf("http://127.0.0.1:%d/load", l.open[i]), Pause: time.Millisecond,
			Key: func(r *http.Response) string { return fmt.Sprint(r.StatusCode) },
			Wrong: func(r *http.Response, _ string) error {
				if r.StatusCode != 200 && r.StatusCode != 429 {
					return fmt.Errorf("%d", r.StatusCode)
				}
				return nil
			},
		}))
	}
	l.Eventually(30*time.Second, "the limit is passed by 300", func() error {
		if n := loads[0].Total() + loads[1].Total(); n < 800 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	for _, load := range loads {
		load.StopClean(l.T)
	}
	passed := loads[0].Seen("200") + loads[1].Seen("200")
	l.Expect(passed == 500, "%d requests passed a limit of 500", passed)
	l.Expect(int(l.back.Hits.Load()) == 500, "%d requests came through to the upstream", l.back.Hits.Load())
}
