//! `envoy.filters.http.rbac`: who may send which requests.
//!
//! Shadow rules are evaluated first and only noted; then the enforced ones decide. A route's rules stand in for the
//! filter's; statistics stay the filter's.

mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::rbac::v3::{Rbac as Proto, RbacPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.rbac";
    type Proto = Proto;
    type RouteProto = RbacPerRoute;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::RbacFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: RbacPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => RbacPerRoute { supported { rbac } });
        let rules = cx.field("rbac", |cx| config::Rules::build(rbac.unwrap_or_default(), cx))?;
        Ok(Arc::new(config::RouteRules(Arc::new(rules))))
    }
}
