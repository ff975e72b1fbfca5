//! One stream under the limits of a service.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use xds_protos::{
    envoy::{
        config::core::v3::HeaderValue as ProtoHeader,
        extensions::common::ratelimit::v3::{
            RateLimitDescriptor,
            rate_limit_descriptor::{Entry, RateLimitOverride},
        },
        service::ratelimit::v3::{RateLimitRequest, RateLimitResponse, rate_limit_response::Code},
    },
    google::protobuf::UInt64Value,
};

use super::{
    config::{Config, OfVirtualHost, PerRoute},
    headers,
};
use crate::{
    extensions::filters::common::rate_limit_service,
    formatter::FormatCx,
    http::{
        Flag, LocalReply, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    route::rate_limit::{Descriptor, DescriptorCx, RateLimitPolicy},
    server::Worker,
    tracing::Span,
    upstream::ClusterInfo,
};

const X_ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Filter state that says how much a request counts.
const HITS_ADDEND: &str = "envoy.ratelimit.hits_addend";

/// The filter's configuration.
pub(super) struct RateLimitFilter(pub Arc<Config>);

impl HttpFilterConfig for RateLimitFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            response_headers: HeaderMap::new(),
            on_done: None,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    /// What the service wants on the response.
    response_headers: HeaderMap,
    /// The request, when some limits are counted at its end (`apply_on_stream_done`).
    on_done: Option<RequestHead>,
}

/// The descriptors of one moment, and where they go.
struct Question {
    domain: String,
    descriptors: Vec<Descriptor>,
    hits_addend: u32,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let config = self.config.clone();
        let internal = head.headers.get(X_ENVOY_INTERNAL).is_some_and(|v| v == "true");
        let (of_internal, of_external) = config.requests;
        if !config.enabled.roll() || !(if internal { of_internal } else { of_external }) {
            return Step::Continue;
        }
        let Some(cluster) = cluster(cx) else {
            return Step::Continue;
        };
        if counts_at_end(&config, cx) {
            self.on_done = Some(head.clone());
        }
        let question = Question::new(&config, cx, head, false);
        if question.descriptors.is_empty() {
            return Step::Continue;
        }
        Step::Wait(Box::pin(async move {
            let answer = question.ask(&config, cx.worker.clone(), cx.span.as_ref()).await;
            self.answered(answer, &question, &cluster, cx, head)
        }))
    }

    fn response_headers<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        append(&mut head.headers, std::mem::take(&mut self.response_headers));
        Step::Continue
    }

    fn on_complete(&mut self, cx: &mut FilterCx) {
        let Some(head) = self.on_done.take() else { return };
        let question = Question::new(&self.config, cx, &head, true);
        if question.descriptors.is_empty() {
            return;
        }
        let (config, worker) = (self.config.clone(), cx.worker.clone());
        // Nobody waits for this answer.
        tokio::task::spawn_local(async move { question.ask(&config, worker, None).await });
    }
}

impl Filter {
    fn answered(
        &mut self,
        answer: Option<RateLimitResponse>,
        question: &Question,
        cluster: &ClusterInfo,
        cx: &mut FilterCx,
        head: &mut RequestHead,
    ) -> Step<'static> {
        let config = self.config.clone();
        // A short lock on the scope, beside a round trip to the service.
        let count = |name: &str| cluster.scope.counter(name).inc();
        let Some(mut answer) = answer else {
            count(&config.stats.error);
            if !config.deny_on_failure.hit(fastrand::u64(..)) {
                count(&config.stats.failure_mode_allowed);
                return Step::Continue;
            }
            let reply = LocalReply::new(config.error_status, "", "rate_limiter_error");
            return Step::Reply(Box::new(reply.flag(Flag::RateLimitServiceError)));
        };
        let over_limit = answer.overall_code() == Code::OverLimit;
        if let Some(metadata) = answer.dynamic_metadata.take().filter(|m| !m.fields.is_empty()) {
            let ours = cx.info.metadata.entry(config.metadata_namespace.clone()).or_default();
            ours.fields.extend(metadata.fields);
        }
        let mut response = HeaderMap::new();
        add_all(&mut response, std::mem::take(&mut answer.response_headers_to_add));
        if over_limit {
            count(&config.stats.over_limit);
            cluster.codes.charge(429, true);
            if config.x_envoy_ratelimited {
                response.insert(X_ENVOY_RATELIMITED, HeaderValue::from_static("true"));
            }
            if let Some(seconds) = headers::retry_after(&answer).filter(|_| config.retry_after) {
                response.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
        } else {
            count(&config.stats.ok);
        }
        // A descriptor may want the headers, or not, whatever the filter says.
        let of_descriptor = |i: usize| question.descriptors.get(i).and_then(|d| d.x_ratelimit_headers);
        let shown: Vec<_> = answer
            .statuses
            .drain(..)
            .enumerate()
            .filter(|(i, _)| of_descriptor(*i).unwrap_or(config.x_ratelimit_headers))
            .map(|(_, status)| status)
            .collect();
        headers::x_ratelimit(&shown, &mut response);

        if over_limit && config.enforced.roll() {
            let mut reply =
                LocalReply::new(config.limited_status, answer.raw_body, "request_rate_limited").flag(Flag::RateLimited);
            reply.grpc_status = config.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
            reply.headers = response;
            let format = FormatCx {
                request: Some(head),
                response: None,
                info: &cx.info,
            };
            let values = config.response_headers.evaluate(&reply.headers, &format);
            values.apply(&mut reply.headers);
            return Step::Reply(Box::new(reply));
        }
        self.response_headers = response;
        add_all(&mut head.headers, answer.request_headers_to_add);
        Step::Continue
    }
}

impl Question {
    fn new(config: &Config, cx: &FilterCx, head: &RequestHead, at_end: bool) -> Self {
        let of_route = cx.route_config::<PerRoute>();
        let hits = cx
            .info
            .filter_state
            .get(HITS_ADDEND)
            .and_then(|o| o.as_text()?.parse().ok());
        let descriptor_cx = DescriptorCx {
            head,
            info: &cx.info,
            route: cx.route.as_ref(),
            local_cluster: &cx.worker.server.node.cluster,
        };
        let mut descriptors = Vec::new();
        for policy in policies(config, cx) {
            let now = policy
                .of_stage(config.stage)
                .filter(|limit| limit.apply_on_stream_done == at_end && limit.is_enabled());
            descriptors.extend(now.filter_map(|limit| limit.descriptor(&descriptor_cx)));
        }
        Self {
            domain: of_route
                .map(|r| &r.domain)
                .filter(|domain| !domain.is_empty())
                .unwrap_or(&config.domain)
                .clone(),
            descriptors,
            hits_addend: hits.unwrap_or_default(),
        }
    }

    /// Asks the service; none when it does not answer in time, or with an error.
    async fn ask(&self, config: &Config, worker: Rc<Worker>, parent: Option<&Span>) -> Option<RateLimitResponse> {
        rate_limit_service::ask(&config.service, self.message(), config.timeout, worker, parent).await
    }

    fn message(&self) -> RateLimitRequest {
        RateLimitRequest {
            domain: self.domain.clone(),
            descriptors: self.descriptors.iter().map(message).collect(),
            hits_addend: self.hits_addend,
        }
    }
}

fn message(descriptor: &Descriptor) -> RateLimitDescriptor {
    RateLimitDescriptor {
        entries: descriptor
            .entries
            .iter()
            .map(|(key, value)| Entry {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        limit: descriptor.limit.map(|limit| RateLimitOverride {
            requests_per_unit: limit.requests_per_unit,
            unit: limit.unit as i32,
        }),
        hits_addend: descriptor.hits_addend.map(|value| UInt64Value { value }),
        is_negative_hits: descriptor.is_negative_hits,
    }
}

/// The cluster the route goes to, whose statistics count the answers; without one nothing is limited.
fn cluster(cx: &FilterCx) -> Option<Arc<ClusterInfo>> {
    let route = cx.route.as_ref().filter(|route| route.forward().is_some())?;
    Some(cx.worker.clusters.get(route.cluster_name())?.info.clone())
}

/// The rules for this request: the route's configuration of this filter, the filter's own, or else those of the
/// route and its virtual host.
fn policies<'a>(config: &'a Config, cx: &'a FilterCx) -> Vec<&'a RateLimitPolicy> {
    let of_route = cx.route_config::<PerRoute>();
    if let Some(of_route) = of_route.filter(|r| !r.rate_limits.is_empty()) {
        return vec![&of_route.rate_limits];
    }
    if !config.rate_limits.is_empty() {
        return vec![&config.rate_limits];
    }
    let Some((route, action)) = cx.route.as_ref().and_then(|route| Some((route, route.forward()?))) else {
        return Vec::new();
    };
    let of_host = match of_route.map(|r| r.of_virtual_host) {
        _ if action.include_vh_rate_limits => true,
        Some(OfVirtualHost::Include) => true,
        Some(OfVirtualHost::Ignore) => false,
        Some(OfVirtualHost::Override) | None => action.rate_limits.is_empty(),
    };
    let mut policies = vec![&action.rate_limits];
    if of_host {
        policies.push(&route.virtual_host().rate_limits);
    }
    policies
}

fn counts_at_end(config: &Config, cx: &FilterCx) -> bool {
    policies(config, cx)
        .iter()
        .any(|policy| policy.of_stage(config.stage).any(|limit| limit.apply_on_stream_done))
}

/// Adds what the service names; what is no header is left out.
fn add_all(headers: &mut HeaderMap, protos: Vec<ProtoHeader>) {
    for proto in protos {
        let ProtoHeader { key, value, raw_value } = proto;
        let bytes = if value.is_empty() {
            raw_value
        } else {
            value.into_bytes()
        };
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(key.to_ascii_lowercase()),
            HeaderValue::from_bytes(&bytes),
        ) {
            headers.append(name, value);
        }
    }
}

fn append(to: &mut HeaderMap, from: HeaderMap) {
    let mut last = None;
    for (name, value) in from {
        last = name.or(last);
        if let Some(name) = &last {
            to.append(name.clone(), value);
        }
    }
}
