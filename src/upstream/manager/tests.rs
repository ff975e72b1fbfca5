use std::rc::Rc;

use xds_protos::any;

use super::*;
use crate::upstream::tests::{assignment, endpoint, local, running_server, static_cluster};

#[test]
fn adds_replaces_and_removes() {
    local(async {
        let (server, worker) = running_server();
        let manager = &server.clusters;
        let mut proto = static_cluster(&["127.0.0.1:1".parse().unwrap()]);
        let put = |proto: &Proto| manager.add_or_update(proto.clone(), "1", any::pack(proto), &server);
        assert_eq!(put(&proto), Ok(true));
        assert_eq!(put(&proto), Ok(false));
        assert!(manager.is_warm("test"));
        tokio::task::yield_now().await;
        let first = worker.clusters.get("test").unwrap();

        proto.alt_stat_name = "other".into();
        assert_eq!(put(&proto), Ok(true));
        tokio::task::yield_now().await;
        let second = worker.clusters.get("test").unwrap();
        assert!(!Rc::ptr_eq(&first, &second));
        assert_eq!(&*second.info.observability_name, "other");

        // A bad one leaves the good one in place.
        let bad = Proto {
            lb_policy: 99,
            ..proto.clone()
        };
        assert!(put(&bad).unwrap_err().to_string().starts_with("lb_policy"));
        assert!(manager.is_warm("test"));

        assert!(manager.remove("test", &server) && !manager.remove("test", &server));
        tokio::task::yield_now().await;
        assert!(worker.clusters.get("test").is_none());
        let counter = |name: &str| server.stats.counter_value(&format!("cluster_manager.{name}"));
        assert_eq!(counter("cluster_added"), Some(1));
        // The bad one among them.
        assert_eq!(counter("cluster_modified"), Some(2));
        assert_eq!(counter("cluster_removed"), Some(1));
    });
}

#[test]
fn names_are_resolved_before_a_cluster_is_warm() {
    local(async {
        let (server, worker) = running_server();
        let proto = Proto {
            name: "dns".into(),
            cluster_discovery_type: Some(
                xds_protos::envoy::config::cluster::v3::cluster::ClusterDiscoveryType::Type(1),
            ),
            dns_lookup_family: 1,
            load_assignment: Some(assignment([endpoint("localhost", 80)])),
            ..Default::default()
        };
        server
            .clusters
            .add_static(proto.clone(), any::pack(&proto), &server)
            .unwrap();
        assert!(!server.clusters.is_warm("dns") && server.clusters.contains("dns"));
        server.clusters.wait_primary().await;
        assert!(server.clusters.is_warm("dns"));
        tokio::task::yield_now().await;
        let host = worker.clusters.get("dns").unwrap().pick(&Default::default()).unwrap();
        assert_eq!(
            (host.address.to_string().as_str(), &*host.hostname),
            ("127.0.0.1:80", "localhost")
        );
    });
}

#[test]
fn static_clusters_stay() {
    local(async {
        let (server, _worker) = running_server();
        let proto = static_cluster(&[]);
        server
            .clusters
            .add_static(proto.clone(), any::pack(&proto), &server)
            .unwrap();
        let changed = Proto {
            alt_stat_name: "x".into(),
            ..proto.clone()
        };
        assert_eq!(
            server
                .clusters
                .add_or_update(changed.clone(), "1", any::pack(&changed), &server),
            Ok(false)
        );
        assert!(!server.clusters.remove("test", &server));
        assert!(
            server
                .clusters
                .add_static(proto.clone(), any::pack(&proto), &server)
                .is_err()
        );
    });
}
