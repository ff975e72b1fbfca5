//! Upstream HTTP filters: of a cluster (`HttpProtocolOptions.http_filters`), or of a router.

use std::{ops::Deref, sync::Arc};

use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter as Proto, http_filter::ConfigType,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    http::filter::HttpFilterConfig,
};

/// A filter of a chain.
pub struct UpstreamHttpFilter {
    /// `name`: the key of its per-route configuration.
    pub name: Arc<str>,
    /// Its configuration.
    pub config: Arc<dyn HttpFilterConfig>,
    /// `disabled`, unless a route says otherwise.
    pub disabled: bool,
}

/// A chain, without the codec filter that ends it; empty for none.
#[derive(Clone, Default)]
pub struct UpstreamHttpFilters(Arc<[UpstreamHttpFilter]>);

impl Deref for UpstreamHttpFilters {
    type Target = [UpstreamHttpFilter];

    fn deref(&self) -> &[UpstreamHttpFilter] {
        &self.0
    }
}

impl std::fmt::Debug for UpstreamHttpFilters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|filter| &filter.name)).finish()
    }
}

impl PartialEq for UpstreamHttpFilters {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

const CODEC: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";

/// Builds a chain. The codec filter is terminal and must stand last, as in Envoy.
pub fn http_filter_chain(field: &str, protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<UpstreamHttpFilters> {
    let count = protos.len();
    let mut filters = Vec::new();
    let mut last_is_codec = true;
    for (i, proto) in protos.into_iter().enumerate() {
        let last = i + 1 == count;
        cx.item(field, i, |cx| {
            coverage!(cx, proto => Proto { supported { name, is_optional, disabled, config_type } });
            let any = match config_type {
                Some(ConfigType::TypedConfig(any)) => plain(any, cx)?,
                Some(ConfigType::ConfigDiscovery(_)) => {
                    return Err(cx.error_at("config_discovery", "not supported: discovery of upstream filters"));
                }
                None => Default::default(),
            };
            let kind = any.type_name();
            if kind == CODEC {
                if !last {
                    return Err(cx.error(format!("Error: terminal filter named {name} of type envoy.filters.http.upstream_codec must be the last filter in a http upstream filter chain.")));
                }
                return Ok(());
            }
            last_is_codec &= !last;
            let server = cx.server.clone();
            let factory = server.registry.find_http_filter(&any).filter(|f| UPSTREAM.contains(&f.name()));
            match factory {
                Some(_) if last => Err(cx.error(format!("Error: non-terminal filter named {name} of type {name} is the last filter in a http upstream filter chain."))),
                Some(factory) => {
                    let config = cx.field("typed_config", |cx| factory.build(&any, cx))?;
                    filters.push(UpstreamHttpFilter { name: name.into(), config, disabled });
                    Ok(())
                }
                None if is_optional => {
                    cx.ignored("typed_config", "an optional filter of an unknown type");
                    Ok(())
                }
                None => Err(cx.error(format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{kind}'"
                ))),
            }
        })?;
    }
    Ok(UpstreamHttpFilters(filters.into()))
}

/// The filters that Envoy takes in such a chain.
const UPSTREAM: &[&str] = &[
    "envoy.filters.http.admission_control",
    "envoy.filters.http.aws_request_signing",
    "envoy.filters.http.buffer",
    "envoy.filters.http.composite",
    "envoy.filters.http.compressor",
    "envoy.filters.http.credential_injector",
    "envoy.filters.http.ext_proc",
    "envoy.filters.http.header_mutation",
    "envoy.filters.http.lua",
    "envoy.filters.http.match_delegate",
    "envoy.filters.http.rbac",
    "envoy.filters.http.wasm",
];
