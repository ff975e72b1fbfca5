//! The bootstrap that both nuncio and Envoy read, unchanged: the configuration is the point.
//!
//! Default stats, the router as the only filter, codec auto-detection, and the default timeouts.

use std::fmt::Write;
use std::path::Path;

use super::{Ports, Setup};
use crate::load::connect;

/// Listeners for HTTP, HTTP over TLS and TCP, as far as they are wanted.
pub fn bootstrap(setup: &Setup, ports: Ports, stem: &str) -> String {
    let manager = manager(setup, stem);
    let mut text = admin(ports.admin);
    text.push_str("static_resources:\n  listeners:\n");
    match setup.chains {
        0 | 1 => text.push_str(&listener("plain", ports.http1, &manager, "")),
        chains => text.push_str(&by_address(ports.http1, &manager, chains)),
    }
    if setup.tls {
        let tls = format!(
            r#"      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{tls_maximum_protocol_version: TLSv1_3}}
            tls_certificates:
            - certificate_chain: {{filename: "{}"}}
              private_key: {{filename: "{}"}}
"#,
            setup.certs.chain.display(),
            setup.certs.key.display(),
        );
        text.push_str(&listener("tls", ports.tls, &manager, &tls));
    }
    if setup.tcp {
        text.push_str(&listener("tcp", ports.tcp, TCP_PROXY, ""));
    }
    text.push_str("  clusters:\n");
    text.push_str(&cluster("backend", setup.http_backend));
    if setup.tcp {
        text.push_str(&cluster("echo", setup.echo_backend));
    }
    text
}

/// `count` clusters, each behind a virtual host of its own, all on one backend.
pub fn many_clusters(count: usize, http: u16, admin_port: u16, backend: u16) -> String {
    let mut manager = String::from(
        r#"      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: local
            virtual_hosts:
"#,
    );
    let mut clusters = String::new();
    for n in 0..count {
        let _ = write!(
            manager,
            "            - name: host-{n}
              domains: [host-{n}.example]
              routes: [{{match: {{prefix: /}}, route: {{cluster: cluster-{n}}}}}]\n"
        );
        clusters.push_str(&cluster(&format!("cluster-{n}"), backend));
    }
    let mut text = admin(admin_port);
    text.push_str("static_resources:\n  listeners:\n");
    text.push_str(&listener("plain", http, &manager, ""));
    text.push_str("  clusters:\n");
    text.push_str(&clusters);
    text
}

/// One HTTP listener whose route table comes from a file.
pub fn with_routes_from(routes: &Path, ports: Ports, backend: u16) -> String {
    let manager = format!(
        r#"      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          rds:
            route_config_name: local
            config_source: {{resource_api_version: V3, path_config_source: {{path: "{}"}}}}
"#,
        routes.display()
    );
    let mut text = String::from("node: {id: bench, cluster: bench}\n");
    text.push_str(&admin(ports.admin));
    text.push_str("static_resources:\n  listeners:\n");
    text.push_str(&listener("plain", ports.http1, &manager, ""));
    text.push_str("  clusters:\n");
    text.push_str(&cluster("backend", backend));
    text
}

const TCP_PROXY: &str = r#"      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: echo
"#;

fn manager(setup: &Setup, stem: &str) -> String {
    let log = if setup.log {
        format!(
            r#"          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: "{}/{stem}.access"
"#,
            setup.scratch.display()
        )
    } else {
        String::new()
    };
    format!(
        r#"      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          codec_type: AUTO
{log}          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: backend}}
"#
    )
}

pub(super) fn admin(port: u16) -> String {
    format!("admin:\n  address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n")
}

fn listener(name: &str, port: u16, filters: &str, transport_socket: &str) -> String {
    format!(
        "  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
{filters}{transport_socket}"
    )
}

/// A listener with a filter chain for each of `chains` addresses of this machine.
fn by_address(port: u16, filters: &str, chains: usize) -> String {
    let mut text = format!(
        "  - name: plain
    address: {{socket_address: {{address: 0.0.0.0, port_value: {port}}}}}
    filter_chains:\n"
    );
    for n in 0..chains {
        let address = connect::address(n);
        let _ = write!(
            text,
            "    - filter_chain_match: {{prefix_ranges: [{{address_prefix: {address}, prefix_len: 32}}]}}
      filters:\n{filters}"
        );
    }
    text
}

pub(super) fn cluster(name: &str, port: u16) -> String {
    format!(
        "  - name: {name}
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}\n"
    )
}
