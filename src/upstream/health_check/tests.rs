use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use xds_protos::{
    envoy::config::core::v3::{
        HealthCheck as Proto,
        health_check::{HealthChecker, HttpHealthCheck, TcpHealthCheck},
    },
    google::protobuf::{Duration as ProtoDuration, UInt32Value},
};

use super::*;
use crate::{
    config::BuildCx,
    upstream::{
        LbContext, WorkerCluster,
        tests::{add, local, running_server, server, static_cluster},
    },
};

fn millis(n: i32) -> Option<ProtoDuration> {
    Some(ProtoDuration {
        seconds: 0,
        nanos: n * 1_000_000,
    })
}

fn check(kind: HealthChecker) -> Proto {
    Proto {
        timeout: millis(900),
        interval: millis(5),
        no_traffic_interval: millis(5),
        unhealthy_threshold: Some(UInt32Value { value: 2 }),
        healthy_threshold: Some(UInt32Value { value: 2 }),
        health_checker: Some(kind),
        ..Proto::default()
    }
}

fn http() -> HealthChecker {
    HealthChecker::HttpHealthCheck(HttpHealthCheck {
        path: "/hc".into(),
        ..HttpHealthCheck::default()
    })
}

/// A host that answers every check with the status the cell holds.
async fn host(status: Rc<Cell<u16>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = status.clone();
            tokio::task::spawn_local(async move {
                let mut buffer = [0; 1024];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n\r\n", status.get());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn cluster(server: &Arc<ServerContext>, addresses: &[SocketAddr], check: Proto) -> Rc<WorkerCluster> {
    let mut proto = static_cluster(addresses);
    proto.health_checks = vec![check];
    let name = proto.name.clone();
    let packed = xds_protos::any::pack(&proto);
    server.clusters.add_static(proto, packed, server).unwrap();
    let (_, warming) = server.clusters.snapshots();
    let cluster = warming
        .into_iter()
        .find(|s| *s.cluster.info.name == *name)
        .unwrap()
        .cluster;
    WorkerCluster::new(cluster, server.clone(), Default::default(), Default::default())
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_cluster_is_warm_when_its_hosts_were_checked_and_follows_them() {
    local(async {
        let (server, _worker) = running_server();
        let (good, bad) = (Rc::new(Cell::new(200)), Rc::new(Cell::new(500)));
        let addresses = [host(good.clone()).await, host(bad.clone()).await];
        let cluster = cluster(&server, &addresses, check(http()));
        assert_eq!(cluster.membership(), (2, 0));
        assert!(!server.clusters.is_warm("test"));
        server.clusters.wait_initialized().await;
        assert_eq!(cluster.membership(), (2, 1));

        bad.set(200);
        until(|| cluster.membership() == (2, 2)).await;
        good.set(503);
        until(|| cluster.membership() == (2, 1)).await;
        assert!(cluster.pick(&LbContext::default()).is_some());
    });
}

#[test]
fn checks_end_with_the_cluster() {
    local(async {
        let (server, _worker) = running_server();
        let address = host(Rc::new(Cell::new(200))).await;
        let mut proto = static_cluster(&[address]);
        proto.health_checks = vec![check(http())];
        let any = xds_protos::any::pack(&proto);
        assert!(server.clusters.add_or_update(proto, "1", any, &server).unwrap());
        server.clusters.wait_initialized().await;
        let cluster = Arc::downgrade(&server.clusters.get("test").unwrap());
        assert!(server.clusters.remove("test", &server));
        until(|| cluster.upgrade().is_none()).await;
    });
}

#[test]
fn nothing_listens_and_nothing_comes_of_it() {
    local(async {
        let (server, _worker) = running_server();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let check = check(HealthChecker::TcpHealthCheck(TcpHealthCheck::default()));
        let cluster = cluster(&server, &[free], check);
        server.clusters.wait_initialized().await;
        assert_eq!(cluster.membership(), (1, 0));
    });
}

#[test]
fn a_host_that_asks_for_it_fails_until_it_is_found_well() {
    local(async {
        let (server, _worker) = running_server();
        let status = Rc::new(Cell::new(200));
        let mut slow = check(http());
        slow.interval = millis(40);
        slow.no_traffic_interval = millis(40);
        let cluster = cluster(&server, &[host(status).await], slow);
        server.clusters.wait_initialized().await;
        let host = cluster.pick(&LbContext::default()).unwrap();
        cluster.fail_health_check(&host);
        until(|| host.has_flag(HealthFlag::FailedActiveHc)).await;
        until(|| !host.has_flag(HealthFlag::FailedActiveHc)).await;
        assert!(!host.is_excluded());
    });
}

#[test]
fn intervals_follow_the_state_and_the_traffic() {
    let server = server();
    let mut proto = check(http());
    proto.interval = millis(100);
    proto.unhealthy_interval = millis(200);
    proto.unhealthy_edge_interval = millis(300);
    proto.healthy_edge_interval = millis(400);
    proto.no_traffic_interval = millis(500);
    proto.no_traffic_healthy_interval = millis(600);
    let config = HealthCheckConfig::build(vec![proto], &mut BuildCx::new(&server))
        .unwrap()
        .unwrap();
    let next = |healthy, pending, traffic| config.intervals.next(healthy, pending, traffic).as_millis();
    assert_eq!(next(true, false, true), 100);
    assert_eq!(next(false, false, true), 200);
    assert_eq!(next(false, true, true), 300);
    assert_eq!(next(true, true, true), 400);
    assert_eq!(next(false, false, false), 500);
    assert_eq!(next(true, true, false), 500);
    assert_eq!(next(true, false, false), 600);
}

#[test]
fn jitter_adds_at_most_what_it_says() {
    let server = server();
    let mut proto = check(http());
    proto.interval = millis(100);
    proto.interval_jitter = millis(50);
    proto.interval_jitter_percent = 20;
    let config = HealthCheckConfig::build(vec![proto], &mut BuildCx::new(&server))
        .unwrap()
        .unwrap();
    for _ in 0..1000 {
        let next = config.intervals.next(true, false, true).as_millis();
        assert!((100..170).contains(&next), "{next}");
    }
    assert_eq!(config.intervals.initial(), Duration::ZERO);
}

#[test]
fn segments_are_found_in_their_order() {
    use payload::contains_in_order;
    let segments = [b"ab".to_vec(), b"b".to_vec()];
    assert!(contains_in_order(&segments, b"xabxb"));
    assert!(!contains_in_order(&segments, b"xab"));
    assert!(contains_in_order(&[], b""));
    assert!(!contains_in_order(&segments, b"bab"));
}

#[test]
fn clusters_without_checks_have_none_of_it() {
    local(async {
        let (server, _worker) = running_server();
        let _cluster = add(&server, static_cluster(&[([127, 0, 0, 1], 1).into()]));
        assert!(server.clusters.get("test").unwrap().checks.is_none());
        let before = server.stats.counter_value("cluster.test.health_check.attempt");
        assert_eq!(before, None);
    });
}
