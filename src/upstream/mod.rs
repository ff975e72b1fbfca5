//! Everything between the router's choice of a cluster and the bytes on an upstream connection.
//!
//! ```text
//! control: Cluster proto -> config -> ClusterInfo          manager: warming, updates, removal
//!          endpoints (static, EDS, DNS) -> host_store -> HostSets  (published in Cluster's ArcSwap)
//! worker:  WorkerClusters::get -> WorkerCluster::pick (lb) -> WorkerCluster::http (pool) -> Lease::send
//! ```
//!
//! A [`Cluster`] is what control publishes; a [`WorkerCluster`] is what a worker makes of it at the first request.

pub mod admin;
mod circuit;
pub mod client;
mod cluster;
pub mod config;
pub mod dns;
pub mod dynamic_forward_proxy;
mod failure;
mod health_check;
mod host;
mod host_set;
mod host_store;
mod http_11_proxy;
mod info;
mod internal_upstream;
pub mod lb;
mod load_report;
mod manager;
mod network_filter;
mod on_demand;
pub mod optional_stats;
pub mod orca;
mod outlier;
mod pool;
mod preconnect;
mod provided;
mod proxy_protocol;
mod stats;
mod subset;
#[cfg(test)]
mod tests;
mod transport_matcher;
mod transport_metadata;
mod transport_socket;
mod worker;

pub use crate::http::codec::Http2CodecStats;
pub use circuit::{CountedConnection, Guard, Limit, ResourceManager, ResourcePriority};
pub use client::{ChannelError, ClusterChannel};
pub use cluster::{ClusterWatcher, Dropped, ExtraStats, WorkerCluster};
pub use failure::{ConnectFailure, UpstreamFailure};
pub use health_check::{HealthCheckConfig, HealthChecks};
pub use host::{Health, HealthFlag, Host, HostAttributes, HostStats, Locality};
pub use host_set::{HostList, HostSet, HostSets, LocalityHosts};
pub use info::{Cluster, ClusterInfo};
pub use lb::LbContext;
pub use load_report::{DroppedCounts, LoadReports};
pub use manager::{ClusterManager, ClusterSnapshot};
pub use network_filter::{NewConnection, UpstreamNetworkFilter, UpstreamNetworkFilterFactory, UpstreamNetworkFilters};
pub use on_demand::{Demanded, OnDemandClusters};
pub use optional_stats::{OptionalStats, SizeStats, TimeoutBudgetStats};
pub use outlier::{HostResult, OutlierDetector};
pub use pool::{
    HttpPool, Informed, Lease, OpenTunnel, PoolOptions, TcpCounted, TcpLease, TransportOptions, TunnelFailure,
    UpstreamBody, UpstreamConnInfo, UpstreamResponse,
};
pub use provided::{OriginalDst, Provided};
pub use stats::{ClusterManagerStats, ClusterStats, Http1CodecStats, MembershipStats, UpdateStats};
pub use transport_metadata::TransportMetadata;
pub use transport_socket::{ClientTransport, TransportCx, TransportSocket, TransportSockets};
pub use worker::{ClusterMsg, WorkerClusters};
