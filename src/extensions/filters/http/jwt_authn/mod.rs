//! JSON Web Tokens (`envoy.filters.http.jwt_authn`).
//!
//! `config` chooses the [`requirement`] of a request; it takes tokens from where its [`provider`]s say ([`extract`]),
//! reads them ([`token`]) and checks them with the provider's keys ([`jwks`]), which may have to be fetched first
//! ([`remote`]).

mod audience;
mod cache;
mod claims;
mod config;
mod extract;
mod filter;
mod jwks;
mod provider;
mod remote;
mod requirement;
mod status;
mod token;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, PerRouteConfig, per_route_config::RequirementSpecifier,
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

/// What a route says of its requests.
enum OfRoute {
    /// They need no token.
    Disabled,
    /// They have to meet the requirement of this name in `requirement_map`.
    Requirement(String),
}

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.jwt_authn";
    type Proto = JwtAuthentication;
    type RouteProto = PerRouteConfig;

    fn build(&self, proto: JwtAuthentication, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::JwtAuthn(Arc::new(config::Config::build(proto, cx)?))))
    }

    fn build_route(&self, proto: PerRouteConfig, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => PerRouteConfig { supported { requirement_specifier } });
        Ok(Arc::new(match requirement_specifier {
            Some(RequirementSpecifier::Disabled(true)) => OfRoute::Disabled,
            Some(RequirementSpecifier::Disabled(false)) => return Err(cx.error_at("disabled", "value must equal true")),
            Some(RequirementSpecifier::RequirementName(name)) if name.is_empty() => {
                return Err(cx.error_at("requirement_name", "value length must be at least 1 characters"));
            }
            Some(RequirementSpecifier::RequirementName(name)) => OfRoute::Requirement(name),
            None => return Err(cx.error_at("requirement_specifier", "value is required")),
        }))
    }
}

#[cfg(test)]
mod tests;
