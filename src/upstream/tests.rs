//! What the tests of this folder share.

use std::{future::Future, net::SocketAddr, rc::Rc, sync::Arc};

use tokio::runtime::{Builder, LocalOptions};
use xds_protos::{
    any,
    envoy::config::{
        bootstrap::v3::Bootstrap,
        cluster::v3::{Cluster, cluster::ClusterDiscoveryType},
        core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
        endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
    },
};

use super::WorkerCluster;
use crate::{
    cli::Cli,
    server::{ServerContext, Worker},
};

/// Runs on a runtime like a worker's.
pub fn local<T>(work: impl Future<Output = T>) -> T {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap()
        .block_on(work)
}

/// A server without configuration.
pub fn server() -> Arc<ServerContext> {
    let cli = Cli::read(["nuncio", "--concurrency", "1"].map(Into::into)).unwrap();
    ServerContext::new(Bootstrap::default(), &cli).unwrap()
}

/// A server whose control thread is the current one.
pub fn running_server() -> (Arc<ServerContext>, Rc<Worker>) {
    let server = server();
    let (traffic, _) = tokio::sync::mpsc::unbounded_channel();
    let (control, mailbox) = tokio::sync::mpsc::unbounded_channel();
    server.mailboxes.open(vec![traffic, control]);
    let worker = Worker::new(1, server.clone());
    let serving = worker.clone();
    tokio::task::spawn_local(async move { serving.serve(mailbox).await });
    (server, worker)
}

pub fn socket_address(address: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.into(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

pub fn endpoint(address: &str, port: u16) -> LbEndpoint {
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(socket_address(address, port)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub fn assignment(endpoints: impl IntoIterator<Item = LbEndpoint>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: endpoints.into_iter().collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A static cluster `test` of these endpoints.
pub fn static_cluster(addresses: &[SocketAddr]) -> Cluster {
    Cluster {
        name: "test".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(0)),
        load_assignment: Some(assignment(
            addresses.iter().map(|a| endpoint(&a.ip().to_string(), a.port())),
        )),
        ..Default::default()
    }
}

/// Adds a cluster and gives its worker side.
pub fn add(server: &Arc<ServerContext>, proto: Cluster) -> Rc<WorkerCluster> {
    let name = proto.name.clone();
    let packed = any::pack(&proto);
    server.clusters.add_static(proto, packed, server).unwrap();
    WorkerCluster::new(
        server.clusters.get(&name).unwrap(),
        server.clone(),
        Default::default(),
        Default::default(),
    )
}
