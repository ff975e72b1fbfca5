//! One stream that may be forged.

use std::sync::Arc;

use http::{HeaderName, Method, StatusCode, header};

use super::Policy;
use crate::{
    http::{
        LocalReply, RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    stats::Stats,
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.csrf.` statistics
    pub(super) struct CsrfStats {
        counter missing_source_origin, "Requests that do not say where they come from";
        counter request_invalid, "Requests from another host";
        counter request_valid, "Requests from the host they go to, or a named one";
    }
}

/// The filter's configuration.
pub(super) struct CsrfFilter {
    pub policy: Arc<Policy>,
    pub stats: Stats<CsrfStats>,
}

impl HttpFilterConfig for CsrfFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            policy: self.policy.clone(),
            stats: self.stats.clone(),
        }))
    }
}

struct Filter {
    policy: Arc<Policy>,
    stats: Stats<CsrfStats>,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let policy = cx.route_config::<Arc<Policy>>().unwrap_or(&self.policy);
        let enabled = policy.enabled.roll();
        let shadow = !enabled && policy.shadow.roll();
        if !enabled && !shadow || !modifies(&head.method) {
            return Step::Continue;
        }
        let stats = self.stats.local();
        let source = source(head);
        let target = host_and_port(head.host());
        let valid = if source.is_empty() {
            stats.missing_source_origin.inc();
            false
        } else if source == target || policy.origins.iter().any(|m| m.matches(source.as_bytes())) {
            stats.request_valid.inc();
            true
        } else {
            stats.request_invalid.inc();
            false
        };
        if valid || shadow {
            return Step::Continue;
        }
        Step::Reply(Box::new(LocalReply::new(
            StatusCode::FORBIDDEN,
            "Invalid origin",
            "csrf_origin_mismatch",
        )))
    }
}

fn modifies(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::DELETE, Method::PATCH].contains(method)
}

/// Where the request comes from, by `origin`, or else by `referer`. An opaque origin (`null`) is nowhere.
fn source(head: &RequestHead) -> &str {
    let text = |name: HeaderName| {
        let value = head.headers.get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or_default()
    };
    match text(header::ORIGIN) {
        "" => host_and_port(text(header::REFERER)),
        "null" => "",
        origin => host_and_port(origin),
    }
}

/// Host and port of a URL; other text as it is.
fn host_and_port(text: &str) -> &str {
    let Some((_, rest)) = text.split_once("://") else {
        return text;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}
