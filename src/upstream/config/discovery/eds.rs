//! `type: EDS`: endpoints come from a control plane.

use xds_protos::envoy::config::{cluster::v3::cluster::EdsClusterConfig, core::v3::ConfigSource};

use super::{Discovery, Parts};
use crate::config::{BuildCx, ConfigResult};

/// `eds_cluster_config`
#[derive(Debug, Clone)]
pub struct EdsOptions {
    /// `service_name`, or the cluster's name.
    pub service_name: String,
    /// `eds_config`
    pub source: ConfigSource,
}

/// `type: EDS`
pub(super) fn build(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    let Some(proto) = parts.eds else {
        return Err(cx.error("cannot create an EDS cluster without an EDS config"));
    };
    cx.field("eds_cluster_config", |cx| {
        coverage!(cx, proto => EdsClusterConfig { supported { eds_config, service_name } });
        let Some(source) = eds_config else {
            return Err(cx.error_at("eds_config", "value is required"));
        };
        cx.field("eds_config", |cx| cx.server.xds.check(&source, cx))?;
        Ok(Discovery::Eds(EdsOptions {
            service_name: match service_name.is_empty() {
                true => parts.cluster.to_owned(),
                false => service_name,
            },
            source,
        }))
    })
}
