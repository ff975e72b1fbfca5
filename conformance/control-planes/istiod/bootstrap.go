package main

import (
	"bytes"
	"encoding/json"
	"io"
	"sort"

	"istio.io/istio/pkg/bootstrap"
	"istio.io/istio/pkg/bootstrap/platform"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/util/protomarshal"
)

// bootstrapRequest is what pilot-agent knows when it writes a proxy's bootstrap.
type bootstrapRequest struct {
	// Template is the path of envoy_bootstrap.json.
	Template string `json:"template"`
	// ID is the node id: TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.cluster.local.
	ID  string   `json:"id"`
	IPs []string `json:"ips"`
	// Env are the agent's environment variables: ISTIO_META_..., ISTIO_METAJSON_..., POD_NAME, ...
	Env map[string]string `json:"env"`
	// ProxyConfig is YAML over Istio's defaults.
	ProxyConfig    string `json:"proxyConfig"`
	PrometheusPort int    `json:"prometheusPort"`
	StatusPort     int    `json:"statusPort"`
}

func renderBootstrap(body io.Reader) ([]byte, error) {
	var r bootstrapRequest
	if err := json.NewDecoder(body).Decode(&r); err != nil {
		return nil, err
	}
	proxyConfig := mesh.DefaultProxyConfig()
	if err := protomarshal.ApplyYAML(r.ProxyConfig, proxyConfig); err != nil {
		return nil, err
	}
	var env []string
	for name, value := range r.Env {
		env = append(env, name+"="+value)
	}
	sort.Strings(env)
	node, err := bootstrap.GetNodeMetaData(bootstrap.MetadataOptions{
		ID: r.ID, InstanceIPs: r.IPs, Envs: env, Platform: &platform.Unknown{}, ProxyConfig: proxyConfig,
		EnvoyPrometheusPort: r.PrometheusPort, EnvoyStatusPort: r.StatusPort, WorkloadIdentitySocketFile: "socket",
	})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = bootstrap.New(bootstrap.Config{Node: node}).WriteTo(r.Template, &out)
	return out.Bytes(), err
}
