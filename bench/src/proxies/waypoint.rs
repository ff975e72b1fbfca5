//! The bootstrap of a waypoint as Istio's control plane shapes it, without the control plane: tunnels end at
//! `connect_terminate`, `main_internal` tells services apart, and the service's own chain checks and forwards.
//!
//! nuncio gets Istio's private filters in addition: Envoy's public build does not know them.

use super::bootstrap::{admin, cluster};
use super::{Kind, Ports, Setup};
use crate::load::hbone::SERVICE;

/// What the waypoint trusts and shows.
pub struct Identity {
    /// The authority of the mesh, PEM.
    pub authority: String,
    /// The waypoint's certificate and key, PEM.
    pub certificate: String,
    pub key: String,
    /// The keys of the tokens' issuer: a JSON Web Key Set.
    pub keys: String,
    /// Who may pass: a SPIFFE identity.
    pub client: String,
}

/// The whole bootstrap. `ports.tls` takes the tunnels.
pub fn bootstrap(kind: Kind, setup: &Setup, ports: Ports, identity: &Identity) -> String {
    let (address, port) = SERVICE.split_once(':').unwrap_or((SERVICE, "80"));
    let private = kind == Kind::Nuncio;
    let (peers, stats) = if private {
        (PEER_METADATA, ISTIO_STATS)
    } else {
        ("", "")
    };
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::from(NODE);
    text.push_str(&admin(ports.admin));
    text.push_str(&format!(
        r#"bootstrap_extensions:
- name: envoy.bootstrap.internal_listener
  typed_config: {{"@type": type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener}}
static_resources:
  listeners:
  - name: connect_terminate
    address: {{socket_address: {{address: 127.0.0.1, port_value: {tunnels}}}}}
    connection_balance_config: {{exact_balance: {{}}}}
    filter_chains:
    - name: default
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2]
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
            tls_certificates:
            - certificate_chain: {{inline_string: {certificate}}}
              private_key: {{inline_string: {key}}}
            validation_context:
              trusted_ca: {{inline_string: {authority}}}
              match_typed_subject_alt_names: [{{san_type: URI, matcher: {{prefix: "spiffe://cluster.local/"}}}}]
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: connect_terminate
          stream_idle_timeout: 0s
          use_remote_address: false
          forward_client_cert_details: APPEND_FORWARD
          set_current_client_cert_details: {{subject: true, dns: true, uri: true}}
          upgrade_configs: [{{upgrade_type: CONNECT}}]
          http2_protocol_options: {{allow_connect: true, max_concurrent_streams: 100}}
          http_filters:
{peers}          - name: connect_authority
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
              on_request_headers:
              - object_key: envoy.filters.listener.original_dst.local_ip
                format_string: {{text_format_source: {{inline_string: "%REQ(:AUTHORITY)%"}}}}
                shared_with_upstream: ONCE
              - object_key: envoy.filters.listener.original_dst.remote_ip
                format_string: {{text_format_source: {{inline_string: "%DOWNSTREAM_REMOTE_ADDRESS%"}}}}
                shared_with_upstream: ONCE
              - object_key: io.istio.peer_principal
                factory_key: {hashable}
                format_string: {{text_format_source: {{inline_string: "%DOWNSTREAM_PEER_URI_SAN%"}}}}
                shared_with_upstream: ONCE
              - object_key: io.istio.local_principal
                factory_key: {hashable}
                format_string: {{text_format_source: {{inline_string: "%DOWNSTREAM_LOCAL_URI_SAN%"}}}}
                shared_with_upstream: ONCE
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: default
            virtual_hosts:
            - name: default
              domains: ["*"]
              routes:
              - match: {{connect_matcher: {{}}}}
                route: {{cluster: main_internal, upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]}}
  - name: main_internal
    internal_listener: {{}}
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    filter_chain_matcher:
      matcher_tree:
        input:
          name: ip
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationIPInput}}
        custom_match:
          name: ip
          typed_config:
            "@type": type.googleapis.com/xds.type.matcher.v3.IPMatcher
            range_matchers:
            - ranges: [{{address_prefix: {address}, prefix_len: 32}}]
              on_match:
                matcher:
                  matcher_tree:
                    input:
                      name: port
                      typed_config: {{"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput}}
                    exact_match_map:
                      map:
                        "{port}":
                          action:
                            name: {chain}
                            typed_config: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: {chain}}}
    filter_chains:
    - name: {chain}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          normalize_path: true
          server_name: istio-envoy
          http_filters:
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                origins-0:
                  issuer: bench
                  payload_in_metadata: payload
                  forward: true
                  local_jwks: {{inline_string: {keys}}}
              rules:
              - match: {{prefix: /}}
                requires: {{requires_any: {{requirements: [{{provider_name: origins-0}}, {{allow_missing: {{}}}}]}}}}
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  ns[bench]-policy[allow]-rule[0]:
                    permissions: [{{and_rules: {{rules: [{{or_rules: {{rules: [{{header: {{name: ":method", string_match: {{exact: GET}}}}}}]}}}}]}}}}]
                    principals:
                    - and_ids:
                        ids:
                        - or_ids: {{ids: [{{filter_state: {{key: io.istio.peer_principal, string_match: {{exact: "{client}"}}}}}}]}}
                        - or_ids: {{ids: [{{metadata: {{filter: envoy.filters.http.jwt_authn, path: [{{key: payload}}, {{key: iss}}], value: {{string_match: {{exact: bench}}}}}}}}]}}
{stats}          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: service
            virtual_hosts:
            - name: service
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: "inbound-vip|80|http|bench.example"}}}}]
  clusters:
  - name: main_internal
    connect_timeout: 5s
    load_assignment:
      cluster_name: main_internal
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{envoy_internal_address: {{server_listener_name: main_internal}}}}}}}}]}}]
    transport_socket:
      name: internal_upstream
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport
        transport_socket: {{name: raw, typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}
"#,
        tunnels = ports.tls,
        certificate = quoted(&identity.certificate),
        key = quoted(&identity.key),
        authority = quoted(&identity.authority),
        keys = quoted(&identity.keys),
        client = identity.client,
        hashable = "envoy.hashable_string",
        chain = "inbound-vip|80|http|bench.example",
    ));
    text.push_str(&cluster("inbound-vip|80|http|bench.example", setup.http_backend));
    text
}

const NODE: &str = "node:
  id: waypoint~127.0.0.1~waypoint-1.bench~bench.svc.cluster.local
  cluster: waypoint.bench
  metadata: {NAME: waypoint-1, NAMESPACE: bench, WORKLOAD_NAME: waypoint, CLUSTER_ID: Kubernetes, LABELS: {app: waypoint}}
";

const PEER_METADATA: &str = r#"          - name: waypoint_downstream_peer_metadata
            typed_config:
              "@type": type.googleapis.com/udpa.type.v1.TypedStruct
              type_url: type.googleapis.com/io.istio.http.peer_metadata.Config
              value: {downstream_discovery: [{workload_discovery: {}}], shared_with_upstream: true}
"#;

const ISTIO_STATS: &str = r#"          - name: istio.stats
            typed_config:
              "@type": type.googleapis.com/udpa.type.v1.TypedStruct
              type_url: type.googleapis.com/stats.PluginConfig
              value: {reporter: SERVER_GATEWAY}
"#;
