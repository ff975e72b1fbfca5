//! `type: ORIGINAL_DST`: each connection goes where the client's was to go before it was redirected.

use std::sync::Arc;

use http::HeaderName;
use xds_protos::envoy::{
    config::cluster::v3::cluster::OriginalDstLbConfig,
    r#type::metadata::v3::{MetadataKey, metadata_key::path_segment::Segment},
};

use super::{Discovery, Parts};
use crate::{
    config::{BuildCx, ConfigResult},
    upstream::OriginalDst,
};

const DEFAULT_HEADER: HeaderName = HeaderName::from_static("x-envoy-original-dst-host");

/// `type: ORIGINAL_DST`
pub(super) fn build(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    if parts.assignment.is_some() {
        return Err(cx.error("ORIGINAL_DST clusters must have no load assignment configured"));
    }
    let interval = parts.cleanup_interval;
    let proto = parts.original_dst.unwrap_or_default();
    let options = cx.field("original_dst_lb_config", |cx| {
        coverage!(cx, proto => OriginalDstLbConfig {
            supported { use_http_header, http_header_name, upstream_port_override, metadata_key }
        });
        let header = match (use_http_header, http_header_name.as_str()) {
            (true, "") => Some(DEFAULT_HEADER),
            (true, name) => Some(HeaderName::try_from(name).map_err(|_| cx.error_at("http_header_name", "no name"))?),
            (false, "") => None,
            (false, name) => {
                return Err(cx.error(format!(
                    "ORIGINAL_DST cluster: invalid config http_header_name={name} and use_http_header is false. Set \
                     use_http_header to true if http_header_name is desired."
                )));
            }
        };
        let port = match upstream_port_override {
            Some(port) => Some(
                u16::try_from(port.value)
                    .map_err(|_| cx.error_at("upstream_port_override", "value must be less than or equal to 65535"))?,
            ),
            None => None,
        };
        let key = cx.opt("metadata_key", metadata_key, key)?;
        Ok(OriginalDst::new(header, key, port, interval))
    })?;
    Ok(Discovery::OriginalDst(Arc::new(options)))
}

fn key(proto: MetadataKey, cx: &mut BuildCx<'_>) -> ConfigResult<(String, Vec<String>)> {
    let MetadataKey { key, path } = proto;
    if key.is_empty() {
        return Err(cx.error_at("key", "value length must be at least 1 characters"));
    }
    if path.is_empty() {
        return Err(cx.error_at("path", "value must contain at least 1 item(s)"));
    }
    let path = cx.each("path", path, |segment, cx| match segment.segment {
        Some(Segment::Key(key)) if !key.is_empty() => Ok(key),
        _ => Err(cx.error_at("key", "value length must be at least 1 characters")),
    })?;
    Ok((key, path))
}
