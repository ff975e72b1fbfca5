//! Fixed dynamic metadata (`envoy.filters.http.set_metadata`).

mod filter;

use std::sync::Arc;

use xds_protos::{
    envoy::extensions::filters::http::set_metadata::v3::{Config as Proto, Metadata},
    google::protobuf::Struct,
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory},
};

/// The extension.
pub struct Factory;

/// What is set in one namespace.
pub(super) struct Entry {
    pub namespace: String,
    pub value: Struct,
    /// Whether a namespace that is there already is merged into.
    pub overwrite: bool,
}

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.set_metadata";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => Proto { supported { metadata_namespace, value, metadata } });
        let mut entries = Vec::new();
        // The deprecated form, which always merges.
        if let Some(value) = value.filter(|_| !metadata_namespace.is_empty()) {
            entries.push(Entry {
                namespace: metadata_namespace,
                value,
                overwrite: true,
            });
        }
        entries.extend(cx.each("metadata", metadata, |proto, cx| {
            coverage!(cx, proto => Metadata {
                supported { metadata_namespace, allow_overwrite, value }
                rejected { typed_value: "typed metadata" }
            });
            Ok(Entry {
                namespace: metadata_namespace,
                value: value.unwrap_or_default(),
                overwrite: allow_overwrite,
            })
        })?);
        Ok(Arc::new(filter::SetMetadataFilter(Arc::new(filter::Shared {
            entries,
            stats: cx
                .server
                .stats
                .scope(&format!("{}set_metadata", cx.http_prefix))
                .block(),
        }))))
    }
}
