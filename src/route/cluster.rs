//! How a route's cluster is chosen: by name, by header, by weight.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderName, HeaderValue};
use xds_protos::{
    envoy::config::{
        core::v3::Metadata,
        route::v3::{
            WeightedCluster as Proto,
            route_action::ClusterSpecifier as ProtoSpecifier,
            weighted_cluster::{
                ClusterWeight as ProtoWeight, RandomValueSpecifier, cluster_weight::HostRewriteSpecifier,
            },
        },
    },
    google::protobuf::Value,
};

use super::{
    ClusterMatcher, HeaderMutations, PerFilterConfigs,
    cluster_plugin::{self, Plugins},
    mutation::header_name,
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::RequestHead,
    matching::HeaderLookup,
    runtime::Key,
};

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
    /// What a tree of a cluster specifier plug-in leads to.
    Matcher(Arc<ClusterMatcher>),
    /// An optional plug-in that is not known: the route matches no request.
    Never,
}

/// `WeightedCluster`
#[derive(Debug, Clone)]
pub struct WeightedClusters {
    /// The clusters in order.
    pub clusters: Vec<ClusterWeight>,
    /// Sum of all weights, never zero; none where `runtime_key_prefix` lets them change.
    pub total: Option<u64>,
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
    /// Its weight in the configuration.
    pub weight: u64,
    /// `<runtime_key_prefix>.<name>`: overrides the weight.
    pub weight_key: Key,
    /// The route's metadata match with this cluster's over it.
    pub metadata_match: Option<Arc<MetadataMatch>>,
    /// Header mutations of the request, before the route's.
    pub request: HeaderMutations,
    /// Header mutations of the response.
    pub response: HeaderMutations,
    /// Per-filter configuration, more specific than the route's.
    pub filters: PerFilterConfigs,
    /// `host_rewrite_literal`
    pub host_rewrite: Option<HeaderValue>,
}

impl ClusterSpecifier {
    pub(super) fn build(
        proto: Option<ProtoSpecifier>,
        parent: Option<&Arc<MetadataMatch>>,
        route: &str,
        plugins: &Plugins,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        match proto {
            Some(ProtoSpecifier::Cluster(name)) => Ok(Self::Cluster(name.into())),
            Some(ProtoSpecifier::ClusterHeader(name)) => Ok(Self::Header(HeaderLookup::of(&name))),
            Some(ProtoSpecifier::WeightedClusters(w)) => cx
                .field("weighted_clusters", |cx| WeightedClusters::build(w, parent, route, cx))
                .map(Self::Weighted),
            Some(ProtoSpecifier::ClusterSpecifierPlugin(name)) => plugins.get(&name).cloned().ok_or_else(|| {
                cx.error_at(
                    "cluster_specifier_plugin",
                    format!("Unknown cluster specifier plugin name: {name} is used in the route"),
                )
            }),
            Some(ProtoSpecifier::InlineClusterSpecifierPlugin(plugin)) => cx
                .field("inline_cluster_specifier_plugin", |cx| {
                    cluster_plugin::build(plugin, cx)
                }),
            None => Err(cx.error_at("cluster_specifier", "value is required")),
        }
    }

    /// Every cluster named in configuration, and whether it is one of several.
    pub fn names(&self) -> Vec<(&Arc<str>, bool)> {
        match self {
            Self::Cluster(name) if name.is_empty() => Vec::new(),
            Self::Cluster(name) => vec![(name, false)],
            Self::Header(_) | Self::Matcher(_) | Self::Never => Vec::new(),
            Self::Weighted(w) => {
                let named = w.clusters.iter().flat_map(|c| c.cluster.names());
                named.map(|(name, _)| (name, true)).collect()
            }
        }
    }
}

impl WeightedClusters {
    fn build(
        proto: Proto,
        parent: Option<&Arc<MetadataMatch>>,
        route: &str,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { clusters, runtime_key_prefix, random_value_specifier }
            ignored {
                total_weight: "Envoy has used the sum of the weights since 1.25",
            }
        });
        let clusters = cx.each("clusters", clusters, |c, cx| {
            ClusterWeight::build(c, &runtime_key_prefix, parent, cx)
        })?;
        let total = clusters.iter().map(|c| c.weight).sum();
        if total > u64::from(u32::MAX) {
            return Err(cx.error(format!(
                "The sum of weights of all weighted clusters of route {route} exceeds {}",
                u32::MAX
            )));
        }
        if total == 0 {
            return Err(cx.error("Sum of weights in the weighted_cluster must be greater than 0."));
        }
        let (random_header, use_hash_policy) = match random_value_specifier {
            Some(RandomValueSpecifier::HeaderName(n)) if !n.is_empty() => {
                (Some(cx.field("header_name", |cx| header_name(&n, cx))?), false)
            }
            Some(RandomValueSpecifier::UseHashPolicy(b)) => (None, b.value),
            Some(RandomValueSpecifier::HeaderName(_)) | None => (None, false),
        };
        Ok(Self {
            clusters,
            total: runtime_key_prefix.is_empty().then_some(total),
            random_header,
            use_hash_policy,
        })
    }

    /// The index of the cluster whose interval the random value falls into.
    pub(super) fn pick(&self, head: &RequestHead, random: u64) -> u32 {
        let total = match self.total {
            Some(total) => total,
            None => self.clusters.iter().map(ClusterWeight::weight).sum(),
        };
        let mut left = self.random_from_header(head).unwrap_or(random) % total.max(1);
        for (i, cluster) in self.clusters.iter().enumerate() {
            let weight = cluster.weight();
            if left < weight {
                return i as u32;
            }
            left -= weight;
        }
        0
    }

    /// One that is not among `tried`, by weight.
    pub(super) fn pick_besides(&self, tried: &[u32], random: u64) -> Option<u32> {
        let others = || (0u32..).zip(&self.clusters).filter(|(i, _)| !tried.contains(i));
        let total: u64 = others().map(|(_, c)| c.weight()).sum();
        let mut left = random.checked_rem(total)?;
        others().find_map(|(i, cluster)| {
            let weight = cluster.weight();
            let chosen = left < weight;
            left = left.saturating_sub(weight);
            chosen.then_some(i)
        })
    }

    /// A header with several values, or none that is a number, does not count.
    fn random_from_header(&self, head: &RequestHead) -> Option<u64> {
        let mut values = head.headers.get_all(self.random_header.as_ref()?).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        value.to_str().ok()?.trim().parse().ok()
    }
}

impl ClusterWeight {
    /// The weight as of now.
    fn weight(&self) -> u64 {
        self.weight_key.integer(self.weight)
    }

    fn build(
        proto: ProtoWeight,
        runtime_key_prefix: &str,
        parent: Option<&Arc<MetadataMatch>>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoWeight {
            supported {
                name, cluster_header, weight, metadata_match, request_headers_to_add, request_headers_to_remove,
                response_headers_to_add, response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier,
            }
        });
        let weight_key = match runtime_key_prefix {
            "" => Key::NONE,
            prefix => cx.server.runtime.key(&format!("{prefix}.{name}")),
        };
        let cluster = match (name.is_empty(), cluster_header.is_empty()) {
            (true, true) => return Err(cx.error("At least one of name or cluster_header need to be specified")),
            (false, false) => return Err(cx.error("Only one of name or cluster_header can be specified")),
            (false, true) => ClusterSpecifier::Cluster(name.into()),
            (true, false) => ClusterSpecifier::Header(HeaderLookup::of(&cluster_header)),
        };
        let own = metadata_match.and_then(lb_metadata);
        let metadata_match = match (parent, own) {
            (parent, None) => parent.cloned(),
            (None, Some(own)) => Some(Arc::new(own)),
            (Some(parent), Some(own)) => {
                let mut merged = MetadataMatch::clone(parent);
                merged.extend(own);
                Some(Arc::new(merged))
            }
        };
        let request_fields = ("request_headers_to_add", "request_headers_to_remove");
        let response_fields = ("response_headers_to_add", "response_headers_to_remove");
        Ok(Self {
            cluster,
            weight: match weight {
                Some(weight) => u64::from(weight.value),
                None => return Err(cx.error("Field 'weight' is missing in: ClusterWeight")),
            },
            weight_key,
            metadata_match,
            request: HeaderMutations::build(request_fields, request_headers_to_add, request_headers_to_remove, cx)?,
            response: HeaderMutations::build(response_fields, response_headers_to_add, response_headers_to_remove, cx)?,
            filters: PerFilterConfigs::build(typed_per_filter_config, cx)?,
            host_rewrite: match host_rewrite_specifier {
                Some(HostRewriteSpecifier::HostRewriteLiteral(h)) if !h.is_empty() => {
                    Some(host_value(&h, "host_rewrite_literal", cx)?)
                }
                _ => None,
            },
        })
    }
}

/// The `envoy.lb` part of a `metadata_match`.
pub fn lb_metadata(proto: Metadata) -> Option<MetadataMatch> {
    let mut filters = proto.filter_metadata;
    filters.remove("envoy.lb").map(|s| s.fields.into_iter().collect())
}

/// A host from configuration as a header value.
pub(super) fn host_value(host: &str, field: &str, cx: &BuildCx<'_>) -> ConfigResult<HeaderValue> {
    HeaderValue::from_str(host).map_err(|_| cx.error_at(field, "invalid host"))
}
