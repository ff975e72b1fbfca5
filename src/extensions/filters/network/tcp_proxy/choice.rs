//! Which cluster a connection goes to, and what the choice of its host depends on.

use std::{borrow::Cow, sync::Arc};

use twox_hash::XxHash64;
use xds_protos::envoy::{
    config::core::v3::Metadata as MetadataProto,
    extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
        ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
    },
    r#type::v3::{
        HashPolicy as HashProto,
        hash_policy::{FilterState, PolicySpecifier, SourceIp},
    },
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::ConnectionInfo,
    route::{MetadataMatch, lb_metadata},
};

/// Where connections go.
pub(super) struct Clusters {
    clusters: Vec<Destination>,
    total: u64,
    /// `metadata_match` of the filter, for clusters that the connection names itself.
    pub(super) metadata_match: Option<Arc<MetadataMatch>>,
}

/// One cluster.
pub(super) struct Destination {
    pub(super) name: Arc<str>,
    weight: u64,
    /// `metadata_match`, that of the cluster over that of the filter.
    pub(super) metadata_match: Option<Arc<MetadataMatch>>,
}

impl Clusters {
    /// Reads `cluster_specifier` and `metadata_match`.
    pub(super) fn build(
        specifier: Option<ClusterSpecifier>,
        metadata: Option<MetadataProto>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let common = metadata.and_then(lb_metadata).map(Arc::new);
        let clusters = match specifier {
            Some(ClusterSpecifier::Cluster(name)) => vec![Destination {
                name: name.into(),
                weight: 1,
                metadata_match: common.clone(),
            }],
            Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters })) => {
                cx.field("weighted_clusters", |cx| {
                    cx.each("clusters", clusters, |c, cx| {
                        Destination::weighted(c, common.as_deref(), cx)
                    })
                })?
            }
            None => return Err(cx.error_at("cluster_specifier", "value is required")),
        };
        if clusters.is_empty() {
            return Err(cx.error_at("weighted_clusters.clusters", "value must contain at least 1 item(s)"));
        }
        Ok(Self {
            total: clusters.iter().map(|c| c.weight).sum(),
            clusters,
            metadata_match: common,
        })
    }

    /// The cluster of a connection with this random number.
    pub(super) fn choose(&self, random: u64) -> &Destination {
        let mut left = random % self.total.max(1);
        for cluster in &self.clusters {
            if left < cluster.weight {
                return cluster;
            }
            left -= cluster.weight;
        }
        // The weights add up to the total: the last one takes what rounding could leave.
        &self.clusters[self.clusters.len() - 1]
    }
}

impl Destination {
    fn weighted(proto: ClusterWeight, common: Option<&MetadataMatch>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ClusterWeight { supported { name, weight, metadata_match } });
        let mut criteria = common.cloned();
        if let Some(own) = metadata_match.and_then(lb_metadata) {
            criteria.get_or_insert_default().extend(own);
        }
        Ok(Self {
            name: name.into(),
            weight: weight.into(),
            metadata_match: criteria.map(Arc::new),
        })
    }
}

/// What the host's metadata must say: what is configured, with what filters set (`envoy.lb`) over it.
pub(super) fn criteria<'c>(
    configured: Option<&'c MetadataMatch>,
    connection: &ConnectionInfo,
) -> Option<Cow<'c, MetadataMatch>> {
    let metadata = connection.metadata.borrow();
    let Some(own) = metadata.get("envoy.lb") else {
        return configured.map(Cow::Borrowed);
    };
    let mut merged = configured.cloned().unwrap_or_default();
    merged.extend(own.fields.iter().map(|(k, v)| (k.clone(), v.clone())));
    Some(Cow::Owned(merged))
}

/// `hash_policy`, of which there is one at most.
pub(super) enum HashPolicy {
    SourceIp,
    FilterState(String),
}

impl HashPolicy {
    pub(super) fn build(proto: HashProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HashProto { supported { policy_specifier } });
        match policy_specifier {
            Some(PolicySpecifier::SourceIp(SourceIp {})) => Ok(Self::SourceIp),
            Some(PolicySpecifier::FilterState(FilterState { key })) => Ok(Self::FilterState(key)),
            None => Err(cx.error_at("policy_specifier", "value is required")),
        }
    }

    /// The hash of a connection; none where there is nothing to hash.
    pub(super) fn hash(&self, connection: &ConnectionInfo) -> Option<u64> {
        match self {
            Self::SourceIp => {
                let ip = connection.remote_address.ip()?;
                Some(XxHash64::oneshot(0, ip.to_string().as_bytes()))
            }
            Self::FilterState(key) => connection.filter_state.borrow().get(key)?.hash(),
        }
    }
}
