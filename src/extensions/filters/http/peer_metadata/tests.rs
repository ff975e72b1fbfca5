use base64::{Engine, engine::general_purpose::STANDARD};
use xds_protos::load::{LoadOptions, Syntax, typed};

use super::{
    cache::Headers,
    config::{Config, Discovery, Propagation},
};
use crate::{
    config::BuildCx,
    extensions::common::workload::{WorkloadMetadata, node::encode_sorted},
    http::stream_info::Sharing,
    route::test_support::server,
};

fn headers(labels: &[&str]) -> Headers {
    Headers::new(labels.iter().map(|l| (*l).to_owned()).collect())
}

fn value(workload: &str) -> String {
    let told = WorkloadMetadata {
        workload_name: workload.into(),
        labels: vec![("role".into(), "front".into())],
        ..Default::default()
    };
    STANDARD.encode(encode_sorted(&told.to_struct()))
}

#[test]
fn values_are_read_once_and_forgotten_in_time() {
    let read = headers(&["role"]);
    let first = value("first");
    let peer = read.peer(first.as_bytes()).unwrap();
    assert_eq!(peer.workload_name, "first");
    assert_eq!(peer.labels, [("role".to_owned(), "front".to_owned())]);
    let again = read.peer(first.as_bytes()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&peer, &again));
    // Padding or not.
    let bare = first.trim_end_matches('=');
    assert_eq!(read.peer(bare.as_bytes()).unwrap(), peer);
    // Another filter asks for other labels.
    assert_eq!(headers(&[]).peer(first.as_bytes()).unwrap().labels, []);
    for n in 0..1000 {
        assert!(read.peer(value(&n.to_string()).as_bytes()).is_some());
    }
    let later = read.peer(first.as_bytes()).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&peer, &later));
    assert_eq!(later, peer);
}

#[test]
fn what_cannot_be_read_tells_nothing() {
    let read = headers(&[]);
    for value in ["", "!", "AA==", "//8=", "%", "YQ=a"] {
        assert!(read.peer(value.as_bytes()).is_none(), "{value}");
    }
    assert!(read.peer(&[0xff, 0xfe]).is_none());
    let long = value(&"x".repeat(20_000));
    assert_eq!(read.peer(long.as_bytes()).unwrap().workload_name.len(), 20_000);
}

#[test]
fn methods_that_cannot_find_a_peer_are_left_out() {
    let yaml = "
        downstream_discovery: [{baggage: {}}, {upstream_filter_state: {peer_metadata_key: k}}, {}]
        upstream_discovery: [{baggage: {}}, {upstream_filter_state: {peer_metadata_key: k}}, {workload_discovery: {}}]
        downstream_propagation: [{baggage: {}}]
        upstream_propagation: [{istio_headers: {skip_external_clusters: true}}, {}]
        shared_with_upstream: true
    ";
    let proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    let server = server();
    let mut cx = BuildCx::new(&server);
    let config = Config::build(proto, &mut cx).unwrap();
    assert!(matches!(config.downstream.discovery[..], [Discovery::Baggage]));
    assert!(matches!(
        &config.upstream.discovery[..],
        [Discovery::UpstreamFilterState(key), Discovery::Workload] if key == "k"
    ));
    assert_eq!(cx.ignored.len(), 2);
    assert!(matches!(config.downstream.propagation[..], [Propagation::Baggage(_)]));
    assert!(matches!(
        config.upstream.propagation[..],
        [Propagation::Headers {
            skip_external: true,
            ..
        }]
    ));
    assert_eq!(config.sharing, Sharing::Once);
}
