package scenarios

import (
	"fmt"
	"strings"
)

// publicEnv has istiod leave out what can be left out.
var publicEnv = []string{"PILOT_ENABLE_METADATA_EXCHANGE=false", "PILOT_ENABLE_ALPN_FILTER=false"}

// publicWaypoint takes Istio's own types out of a waypoint's configuration, so that Envoy as published can have it:
// the metadata of peers and the way to other networks go, and filter state is hashable by the name Envoy has for that.
func publicWaypoint() string {
	var patches strings.Builder
	for _, filter := range []string{"waypoint_downstream_peer_metadata", "waypoint_upstream_peer_metadata"} {
		fmt.Fprintf(&patches, `
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: %s}}}}}
    patch: {operation: REMOVE}`, filter)
	}
	for _, filter := range []string{"istio.metadata_exchange", "waypoint_peer_metadata"} {
		fmt.Fprintf(&patches, `
  - applyTo: NETWORK_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: %s}}}}
    patch: {operation: REMOVE}`, filter)
	}
	for _, listener := range []string{"inner_connect_originate", "outer_connect_originate"} {
		fmt.Fprintf(&patches, `
  - applyTo: LISTENER
    match: {context: SIDECAR_INBOUND, listener: {name: %s}}
    patch: {operation: REMOVE}`, listener)
	}
	var objects []string
	for _, o := range [][3]string{
		{"envoy.filters.listener.original_dst.local_ip", "%REQ(:AUTHORITY)%", ""},
		{"io.istio.connect_authority", "%REQ(:AUTHORITY)%", "envoy.hashable_string"},
		{"envoy.filters.listener.original_dst.remote_ip", "%DOWNSTREAM_REMOTE_ADDRESS%", ""},
		{"io.istio.peer_principal", "%DOWNSTREAM_PEER_URI_SAN%", "envoy.hashable_string"},
		{"io.istio.local_principal", "%DOWNSTREAM_LOCAL_URI_SAN%", "envoy.hashable_string"},
	} {
		factory := ""
		if o[2] != "" {
			factory = ", factory_key: " + o[2]
		}
		objects = append(objects, fmt.Sprintf(`
          - {object_key: %s, format_string: {text_format_source: {inline_string: "%s"}}, shared_with_upstream: ONCE%s}`, o[0], o[1], factory))
	}
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: public, namespace: default}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]
  configPatches:%s
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {name: connect_terminate, filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: connect_authority}}}}}
    patch:
      operation: REPLACE
      value:
        name: connect_authority
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
          on_request_headers:%s
`, patches.String(), strings.Join(objects, ""))
}

// publicBootstrap leaves out the discovery of workloads.
func publicBootstrap(bootstrap string) string {
	begin := strings.Index(bootstrap, `{
      "name": "metadata_discovery"`)
	if begin < 0 {
		return bootstrap
	}
	end := strings.Index(bootstrap[begin:], "},\n    {")
	return bootstrap[:begin] + bootstrap[begin+end+len("},\n    "):]
}
