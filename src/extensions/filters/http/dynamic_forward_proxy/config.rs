//! `FilterConfig` -> [`Config`], `PerRouteConfig` -> [`PerRoute`].

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use xds_protos::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, PerRouteConfig, SubClusterConfig, filter_config::ImplementationSpecifier,
    per_route_config::HostRewriteSpecifier,
};

use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    upstream::dynamic_forward_proxy::{DnsCache, DnsCaches},
};

/// What all streams of a chain share.
pub(super) struct Config {
    /// `dns_cache_config`
    pub cache: Arc<DnsCache>,
    /// `sub_cluster_config.cluster_init_timeout`, 5 s
    pub warming_timeout: Duration,
    /// `save_upstream_address`: the address goes to filter state.
    pub save_address: bool,
    /// `allow_dynamic_host_from_filter_state`
    pub host_from_filter_state: bool,
}

impl Config {
    /// Builds it; the cache is there from then on.
    pub fn build(proto: FilterConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => FilterConfig {
            supported { save_upstream_address, allow_dynamic_host_from_filter_state, implementation_specifier }
        });
        let mut timeout = None;
        // Without one it is that of no name, as in Envoy.
        let cache = match implementation_specifier {
            Some(ImplementationSpecifier::DnsCacheConfig(config)) => {
                cx.field("dns_cache_config", |cx| DnsCaches::get(config, cx))?
            }
            Some(ImplementationSpecifier::SubClusterConfig(SubClusterConfig { cluster_init_timeout })) => {
                timeout = cluster_init_timeout;
                DnsCaches::get(Default::default(), cx)?
            }
            None => DnsCaches::get(Default::default(), cx)?,
        };
        Ok(Self {
            cache,
            warming_timeout: timeout.or_duration(Duration::from_secs(5)),
            save_address: save_upstream_address,
            host_from_filter_state: allow_dynamic_host_from_filter_state,
        })
    }
}

/// What a route says: the host to go to instead of the request's.
pub(super) enum PerRoute {
    /// `host_rewrite_literal`
    Literal(HeaderValue),
    /// `host_rewrite_header`: the value of this header.
    Header(HeaderName),
    /// The request's.
    Own,
}

impl PerRoute {
    /// Builds it.
    pub fn build(proto: PerRouteConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => PerRouteConfig { supported { host_rewrite_specifier } });
        Ok(match host_rewrite_specifier {
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if !host.is_empty() => {
                let host = HeaderValue::try_from(host);
                Self::Literal(host.map_err(|_| cx.error_at("host_rewrite_literal", "invalid value"))?)
            }
            Some(HostRewriteSpecifier::HostRewriteHeader(name)) if !name.is_empty() => {
                let name = HeaderName::try_from(name);
                Self::Header(name.map_err(|_| cx.error_at("host_rewrite_header", "invalid header name"))?)
            }
            _ => Self::Own,
        })
    }
}
