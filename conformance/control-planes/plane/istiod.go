package plane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"nuncio/conformance/control-planes/kit"
)

// Istiod is Istio's control plane as a process of its own (see ../istiod).
type Istiod struct {
	*kit.Process
	// Port is the xDS server's, in plain text; Socket is the same server where a pilot-agent has it.
	Port   int
	Socket string
	// Dir is the folder of Socket: the agent's configPath.
	Dir string

	t    *kit.T
	http int
}

// IstiodOptions are what cannot change while istiod runs.
type IstiodOptions struct {
	// Mesh is MeshConfig as YAML, over Istio's defaults.
	Mesh string
	// Env are istiod's feature variables, NAME=VALUE; ambient is on.
	Env []string
	// Debounce is how long changes are gathered before a push; default none.
	Debounce time.Duration
}

// NewIstiod starts istiod without any configuration and waits until it serves.
func NewIstiod(t *kit.T, o IstiodOptions) *Istiod {
	dir := t.SocketDir()
	i := &Istiod{Port: t.Port(), Socket: filepath.Join(dir, "XDS"), Dir: dir, t: t, http: t.Port()}
	i.Process = t.Start("istiod", append([]string{"PILOT_ENABLE_AMBIENT=true"}, o.Env...), filepath.Join(t.Tools, "istiod"),
		"-xds", fmt.Sprintf("127.0.0.1:%d", i.Port), "-xds-socket", i.Socket, "-http", fmt.Sprintf("127.0.0.1:%d", i.http),
		"-mesh", t.Write("mesh.yaml", o.Mesh), "-debounce", o.Debounce.String())
	t.Eventually(20*time.Second, "istiod serves", func() error {
		if !i.Running() {
			return fmt.Errorf("it has ended: %s", i.Tail(600))
		}
		_, err := i.Get("/debug/syncz")
		return err
	})
	return i
}

// Apply creates or replaces the objects of a YAML stream, Kubernetes' and Istio's alike.
func (i *Istiod) Apply(documents ...string) { i.post("/apply", documents) }

// Delete removes the objects of a YAML stream.
func (i *Istiod) Delete(documents ...string) { i.post("/delete", documents) }

func (i *Istiod) post(path string, documents []string) {
	_, err := i.request(http.MethodPost, path, strings.Join(documents, "\n---\n"))
	i.t.OK(err, "istiod "+path)
}

// Get reads one of istiod's pages.
func (i *Istiod) Get(path string) (string, error) { return i.request(http.MethodGet, path, "") }

var istiodClient = &http.Client{Timeout: 20 * time.Second}

func (i *Istiod) request(method, path, body string) (string, error) {
	request, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", i.http, path), strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := istiodClient.Do(request)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	return string(answer), err
}

// Agent is what pilot-agent knows when it writes a proxy's bootstrap.
type Agent struct {
	// ID is the node id, TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.cluster.local.
	ID  string   `json:"id"`
	IPs []string `json:"ips"`
	// Env are the agent's variables, such as ISTIO_METAJSON_LABELS.
	Env map[string]string `json:"env"`
	// ProxyConfig is YAML over Istio's defaults.
	ProxyConfig    string `json:"proxyConfig"`
	PrometheusPort int    `json:"prometheusPort"`
	StatusPort     int    `json:"statusPort"`
}

// Bootstrap is the bootstrap pilot-agent would start the proxy with, from Istio's own template.
func (i *Istiod) Bootstrap(a Agent) string {
	body, err := json.Marshal(struct {
		Agent
		Template string `json:"template"`
	}{a, filepath.Join(IstioModule(i.t), "tools", "packaging", "common", "envoy_bootstrap.json")})
	i.t.OK(err, "bootstrap request")
	text, err := i.request(http.MethodPost, "/bootstrap", string(body))
	i.t.OK(err, "bootstrap")
	return text
}

// IstioModule is the folder of Istio's sources in the module cache.
func IstioModule(t *kit.T) string {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	t.OK(err, "go list -m istio.io/istio")
	return string(bytes.TrimSpace(dir))
}

// syncStatus is the part of /debug/syncz we read: what was sent of each type and what was acknowledged.
type syncStatus struct {
	ProxyID   string `json:"proxy"`
	Resources map[string]struct {
		Sent      string `json:"sent"`
		Acked     string `json:"acked"`
		LastError string `json:"lastError"`
	} `json:"resources"`
}

// Synced waits until every type of every connected proxy is acknowledged, and gives the types.
func (i *Istiod) Synced(limit time.Duration, proxies int) []string {
	var types []string
	i.t.Eventually(limit, "every type is acknowledged", func() (err error) {
		types, err = i.syncz(proxies)
		return err
	})
	return types
}

func (i *Istiod) syncz(proxies int) ([]string, error) {
	text, err := i.Get("/debug/syncz")
	if err != nil {
		return nil, err
	}
	var all []syncStatus
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, err
	}
	if len(all) != proxies {
		return nil, fmt.Errorf("%d proxies are connected, not %d", len(all), proxies)
	}
	seen := map[string]bool{}
	for _, proxy := range all {
		if len(proxy.Resources) == 0 {
			return nil, fmt.Errorf("%s has subscribed to nothing", proxy.ProxyID)
		}
		for name, r := range proxy.Resources {
			if r.Sent == "" || r.Sent != r.Acked || r.LastError != "" {
				return nil, fmt.Errorf("%s of %s: sent %q, acknowledged %q, error %q", name, proxy.ProxyID, r.Sent, r.Acked, r.LastError)
			}
			seen[name[strings.LastIndexByte(name, '.')+1:]] = true
		}
	}
	var types []string
	for name := range seen {
		types = append(types, name)
	}
	sort.Strings(types)
	return types, nil
}

// Metric is the sum of one of istiod's metrics over its labels.
func (i *Istiod) Metric(name string) float64 {
	text, err := i.Get("/metrics")
	i.t.OK(err, "istiod's metrics")
	sum := 0.0
	for _, line := range strings.Split(text, "\n") {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		i.t.OK(err, "metric "+name)
		sum += value
	}
	return sum
}

// NoRejects ends the scenario if a proxy refused a single update.
func (i *Istiod) NoRejects() {
	n := i.Metric("pilot_total_xds_rejects")
	if n != 0 {
		text, _ := i.Get("/debug/syncz")
		i.t.Fatalf("pilot_total_xds_rejects is %v: %s; %s", n, text, i.Tail(1000))
	}
}
