//! Waits for what a request needs.

use std::sync::Arc;

use crate::{
    http::{
        RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    upstream::OnDemandClusters,
};

/// The filter of one chain; with the source of clusters, if they are asked for.
pub(super) struct OnDemandFilter(pub(super) Option<Arc<OnDemandClusters>>);

/// What a route says instead.
pub(super) struct PerRoute(pub(super) Option<Arc<OnDemandClusters>>);

struct Waiting(Option<Arc<OnDemandClusters>>);

impl HttpFilterConfig for OnDemandFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Waiting(self.0.clone())))
    }
}

impl HttpFilter for Waiting {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        if cx.route.is_some() {
            let Some((clusters, name)) = self.missing(cx) else {
                return Step::Continue;
            };
            // Whatever comes of it, the router finds the cluster or does not.
            return Step::Wait(Box::pin(async move {
                clusters.demand(&name, &cx.worker).await;
                Step::Continue
            }));
        }
        let Some(routes) = cx.on_demand_routes.clone() else {
            return Step::Continue;
        };
        let Some(mut answers) = routes.demand(&head.host().to_ascii_lowercase()) else {
            return Step::Continue;
        };
        Step::Wait(Box::pin(async move {
            // An ended sender means that the routes are gone.
            let _ = answers.changed().await;
            let table = routes.load();
            cx.choose_route(head, table.as_ref());
            cx.newer_routes = table;
            if let Some((clusters, name)) = self.missing(cx) {
                clusters.demand(&name, &cx.worker).await;
            }
            Step::Continue
        }))
    }
}

impl Waiting {
    /// The cluster of the request's route if it is not there, and where to ask for it.
    fn missing(&self, cx: &FilterCx) -> Option<(Arc<OnDemandClusters>, String)> {
        let name = cx.route.as_ref()?.cluster_name();
        if name.is_empty() || cx.worker.clusters.get(name).is_some() {
            return None;
        }
        let of_route = cx.route_config::<PerRoute>();
        let clusters = of_route.map_or(&self.0, |route| &route.0).clone()?;
        Some((clusters, name.to_owned()))
    }
}
