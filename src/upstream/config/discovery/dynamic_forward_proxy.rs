//! `envoy.clusters.dynamic_forward_proxy`: hosts are the names that requests ask for.

use std::{sync::Arc, time::Duration};

use xds_protos::{
    envoy::{
        config::cluster::v3::{Cluster as ProtoCluster, cluster::LbPolicy as ProtoLbPolicy},
        extensions::clusters::dynamic_forward_proxy::v3::{
            ClusterConfig, SubClustersConfig, cluster_config::ClusterImplementationSpecifier as Kind,
        },
    },
    google::protobuf::Any,
};

use super::{Discovery, Parts};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, unpack},
    upstream::dynamic_forward_proxy::{DfpCluster, DnsCaches, DynamicForwardProxy, SubClusterOptions, SubClusters},
};

/// The message's name.
pub const TYPE: &str = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig";

/// Whether a cluster's type is this one: it has defaults of its own, and may be what others are made after.
pub fn is_configured(any: Option<&Any>) -> bool {
    any.is_some_and(|any| any.type_name() == TYPE)
}

/// `envoy.clusters.dynamic_forward_proxy`
pub(super) fn build(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    let proto: ClusterConfig = cx.field("cluster_type.typed_config", |cx| unpack(&parts.typed_config, cx))?;
    coverage!(cx, proto => ClusterConfig {
        supported { allow_insecure_cluster_options, cluster_implementation_specifier }
        ignored { allow_coalesced_connections: "every name has connections of its own" }
    });
    if !allow_insecure_cluster_options && !parts.names_checked {
        return Err(cx.error(
            "dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true unless \
             allow_insecure_cluster_options is set.",
        ));
    }
    Ok(Discovery::DynamicForwardProxy(match cluster_implementation_specifier {
        Some(Kind::SubClustersConfig(config)) => {
            DynamicForwardProxy::SubClusters(sub_clusters(config, parts.template, cx)?)
        }
        Some(Kind::DnsCacheConfig(config)) => DynamicForwardProxy::Cached(DfpCluster::new(DnsCaches::get(config, cx)?)),
        None => DynamicForwardProxy::Cached(DfpCluster::new(DnsCaches::get(Default::default(), cx)?)),
    }))
}

fn sub_clusters(
    proto: SubClustersConfig,
    template: Option<Box<ProtoCluster>>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Arc<SubClusters>> {
    coverage!(cx, proto => SubClustersConfig {
        supported { lb_policy, max_sub_clusters, sub_cluster_ttl }
        ignored { preresolve_clusters: "Envoy does not use it either" }
        rejected { dns_cluster_config: "the fields of the cluster on DNS are those of its sub-clusters" }
    });
    if lb_policy == ProtoLbPolicy::ClusterProvided as i32 {
        return Err(cx.error("unsupported lb_policy 'CLUSTER_PROVIDED' in sub_cluster_config"));
    }
    let template = ProtoCluster {
        lb_policy,
        ..*template.unwrap_or_default()
    };
    let options = SubClusterOptions {
        template,
        max: max_sub_clusters.map_or(1024, |v| usize::try_from(v.value).unwrap_or(usize::MAX)),
        ttl: sub_cluster_ttl.or_duration(Duration::from_secs(300)),
    };
    Ok(SubClusters::new(options, cx.server))
}
