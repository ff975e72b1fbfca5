package plane

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"nuncio/conformance/control-planes/kit"
)

// PilotAgent is Istio's launcher. It renders the bootstrap, starts the proxy under test, serves it xDS
// and SDS on unix sockets, answers for its readiness and drains it at the end.
type PilotAgent struct {
	*kit.Proxy
	PilotAgentOptions
	// Health is the port of the proxy's own readiness listener (Istio's 15021), Prometheus that of its
	// statistics (15090), Status the agent's (15020).
	Health, Prometheus, Status int

	t *kit.T
}

// PilotAgentOptions are what the injected environment of a pod says.
type PilotAgentOptions struct {
	// Name and Namespace are the pod's; Account is its service account, default "default".
	Name, Namespace, Account string
	// Gateway starts a `router` instead of a `sidecar`.
	Gateway bool
	// IP is the pod's address, one of the loopback network's. Default 127.0.0.1.
	IP string
	// Labels are the pod's.
	Labels map[string]string
	// ProxyConfig is YAML: fields besides those an agent needs to run beside others.
	ProxyConfig string
	// Env is NAME=VALUE.
	Env []string
	// Authority issues the workload certificate.
	Authority *kit.Authority
	// Drain is how long the agent leaves the proxy alone after it has asked it to drain. Default one second.
	Drain time.Duration
}

// Identity is the workload's.
func (o PilotAgentOptions) Identity() string {
	return fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", o.Namespace, o.Account)
}

// PilotAgent starts an agent, and it a proxy. The workload certificate is in files, where the agent looks
// for one before it asks a CA: off a cluster no CA would know the pod.
func (i *Istiod) PilotAgent(o PilotAgentOptions) *PilotAgent {
	t := i.t
	if o.Account == "" {
		o.Account = "default"
	}
	if o.IP == "" {
		o.IP = "127.0.0.1"
	}
	if o.Drain == 0 {
		o.Drain = time.Second
	}
	if o.Authority == nil {
		o.Authority = t.Authority()
	}
	a := &PilotAgent{PilotAgentOptions: o, Health: t.Port(), Prometheus: t.Port(), Status: t.Port(), t: t}
	// The paths of the sockets are relative to the agent's folder, as the bootstrap has them.
	template, err := os.ReadFile(filepath.Join(IstioModule(t), "tools", "packaging", "common", "envoy_bootstrap.json"))
	t.OK(err, "Istio's bootstrap template")
	a.write("var/lib/istio/envoy/envoy_bootstrap_tmpl.json", string(template))
	a.write("var/run/secrets/tokens/istio-token", o.Identity())
	a.Certify(1)

	admin := t.Port()
	config := fmt.Sprintf("binaryPath: %s\nconfigPath: ./proxy\ndiscoveryAddress: 127.0.0.1:%d\ncontrolPlaneAuthPolicy: NONE\n"+
		"proxyAdminPort: %d\nstatusPort: %d\nterminationDrainDuration: %dms\nconcurrency: 2\n%s",
		t.Binary, i.Port, admin, a.Status, o.Drain.Milliseconds(), o.ProxyConfig)
	labels, err := json.Marshal(o.Labels)
	t.OK(err, "labels")
	env := append([]string{
		"PROXY_CONFIG=" + config, fmt.Sprintf("ENVOY_STATUS_PORT=%d", a.Health), fmt.Sprintf("ENVOY_PROMETHEUS_PORT=%d", a.Prometheus),
		"INSTANCE_IP=" + o.IP, "POD_NAME=" + o.Name, "POD_NAMESPACE=" + o.Namespace, "SERVICE_ACCOUNT=" + o.Account,
		"ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_META_MESH_ID=cluster.local", "ISTIO_META_WORKLOAD_NAME=" + o.Name,
		// Nothing redirects to the proxy's ports here.
		"ISTIO_META_INTERCEPTION_MODE=NONE",
		"ISTIO_METAJSON_LABELS=" + string(labels), "GRPC_XDS_BOOTSTRAP=",
	}, o.Env...)
	kind := "sidecar"
	if o.Gateway {
		kind = "router"
	}
	process := t.StartLauncher(o.Name, a.dir(), env, filepath.Join(t.Tools, "pilot-agent"),
		"proxy", kind, "--domain", o.Namespace+".svc.cluster.local", "--proxyLogLevel", "info")
	a.Proxy = t.ProxyOf(process, admin)
	return a
}

func (a *PilotAgent) dir() string { return filepath.Join(a.t.Dir, "pod-"+a.Name) }

// write puts a file where the agent looks for it, by an atomic move.
func (a *PilotAgent) write(name, text string) {
	path := filepath.Join(a.dir(), name)
	a.t.OK(os.MkdirAll(filepath.Dir(path), 0o755), "folder of "+name)
	a.t.OK(os.WriteFile(path+".new", []byte(text), 0o600), "write "+name)
	a.t.OK(os.Rename(path+".new", path), "move "+name)
}

// Certify gives the workload a new certificate with this serial number.
func (a *PilotAgent) Certify(serial int64) {
	cert, key := a.Authority.Identity(serial, a.Identity())
	const dir = "var/run/secrets/workload-spiffe-credentials/"
	a.write(dir+"key.pem", key)
	a.write(dir+"cert-chain.pem", cert+a.Authority.PEM)
	a.write(dir+"root-cert.pem", a.Authority.PEM)
}

// Healthy is what a kubelet asks: through the proxy's readiness listener to the agent.
func (a *PilotAgent) Healthy(limit time.Duration) {
	a.t.Eventually(limit, a.Name+" is ready", func() error {
		if !a.Running() {
			a.t.Fatalf("pilot-agent ended: %s", a.Tail(600))
		}
		code, body, err := a.Ask(a.Health, "/healthz/ready")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s; %s", code, body, a.Tail(300))
		}
		return err
	})
}

// Ask gets a path from one of the agent's and proxy's own ports.
func (a *PilotAgent) Ask(port int, path string) (int, string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + net.JoinHostPort("127.0.0.1", fmt.Sprint(port)) + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
