use super::*;
use crate::{
    config::BuildCx,
    upstream::{
        config::from_assignment,
        tests::{assignment, endpoint, server, static_cluster},
    },
};

fn ports(cluster: &Cluster) -> Vec<u16> {
    cluster.hosts.load().hosts().filter_map(|h| h.address.port()).collect()
}

#[test]
fn hosts_survive_updates() {
    let server = server();
    let mut cx = BuildCx::new(&server);
    let built = super::super::config::build(static_cluster(&[]), false, &mut cx).unwrap();
    let cluster = Arc::new(Cluster::new(built.info, None));
    let store = HostStore::new(cluster.clone(), true);
    let mut apply = |endpoints: Vec<xds_protos::envoy::config::endpoint::v3::LbEndpoint>| {
        let assignment = from_assignment(assignment(endpoints), &mut cx).unwrap();
        store.apply(assignment, &server)
    };

    let changed = apply(vec![endpoint("127.0.0.1", 1), endpoint("127.0.0.1", 2)]);
    assert_eq!((changed.added, changed.removed), (2, 0));
    let first: Vec<_> = cluster.hosts.load().hosts().cloned().collect();
    first[0]
        .stats
        .rq_total
        .fetch_add(5, std::sync::atomic::Ordering::Relaxed);

    // The same again publishes nothing.
    let before = cluster.hosts.load_full();
    let changed = apply(vec![endpoint("127.0.0.1", 1), endpoint("127.0.0.1", 2)]);
    assert!(!changed.published && Arc::ptr_eq(&before, &cluster.hosts.load()));

    // One goes, one comes, one changes its weight and health.
    let mut kept = endpoint("127.0.0.1", 1);
    kept.load_balancing_weight = Some(xds_protos::google::protobuf::UInt32Value { value: 9 });
    kept.health_status = HealthStatus::Draining as i32;
    let changed = apply(vec![kept, endpoint("127.0.0.1", 3)]);
    assert_eq!((changed.added, changed.removed, changed.published), (1, 1, true));
    assert_eq!(ports(&cluster), [1, 3]);
    let now: Vec<_> = cluster.hosts.load().hosts().cloned().collect();
    assert!(Arc::ptr_eq(&now[0], &first[0]));
    assert_eq!(
        (now[0].weight(), now[0].health_text().as_str()),
        (9, "/eds_status_draining")
    );
    assert!(first[1].is_removed() && !first[0].is_removed());
    let sets = cluster.hosts.load();
    assert_eq!(sets.priorities[0].healthy.len(), 1);
    let stat = |name: &str| server.stats.gauge_value(&format!("cluster.test.{name}"));
    assert_eq!(
        (stat("membership_total"), stat("membership_healthy")),
        (Some(2), Some(1))
    );
}
