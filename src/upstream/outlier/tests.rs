use std::{net::SocketAddr, rc::Rc, time::Duration};

use http::StatusCode;
use xds_protos::{
    envoy::config::cluster::v3::OutlierDetection as Proto,
    google::protobuf::{Duration as ProtoDuration, UInt32Value},
};

use super::*;
use crate::upstream::{
    WorkerCluster,
    tests::{add, local, running_server, static_cluster},
};

const BAD: HostResult = HostResult::Status(StatusCode::INTERNAL_SERVER_ERROR);
const GOOD: HostResult = HostResult::Status(StatusCode::OK);

fn detection(length: Duration) -> Proto {
    let time = ProtoDuration {
        seconds: 0,
        nanos: i32::try_from(length.as_nanos()).unwrap(),
    };
    Proto {
        consecutive_5xx: Some(UInt32Value { value: 2 }),
        max_ejection_percent: Some(UInt32Value { value: 50 }),
        interval: Some(time),
        base_ejection_time: Some(time),
        ..Proto::default()
    }
}

fn cluster(server: &Arc<ServerContext>, detection: Proto) -> (Rc<WorkerCluster>, Vec<Arc<Host>>) {
    let addresses: Vec<SocketAddr> = (1..=4).map(|port| ([127, 0, 0, 1], port).into()).collect();
    let mut proto = static_cluster(&addresses);
    proto.outlier_detection = Some(detection);
    let cluster = add(server, proto);
    let hosts = server
        .clusters
        .get("test")
        .unwrap()
        .hosts
        .load()
        .hosts()
        .cloned()
        .collect();
    (cluster, hosts)
}

fn ejected(host: &Host) -> bool {
    host.has_flag(HealthFlag::FailedOutlierCheck)
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn failures_in_a_row_eject_as_many_as_may_be() {
    local(async {
        let (server, _worker) = running_server();
        let (cluster, hosts) = cluster(&server, detection(Duration::from_millis(900)));
        let healthy = || {
            server.clusters.get("test").unwrap().hosts.load().priorities[0]
                .healthy
                .len()
        };
        cluster.report(&hosts[0], BAD);
        cluster.report(&hosts[0], GOOD);
        cluster.report(&hosts[0], BAD);
        for host in &hosts[1..] {
            cluster.report(host, HostResult::Failed);
            cluster.report(host, HostResult::TimedOut(StatusCode::GATEWAY_TIMEOUT));
        }
        let overflow = || {
            server
                .stats
                .counter_value("cluster.test.outlier_detection.ejections_overflow")
        };
        until(|| overflow() == Some(1)).await;
        assert!(!ejected(&hosts[0]), "its failures were not in a row");
        assert_eq!(hosts.iter().filter(|h| ejected(h)).count(), 2, "half of them at most");
        assert_eq!(healthy(), 2);
    });
}

#[test]
fn an_ejected_host_comes_back() {
    local(async {
        let (server, _worker) = running_server();
        let (cluster, hosts) = cluster(&server, detection(Duration::from_millis(5)));
        let enforced = || {
            server
                .stats
                .counter_value("cluster.test.outlier_detection.ejections_enforced_total")
        };
        for _ in 0..2 {
            cluster.report(&hosts[0], BAD);
        }
        until(|| enforced() == Some(1)).await;
        until(|| !ejected(&hosts[0])).await;
        let healthy = || {
            server.clusters.get("test").unwrap().hosts.load().priorities[0]
                .healthy
                .len()
        };
        until(|| healthy() == 4).await;
    });
}
