//! One stream that has to bring a key.

use std::sync::Arc;

use http::StatusCode;

use super::config::{PerRoute, Rules, client_value};
use crate::{
    http::{
        LocalReply, RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    stats::Stats,
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.api_key_auth.` statistics
    pub(super) struct ApiKeyAuthStats {
        counter allowed, "Requests of clients that may pass";
        counter unauthorized, "Requests without a known key";
        counter forbidden, "Requests of clients that the route does not allow";
    }
}

/// The filter's configuration.
pub(super) struct ApiKeyAuthFilter(pub Arc<Shared>);

pub(super) struct Shared {
    pub rules: Rules,
    pub stats: Stats<ApiKeyAuthStats>,
}

impl HttpFilterConfig for ApiKeyAuthFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Shared>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let (own, stats) = (&self.0.rules, self.0.stats.local());
        let route = cx.route_config::<PerRoute>();
        let of_route = route.map(|r| &r.rules);
        let clients = of_route.map(|r| &r.clients).filter(|c| !c.is_empty());
        let sources = of_route.map(|r| &r.sources).filter(|s| !s.is_empty());
        let (clients, sources) = (clients.unwrap_or(&own.clients), sources.unwrap_or(&own.sources));
        let forwarding = &of_route.unwrap_or(own).forwarding;

        let Some(key) = sources.iter().find_map(|source| source.key(head)) else {
            stats.unauthorized.inc();
            return unauthorized("missing_api_key");
        };
        let Some(client) = clients.get(key) else {
            stats.unauthorized.inc();
            return unauthorized("unknown_api_key");
        };
        if route.is_some_and(|r| !r.allowed_clients.is_empty() && !r.allowed_clients.contains(client)) {
            stats.forbidden.inc();
            return Step::Reply(Box::new(LocalReply::new(
                StatusCode::FORBIDDEN,
                "Client is forbidden.",
                "client_not_allowed",
            )));
        }
        if let (Some(name), Some(value)) = (&forwarding.header, client_value(client)) {
            head.headers.insert(name, value);
        }
        if forwarding.hide {
            for source in sources {
                source.remove(head);
            }
        }
        stats.allowed.inc();
        Step::Continue
    }
}

fn unauthorized(details: &'static str) -> Step<'static> {
    Step::Reply(Box::new(LocalReply::new(
        StatusCode::UNAUTHORIZED,
        "Client authentication failed.",
        details,
    )))
}
