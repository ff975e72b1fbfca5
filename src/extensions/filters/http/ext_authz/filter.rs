//! One stream under the eyes of the service.

use std::{rc::Rc, time::Instant};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use xds_protos::google::protobuf::{Struct, Value, value::Kind};

use super::{
    answer::{Allowed, Answer, Change, Denied},
    check::{self, Read},
    config::{BufferSettings, PerRoute, RouteSettings, Service, Shared},
};
use crate::{
    extensions::filters::common::{
        authorization,
        mutation_rules::{Rules, Verdict},
    },
    http::{
        Body, BodyError, Flag, LocalReply, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    matching::QueryParameters,
};

const FAILURE_MODE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");

/// The filter's configuration.
pub(super) struct ExtAuthzFilter(pub Shared);

impl HttpFilterConfig for ExtAuthzFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            body: None,
            response: Vec::new(),
            asked: Instant::now(),
        }))
    }
}

struct Filter {
    config: Shared,
    /// The question waits for so much of the body.
    body: Option<BufferSettings>,
    /// What an allowing answer wants on the response.
    response: Vec<Change>,
    /// When the service was asked.
    asked: Instant,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        let config = self.config.clone();
        if cx.route.is_none() {
            return Step::Continue;
        }
        if let Some(PerRoute::Disabled) = cx.route_config::<PerRoute>() {
            return Step::Continue;
        }
        let by_metadata = config
            .enabled_metadata
            .as_ref()
            .is_none_or(|m| m.matches_dynamic(&cx.info));
        if !config.enabled.roll() || !by_metadata {
            if config.deny_at_disable.enabled() {
                let reply = LocalReply::new(config.status_on_error, "", "ext_authz_error");
                return Step::Reply(Box::new(reply.flag(Flag::UnauthorizedExternalService)));
            }
            config.stats.local().disabled.inc();
            return Step::Continue;
        }
        let settings = settings(cx);
        let body = match settings {
            Some(settings) if settings.no_body => None,
            Some(settings) => settings.body.or(config.body),
            None => config.body,
        };
        let tunnel = head.method == Method::CONNECT || head.headers.contains_key(header::UPGRADE);
        if let Some(body) = body.filter(|_| !end && !tunnel) {
            self.body = Some(body);
            return Step::Continue;
        }
        Step::Wait(Box::pin(async move { self.check(cx, head, None).await }))
    }

    fn buffer_request(&self) -> Option<u64> {
        self.body.filter(|b| !b.partial).map(|b| b.most)
    }

    fn request_buffered<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        head: &'a mut RequestHead,
        body: &'a mut Bytes,
    ) -> Step<'a> {
        let Some(settings) = self.body else {
            return Step::Continue;
        };
        let read = Read {
            bytes: body.clone(),
            partial: false,
            as_bytes: settings.as_bytes,
        };
        Step::Wait(Box::pin(async move { self.check(cx, head, Some(read)).await }))
    }

    fn takes_request(&self) -> bool {
        self.body.is_some_and(|b| b.partial)
    }

    fn request_taken<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        head: &'a mut RequestHead,
        body: &'a mut Body,
    ) -> Step<'a> {
        let Some(settings) = self.body else {
            return Step::Continue;
        };
        Step::Wait(Box::pin(async move {
            let (bytes, whole) = read_first(body, settings.most).await;
            let read = Read {
                bytes,
                partial: !whole,
                as_bytes: settings.as_bytes,
            };
            self.check(cx, head, Some(read)).await
        }))
    }

    fn response_headers<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        for change in std::mem::take(&mut self.response) {
            change.apply(&mut head.headers);
        }
        Step::Continue
    }
}

fn settings(cx: &FilterCx) -> Option<&RouteSettings> {
    match cx.route_config::<PerRoute>()? {
        PerRoute::Settings(settings) => Some(settings),
        PerRoute::Disabled => None,
    }
}

/// Reads up to `most` bytes and puts them back; whether that was all.
async fn read_first(body: &mut Body, most: u64) -> (Bytes, bool) {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut rest = std::mem::take(body);
    let mut first = BytesMut::new();
    let mut frames: Vec<Result<Frame<Bytes>, BodyError>> = Vec::new();
    let mut whole = true;
    while let Some(frame) = rest.frame().await {
        if let Some(data) = frame.as_ref().ok().and_then(|f| f.data_ref()) {
            let room = most - first.len();
            first.extend_from_slice(&data[..data.len().min(room)]);
            whole = data.len() <= room;
        }
        let broken = frame.is_err();
        frames.push(frame);
        if broken || first.len() >= most {
            whole &= rest_is_empty(&rest);
            break;
        }
    }
    let read = stream::iter(frames);
    let rest = stream::unfold(rest, |mut rest| async move {
        let frame = rest.frame().await?;
        Some((frame, rest))
    });
    *body = Body::boxed(StreamBody::new(futures_util::StreamExt::chain(read, rest)));
    (first.freeze(), whole)
}

fn rest_is_empty(rest: &Body) -> bool {
    http_body::Body::is_end_stream(rest)
}

impl Filter {
    async fn check(&mut self, cx: &mut FilterCx, head: &mut RequestHead, body: Option<Read>) -> Step<'static> {
        self.asked = Instant::now();
        let answer = self.ask(cx, head, body).await;
        self.settle(answer, cx, head)
    }

    async fn ask(&self, cx: &FilterCx, head: &RequestHead, body: Option<Read>) -> Answer {
        let config = &self.config;
        // Least specific first: what a route says stands.
        let mut context = std::collections::HashMap::new();
        for of_route in cx.route_configs::<PerRoute>() {
            if let PerRoute::Settings(settings) = of_route {
                context.extend(settings.context.clone());
            }
        }
        let service = settings(cx)
            .and_then(|s| s.service.as_ref())
            .or(config.service.as_ref());
        match service {
            Some(Service::Http(http)) => http.ask(config, cx, head, body.as_ref()).await,
            Some(Service::Grpc(target)) => {
                let question = check::request(config, cx, head, body.as_ref(), context);
                match authorization::ask(target, question, cx.worker.clone(), cx.span.as_ref()).await {
                    Some(response) => Answer::of(response),
                    None => Answer::Error(None),
                }
            }
            None => Answer::Error(None),
        }
    }

    fn settle(&mut self, answer: Answer, cx: &mut FilterCx, head: &mut RequestHead) -> Step<'static> {
        let config = self.config.clone();
        let stats = config.stats.local();
        match answer {
            Answer::Allowed(mut allowed) => {
                let permitted = config.rules.as_ref().is_none_or(|rules| allowed.keep_to(rules));
                if !permitted || config.validate_mutations && !allowed.is_valid() {
                    stats.invalid.inc();
                    self.count(cx, "invalid");
                    return invalid();
                }
                stats.ok.inc();
                self.count(cx, "ok");
                let mut metadata = allowed.metadata.clone();
                if !metadata.fields.is_empty() {
                    let taken = Kind::NumberValue(self.asked.elapsed().as_millis() as f64);
                    metadata
                        .fields
                        .insert("ext_authz_duration".to_owned(), Value { kind: Some(taken) });
                }
                self.metadata(cx, metadata);
                self.allow(*allowed, cx, head);
                Step::Continue
            }
            Answer::Denied(denied) => {
                stats.denied.inc();
                self.count(cx, "denied");
                if config.validate_mutations && denied.headers.iter().any(|c| c.parts().is_none()) {
                    stats.invalid.inc();
                    self.count(cx, "invalid");
                    return invalid();
                }
                self.metadata(cx, denied.metadata.clone());
                if config.charge_cluster
                    && let Some(cluster) = cluster(cx)
                {
                    cluster.info.codes.charge(denied.status.as_u16(), true);
                }
                self.refuse(*denied, "ext_authz_denied")
            }
            Answer::Error(with) => {
                stats.error.inc();
                self.count(cx, "error");
                if config.failure_mode_allow {
                    stats.failure_mode_allowed.inc();
                    self.count(cx, "failure_mode_allowed");
                    if config.failure_mode_allow_header {
                        head.headers
                            .insert(FAILURE_MODE_ALLOWED, HeaderValue::from_static("true"));
                    }
                    return Step::Continue;
                }
                let denied = with.map_or_else(
                    || Denied {
                        status: config.status_on_error,
                        headers: Vec::new(),
                        body: Bytes::new(),
                        metadata: Struct::default(),
                    },
                    |with| *with,
                );
                self.refuse(denied, "ext_authz_error")
            }
        }
    }

    fn refuse(&self, denied: Denied, details: &'static str) -> Step<'static> {
        let most = self.config.most_denied_body;
        let body = denied.body.slice(..denied.body.len().min(most));
        let mut reply = LocalReply::new(denied.status, body, details).flag(Flag::UnauthorizedExternalService);
        let mut headers = HeaderMap::new();
        for change in denied.headers {
            // The length is the reply's own.
            if !change.name.eq_ignore_ascii_case("content-length") {
                change.apply(&mut headers);
            }
        }
        reply.headers = headers;
        Step::Reply(Box::new(reply))
    }

    fn allow(&mut self, allowed: Allowed, cx: &mut FilterCx, head: &mut RequestHead) {
        let changes = !allowed.request.is_empty() || !allowed.remove.is_empty();
        let mut query_changes = false;
        for change in &allowed.request {
            match change.name.to_ascii_lowercase().as_str() {
                ":path" => {
                    if let Some(path) = std::str::from_utf8(&change.value).ok().and_then(|p| p.parse().ok()) {
                        head.path = Some(path);
                    }
                }
                ":authority" | "host" => {
                    if let Ok(value) = HeaderValue::from_bytes(&change.value) {
                        head.authority = Some(value);
                    }
                }
                ":method" => {
                    if let Ok(method) = Method::from_bytes(&change.value) {
                        head.method = method;
                    }
                }
                _ => {
                    change.apply(&mut head.headers);
                }
            }
        }
        for name in &allowed.remove {
            // Pseudo-headers and the host stay.
            if !name.starts_with(':') && !name.eq_ignore_ascii_case("host") {
                head.headers.remove(name.as_str());
            }
        }
        if !allowed.set_query.is_empty() || !allowed.remove_query.is_empty() {
            query_changes = change_query(&allowed, head);
        }
        self.response = allowed.response;
        if self.config.clear_route_cache && (changes || query_changes) {
            cx.clear_route_cache = true;
        }
    }

    fn metadata(&self, cx: &mut FilterCx, metadata: Struct) {
        if metadata.fields.is_empty() {
            return;
        }
        if !self.config.take_metadata {
            self.config.stats.local().ignored_dynamic_metadata.inc();
            return;
        }
        let ours = cx
            .info
            .metadata
            .entry("envoy.filters.http.ext_authz".to_owned())
            .or_default();
        ours.fields.extend(metadata.fields);
    }

    /// Counts below the route's cluster.
    fn count(&self, cx: &FilterCx, what: &str) {
        if let Some(cluster) = cluster(cx) {
            // A short lock on the scope, beside a round trip to the service.
            let name = format!("{}{what}", self.config.cluster_prefix);
            cluster.info.scope.counter(&name).inc();
        }
    }
}

impl Allowed {
    /// Leaves out what the rules do not allow; false when they call that an error.
    fn keep_to(&mut self, rules: &Rules) -> bool {
        let mut good = true;
        let mut may = |name: &str, remove| {
            let verdict = rules.check(&name.to_ascii_lowercase(), remove);
            good &= verdict != Verdict::Error;
            verdict == Verdict::Allowed
        };
        self.request.retain(|change| may(&change.name, false));
        self.remove.retain(|name| may(name, true));
        good
    }

    fn is_valid(&self) -> bool {
        let pseudo = |c: &Change| c.name.starts_with(':');
        self.request.iter().all(|c| pseudo(c) || c.parts().is_some())
            && self.response.iter().all(|c| c.parts().is_some())
            && self.remove.iter().all(|n| HeaderName::try_from(n.as_str()).is_ok())
    }
}

fn invalid() -> Step<'static> {
    let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "ext_authz_invalid");
    Step::Reply(Box::new(reply.flag(Flag::UnauthorizedExternalService)))
}

fn cluster(cx: &FilterCx) -> Option<Rc<crate::upstream::WorkerCluster>> {
    let route = cx.route.as_ref().filter(|route| route.forward().is_some())?;
    cx.worker.clusters.get(route.cluster_name())
}

fn change_query(allowed: &Allowed, head: &mut RequestHead) -> bool {
    let before = head.path.clone();
    let mut parameters = QueryParameters::of(head);
    for (name, value) in &allowed.set_query {
        parameters.set(name, value.clone());
    }
    for name in &allowed.remove_query {
        parameters.remove(name);
    }
    parameters.write_to(head);
    head.path != before
}
