//! `tracing` of the connection manager: when a request's span starts, what it is called, and what it is told.

use http::HeaderValue;
use xds_protos::envoy::{
    config::core::v3::TrafficDirection,
    extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing as Proto,
};

use super::{
    complete::Active,
    request_id::{DECORATOR_OPERATION, Reason, Sampling, X_REQUEST_ID},
};
use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::ResponseHead,
    tracing::{self, Config, CustomTag, Direction, Root, Span, tags},
};

/// Builds `tracing`: what is sampled, and what is told of it.
pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<(Sampling, Config)> {
    coverage!(cx, proto => Proto {
        supported {
            client_sampling, random_sampling, overall_sampling, verbose, max_path_tag_length, custom_tags, provider,
            spawn_upstream_span, operation, upstream_operation, no_context_propagation,
        }
    });
    let tracer = match provider {
        Some(provider) => cx.field("provider", |cx| tracing::provider(provider, cx))?,
        None => tracing::of_bootstrap(cx)?,
    };
    let mut format = |name: &str, text: String| match text.is_empty() {
        true => Ok(None),
        false => cx.field(name, |cx| Format::parse_omit_empty(&text, cx).map(Some)),
    };
    let (operation, upstream_operation) = (
        format("operation", operation)?,
        format("upstream_operation", upstream_operation)?,
    );
    let node = &cx.server.node;
    let config = Config {
        tracer,
        spawn_upstream_span: spawn_upstream_span.is_some_and(|v| v.value),
        verbose,
        max_path_tag_length: max_path_tag_length.map_or(256, |v| v.value as usize),
        operation,
        upstream_operation,
        no_context_propagation,
        node_id: node.id.clone(),
        zone: node.locality.as_ref().map(|l| l.zone.clone()).unwrap_or_default(),
        custom_tags: cx.each("custom_tags", custom_tags, CustomTag::build)?,
    };
    Ok((
        Sampling::build(client_sampling, random_sampling, overall_sampling, cx),
        config,
    ))
}

/// Decides whether the request is traced; its id may tell.
pub(super) fn decide(active: &mut Active) {
    let config = &active.hcm.config;
    let Some(sampling) = &config.sampling else { return };
    let of_route = active.cx.route.as_ref().and_then(|r| r.tracing.as_ref());
    active.trace_reason = config.request_ids.decide(&mut active.head.headers, sampling, of_route);
    active.cx.info.traced = active.trace_reason != Reason::NotTraceable;
    active.cx.info.request_id = active.head.headers.get(X_REQUEST_ID).cloned();
}

/// Starts the span of a request, and settles its name.
pub(super) fn start(active: &mut Active) {
    let Some(config) = active.hcm.config.tracing.clone() else {
        return;
    };
    let direction = direction(active);
    let root = Root {
        head: &active.head,
        start: active.cx.info.start_time,
        traced: active.cx.info.traced,
        relation: config.relation(direction),
    };
    let span = Span::start(&config, active.cx.worker.id, &root);
    if let Some(span) = &span {
        span.set_tag("node_id", config.node_id.clone());
        span.set_tag("zone", config.zone.clone());
        let (trace_id, span_id) = span.ids();
        active.cx.info.trace_id = Some(trace_id.into());
        active.cx.info.span_id = span_id.map(Into::into);
    }
    name(active, &config, direction, span.as_ref());
    active.cx.span = span;
}

fn direction(active: &Active) -> Direction {
    match active.hcm.info.direction {
        TrafficDirection::Outbound => Direction::Egress,
        _ => Direction::Ingress,
    }
}

/// `operation`, or else the decorator's and what the hop before has called it.
fn name(active: &mut Active, config: &Config, direction: Direction, span: Option<&Span>) {
    let route = active.cx.route.as_ref();
    let of_route = route
        .and_then(|r| r.tracing.as_ref())
        .and_then(|t| t.operation.as_ref());
    if of_route.or(config.operation.as_ref()).is_some() {
        // It is written at the end, when all that it may tell of is known.
        return;
    }
    let decorator = route
        .and_then(|r| r.decorator.as_ref())
        .filter(|d| !d.operation.is_empty());
    if let (Some(span), Some(decorator)) = (span, decorator) {
        span.set_operation(&decorator.operation);
    }
    // The operation's name is for the span, at the end of its way; or for the next hop, on the way out.
    let told = decorator.filter(|d| d.propagate);
    let told = told.and_then(|d| HeaderValue::from_str(&d.operation).ok());
    if direction == Direction::Egress {
        if let Some(told) = told {
            active.head.headers.insert(DECORATOR_OPERATION, told);
        }
        return;
    }
    let given = active.head.headers.remove(DECORATOR_OPERATION);
    let given = given.filter(|v| !v.is_empty());
    if let (Some(span), Some(given)) = (span, &given) {
        span.set_operation(&String::from_utf8_lossy(given.as_bytes()));
    }
    active.operation = told.filter(|_| given.is_none());
}

/// The response goes out with the operation's name, or it has brought the next hop's.
pub(super) fn respond(active: &mut Active, head: &mut ResponseHead) {
    if let Some(operation) = active.operation.take() {
        head.headers.insert(DECORATOR_OPERATION, operation);
        return;
    }
    let Some(config) = &active.hcm.config.tracing else {
        return;
    };
    let of_route = active.cx.route.as_ref().and_then(|r| r.tracing.as_ref());
    if config.operation.is_some() || of_route.is_some_and(|t| t.operation.is_some()) {
        return;
    }
    if direction(active) == Direction::Egress
        && let Some(given) = head.headers.remove(DECORATOR_OPERATION)
        && let Some(span) = active.cx.span.as_ref().filter(|_| !given.is_empty())
    {
        span.set_operation(&String::from_utf8_lossy(given.as_bytes()));
    }
}

/// Tells the span how the stream went, and ends it.
pub(super) fn finish(active: &mut Active) {
    let Some(span) = active.cx.span.take() else { return };
    if span.is_sampled() {
        let info = &active.cx.info;
        let request = (!active.headless).then_some(&active.head);
        let response = active.response.as_ref();
        tags::of_request(&span, request, response, info);
        if span.config().verbose {
            tags::events(&span, info, &info.progress, false);
        }
        let of_route = active.cx.route.as_ref().and_then(|r| r.tracing.as_ref());
        let format = FormatCx {
            request,
            response,
            info,
        };
        let operation = of_route.and_then(|t| t.operation.as_ref());
        if let Some(operation) = operation.or(span.config().operation.as_ref()) {
            let mut name = Vec::new();
            operation.write(&mut name, &format);
            if !name.is_empty() {
                span.set_operation(&String::from_utf8_lossy(&name));
            }
        }
        let of_route = of_route.map_or(&[][..], |t| &t.custom_tags);
        for (name, value) in tracing::custom_tags(&span.config().custom_tags, of_route, &format) {
            span.set_tag(name, value);
        }
    }
    span.finish();
}
