//! API keys (`envoy.filters.http.api_key_auth`): a key in a header, a query parameter or a cookie says which client
//! asks.

mod config;
mod filter;
mod source;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::api_key_auth::v3::{ApiKeyAuth, ApiKeyAuthPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.api_key_auth";
    type Proto = ApiKeyAuth;
    type RouteProto = ApiKeyAuthPerRoute;

    fn build(&self, proto: ApiKeyAuth, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => ApiKeyAuth { supported { credentials, key_sources, forwarding } });
        let rules = config::Rules::build(credentials, key_sources, forwarding, cx)?;
        Ok(Arc::new(filter::ApiKeyAuthFilter(Arc::new(filter::Shared {
            rules,
            stats: cx
                .server
                .stats
                .scope(&format!("{}api_key_auth", cx.http_prefix))
                .block(),
        }))))
    }

    fn build_route(&self, proto: ApiKeyAuthPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => ApiKeyAuthPerRoute {
            supported { credentials, key_sources, allowed_clients, forwarding }
        });
        Ok(Arc::new(config::PerRoute {
            rules: config::Rules::build(credentials, key_sources, forwarding, cx)?,
            allowed_clients: allowed_clients.into_iter().collect(),
        }))
    }
}

#[cfg(test)]
mod tests;
