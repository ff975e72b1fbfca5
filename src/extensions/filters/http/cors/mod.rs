//! Cross-origin resource sharing (`envoy.filters.http.cors`): answers preflights, and marks responses that a page of
//! another origin may read.

mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy as PolicyProto};

use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
    matching::StringMatcher,
    route::CorsPolicy,
    runtime::RuntimeFractionalPercent,
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.cors";
    type Proto = Cors;
    type RouteProto = PolicyProto;

    fn build(&self, proto: Cors, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => Cors { supported {} });
        let stats = cx.server.stats.scope(&format!("{}cors", cx.http_prefix)).block();
        Ok(Arc::new(filter::CorsFilter(stats)))
    }

    fn build_route(&self, proto: PolicyProto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => PolicyProto {
            supported {
                allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials,
                filter_enabled, shadow_enabled, allow_private_network_access, forward_not_matching_preflights
            }
        });
        Ok(Arc::new(CorsPolicy {
            allow_origins: cx.each(
                "allow_origin_string_match",
                allow_origin_string_match,
                StringMatcher::build,
            )?,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials: allow_credentials.map(|v| v.value),
            allow_private_network: allow_private_network_access.map(|v| v.value),
            forward_not_matching_preflights: forward_not_matching_preflights.map(|v| v.value),
            enabled: RuntimeFractionalPercent::build_or(filter_enabled, FractionalPercent::FULL, cx)?,
            shadow: RuntimeFractionalPercent::build_or(shadow_enabled, FractionalPercent::ZERO, cx)?,
        }))
    }
}
