//! The span of an attempt (`spawn_upstream_span`, `start_child_span`), and what its upstream is told.

use http::HeaderMap;
use xds_protos::envoy::config::core::v3::TrafficDirection;

use super::RouterConfig;
use crate::{
    formatter::FormatCx,
    http::{RequestHead, StreamInfo, filter::FilterCx, stream_info::Progress},
    tracing::{self, Direction, Span, tags},
};

/// Starts the span of the attempt that comes now, where attempts have one, and tells the upstream of it, or else of the
/// request's.
pub(super) fn start(config: &RouterConfig, cx: &FilterCx, head: &mut RequestHead) -> Option<Span> {
    let parent = cx.span.as_ref()?;
    let tracing = parent.config().clone();
    if !tracing.spawn_upstream_span && !config.start_child_span {
        parent.inject(&mut head.headers);
        return None;
    }
    let info = &cx.info;
    let direction = match info.connection.direction {
        TrafficDirection::Outbound => Direction::Egress,
        _ => Direction::Ingress,
    };
    let of_route = cx.route.as_ref().and_then(|r| r.tracing.as_ref());
    let format = of_route.and_then(|t| t.upstream_operation.as_ref());
    let mut name = Vec::new();
    if let Some(format) = format.or(tracing.upstream_operation.as_ref()) {
        let request = Some(&*head);
        let response = None;
        format.write(
            &mut name,
            &FormatCx {
                request,
                response,
                info,
            },
        );
    }
    if name.is_empty() {
        let cluster = info.upstream.cluster_observability_name.as_deref();
        name = format!("router {} egress", cluster.unwrap_or_default()).into_bytes();
    }
    let span = parent.child(&String::from_utf8_lossy(&name), tracing.relation(direction));
    if info.upstream.attempts > 1 {
        span.set_tag(tags::RETRY_COUNT, (info.upstream.attempts - 1).to_string());
    }
    span.inject(&mut head.headers);
    Some(span)
}

/// Renames an attempt's span by `upstream_operation`. Returns its custom tags: both tell of the request's stream as it is
/// now.
pub(super) fn describe(span: &Span, cx: &FilterCx, head: &RequestHead) -> Vec<(String, String)> {
    if !span.is_sampled() {
        return Vec::new();
    }
    let format = FormatCx {
        request: Some(head),
        response: None,
        info: &cx.info,
    };
    let of_route = cx.route.as_ref().and_then(|r| r.tracing.as_ref());
    let operation = of_route.and_then(|t| t.upstream_operation.as_ref());
    if let Some(operation) = operation.or(span.config().upstream_operation.as_ref()) {
        let mut name = Vec::new();
        operation.write(&mut name, &format);
        if !name.is_empty() {
            span.set_operation(&String::from_utf8_lossy(&name));
        }
    }
    let of_route = of_route.map_or(&[][..], |t| &t.custom_tags);
    tracing::custom_tags(&span.config().custom_tags, of_route, &format)
}

/// What is known of an attempt at its end.
pub(super) struct Ended<'a> {
    /// The upstream's side of it.
    pub(super) info: &'a StreamInfo,
    /// What the request's stream has moved.
    pub(super) moved: Option<&'a Progress>,
    /// Head of the response.
    pub(super) headers: Option<&'a HeaderMap>,
    /// Trailers of the response.
    pub(super) trailers: Option<&'a HeaderMap>,
    /// How it was reset, if it was.
    pub(super) reset_reason: Option<&'static str>,
    /// This side did not wait for its end.
    pub(super) canceled: bool,
}

/// Ends the span of an attempt.
pub(super) fn finish(span: &Span, ended: &Ended<'_>, custom_tags: Vec<(String, String)>) {
    if span.is_sampled() {
        for headers in ended.headers.into_iter().chain(ended.trailers) {
            tags::of_grpc_response(span, headers);
        }
        if let Some(reason) = ended.reset_reason {
            span.set_tag(tags::ERROR_REASON, reason);
        }
        if ended.canceled {
            span.set_tag(tags::CANCELED, "true");
        }
        tags::of_attempt(span, ended.info);
        if let Some(moved) = ended.moved.filter(|_| span.config().verbose) {
            tags::events(span, ended.info, moved, true);
        }
        for (name, value) in custom_tags {
            span.set_tag(name, value);
        }
    }
    span.finish();
}
