//! How a route's cluster is chosen: by name, by header, by weight.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderName;
use xds_protos::google::protobuf::Value;

use super::{HeaderMutations, PerFilterConfigs};
use crate::matching::HeaderLookup;

/// Metadata an endpoint must have: the `envoy.lb` part of `metadata_match`.
pub type MetadataMatch = BTreeMap<String, Value>;

/// `RouteAction.cluster_specifier`
#[derive(Debug, Clone)]
pub enum ClusterSpecifier {
    /// One cluster.
    Cluster(Arc<str>),
    /// The first value of this request header; no value: the cluster is not found.
    Header(HeaderLookup),
    /// One of several.
    Weighted(WeightedClusters),
}

/// `WeightedCluster`
#[derive(Debug, Clone)]
pub struct WeightedClusters {
    /// The clusters in order.
    pub clusters: Vec<ClusterWeight>,
    /// Sum of all weights.
    pub total: u64,
    /// `header_name`: its value, a number, replaces the random one.
    pub random_header: Option<HeaderName>,
    /// `use_hash_policy`: the route's hash replaces the random value.
    pub use_hash_policy: bool,
}

/// `WeightedCluster.ClusterWeight`
#[derive(Debug, Clone)]
pub struct ClusterWeight {
    /// The cluster, by name or header.
    pub cluster: ClusterSpecifier,
    /// Its weight.
    pub weight: u64,
    /// The route's metadata match with this cluster's over it.
    pub metadata_match: Option<Arc<MetadataMatch>>,
    /// Header mutations of the request, after the route's.
    pub request: HeaderMutations,
    /// Header mutations of the response.
    pub response: HeaderMutations,
    /// Per-filter configuration, more specific than the route's.
    pub filters: PerFilterConfigs,
    /// `host_rewrite_literal`
    pub host_rewrite: Option<http::HeaderValue>,
}
