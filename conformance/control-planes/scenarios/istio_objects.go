package scenarios

import (
	"encoding/json"
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
	} else {
		// As Istio is installed.
		options.Mesh += "defaultProviders: {metrics: [prometheus]}\n"
	}
	return plane.NewIstiod(t, options)
}

// member is a service with one pod behind it.
type member struct {
	name, namespace string
	// ip is the pod's, one of the loopback network's. Default 127.0.0.1.
	ip    string
	ports []memberPort
	// labels are the pod's besides those every pod has.
	labels map[string]string
	// meshed marks the pod as one with a sidecar: clients with a sidecar use mutual TLS to it.
	meshed bool
}

// memberPort is a port of the service and the pod's port behind it; the name begins with the protocol, as Istio
// reads it: http, tcp, ...
type memberPort struct {
	name         string
	port, target int
}

// webMember is a service of one HTTP port, without a sidecar.
func webMember(name string, port, target int) member {
	return member{name: name, namespace: "default", ports: []memberPort{{"http", port, target}}}
}

func (m member) podLabels() map[string]string {
	all := map[string]string{"app": m.name, "service.istio.io/canonical-name": m.name, "service.istio.io/canonical-revision": "v1"}
	if m.meshed {
		all["security.istio.io/tlsMode"] = "istio"
	}
	for name, value := range m.labels {
		all[name] = value
	}
	return all
}

// objects are the service, its pod and its endpoints.
func (m member) objects() string {
	if m.ip == "" {
		m.ip = "127.0.0.1"
	}
	labels, _ := json.Marshal(m.podLabels())
	var service, endpoints, containers []string
	for _, p := range m.ports {
		service = append(service, fmt.Sprintf("{name: %s, port: %d, targetPort: %d}", p.name, p.port, p.target))
		endpoints = append(endpoints, fmt.Sprintf("{name: %s, port: %d, protocol: TCP}", p.name, p.target))
		containers = append(containers, fmt.Sprintf("{containerPort: %d}", p.target))
	}
	// Any address that no other service has.
	first := m.ports[0].target
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  clusterIP: 10.96.%[4]d.%[5]d
  selector: {app: %[1]s}
  ports: [%[6]s]
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: %[9]s}
spec:
  serviceAccountName: %[1]s
  containers: [{name: main, ports: [%[8]s]}]
status:
  phase: Running
  podIP: %[3]s
  podIPs: [{ip: %[3]s}]
  conditions: [{type: Ready, status: "True"}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: %[2]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
endpoints:
- addresses: [%[3]s]
  conditions: {ready: true}
  targetRef: {kind: Pod, name: %[1]s, namespace: %[2]s}
ports: [%[7]s]
`, m.name, m.namespace, m.ip, first/256, first%256,
		strings.Join(service, ", "), strings.Join(endpoints, ", "), strings.Join(containers, ", "), labels)
}

// secretObject is a Kubernetes secret; fields are its data's names and texts in turn.
func secretObject(namespace, name string, fields ...string) string {
	data := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		data[fields[i]] = fields[i+1]
	}
	// The fake client does not turn stringData into data, as the API server does.
	encoded := map[string][]byte{}
	for field, text := range data {
		encoded[field] = []byte(text)
	}
	text, _ := json.Marshal(encoded)
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: Opaque\ndata: %s\n", name, namespace, text)
}

// tlsSecret is a secret with a certificate of this serial number for a DNS name.
func tlsSecret(authority *kit.Authority, namespace, name, dns string, serial int64) string {
	cert, key := authority.Issue(serial, dns)
	return secretObject(namespace, name, "tls.crt", cert, "tls.key", key)
}
