//! Labels and their order are those of Istio's own data-plane tests.

use std::rc::Rc;

use http::StatusCode;
use xds_protos::{
    envoy::config::bootstrap::v3::Bootstrap,
    google::protobuf::Struct,
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::{
    cli::Cli,
    extensions::common::workload::{Peer, WorkloadMetadata},
    http::{
        ConnectionInfo,
        stream_info::{Flag, Sharing, StringObject},
    },
    route::test_support::{request, stream},
    server::ServerContext,
    stats::render::{self, Query},
};

const NODE: &str = "{id: client, metadata: {WORKLOAD_NAME: productpage-v1, NAMESPACE: default, CLUSTER_ID: c1, \
    ISTIO_VERSION: 1.30.0, LABELS: {app: productpage, version: v1, service.istio.io/canonical-name: productpage, \
    service.istio.io/canonical-revision: version-1}}}";

struct Bench {
    server: Arc<ServerContext>,
}

impl Bench {
    fn new() -> Self {
        let cli = Cli::read(["nuncio", "--concurrency", "1"].map(Into::into)).unwrap();
        let bootstrap = format!("{{node: {NODE}}}");
        let bootstrap: Bootstrap = typed(&bootstrap, Syntax::Yaml, &LoadOptions::default()).unwrap();
        Self {
            server: ServerContext::new(bootstrap, &cli).unwrap(),
        }
    }

    fn stats(&self, yaml: &str) -> ConfigResult<Arc<IstioStats>> {
        let proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
        IstioStats::build(proto, &mut BuildCx::new(&self.server))
    }

    /// What Prometheus is shown of Istio's.
    fn metrics(&self) -> Vec<String> {
        let mut text = Vec::new();
        render::prometheus(&self.server.stats, &Query::parse_prometheus("").unwrap(), &mut |part| {
            text.extend_from_slice(&part)
        });
        let text = String::from_utf8(text).unwrap();
        text.lines()
            .filter(|l| l.starts_with("istio_"))
            .map(str::to_owned)
            .collect()
    }

    fn one(&self, name: &str) -> String {
        let found: Vec<_> = self
            .metrics()
            .into_iter()
            .filter(|l| l.starts_with(&format!("{name}{{")))
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }
}

fn ratings() -> Arc<WorkloadMetadata> {
    Arc::new(WorkloadMetadata {
        namespace_name: "shop".into(),
        workload_name: "ratings-v1".into(),
        canonical_name: "ratings".into(),
        app_name: "ratings".into(),
        app_version: "v1".into(),
        cluster_name: "c2".into(),
        labels: vec![("role".into(), "server".into())],
        ..WorkloadMetadata::default()
    })
}

fn inbound(mut info: StreamInfo) -> StreamInfo {
    let connection: &mut ConnectionInfo = Rc::get_mut(&mut info.connection).unwrap();
    connection.direction = xds_protos::envoy::config::core::v3::TrafficDirection::Inbound;
    info
}

fn services() -> Metadata {
    let istio: Struct = typed(
        "{services: [{host: server.default.svc.cluster.local, name: server, namespace: default}]}",
        Syntax::Yaml,
        &LoadOptions::default(),
    )
    .unwrap();
    [("istio".to_owned(), istio)].into()
}

#[test]
fn a_client_tells_of_its_peer_and_service() {
    let bench = Bench::new();
    let stats = bench.stats("{}").unwrap();
    let mut info = stream();
    info.response_code = Some(StatusCode::OK);
    Peer::Upstream.set(&mut info.filter_state, ratings(), Sharing::None);
    assert!(stats.is_settled(&info));
    for _ in 0..3 {
        stats.request_ended(&info, &request("x.com", "/", &[]), None, false, Some(&services()));
    }
    assert_eq!(
        bench.one("istio_requests_total"),
        "istio_requests_total{reporter=\"source\",source_workload=\"productpage-v1\",\
         source_canonical_service=\"productpage\",source_canonical_revision=\"version-1\",\
         source_workload_namespace=\"default\",source_principal=\"unknown\",source_app=\"productpage\",\
         source_version=\"v1\",source_cluster=\"c1\",destination_workload=\"ratings-v1\",\
         destination_workload_namespace=\"shop\",destination_principal=\"unknown\",destination_app=\"ratings\",\
         destination_version=\"v1\",destination_service=\"server.default.svc.cluster.local\",\
         destination_canonical_service=\"ratings\",destination_canonical_revision=\"latest\",\
         destination_service_name=\"server\",destination_service_namespace=\"default\",\
         destination_cluster=\"c2\",request_protocol=\"http\",response_code=\"200\",grpc_response_status=\"\",\
         response_flags=\"-\",connection_security_policy=\"unknown\"} 3"
    );
    assert_eq!(
        bench.one("istio_build"),
        "istio_build{component=\"proxy\",tag=\"1.30.0\"} 1"
    );
    let all = bench.metrics();
    for name in ["istio_request_bytes_count", "istio_response_bytes_count"] {
        assert!(all.iter().any(|l| l.starts_with(name) && l.ends_with(" 3")), "{name}");
    }
}

#[test]
fn a_waypoint_tells_of_both_ends_by_their_principals() {
    let bench = Bench::new();
    let stats = bench.stats("{reporter: SERVER_GATEWAY}").unwrap();
    let mut info = stream();
    let mut set = |key: &str, value: &str| {
        let text = Rc::new(StringObject(value.into()));
        info.filter_state.set(key.into(), text, Sharing::None, false);
    };
    set("io.istio.peer_principal", "spiffe://td/ns/front/sa/curl");
    set("io.istio.local_principal", "spiffe://td/ns/w/sa/waypoint");
    Peer::Upstream.set(&mut info.filter_state, ratings(), Sharing::None);
    info.flags.set(Flag::UpstreamConnectionFailure);
    info.response_code = Some(StatusCode::SERVICE_UNAVAILABLE);
    let head = request("echo.shop", "/", &[("content-type", "application/grpc")]);
    stats.request_ended(&info, &head, None, true, None);
    let told = bench.one("istio_requests_total");
    for label in [
        "reporter=\"waypoint\",source_workload=\"unknown\"",
        "source_workload_namespace=\"front\",source_principal=\"spiffe://td/ns/front/sa/curl\"",
        "destination_workload=\"ratings-v1\",destination_workload_namespace=\"shop\"",
        "destination_canonical_revision=\"unknown\",destination_service_name=\"echo.shop\"",
        "request_protocol=\"grpc\",response_code=\"503\",grpc_response_status=\"14\",response_flags=\"UF\",\
         connection_security_policy=\"mutual_tls\"",
    ] {
        assert!(told.contains(label), "{label} in {told}");
    }
}

#[test]
fn a_server_tells_of_itself_where_it_knows_no_service() {
    let bench = Bench::new();
    let stats = bench.stats("{disable_host_header_fallback: true}").unwrap();
    let info = inbound(stream());
    stats.request_ended(&info, &request("x.com", "/", &[]), None, false, None);
    let told = bench.one("istio_requests_total");
    for label in [
        "reporter=\"destination\"",
        "source_canonical_revision=\"latest\"",
        "destination_workload=\"productpage-v1\"",
        "destination_service=\"productpage\"",
        "response_code=\"0\"",
        "connection_security_policy=\"none\"",
    ] {
        assert!(told.contains(label), "{label} in {told}");
    }
}

#[test]
fn routes_and_clusters_to_nowhere_are_services_by_name() {
    let bench = Bench::new();
    let stats = bench.stats("{}").unwrap();
    let mut info = stream();
    info.route_name = Some("allow_any".into());
    stats.request_ended(&info, &request("x.com", "/", &[]), None, false, None);
    info.route_name = None;
    info.upstream.cluster = Some("BlackHoleCluster".into());
    stats.request_ended(&info, &request("x.com", "/", &[]), None, false, Some(&services()));
    let all = bench.metrics().join("\n");
    for name in ["PassthroughCluster", "BlackHoleCluster"] {
        let label = format!(
            "destination_service=\"x.com\",destination_canonical_service=\"unknown\",\
            destination_canonical_revision=\"latest\",destination_service_name=\"{name}\""
        );
        assert!(all.contains(&label), "{label} in {all}");
    }
}

#[test]
fn users_change_labels_and_add_metrics() {
    let bench = Bench::new();
    let stats = bench
        .stats(
            "{definitions: [{name: custom, value: '3', type: COUNTER}, {name: requests_total, value: '1'}], metrics: [\
             {name: request_bytes, drop: true}, {name: custom, dimensions: {reporter: \"'proxy'\"}}, \
             {tags_to_remove: [response_flags, what]}, {name: requests_total, dimensions: {\
             source_workload: \"'_' + xds.node.metadata['WORKLOAD_NAME']\", \
             source_app: \"'_' + xds.node.metadata.LABELS.app\", role: \"filter_state.upstream_peer.labels['role']\", \
             a: request.method, destination_app: cannot _ parse, destination_workload: cannot_evaluate, \
             b: does not parse}}]}",
        )
        .unwrap();
    let mut info = stream();
    Peer::Upstream.set(&mut info.filter_state, ratings(), Sharing::None);
    stats.request_ended(&info, &request("x.com", "/", &[]), None, false, None);
    let told = bench.one("istio_requests_total");
    for label in [
        "source_workload=\"_productpage-v1\"",
        "source_app=\"_productpage\"",
        "destination_workload=\"unknown\"",
        "connection_security_policy=\"unknown\",a=\"GET\",role=\"server\"} 1",
    ] {
        assert!(told.contains(label), "{label} in {told}");
    }
    for gone in ["destination_app", "response_flags", "b="] {
        assert!(!told.contains(gone), "{gone} in {told}");
    }
    assert_eq!(bench.one("istio_custom"), "istio_custom{reporter=\"proxy\"} 3");
    let all = bench.metrics();
    assert!(!all.iter().any(|l| l.starts_with("istio_request_bytes")));
    assert!(all.iter().any(|l| l.starts_with("istio_response_bytes")));
}

#[test]
fn an_expression_that_cannot_be_compiled_is_refused() {
    let refused = Bench::new().stats("{metrics: [{name: requests_total, dimensions: {a: 'nothing(1)'}}]}");
    assert!(refused.err().unwrap().to_string().starts_with("metrics[0]"));
}

#[test]
fn a_connection_is_told_of_in_parts() {
    let bench = Bench::new();
    let stats = bench.stats("{}").unwrap();
    let info = inbound(stream());
    assert!(!stats.is_settled(&info));
    let mut counted = stats.connection(&info, None);
    counted.opened();
    counted.moved((10, 100));
    let opened = bench.one("istio_tcp_connections_opened_total");
    assert!(
        opened.ends_with(
            "destination_cluster=\"c1\",request_protocol=\"tcp\",response_flags=\"-\",\
             connection_security_policy=\"none\"} 1"
        ),
        "{opened}"
    );
    assert!(bench.one("istio_tcp_sent_bytes_total").ends_with(" 100"));
    counted.moved((15, 100));
    counted.closed();
    assert!(bench.one("istio_tcp_received_bytes_total").ends_with(" 15"));
    assert!(bench.one("istio_tcp_connections_closed_total").ends_with(" 1"));
}

#[test]
fn what_was_evicted_comes_again() {
    let bench = Bench::new();
    let stats = bench.stats("{}").unwrap();
    let count = || stats.request_ended(&stream(), &request("x.com", "/", &[]), None, false, None);
    let mut call = stats.messages(&stream(), &request("x.com", "/", &[]), None);
    count();
    Series::add_messages(&mut call, 1, 2);
    bench.server.stats.evict_unused();
    bench.server.stats.evict_unused();
    assert_eq!(bench.metrics().len(), 1, "only istio_build");
    count();
    Series::add_messages(&mut call, 3, 4);
    assert!(bench.one("istio_requests_total").ends_with(" 1"));
    assert!(
        bench
            .one("istio_response_messages_total")
            .ends_with("destination_cluster=\"unknown\"} 4")
    );
}
