package scenarios

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	admin "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// istioAgents starts the proxy as it is started in a pod: by pilot-agent, with xDS and SDS over the agent's
// unix sockets. The agent believes what the proxy's admin interface says, and so does istioctl.
func istioAgents() []Scenario {
	return []Scenario{
		{"istio/agent/gateway", runAgentOfGateway},
		{"istio/agent/sidecar", runAgentOfSidecar},
		{"istio/agent/exit-on-zero", runAgentExitOnZero},
		{"istio/agent/istioctl", runIstioctl},
	}
}

// pilotAgentLimit is how long a pod may take until its proxy is ready.
const pilotAgentLimit = 10 * time.Second

func runAgentOfGateway(t *kit.T) {
	g := newAgentGateway(t, plane.PilotAgentOptions{Drain: 4 * time.Second, ProxyConfig: "drainDuration: 1s\n"})
	agentStatistics(t, g.agent)
	agentCertificates(t, g.agent)
	drainOf(t, g.agent, g.port, "app.example", true)
}

// agentGateway is a gateway for one service.
type agentGateway struct {
	istiod *plane.Istiod
	agent  *plane.PilotAgent
	port   int
}

func newAgentGateway(t *kit.T, o plane.PilotAgentOptions) agentGateway {
	app := t.Upstream("app", nil)
	istiod := newIstiod(t)
	port := t.Port()
	istiod.Apply(webMember("app", 80, app.Port).objects(),
		fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: %d, name: http, protocol: HTTP}, hosts: [app.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: default}
spec:
  hosts: [app.example]
  gateways: [istio-system/front]
  http: [{route: [{destination: {host: app.default.svc.cluster.local, port: {number: 80}}}]}]
`, port))
	o.Name, o.Namespace, o.Account, o.Gateway = "gateway", "istio-system", "gateway", true
	o.Labels = map[string]string{"istio": "ingressgateway", "app": "gateway"}
	began := time.Now()
	agent := istiod.PilotAgent(o)
	agent.Healthy(pilotAgentLimit)
	t.Note("ready after %v", time.Since(began).Round(10*time.Millisecond))
	askUntil(t, port, "app.example", "/", 200, "app")
	istiod.Synced(10*time.Second, 1)
	istiod.NoRejects()
	return agentGateway{istiod, agent, port}
}

func runAgentOfSidecar(t *kit.T) {
	app := t.Upstream("app", nil)
	other := t.Upstream("other", nil)
	istiod := newIstiod(t)
	in, out := t.Port(), t.Port()
	istiod.Apply(webMember("other", out, other.Port).objects(),
		fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: app, namespace: default}
spec:
  workloadSelector: {labels: {app: app}}
  ingress:
  - {port: {number: %d, protocol: HTTP, name: http}, bind: 127.0.0.1, captureMode: NONE, defaultEndpoint: "127.0.0.1:%d"}
  egress: [{hosts: ["./*"], captureMode: NONE}]
`, in, app.Port))
	began := time.Now()
	agent := istiod.PilotAgent(plane.PilotAgentOptions{
		Name: "app", Namespace: "default", Labels: map[string]string{"app": "app"},
		Drain: 4 * time.Second, ProxyConfig: "drainDuration: 1s\n",
	})
	agent.Healthy(pilotAgentLimit)
	t.Note("ready after %v", time.Since(began).Round(10*time.Millisecond))
	host := fmt.Sprintf("other.default.svc.cluster.local:%d", out)
	askUntil(t, in, "app", "/", 200, "app")
	askUntil(t, out, host, "/", 200, "other")
	istiod.Synced(10*time.Second, 1)
	istiod.NoRejects()
	agentStatistics(t, agent)
	agentCertificates(t, agent)

	// What the pod still asks of others goes on until the end: only inbound listeners are drained.
	client := keepAlive()
	defer client.CloseIdleConnections()
	drainOf(t, agent, in, "app", false, func() {
		resp, err := hostRequest(client, out, host, "/")
		t.OK(err, "outbound while inbound is drained")
		t.Expect(resp.status == 200 && !resp.closed, "outbound while inbound is drained: %d, closed %v", resp.status, resp.closed)
	})
}

// drainOf ends the pod: SIGTERM to the agent, which drains the proxy, waits and kills it.
func drainOf(t *kit.T, agent *plane.PilotAgent, port int, host string, all bool, while ...func()) {
	client := keepAlive()
	defer client.CloseIdleConnections()
	first, err := hostRequest(client, port, host, "/")
	t.OK(err, "before the drain")
	t.Expect(first.status == 200 && !first.closed, "before the drain: %d, connection closed %v", first.status, first.closed)
	t.OK(agent.Signal(syscall.SIGTERM), "SIGTERM")
	t.Eventually(3*time.Second, "connections are told to close", func() error {
		a, err := hostRequest(client, port, host, "/")
		if err == nil && !a.closed {
			err = fmt.Errorf("%d without a word of closing", a.status)
		}
		return err
	})
	for _, f := range while {
		f()
	}
	t.Eventually(3*time.Second, "the drained listener is closed", func() error {
		if conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
			conn.Close()
			return fmt.Errorf("it still takes connections")
		}
		return nil
	})
	if all {
		_, _, err := agent.Ask(agent.Prometheus, "/stats/prometheus")
		t.Expect(err != nil, "the listener of the statistics is open after a drain of all")
	}
	t.Expect(agent.Running(), "the agent did not wait for its drain")
	for _, f := range while {
		f()
	}
	code, err := agent.Wait(10 * time.Second)
	t.OK(err, "the agent after SIGTERM")
	t.Expect(code == 0, "the agent's exit code is %d", code)
	log := agent.Tail(1 << 20)
	for _, line := range []string{"Agent draining Proxy for termination", "Graceful termination period complete", "Agent has successfully terminated"} {
		t.Expect(strings.Contains(log, line), "the agent's log has no %q", line)
	}
	t.Expect(!strings.Contains(log, "Error in invoking drain listeners"), "the agent's drain failed: %s", agent.Tail(600))
	_, _, err = agent.Get("/ready")
	t.Expect(err != nil, "the proxy outlived its agent")
}

// runAgentExitOnZero: an agent that ends when the last client has gone asks the proxy how many are left.
func runAgentExitOnZero(t *kit.T) {
	g := newAgentGateway(t, plane.PilotAgentOptions{
		Drain: time.Minute, Env: []string{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS=true", "MINIMUM_DRAIN_DURATION=1s"},
	})
	client := keepAlive()
	a, err := hostRequest(client, g.port, "app.example", "/")
	t.OK(err, "a connection that stays")
	t.Expect(a.status == 200 && !a.closed, "a connection that stays: %d, closed %v", a.status, a.closed)
	t.OK(g.agent.Signal(syscall.SIGTERM), "SIGTERM")
	logged := func(line string) {
		t.Eventually(10*time.Second, "the agent logs "+line, func() error {
			if log := g.agent.Tail(1 << 20); !strings.Contains(log, line) {
				return fmt.Errorf("its log ends with %s", g.agent.Tail(200))
			}
			return nil
		})
	}
	logged("There are still 1 active connections")
	t.Expect(g.agent.Running(), "the agent ended before its last client")
	client.CloseIdleConnections()
	logged("There are no more active connections")
	code, err := g.agent.Wait(10 * time.Second)
	t.OK(err, "the agent after its last client")
	t.Expect(code == 0, "the agent's exit code is %d", code)
}

// agentStatistics reads the proxy's metrics as Prometheus does, from the proxy and merged by the agent.
func agentStatistics(t *kit.T, agent *plane.PilotAgent) {
	for port, want := range map[int][]string{
		agent.Prometheus: {"envoy_server_live", "envoy_cluster_manager_cds_update_success"},
		agent.Status:     {"envoy_server_live", "envoy_cluster_manager_cds_update_success", "istio_agent_startup_duration_seconds"},
	} {
		code, body, err := agent.Ask(port, "/stats/prometheus")
		t.OK(err, "statistics")
		t.Expect(code == 200, "statistics: %d %.200s", code, body)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		t.OK(err, "statistics as Prometheus reads them")
		for _, name := range want {
			t.Expect(families[name] != nil, "no %s among %d families of port %d", name, len(families), port)
		}
	}
}

// agentCertificates replaces the files behind the agent's SDS: the proxy has the new certificate without
// a restart.
func agentCertificates(t *kit.T, agent *plane.PilotAgent) {
	for _, serial := range []int64{0x1, 0xabcdef} {
		if serial != 1 {
			agent.Certify(serial)
		}
		t.Eventually(15*time.Second, fmt.Sprintf("certificate %x is in use", serial), func() error {
			out, err := istioctl(t, agent, "/config_dump?mask=dynamic_active_secrets,dynamic_warming_secrets", "secret", "-o", "short")
			if err != nil {
				return err
			}
			for _, line := range strings.Split(out, "\n") {
				fields := strings.Fields(line)
				if len(fields) > 6 && fields[0] == "default" && fields[3] == "ACTIVE" && strings.Contains(line, fmt.Sprintf(" %032x ", serial)) {
					return nil
				}
			}
			return fmt.Errorf("istioctl reads %q", out)
		})
	}
}

// istioctl asks the proxy's admin interface as istioctl would through its pod, and lets the real istioctl
// read the answer.
func istioctl(t *kit.T, agent *plane.PilotAgent, path string, arguments ...string) (string, error) {
	code, body, err := agent.Get(path)
	if err != nil {
		return "", err
	}
	if code != 200 {
		return "", fmt.Errorf("%s: %d", path, code)
	}
	file := t.Write("dump.json", body)
	run := exec.Command(filepath.Join(t.Tools, "istioctl"), append([]string{"proxy-config", "--file", file}, arguments...)...)
	if arguments[0] == "authz" {
		run = exec.Command(filepath.Join(t.Tools, "istioctl"), "experimental", "authz", "check", "--file", file)
	}
	run.Env = append(os.Environ(), "HOME="+t.Dir, "KUBECONFIG="+filepath.Join(t.Dir, "none"))
	out, err := run.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("istioctl %s: %w: %s", strings.Join(arguments, " "), err, out)
	}
	return string(out), nil
}

func runIstioctl(t *kit.T) {
	g := newAgentGateway(t, plane.PilotAgentOptions{})
	g.istiod.Apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: paths, namespace: istio-system}
spec:
  selector: {matchLabels: {app: gateway}}
  action: DENY
  rules: [{to: [{operation: {paths: [/closed]}}]}]
`)
	askUntil(t, g.port, "app.example", "/closed", 403, "")
	g.istiod.Synced(10*time.Second, 1)
	cluster := "outbound|80||app.default.svc.cluster.local"
	route := fmt.Sprintf("http.%d", g.port)
	listener := fmt.Sprintf("0.0.0.0_%d", g.port)
	// The paths are those istioctl asks, the rest what it must read from the answers.
	for _, c := range []struct {
		path, arguments string
		want            []string
	}{
		{"/config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters", "cluster", []string{"app.default.svc.cluster.local", "outbound", "EDS", "xds-grpc"}},
		{"/config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters", "cluster -o json --fqdn app.default.svc.cluster.local", []string{cluster, "edsClusterConfig"}},
		{"/config_dump?mask=dynamic_listeners,static_listeners", "listener", []string{fmt.Sprint(g.port), "Route: " + route, "/healthz/ready"}},
		{"/config_dump?mask=dynamic_listeners,static_listeners", "listener -o json", []string{listener, "envoy.filters.http.router"}},
		{"/config_dump?mask=dynamic_route_configs,static_route_configs", "route", []string{route, "app.example", "app.default"}},
		{"/config_dump?mask=dynamic_route_configs,static_route_configs", "route -o json --name " + route, []string{cluster}},
		{"/config_dump?mask=bootstrap", "bootstrap", []string{"envoy_prometheus_port", "router~127.0.0.1~gateway.istio-system"}},
		{"/config_dump?mask=bootstrap", "bootstrap -o short", []string{"Envoy Version"}},
		{"/config_dump?mask=dynamic_active_secrets,dynamic_warming_secrets", "secret", []string{"default", "ROOTCA", "ACTIVE", "true"}},
		{"/config_dump?include_eds=true", "all", []string{cluster, route, "app.example", "Envoy Version", "default"}},
		{"/config_dump?include_eds=true", "all -o json", []string{cluster, route}},
		{"/config_dump?include_eds=true", "eds", []string{cluster}},
		{"/config_dump", "authz", []string{"DENY", "paths.istio-system"}},
		{"/clusters?format=json", "endpoint", []string{cluster, "HEALTHY"}},
		{"/clusters?format=json", "endpoint -o json", []string{cluster, `"eds_health_status"`}},
	} {
		out, err := istioctl(t, g.agent, c.path, strings.Fields(c.arguments)...)
		t.OK(err, c.arguments)
		for _, want := range c.want {
			ok := strings.Contains(strings.ToLower(out), strings.ToLower(want)) || strings.Contains(strings.ToLower(strings.ReplaceAll(out, "_", "")), strings.ToLower(strings.ReplaceAll(want, "_", "")))
			t.Expect(ok, "istioctl proxy-config %s shows no %q: %.600s", c.arguments, want, out)
		}
	}
	for path, message := range map[string]proto.Message{
		"/config_dump?include_eds=true": &admin.ConfigDump{}, "/clusters?format=json": &admin.Clusters{}, "/listeners?format=json": &admin.Listeners{},
		"/certs": &admin.Certificates{}, "/memory": &admin.Memory{}, "/server_info": &admin.ServerInfo{},
	} {
		code, body, err := g.agent.Get(path)
		t.OK(err, path)
		t.Expect(code == 200, "%s: %d", path, code)
		// Istio's own types are not known to the library that reads a dump here.
		if _, dump := message.(*admin.ConfigDump); dump {
			continue
		}
		t.OK(protojson.Unmarshal([]byte(body), message), path+" as its message")
	}
	for _, path := range []string{"/stats?format=json", "/runtime"} {
		code, body, err := g.agent.Get(path)
		t.OK(err, path)
		t.Expect(code == 200 && json.Valid([]byte(body)), "%s is %d, and not JSON: %.200s", path, code, body)
	}
	for change, want := range map[string]string{"": "admin: info", "?level=debug": "admin: debug", "?rbac=error": "rbac: error"} {
		code, body, err := g.agent.Post("/logging" + change)
		t.OK(err, "/logging")
		t.Expect(code == 200 && strings.Contains(body, "active loggers"), "/logging%s: %d %.200s", change, code, body)
		if change != "" {
			t.Expect(strings.Contains(body, want), "/logging%s shows no %q", change, want)
		}
	}
}

// hostAnswer is what one request found.
type hostAnswer struct {
	answer
	closed bool
}

func keepAlive() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
}

// hostRequest asks 127.0.0.1 for a host.
func hostRequest(client *http.Client, port int, host, path string) (hostAnswer, error) {
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		return hostAnswer{}, err
	}
	request.Host = host
	return askedOf(client, request)
}

func askedOf(client *http.Client, request *http.Request) (hostAnswer, error) {
	resp, err := client.Do(request)
	if err != nil {
		return hostAnswer{}, err
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	return hostAnswer{answer{resp.StatusCode, body, resp.Header}, resp.Close}, err
}

// askUntil asks on new connections until the answer is the one wanted; with an empty body only its status.
func askUntil(t *kit.T, port int, host, path string, status int, body string) {
	client := keepAlive()
	client.Transport.(*http.Transport).DisableKeepAlives = true
	t.Eventually(15*time.Second, fmt.Sprintf("%s%s on %d answers %d %s", host, path, port, status, body), func() error {
		a, err := hostRequest(client, port, host, path)
		if err == nil && (a.status != status || (body != "" && a.body != body)) {
			err = fmt.Errorf("%d %.80q", a.status, a.body)
		}
		return err
	})
}
