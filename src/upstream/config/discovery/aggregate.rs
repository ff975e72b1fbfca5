//! `envoy.clusters.aggregate`: the hosts of other clusters.

use xds_protos::envoy::extensions::clusters::aggregate::v3::ClusterConfig;

use super::{Discovery, Parts};
use crate::config::{BuildCx, ConfigResult, unpack};

/// `envoy.clusters.aggregate`. The clusters need not be there: those that are not are passed over.
pub(super) fn build(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    cx.field("cluster_type.typed_config", |cx| {
        let proto: ClusterConfig = unpack(&parts.typed_config, cx)?;
        coverage!(cx, proto => ClusterConfig { supported { clusters } });
        if clusters.is_empty() {
            return Err(cx.error_at("clusters", "value must contain at least 1 item(s)"));
        }
        Ok(Discovery::Aggregate(clusters.into_iter().map(Into::into).collect()))
    })
}
