package scenarios

import (
	"fmt"
	"strings"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// newIstiod is an istiod that authenticates agents. For a proxy that knows no type of Istio's own it leaves
// out what has such types: metadata exchange, its ALPN filter, its statistics.
func newIstiod(t *kit.T) *plane.Istiod {
	options := plane.IstiodOptions{Env: []string{"XDS_AUTH_PLAINTEXT=true"}, Mesh: "accessLogFile: /dev/stdout\n"}
	if t.Public {
		options.Env = append(options.Env, "PILOT_ENABLE_METADATA_EXCHANGE=false", "PILOT_ENABLE_ALPN_FILTER=false")
		options.Mesh += "defaultProviders: {}\n"
	}
	return plane.NewIstiod(t, options)
}

// member is a service with one pod behind it.
type member struct {
	name, namespace string
	// port is the service's, target the pod's at ip.
	port, target int
	ip           string
	// protocol is in the port's name, as Istio reads it: http, tcp, ...
	protocol string
	// labels are the pod's besides app.
	labels map[string]string
}

// pod has the sidecar's mark: clients with a sidecar use mutual TLS to it.
func (m member) meshed() member {
	labels := map[string]string{"security.istio.io/tlsMode": "istio"}
	for name, value := range m.labels {
		labels[name] = value
	}
	m.labels = labels
	return m
}

func (m member) podLabels() map[string]string {
	all := map[string]string{"app": m.name, "service.istio.io/canonical-name": m.name, "service.istio.io/canonical-revision": "v1"}
	for name, value := range m.labels {
		all[name] = value
	}
	return all
}

// objects are the service, its pod and its endpoints.
func (m member) objects() string {
	var labels strings.Builder
	for name, value := range m.podLabels() {
		fmt.Fprintf(&labels, "    %s: %q\n", name, value)
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  clusterIP: %[8]s
  selector: {app: %[1]s}
  ports: [{name: %[6]s, port: %[3]d, targetPort: %[4]d}]
---
apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  namespace: %[2]s
  labels:
%[7]sspec:
  serviceAccountName: %[1]s
  containers: [{name: main, ports: [{containerPort: %[4]d}]}]
status:
  phase: Running
  podIP: %[5]s
  podIPs: [{ip: %[5]s}]
  conditions: [{type: Ready, status: "True"}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %[1]s
  namespace: %[2]s
  labels: {kubernetes.io/service-name: %[1]s}
addressType: IPv4
endpoints:
- addresses: [%[5]s]
  conditions: {ready: true}
  targetRef: {kind: Pod, name: %[1]s, namespace: %[2]s}
ports: [{name: %[6]s, port: %[4]d, protocol: TCP}]
`, m.name, m.namespace, m.port, m.target, m.ip, m.protocol, labels.String(), m.clusterIP())
}

// clusterIP differs from service to service.
func (m member) clusterIP() string { return fmt.Sprintf("10.96.%d.%d", m.target/256, m.target%256) }
