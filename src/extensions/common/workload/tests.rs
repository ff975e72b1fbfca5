use std::{rc::Rc, sync::Arc};

use xds_protos::{
    envoy::config::core::v3::{Locality, Node},
    google::protobuf::Struct,
    istio::workload::{self, Workload},
    load::{LoadOptions, Syntax, typed},
    prost::Message,
};

use super::{
    node::{AdditionalLabels, encode_sorted},
    peer::set_not_found,
    *,
};
use crate::{
    http::stream_info::{FilterState, FilterStateObject, SharedObjects, Sharing},
    matching::{
        cel::{CelExpression, CelOptions},
        tree::MatchCx,
    },
    route::test_support::{request, stream},
};

const NODE: &str = "
    NAME: productpage-v1-84975bc778-pxz2w
    NAMESPACE: default
    CLUSTER_ID: client-cluster
    WORKLOAD_NAME: productpage-v1
    OWNER: kubernetes://apis/apps/v1/namespaces/default/deployments/productpage-v1
    LABELS:
      service.istio.io/canonical-name: productpage
      service.istio.io/canonical-revision: v1
      app: page
      app.kubernetes.io/version: v2
      version: v1
      role: admin
      number: 1
";

fn node(yaml: &str) -> Struct {
    typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap()
}

fn labels(names: &[&str]) -> AdditionalLabels {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn productpage() -> WorkloadMetadata {
    WorkloadMetadata::of_struct(&node(NODE), &labels(&["role", "absent", "app"]))
}

#[test]
fn node_metadata_is_read_and_written() {
    let page = productpage();
    assert_eq!(
        page.to_string(),
        "type=deployment,workload=productpage-v1,name=productpage-v1-84975bc778-pxz2w,cluster=client-cluster,\
         namespace=default,service=productpage,revision=v1,app=page,version=v2,labels[]role=admin"
    );
    assert_eq!(WorkloadMetadata::of_struct(&page.to_struct(), &labels(&["role"])), page);
    let bytes = encode_sorted(&page.to_struct());
    assert_eq!(Struct::decode(bytes.as_slice()).unwrap(), page.to_struct());
    assert_eq!(bytes, encode_sorted(&page.to_struct().clone()));
}

#[test]
fn sorted_bytes_are_those_of_any_struct() {
    let mixed = node("{b: [1, {c: d}, null, []], a: {}, n: -1.5, t: true, e: ''}");
    let bytes = encode_sorted(&mixed);
    assert_eq!(Struct::decode(bytes.as_slice()).unwrap(), mixed);
    assert_eq!(&bytes[2..5], [0x0a, 1, b'a']);
}

#[test]
fn locality_is_the_nodes_where_metadata_has_none() {
    let mut own = Node {
        metadata: Some(node("REGION: here")),
        locality: Some(Locality {
            region: "there".into(),
            zone: "b".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let read = WorkloadMetadata::of_node(&own, &labels(&[]));
    assert_eq!((read.region.as_str(), read.zone.as_str()), ("here", "b"));
    own.metadata = None;
    assert_eq!(WorkloadMetadata::of_node(&own, &labels(&[])).region, "there");
}

#[test]
fn odd_node_metadata_stays_empty() {
    for yaml in [
        "{}",
        "{LABELS: x, NAME: 1, OWNER: é}",
        "{OWNER: '//', WORKLOAD_NAME: a-long-name}",
        "{OWNER: 'a/deployments/é', WORKLOAD_NAME: x}",
        "{LABELS: {app: [1]}}",
    ] {
        let read = WorkloadMetadata::of_struct(&node(yaml), &labels(&[]));
        assert_eq!(read.workload_type, WorkloadType::Unknown, "{yaml}");
        assert_eq!(read.instance_name, "", "{yaml}");
        assert_eq!(read.app_name, "", "{yaml}");
    }
}

#[test]
fn baggage_tells_of_a_workload() {
    let page = productpage();
    let baggage = page.baggage();
    assert_eq!(
        baggage,
        "k8s.deployment.name=productpage-v1,service.name=productpage,app.name=page,service.version=v1,app.version=v2,\
         k8s.namespace.name=default,k8s.cluster.name=client-cluster,k8s.instance.name=productpage-v1-84975bc778-pxz2w"
    );
    let mut told = WorkloadMetadata::of_baggage(&baggage, "");
    told.labels = page.labels.clone();
    assert_eq!(told, page);

    let told = WorkloadMetadata::of_baggage("app.name=a,,=,service.version=1=2,other=x,k8s.job.name=j", "spiffe://x");
    assert_eq!(
        told.to_string(),
        "type=job,workload=j,service=a,revision=1,app=a,version=1"
    );
    assert_eq!(told.identity, "spiffe://x");
    let same = WorkloadMetadata {
        app_name: "a".into(),
        canonical_name: "a".into(),
        ..Default::default()
    };
    assert_eq!(same.baggage(), "service.name=a");
}

#[test]
fn endpoints_and_discovery() {
    let told = WorkloadMetadata::of_endpoint("ratings-v1;default;ratings;v1;server-cluster;more").unwrap();
    assert_eq!(
        told.to_string(),
        "workload=ratings-v1,cluster=server-cluster,namespace=default,service=ratings,revision=v1"
    );
    assert_eq!(WorkloadMetadata::of_endpoint("a;b;c;d"), None);

    let bare = WorkloadMetadata::of_workload(&Workload::default());
    assert_eq!(bare.identity, "spiffe://cluster.local/ns/default/sa/default");
    assert_eq!(bare.namespace_name, "default");
    let full = WorkloadMetadata::of_workload(&Workload {
        namespace: "ns".into(),
        trust_domain: "td".into(),
        service_account: "sa".into(),
        canonical_name: "svc".into(),
        workload_type: workload::WorkloadType::Cronjob as i32,
        locality: Some(workload::Locality {
            region: "r".into(),
            zone: "z".into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    assert_eq!(full.identity, "spiffe://td/ns/ns/sa/sa");
    assert_eq!(
        full.to_string(),
        "type=cronjob,namespace=ns,service=svc,app=svc,region=r,availability_zone=z"
    );
}

#[test]
fn peers_in_filter_state() {
    let mut state = FilterState::default();
    assert!(!Peer::Downstream.is_settled(&state));
    Peer::Downstream.set(&mut state, Arc::new(productpage()), Sharing::Once);
    assert!(Peer::Downstream.is_settled(&state));
    assert!(!Peer::Upstream.is_settled(&state));
    assert_eq!(**Peer::Downstream.get(&state).unwrap(), productpage());
    let message = state.get("downstream_peer").unwrap();
    assert_eq!(message.field("workload").unwrap(), "productpage-v1");
    assert_eq!(message.hash(), None);
    assert!(
        message
            .as_json()
            .unwrap()
            .starts_with(r#"{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"#)
    );
    let object = state.get("downstream_peer_obj").unwrap();
    assert!(object.hash().is_some());
    assert_eq!(object.field("type").unwrap(), "deployment");
    assert_eq!(object.field("nothing"), None);

    // Two peers never share an upstream connection; one peer's requests do.
    let shared = |workload: WorkloadMetadata| {
        let mut state = FilterState::default();
        Peer::Downstream.set(&mut state, Arc::new(workload), Sharing::Once);
        SharedObjects::of(&state, &FilterState::default()).unwrap()
    };
    let other = WorkloadMetadata {
        namespace_name: "other".into(),
        ..productpage()
    };
    assert_eq!(shared(productpage()), shared(productpage()));
    assert_ne!(shared(productpage()), shared(other));

    set_not_found(&mut state);
    assert!(Peer::Upstream.is_settled(&state));
}

#[test]
fn expressions_read_fields_of_peers() {
    let mut info = stream();
    Peer::Downstream.set(&mut info.filter_state, Arc::new(productpage()), Sharing::None);
    let text: Rc<dyn FilterStateObject> = Rc::new(crate::http::stream_info::StringObject("b".into()));
    info.filter_state.set("text".into(), text, Sharing::None, false);
    let head = request("x", "/", &[]);
    let value = |text: &str| {
        let expression = CelExpression::compile(text, CelOptions::default()).unwrap();
        expression.text(&MatchCx::request(&info, &head))
    };
    for text in [
        "filter_state.downstream_peer.workload",
        "filter_state['downstream_peer'].workload",
        "filter_state.downstream_peer['workload']",
        "filter_state.downstream_peer_obj.workload",
    ] {
        assert_eq!(value(text).as_deref(), Some("productpage-v1"), "{text}");
    }
    assert_eq!(
        value("filter_state.downstream_peer.labels['role']").as_deref(),
        Some("admin")
    );
    assert_eq!(
        value("filter_state.downstream_peer.labels.role").as_deref(),
        Some("admin")
    );
    assert_eq!(value("filter_state.upstream_peer.workload"), None);
    assert_eq!(value("filter_state.downstream_peer.nothing"), None);
    assert_eq!(value("filter_state.text.part"), None);
    assert_eq!(value("has(filter_state.downstream_peer)").as_deref(), Some("true"));
    assert_eq!(value("has(filter_state.upstream_peer)").as_deref(), Some("false"));
    assert_eq!(
        value("filter_state['downstream_peer'].app == 'page' ? filter_state['text'] : b''").as_deref(),
        Some("b")
    );
}
