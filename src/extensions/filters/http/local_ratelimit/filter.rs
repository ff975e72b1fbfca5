//! One stream under local limits.

use std::{any::Any, borrow::Cow, rc::Rc, sync::Arc, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use xds_protos::envoy::extensions::common::ratelimit::v3::VhRateLimitsOptions;

use super::{
    bucket::Bucket,
    config::Config,
    limiter::{Limiter, Verdict},
};
use crate::{
    formatter::FormatCx,
    http::{
        Flag, LocalReply, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        stream_info::{FilterStateObject, Sharing},
    },
    route::rate_limit::{Descriptor, DescriptorCx, RateLimitPolicy},
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Name of the filter state that holds a connection's limiter.
const PER_CONNECTION: &str = "per_connection_local_rate_limiter";

/// The filter's configuration; a route's is the same and stands in for it.
#[derive(Clone)]
pub(super) struct LocalRateLimit(pub Arc<Config>);

impl HttpFilterConfig for LocalRateLimit {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            shown: None,
        }))
    }
}

struct Filter {
    /// Kept from the request on: the response is answered by the same rules, whatever route it has by then.
    config: Arc<Config>,
    /// The bucket that `x-ratelimit-*` tell of.
    shown: Option<Arc<Bucket>>,
}

/// A connection's limiter. The first configuration that asks for one makes it, as in Envoy.
#[derive(Debug)]
struct PerConnection(Limiter);

impl FilterStateObject for PerConnection {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        if let Some(of_route) = cx.route_config::<LocalRateLimit>() {
            self.config = of_route.0.clone();
        }
        let config = self.config.clone();
        if !config.enabled.roll() {
            return Step::Continue;
        }
        let stats = config.stats.local();
        stats.enabled.inc();
        let verdict = self.check(cx, head);
        if verdict.headers.unwrap_or(config.x_ratelimit_headers) {
            self.shown.clone_from(&verdict.bucket);
        }
        if verdict.allowed {
            stats.ok.inc();
            return Step::Continue;
        }
        stats.rate_limited.inc();
        if verdict.shadow {
            stats.shadow_mode.inc();
            return Step::Continue;
        }
        if !config.enforced.roll() {
            let format = FormatCx {
                request: Some(head),
                response: None,
                info: &cx.info,
            };
            let values = config.request_headers.evaluate(&head.headers, &format);
            values.apply(&mut head.headers);
            return Step::Continue;
        }
        stats.enforced.inc();
        Step::Reply(Box::new(refusal(&config, &verdict, cx, head)))
    }

    fn response_headers<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        if let Some(bucket) = &self.shown {
            let now = Instant::now();
            head.headers.append(LIMIT, HeaderValue::from(bucket.max()));
            head.headers.append(REMAINING, HeaderValue::from(bucket.remaining(now)));
            head.headers.append(RESET, HeaderValue::from(bucket.reset_seconds(now)));
        }
        Step::Continue
    }
}

impl Filter {
    fn check(&self, cx: &FilterCx, head: &RequestHead) -> Verdict {
        let config = &self.config;
        let descriptors = descriptors(config, cx, head);
        let now = Instant::now();
        if !config.per_connection {
            return config.limiter.check(&descriptors, now);
        }
        let mut state = cx.info.connection.filter_state.borrow_mut();
        if state.get(PER_CONNECTION).is_none() {
            let limiter = Rc::new(PerConnection(Limiter::new(&config.limits)));
            state.set(PER_CONNECTION.into(), limiter, Sharing::None, true);
        }
        match state
            .get(PER_CONNECTION)
            .and_then(|object| object.as_any().downcast_ref::<PerConnection>())
        {
            Some(PerConnection(limiter)) => limiter.check(&descriptors, now),
            // The name was taken by something else: the common buckets are the safe ones.
            None => config.limiter.check(&descriptors, now),
        }
    }
}

fn refusal(config: &Config, verdict: &Verdict, cx: &FilterCx, head: &RequestHead) -> LocalReply {
    let mut reply = LocalReply::new(config.status, "local_rate_limited", "local_rate_limited").flag(Flag::RateLimited);
    reply.grpc_status = config.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
    let format = FormatCx {
        request: Some(head),
        response: None,
        info: &cx.info,
    };
    let empty = HeaderMap::new();
    config
        .response_headers
        .evaluate(&empty, &format)
        .apply(&mut reply.headers);
    if let Some(bucket) = verdict.bucket.as_ref().filter(|_| config.retry_after) {
        // A request of several hits may be refused while tokens are left; Envoy never says 0.
        let seconds = bucket.reset_seconds(Instant::now()).max(1);
        reply.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

/// The request's descriptors, by the filter's own rules or else by those of the route and its virtual host.
fn descriptors(config: &Config, cx: &FilterCx, head: &RequestHead) -> Vec<Descriptor> {
    let mut out = Vec::new();
    if config.limits.descriptors.is_empty() {
        return out;
    }
    let descriptor_cx = DescriptorCx {
        head,
        info: &cx.info,
        route: cx.route.as_ref(),
        local_cluster: &cx.worker.server.node.cluster,
    };
    let mut add = |policy: &RateLimitPolicy| {
        out.extend(
            policy
                .of_stage(config.stage)
                .filter(|limit| limit.disable_key.is_empty() && !limit.apply_on_stream_done)
                .filter_map(|limit| limit.descriptor(&descriptor_cx)),
        );
    };
    if !config.rate_limits.is_empty() {
        add(&config.rate_limits);
        return out;
    }
    let Some((route, action)) = cx.route.as_ref().and_then(|route| Some((route, route.forward()?))) else {
        return out;
    };
    add(&action.rate_limits);
    let of_host = match config.virtual_host_limits {
        _ if action.include_vh_rate_limits => true,
        VhRateLimitsOptions::Include => true,
        VhRateLimitsOptions::Ignore => false,
        VhRateLimitsOptions::Override => action.rate_limits.is_empty(),
    };
    if of_host {
        add(&route.virtual_host().rate_limits);
    }
    out
}
