package scenarios

import (
	"fmt"
	"strings"

	"nuncio/conformance/control-planes/plane"
)

// dialect is how the proxy speaks to an ADS server.
type dialect string

const (
	sotw  dialect = "GRPC"
	delta dialect = "DELTA_GRPC"
)

func (d dialect) String() string {
	if d == delta {
		return "delta"
	}
	return "sotw"
}

// both makes a scenario for each dialect.
func both(name string, run func(*site)) []Scenario {
	return []Scenario{
		{name + "/sotw", with(sotw, run)},
		{name + "/delta", with(delta, run)},
	}
}

// adsBootstrap is a proxy that takes everything from an ADS server. `ads` is added to the
// ads_config and `source` to cds_config and lds_config, as flow-style YAML fields.
func adsBootstrap(admin, xds int, d dialect, ads, source string) string {
	return adsBootstrapOver(admin, d, ads, source, at(xds), "")
}

// at is the YAML of an endpoint on 127.0.0.1.
func at(port int) string {
	return fmt.Sprintf("{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}", port)
}

// adsBootstrapOver says where the ADS server is: its endpoints, and more fields of its cluster.
func adsBootstrapOver(admin int, d dialect, ads, source, hosts, extra string) string {
	return fmt.Sprintf(`
node: {id: %s, cluster: conformance}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]%s}
  cds_config: {resource_api_version: V3, ads: {}%s}
  lds_config: {resource_api_version: V3, ads: {}%s}
static_resources:
  clusters:
  - name: xds
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: xds
      endpoints: [{lb_endpoints: [%s]}]
%s`, plane.Node, admin, string(d), ads, source, source, hosts, extra)
}

// staticCluster has its endpoint in itself; `extra` is more YAML fields.
func staticCluster(name string, port int, extra ...string) plane.Resource {
	return plane.Cluster(fmt.Sprintf(`
name: %[1]s
connect_timeout: 1s
load_assignment:
  cluster_name: %[1]s
  endpoints: [{lb_endpoints: [%[2]s]}]
%[3]s`, name, at(port), strings.Join(extra, "\n")))
}

// edsCluster takes its endpoints by EDS over ADS.
func edsCluster(name string, extra ...string) plane.Resource {
	return plane.Cluster(fmt.Sprintf(`
name: %s
type: EDS
connect_timeout: 1s
eds_cluster_config: {eds_config: {resource_api_version: V3, ads: {}}}
%s`, name, strings.Join(extra, "\n")))
}

// endpoints are hosts on 127.0.0.1.
func endpoints(cluster string, ports ...int) plane.Resource {
	var hosts []string
	for _, port := range ports {
		hosts = append(hosts, at(port))
	}
	return plane.Endpoints(fmt.Sprintf("{cluster_name: %s, endpoints: [{lb_endpoints: [%s]}]}", cluster, strings.Join(hosts, ", ")))
}

// hcm is the YAML of an HTTP connection manager's filter, indented for a listener's filter chain.
func hcm(routes string) string {
	return fmt.Sprintf(`
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: http
      %s
      http_filters:
      - name: router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`, routes)
}

// rds is an HTTP connection manager's route source over ADS.
func rds(name string, extra ...string) string {
	return fmt.Sprintf("rds: {route_config_name: %s, config_source: {resource_api_version: V3, ads: {}%s}}", name, strings.Join(extra, ""))
}

// listener accepts HTTP on a port, its routes as given (see rds); `extra` is more YAML of the filter
// chain, such as a transport socket.
func listener(name string, port int, routes string, extra ...string) plane.Resource {
	return plane.Listener(fmt.Sprintf(`
name: %s
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
filter_chains:
- filters:%s%s`, name, port, hcm(routes), strings.Join(extra, "")))
}

// routes sends every path to a cluster and marks the answer with x-version.
func routes(name, cluster, version string) plane.Resource {
	return plane.Route(fmt.Sprintf(`
name: %s
virtual_hosts:
- name: all
  domains: ["*"]
  routes: [{match: {prefix: /}, route: {cluster: %s}}]
  response_headers_to_add: [{header: {key: x-version, value: "%s"}}]
`, name, cluster, version))
}

// routesByPath sends each path prefix to a cluster, in the given order (prefix, cluster, ...).
func routesByPath(name string, pairs ...string) plane.Resource {
	var list []string
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, fmt.Sprintf("{match: {prefix: %s}, route: {cluster: %s}}", pairs[i], pairs[i+1]))
	}
	return plane.Route(fmt.Sprintf(`
name: %s
virtual_hosts: [{name: all, domains: ["*"], routes: [%s]}]
`, name, strings.Join(list, ", ")))
}
