//! Istio's metrics as a scrape of the running proxy shows them, with a statistics configuration like Istio's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use common::{Process, ask, eventually, free_port, get, is_live};

struct Proxy {
    _process: Process,
    admin: u16,
}

const NODE: &str = "node: {id: ratings, cluster: c, metadata: {WORKLOAD_NAME: ratings-v1, NAMESPACE: default, CLUSTER_ID: c1, \
    ISTIO_VERSION: 1.30.0, LABELS: {app: ratings, version: v1, service.istio.io/canonical-name: ratings}}}";

impl Proxy {
    /// Starts with these listeners and more of the bootstrap, and waits until it serves.
    fn start(listeners: &str, more: &str) -> Self {
        let admin = free_port();
        let config = format!(
            "{NODE}\nadmin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n{more}\n\
             static_resources:\n  listeners:\n{listeners}"
        );
        let proxy = Self {
            _process: Process::start(&["--concurrency", "2", "--config-yaml", &config]),
            admin,
        };
        eventually("it serves", || is_live(admin));
        proxy
    }

    fn ask(&self, path: &str) -> String {
        get(self.admin, path).unwrap_or_default()
    }

    /// The only series of a metric, and its value.
    fn series(&self, name: &str) -> Option<(String, u64)> {
        let scraped = self.ask("/stats/prometheus");
        let mut found = scraped.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
            Some((labels.to_owned(), value.parse().ok()?))
        });
        let first = found.next();
        assert!(found.next().is_none(), "more than one series of {name}");
        first
    }

    fn value(&self, name: &str) -> Option<u64> {
        self.series(name).map(|(_, value)| value)
    }
}

const STATS: &str =
    "\"@type\": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig";

fn http(port: u16, direction: &str, value: &str) -> String {
    format!(
        "  - name: http\n    traffic_direction: {direction}\n\
         \x20   address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n\
         \x20   filter_chains: [{{filters: [{{name: h, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.\
         filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, route_config: {{virtual_hosts: \
         [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 418}}}}]}}]}}, \
         http_filters: [{{name: s, typed_config: {{{STATS}, value: {value}}}}}, {{name: r, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]\n"
    )
}

const ONLY_ISTIO: &str = "stats_config: {stats_matcher: {inclusion_list: {patterns: [{prefix: istiocustom}]}}, stats_tags: \
    [{tag_name: reporter, regex: \"(reporter=\\\\.=(.*?);\\\\.;)\"}, \
    {tag_name: response_code, regex: \"(response_code=\\\\.=(.*?);\\\\.;)|_rq(_(\\\\.d{3}))$\"}]}";

#[test]
fn requests_of_an_inbound_listener() {
    let port = free_port();
    let proxy = Proxy::start(&http(port, "INBOUND", "{}"), ONLY_ISTIO);
    for _ in 0..3 {
        assert!(ask(port, "/", "ratings:9080", "").unwrap().starts_with("HTTP/1.1 418"));
    }
    eventually("three requests", || proxy.value("istio_requests_total") == Some(3));
    let (labels, _) = proxy.series("istio_requests_total").unwrap();
    assert_eq!(
        labels,
        "reporter=\"destination\",source_workload=\"unknown\",source_canonical_service=\"unknown\",\
         source_canonical_revision=\"latest\",source_workload_namespace=\"unknown\",source_principal=\"unknown\",\
         source_app=\"unknown\",source_version=\"unknown\",source_cluster=\"unknown\",destination_workload=\"ratings-v1\",\
         destination_workload_namespace=\"default\",destination_principal=\"unknown\",destination_app=\"ratings\",\
         destination_version=\"v1\",destination_service=\"ratings:9080\",destination_canonical_service=\"ratings\",\
         destination_canonical_revision=\"\",destination_service_name=\"ratings:9080\",\
         destination_service_namespace=\"default\",destination_cluster=\"c1\",request_protocol=\"http\",\
         response_code=\"418\",grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"none\""
    );
    assert_eq!(proxy.value("istio_request_duration_milliseconds_count"), Some(3));
    assert_eq!(proxy.value("istio_build"), Some(1));
    // What the inclusion list leaves out is not there.
    let all = proxy.ask("/stats?format=json");
    assert!(all.contains("istiocustom.istio_requests_total.reporter.destination.source_workload.unknown"));
    assert!(!all.contains("downstream_rq_total"));
}

#[test]
fn series_that_are_not_used_expire() {
    let port = free_port();
    let interval = "stats_flush_interval: 0.1s\nstats_eviction_interval: 0.2s";
    let proxy = Proxy::start(&http(port, "OUTBOUND", "{}"), interval);
    for _ in 0..2 {
        ask(port, "/", "x", "").unwrap();
        eventually("it is counted, and forgotten", || {
            proxy.value("istio_requests_total").is_none()
        });
    }
    assert_eq!(proxy.value("istio_build"), Some(1));
}

#[test]
fn connections_are_told_of_while_they_are_open() {
    let (port, server) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let to = server.local_addr().unwrap().port();
    let listeners = format!(
        "  - name: tcp\n    traffic_direction: OUTBOUND\n\
         \x20   address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n\
         \x20   filter_chains: [{{filters: [{{name: f, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.\
         filters.network.set_filter_state.v3.Config, on_new_connection: [{{object_key: peer_not_found, factory_key: \
         envoy.string, format_string: {{text_format_source: {{inline_string: 'true'}}}}}}]}}}}, \
         {{name: s, typed_config: {{{STATS}, value: {{tcp_reporting_duration: 0.1s}}}}}}, {{name: t, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, \
         cluster: up}}}}]}}]\n\
         \x20 clusters:\n  - name: up\n    metadata: {{filter_metadata: {{istio: {{services: [{{host: db.prod.svc, \
         namespace: prod}}]}}}}}}\n    load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{metadata: \
         {{filter_metadata: {{istio: {{workload: db-v1;prod;db;v1;c2}}}}}}, endpoint: {{address: {{socket_address: \
         {{address: 127.0.0.1, port_value: {to}}}}}}}}}]}}]}}\n"
    );
    let proxy = Proxy::start(&listeners, "");
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut upstream, _) = server.accept().unwrap();
    client.write_all(b"12345").unwrap();
    let mut seen = [0; 5];
    upstream.read_exact(&mut seen).unwrap();
    upstream.write_all(b"ok").unwrap();
    client.read_exact(&mut seen[..2]).unwrap();
    eventually("its bytes are told", || {
        proxy.value("istio_tcp_received_bytes_total") == Some(5) && proxy.value("istio_tcp_sent_bytes_total") == Some(2)
    });
    assert_eq!(proxy.value("istio_tcp_connections_opened_total"), Some(1));
    assert_eq!(proxy.value("istio_tcp_connections_closed_total"), None);
    client.write_all(b"678").unwrap();
    upstream.read_exact(&mut seen[..3]).unwrap();
    drop((client, upstream));
    eventually("its end is told", || {
        proxy.value("istio_tcp_connections_closed_total") == Some(1)
    });
    let (labels, received) = proxy.series("istio_tcp_received_bytes_total").unwrap();
    assert_eq!(received, 8);
    for label in [
        "reporter=\"source\",source_workload=\"ratings-v1\"",
        "destination_workload=\"db-v1\",destination_workload_namespace=\"prod\"",
        "destination_service=\"db.prod.svc\",destination_canonical_service=\"db\"",
        "destination_service_name=\"db\",destination_service_namespace=\"prod\",destination_cluster=\"c2\",\
         request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"unknown\"",
    ] {
        assert!(labels.contains(label), "{label} in {labels}");
    }
}
