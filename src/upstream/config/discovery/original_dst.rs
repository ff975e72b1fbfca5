//! `type: ORIGINAL_DST`: each connection goes where the client's was to go before it was redirected.

use xds_protos::envoy::config::cluster::v3::cluster::OriginalDstLbConfig;

use super::{Discovery, Parts};
use crate::config::{BuildCx, ConfigResult};

/// `type: ORIGINAL_DST`
pub(super) fn build(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    if parts.assignment.is_some() {
        return Err(cx.error("ORIGINAL_DST clusters must have no load assignment configured"));
    }
    Ok(Discovery::OriginalDst(OriginalDstLbConfig::clone(parts.original_dst)))
}
