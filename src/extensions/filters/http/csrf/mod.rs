//! Cross-site request forgery (`envoy.filters.http.csrf`): requests that change something must come from the host
//! they go to, or from one that is named.

mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::csrf::v3::CsrfPolicy as Proto;

use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
    matching::StringMatcher,
    runtime::RuntimeFractionalPercent,
};

/// The extension.
pub struct Factory;

/// A filter's policy, or a route's.
pub(super) struct Policy {
    /// `filter_enabled`
    pub enabled: RuntimeFractionalPercent,
    /// `shadow_enabled`: counted, not enforced.
    pub shadow: RuntimeFractionalPercent,
    /// `additional_origins`: hosts, with their port where one is named.
    pub origins: Vec<StringMatcher>,
}

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.csrf";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::CsrfFilter {
            policy: Policy::build(proto, cx)?.into(),
            stats: cx.server.stats.scope(&format!("{}csrf", cx.http_prefix)).block(),
        }))
    }

    fn build_route(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(Arc::new(Policy::build(proto, cx)?)))
    }
}

impl Policy {
    fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { filter_enabled, shadow_enabled, additional_origins } });
        Ok(Self {
            enabled: RuntimeFractionalPercent::build_or(filter_enabled, FractionalPercent::FULL, cx)?,
            shadow: RuntimeFractionalPercent::build_or(shadow_enabled, FractionalPercent::ZERO, cx)?,
            origins: cx.each("additional_origins", additional_origins, StringMatcher::build)?,
        })
    }
}
