package scenarios

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// mesh is an ambient mesh on loopback: istiod, a waypoint's proxy with its agent's secrets, and pods that are
// addresses of 127.x.y.0/24. We are every ztunnel and every application.
type mesh struct {
	*kit.T
	istiod *plane.Istiod
	sds    *plane.SDS
	ca     *kit.Authority
	net    string // 127.x.y
	pods   int
	admin  int
	stats  int
	proxy  *kit.Proxy
	lively time.Time // when the certificates of pods end
}

const waypointHost = "waypoint.default.svc.cluster.local"

// inMesh makes a scenario with a waypoint that istiod drives. The proxy is started by `start`.
func inMesh(o plane.IstiodOptions, run func(*mesh)) func(*kit.T) {
	return func(t *kit.T) {
		m := &mesh{T: t, net: freeNet(t), admin: t.Port(), stats: t.Port(), lively: time.Now().Add(time.Hour)}
		o.Mesh = strings.ReplaceAll(o.Mesh, "NET", m.net)
		if t.Public {
			o.Env = append(slices.Clone(o.Env), publicEnv...)
		}
		m.istiod = plane.NewIstiod(t, o)
		m.ca = t.Authority()
		m.sds = plane.NewSDS(t)
		m.rotate(m.lively)
		m.istiod.Apply(fmt.Sprintf(waypointObjects, m.net))
		if t.Public {
			m.istiod.Apply(publicWaypoint())
		}
		run(m)
	}
}

var (
	netsMu   sync.Mutex
	netsUsed = map[string]bool{}
)

// freeNet is a part of loopback where nobody has HBONE's port, which cannot be chosen.
func freeNet(t *kit.T) string {
	netsMu.Lock()
	defer netsMu.Unlock()
	for range 100 {
		net24 := fmt.Sprintf("127.%d.%d", 64+rand.IntN(128), rand.IntN(256))
		l, err := net.Listen("tcp", net24+".1:15008")
		if err != nil {
			continue
		}
		l.Close()
		if !netsUsed[net24] {
			netsUsed[net24] = true
			return net24
		}
	}
	t.Fatalf("no free part of loopback")
	return ""
}

// The waypoint's listener is bound to its pod's address, so that waypoints stand side by side.
const waypointObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Node
metadata: {name: node, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: default, labels: {istio.io/waypoint-for: all}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
status:
  addresses: [{type: Hostname, value: waypoint.default.svc.cluster.local}]
---
apiVersion: v1
kind: Service
metadata:
  name: waypoint
  namespace: default
  labels: {gateway.istio.io/managed: istio.io-mesh-controller, gateway.networking.k8s.io/gateway-name: waypoint}
spec:
  clusterIP: 10.96.0.2
  clusterIPs: [10.96.0.2]
  ports: [{appProtocol: hbone, name: mesh, port: 15008}]
  selector: {gateway.networking.k8s.io/gateway-name: waypoint}
---
apiVersion: v1
kind: Pod
metadata:
  name: waypoint-0
  namespace: default
  labels: {gateway.networking.k8s.io/gateway-name: waypoint, gateway.istio.io/managed: istio.io-mesh-controller}
spec: {serviceAccountName: waypoint, nodeName: node}
status: {phase: Running, podIP: %[1]s.1, podIPs: [{ip: %[1]s.1}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: bind, namespace: default}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]
  configPatches:
  - applyTo: LISTENER
    match: {context: SIDECAR_INBOUND, listener: {name: connect_terminate}}
    patch: {operation: MERGE, value: {address: {socket_address: {address: %[1]s.1}}}}
`

// rotate gives the waypoint a new certificate.
func (m *mesh) rotate(end time.Time) {
	cert, key := m.ca.Workload(kit.Identity("default", "waypoint"), end)
	m.sds.Set(identity("default", cert, key), trusted("ROOTCA", m.ca.PEM))
}

// start starts the waypoint as pilot-agent does and waits until it serves.
func (m *mesh) start() { m.startWith("") }

// startWith adds fields to the agent's ProxyConfig.
func (m *mesh) startWith(more string) {
	ip := m.net + ".1"
	bootstrap := m.istiod.Bootstrap(plane.Agent{
		ID:  "waypoint~" + ip + "~waypoint-0.default~default.svc.cluster.local",
		IPs: []string{ip},
		Env: map[string]string{
			"ISTIO_META_NAMESPACE": "default", "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_MESH_ID": "cluster.local",
			"ISTIO_META_ISTIO_VERSION": "1.31.0", "ISTIO_META_WORKLOAD_NAME": "waypoint", "ISTIO_META_SERVICE_ACCOUNT": "waypoint",
			"ISTIO_META_OWNER": "kubernetes://apis/apps/v1/namespaces/default/deployments/waypoint",
			"POD_NAME":         "waypoint-0", "POD_NAMESPACE": "default", "INSTANCE_IP": ip,
			"ISTIO_METAJSON_LABELS": `{"gateway.networking.k8s.io/gateway-name":"waypoint","gateway.istio.io/managed":"istio.io-mesh-controller"}`,
		},
		ProxyConfig:    fmt.Sprintf("configPath: %s\nproxyAdminPort: %d\nstatusPort: %d\n%s\n", m.istiod.Dir, m.admin, m.Port(), more),
		PrometheusPort: m.stats, StatusPort: m.Port(),
	})
	if m.Public {
		bootstrap = publicBootstrap(bootstrap)
	}
	m.proxy = m.Proxy("proxy", m.admin, bootstrap, "--drain-time-s", "45", "--drain-strategy", "immediate",
		"--local-address-ip-version", "v4", "--file-flush-interval-msec", "1000", "--allow-unknown-static-fields", "-l", "warning")
	m.proxy.Ready(20 * time.Second)
	m.istiod.Synced(20*time.Second, 1)
}

// finish holds the proxy to what every scenario ends with.
func (m *mesh) finish() {
	types := m.istiod.Synced(20*time.Second, 1)
	wanted := []string{"Cluster", "Listener", "ClusterLoadAssignment", "Workload"}
	if m.Public {
		wanted = wanted[:3]
	}
	for _, want := range wanted {
		m.Expect(slices.Contains(types, want), "%s is not among what is acknowledged: %v", want, types)
	}
	m.istiod.NoRejects()
	m.proxy.Stop()
}

// pod is one workload: its address and identity.
type pod struct {
	m       *mesh
	name    string
	ip      string
	account string
}

func (p *pod) identity() string { return kit.Identity("default", p.account) }

func (p *pod) certificate() tls.Certificate { return p.m.ca.WorkloadPair(p.identity(), p.m.lively) }

// pod makes a workload known to istiod. A captured one is reached through a ztunnel.
func (m *mesh) pod(name string, captured bool, labels string) *pod {
	m.pods++
	p := &pod{m: m, name: name, ip: fmt.Sprintf("%s.%d", m.net, 9+m.pods), account: name}
	annotation := ""
	if captured {
		annotation = "ambient.istio.io/redirection: enabled"
	}
	m.istiod.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  namespace: default
  labels: {istio.io/use-waypoint: waypoint, %[3]s}
  annotations: {%[4]s}
spec: {serviceAccountName: %[1]s, nodeName: node}
status: {phase: Running, podIP: %[2]s, podIPs: [{ip: %[2]s}], conditions: [{type: Ready, status: "True"}]}
`, name, p.ip, labels, annotation))
	return p
}

// client is a captured workload that asks; the tunnel is its ztunnel's.
func (m *mesh) client(name string) (*pod, *kit.Ztunnel) {
	p := m.pod(name, true, fmt.Sprintf("app: %s, version: v1", name))
	return p, p.tunnel()
}

// tunnel opens one more connection from the pod's ztunnel to the waypoint.
func (p *pod) tunnel() *kit.Ztunnel {
	var z *kit.Ztunnel
	p.m.Eventually(10*time.Second, "the waypoint takes a tunnel", func() (err error) {
		z, err = p.try(p.certificate())
		return err
	})
	p.m.Cleanup(z.Close)
	return z
}

func (p *pod) try(certificates ...tls.Certificate) (*kit.Ztunnel, error) {
	return kit.DialHBONE(p.ip, p.m.net+".1:15008", p.m.ca, certificates...)
}

// app is a workload that answers: HTTP on 8080 with what it was asked, and TCP on 9000, where it says
// its name and then what it hears.
type app struct {
	*pod
	hbone *kit.HBONEServer // nil: not captured
	hits  atomic.Int64     // requests over HTTP
	lines atomic.Int64     // heard over TCP
	// handle, if set, may answer before the default does.
	handle func(http.ResponseWriter, *http.Request) bool

	mu    sync.Mutex
	heard map[string]map[string]bool // connection -> values of x-identity seen on it
}

// asked is what an app answers: what it was asked.
type asked struct {
	App    string      `json:"app"`
	Path   string      `json:"path"`
	Host   string      `json:"host"`
	Header http.Header `json:"header"`
}

func (m *mesh) app(name string, captured bool, labels string) *app {
	a := &app{pod: m.pod(name, captured, labels), heard: map[string]map[string]bool{}}
	listener, err := net.Listen("tcp", a.ip+":8080")
	m.OK(err, "app")
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: a, Protocols: &protocols}
	go func() { _ = server.Serve(listener) }()
	m.Cleanup(func() { _ = server.Close() })
	a.echoTCP()
	if captured {
		a.hbone = m.HBONEServer(a.ip, m.ca, a.certificate())
	}
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.hits.Add(1)
	a.mu.Lock()
	if a.heard[r.RemoteAddr] == nil {
		a.heard[r.RemoteAddr] = map[string]bool{}
	}
	a.heard[r.RemoteAddr][r.Header.Get("x-identity")] = true
	a.mu.Unlock()
	if a.handle != nil && a.handle(w, r) {
		return
	}
	w.Header().Set("x-app", a.name)
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(asked{a.name, r.URL.RequestURI(), r.Host, r.Header})
}

// shared are connections on which requests of more than one identity came.
func (a *app) shared() (connections int, mixed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, identities := range a.heard {
		if len(identities) > 1 {
			mixed = append(mixed, name)
		}
	}
	return len(a.heard), mixed
}

func (a *app) echoTCP() {
	listener, err := net.Listen("tcp", a.ip+":9000")
	a.m.OK(err, "TCP app")
	a.m.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, a.name)
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					a.lines.Add(1)
					fmt.Fprintln(conn, lines.Text())
				}
			}()
		}
	}()
}

// service is a Kubernetes service of these pods with HTTP on 80 and TCP on 9000, behind the waypoint.
func (m *mesh) service(name, vip string, ready ...*app) {
	var hosts []*pod
	for _, a := range ready {
		hosts = append(hosts, a.pod)
	}
	m.serviceOf(name, vip, "{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000, targetPort: 9000}",
		"{name: http, port: 8080, protocol: TCP}, {name: tcp, port: 9000, protocol: TCP}", "istio.io/use-waypoint: waypoint", hosts)
}

func (m *mesh) serviceOf(name, vip, ports, slicePorts, labels string, ready []*pod) {
	var endpoints []string
	for _, p := range ready {
		endpoints = append(endpoints, fmt.Sprintf("{addresses: [%s], conditions: {ready: true, serving: true}, nodeName: node, targetRef: {kind: Pod, name: %s, namespace: default}}", p.ip, p.name))
	}
	m.istiod.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: default, labels: {%[5]s}}
spec:
  clusterIP: %[2]s
  clusterIPs: [%[2]s]
  ports: [%[3]s]
  selector: {service: %[1]s}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [%[4]s]
endpoints: [%[6]s]
`, name, vip, ports, slicePorts, labels, strings.Join(endpoints, ", ")))
}

// said is an answer to one request.
type said struct {
	status int
	body   string
	header http.Header
	echo   asked
}

// ask sends one request; headers are name, value, ...
func ask(client *http.Client, host, path string, headers ...string) (said, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return said{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(request)
	if err != nil {
		return said{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	s := said{status: resp.StatusCode, body: string(body), header: resp.Header}
	_ = json.Unmarshal(body, &s.echo)
	return s, err
}

const appHost = "app.default.svc.cluster.local"

// expect waits until a request is answered like this.
func (m *mesh) expect(what string, client *http.Client, like func(said) error, path string, headers ...string) said {
	var last said
	m.Eventually(10*time.Second, what, func() error {
		s, err := ask(client, appHost, path, headers...)
		if err != nil {
			return err
		}
		if err := like(s); err != nil {
			return fmt.Errorf("%w: %d %.100q %v", err, s.status, s.body, s.header)
		}
		last = s
		return nil
	})
	return last
}

// status is an answer of this status.
func status(want int) func(said) error {
	return func(s said) error {
		if s.status != want {
			return fmt.Errorf("not %d", want)
		}
		return nil
	}
}

// from is an answer of this app.
func from(name string) func(said) error {
	return func(s said) error {
		if s.status != http.StatusOK || s.echo.App != name {
			return fmt.Errorf("not from %s", name)
		}
		return nil
	}
}

// talk says a line over TCP through the tunnel and gives the app's name if it comes back.
func talk(z *kit.Ztunnel, authority string) (string, error) {
	conn, err := z.Dial(context.Background(), authority)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	timer := time.AfterFunc(5*time.Second, func() { conn.Close() })
	defer timer.Stop()
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return "", err
	}
	var heard []byte
	buffer := make([]byte, 256)
	for strings.Count(string(heard), "\n") < 2 {
		n, err := conn.Read(buffer)
		heard = append(heard, buffer[:n]...)
		if err != nil {
			return "", fmt.Errorf("after %q: %w", heard, err)
		}
	}
	name, line, _ := strings.Cut(string(heard), "\n")
	if line != "hello\n" {
		return "", fmt.Errorf("heard %q", heard)
	}
	return name, nil
}

// speaks waits until TCP to an address reaches the app.
func (m *mesh) speaks(z *kit.Ztunnel, authority, app string) {
	m.Eventually(10*time.Second, "TCP to "+authority, func() error {
		name, err := talk(z, authority)
		if err == nil && name != app {
			err = fmt.Errorf("it reaches %s", name)
		}
		return err
	})
}
