//! Everything between the router's choice of a cluster and the bytes on an upstream connection.
//!
//! ```text
//! control: Cluster proto -> config -> ClusterInfo          manager: warming, updates, removal
//!          endpoints (static, EDS, DNS) -> hosts -> HostSets  (published in Cluster's ArcSwap)
//! worker:  WorkerClusters::get -> WorkerCluster::pick (lb) -> WorkerCluster::http (pool) -> Lease::send
//! ```
//!
//! A [`Cluster`] is what control publishes; a [`WorkerCluster`] is what a worker makes of it at the first request.

mod circuit;
mod cluster;
mod failure;
mod host;
mod host_set;
mod info;
pub mod lb;
mod manager;
pub mod pool;
mod stats;
mod worker;

pub use circuit::{Guard, Limit, ResourceManager, ResourcePriority};
pub use cluster::WorkerCluster;
pub use failure::{ConnectFailure, UpstreamFailure};
pub use host::{Health, HealthFlag, Host, HostAttributes, HostStats, Locality};
pub use host_set::{HostSet, HostSets};
pub use info::{Cluster, ClusterInfo};
pub use lb::LbContext;
pub use manager::ClusterManager;
pub use pool::{
    HttpPool, Lease, PoolOptions, TcpLease, TransportOptions, UpstreamBody, UpstreamConnInfo, UpstreamResponse,
};
pub use stats::ClusterStats;
pub use worker::{ClusterMsg, WorkerClusters};
