//! Header mutation at a place of one's choice in the chain (`envoy.filters.http.header_mutation`): headers, trailers
//! and query parameters.

mod config;
mod filter;
mod query;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, HeaderMutationPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.header_mutation";
    type Proto = HeaderMutation;
    type RouteProto = HeaderMutationPerRoute;

    fn build(&self, proto: HeaderMutation, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => HeaderMutation { supported { mutations, most_specific_header_mutations_wins } });
        Ok(Arc::new(filter::HeaderMutationFilter {
            mutations: config::Mutations::build(mutations, cx)?.into(),
            most_specific_wins: most_specific_header_mutations_wins,
        }))
    }

    fn build_route(&self, proto: HeaderMutationPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => HeaderMutationPerRoute { supported { mutations } });
        Ok(Arc::new(Arc::new(config::Mutations::build(mutations, cx)?)))
    }
}

#[cfg(test)]
mod tests;
