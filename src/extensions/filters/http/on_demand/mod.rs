//! Clusters and virtual hosts on demand (`envoy.filters.http.on_demand`): a request whose route or cluster is not
//! there yet waits until the control plane has sent it, or has none.

mod filter;

use std::{sync::Arc, time::Duration};

use xds_protos::envoy::extensions::filters::http::on_demand::v3::{OnDemand, OnDemandCds, PerRouteConfig};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
    upstream::OnDemandClusters,
};

/// `timeout` of `odcds`
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.on_demand";
    type Proto = OnDemand;
    type RouteProto = PerRouteConfig;

    fn build(&self, proto: OnDemand, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => OnDemand { supported { odcds } });
        let clusters = cx.opt("odcds", odcds, clusters)?;
        Ok(Arc::new(filter::OnDemandFilter(clusters)))
    }

    fn build_route(&self, proto: PerRouteConfig, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => PerRouteConfig { supported { odcds } });
        let clusters = cx.opt("odcds", odcds, clusters)?;
        Ok(Arc::new(filter::PerRoute(clusters)))
    }
}

fn clusters(proto: OnDemandCds, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<OnDemandClusters>> {
    coverage!(cx, proto => OnDemandCds { supported { source, resources_locator, timeout } });
    let clusters = OnDemandClusters::build(source, &resources_locator, timeout, DEFAULT_TIMEOUT, cx)?;
    Ok(Arc::new(clusters))
}
