//! What a route says about cross-origin requests: read by the CORS filter, from its per-filter configuration or from
//! the deprecated `cors` fields of routes and virtual hosts.

use xds_protos::envoy::{
    config::route::v3::{CorsPolicy as Deprecated, cors_policy::EnabledSpecifier},
    extensions::filters::http::cors::v3::CorsPolicy as Proto,
};

use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent},
    matching::StringMatcher,
    runtime::RuntimeFractionalPercent,
};

/// A policy of one level. What it does not say, a less specific level does.
#[derive(Debug, Clone)]
pub struct CorsPolicy {
    /// `allow_origin_string_match`: one has to match; empty: not said.
    pub allow_origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`; empty: not said; `*`: what was asked for.
    pub allow_methods: String,
    /// `access-control-allow-headers`; empty: not said; `*`: what was asked for.
    pub allow_headers: String,
    /// `access-control-expose-headers`; empty: not said.
    pub expose_headers: String,
    /// `access-control-max-age`; empty: not said.
    pub max_age: String,
    /// `access-control-allow-credentials`
    pub allow_credentials: Option<bool>,
    /// `access-control-allow-private-network`, for preflights that ask for it.
    pub allow_private_network: Option<bool>,
    /// Whether preflights of other origins go to the upstream; default true.
    pub forward_not_matching_preflights: Option<bool>,
    /// The share of requests the policy is for; default all.
    pub enabled: RuntimeFractionalPercent,
    /// The share of requests that are counted only; default none.
    pub shadow: RuntimeFractionalPercent,
}

impl CorsPolicy {
    /// Builds a policy.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials,
                filter_enabled, shadow_enabled, allow_private_network_access, forward_not_matching_preflights
            }
        });
        Ok(Self {
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
        })
    }

    /// Builds a deprecated policy: the same one, but for where it says whether it is enabled.
    pub(super) fn build_deprecated(proto: Deprecated, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Deprecated {
            supported {
                allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials,
                enabled_specifier, shadow_enabled, allow_private_network_access, forward_not_matching_preflights
            }
        });
        let policy = Proto {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled: enabled_specifier.map(|EnabledSpecifier::FilterEnabled(share)| share),
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        };
        Self::build(policy, cx)
    }
}
