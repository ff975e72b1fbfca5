//! One stream that may be a health check.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::config::Config;
use crate::{
    http::{
        Flag, LocalReply, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    server::{ServerContext, Worker},
};

const HEALTH_CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// The filter's configuration.
pub(super) struct HealthCheckFilter(pub Arc<Config>);

impl HttpFilterConfig for HealthCheckFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            health_check: false,
            held: None,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    /// The request is a health check.
    health_check: bool,
    /// The answer to a request whose body is still to come.
    held: Option<Box<LocalReply>>,
}

/// Longest body of a health check that is answered here, in bytes. It is read and dropped, as in Envoy, so that the
/// connection can go on.
const MOST_BODY: u64 = 1024 * 1024;

/// How a health check ended.
struct Verdict {
    status: StatusCode,
    details: &'static str,
    degraded: bool,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        let config = &*self.config;
        if !config.headers.iter().all(|m| m.matches(head)) {
            return Step::Continue;
        }
        self.health_check = true;
        cx.info.health_check = true;
        if let Some(span) = &cx.span {
            // Nor does anybody behind trace it.
            span.set_sampled(false);
        }
        let cached = config.cache.as_ref().and_then(|cache| cache.get(Instant::now()));
        if config.pass_through && !failing(&cx.worker.server) && cached.is_none() {
            return Step::Continue;
        }
        let verdict = verdict(config, cached, &cx.worker);
        let stats = config.stats.local();
        stats.request_total.inc();
        let mut reply = LocalReply::new(verdict.status, "", verdict.details);
        if verdict.status.is_success() {
            stats.ok.inc();
        } else {
            stats.failed.inc();
            reply = reply.flag(Flag::FailedLocalHealthCheck);
        }
        if verdict.degraded {
            stats.degraded.inc();
            reply.headers.insert(DEGRADED, HeaderValue::from_static(""));
        }
        if end {
            return Step::Reply(Box::new(reply));
        }
        self.held = Some(Box::new(reply));
        Step::Continue
    }

    fn buffer_request(&self) -> Option<u64> {
        self.held.is_some().then_some(MOST_BODY)
    }

    fn request_buffered<'a>(&'a mut self, _: &'a mut FilterCx, _: &'a mut RequestHead, _: &'a mut Bytes) -> Step<'a> {
        self.held.take().map_or(Step::Continue, Step::Reply)
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        let server = &cx.worker.server;
        if self.health_check {
            if let Some(cache) = &self.config.cache {
                cache.set(head.status, head.headers.contains_key(DEGRADED), Instant::now());
            }
            if let Ok(cluster) = HeaderValue::from_str(&server.node.cluster) {
                head.headers.insert(HEALTH_CHECKED_CLUSTER, cluster);
            }
        }
        if failing(server) {
            head.headers.insert(IMMEDIATE_FAIL, HeaderValue::from_static("true"));
        }
        Step::Continue
    }
}

/// `/healthcheck/fail` was asked for.
fn failing(server: &ServerContext) -> bool {
    server.health_failed.load(Ordering::Relaxed)
}

fn verdict(config: &Config, cached: Option<(StatusCode, bool)>, worker: &Worker) -> Verdict {
    let of = |status, details| Verdict {
        status,
        details,
        degraded: false,
    };
    let failed = |details| of(StatusCode::SERVICE_UNAVAILABLE, details);
    let stats = config.stats.local();
    if failing(&worker.server) {
        return failed("health_check_failed");
    }
    if let Some((status, degraded)) = cached {
        stats.cached_response.inc();
        return Verdict {
            degraded,
            ..of(status, "health_check_cached")
        };
    }
    if config.clusters.is_empty() {
        return of(StatusCode::OK, "health_check_ok");
    }
    for (name, percent) in &config.clusters {
        let Some(cluster) = worker.clusters.get(name) else {
            stats.failed_cluster_not_found.inc();
            return failed("health_check_failed_no_cluster_found");
        };
        let (total, usable) = cluster.membership();
        if total == 0 && *percent > 0 {
            stats.failed_cluster_empty.inc();
            return failed("health_check_failed_cluster_empty");
        }
        if 100 * usable < total * percent {
            stats.failed_cluster_unhealthy.inc();
            return failed("health_check_failed_cluster_unhealthy");
        }
    }
    of(StatusCode::OK, "health_check_ok_cluster_healthy")
}
