//! Upstream HTTP filters: a chain of their own for each attempt, between the router and the upstream's codec.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{attempt::Answer, request::Request};
use crate::{
    http::{
        Body, BodyError, LocalReply, RequestHead, ResponseHead, StreamInfo,
        filter::{FilterCx, HttpFilter, StreamCx, settle},
    },
    upstream::config::UpstreamHttpFilters,
};

/// The filters of one attempt. They see the attempt as its upstream does: a stream of its own.
pub(super) struct UpstreamFilters {
    cx: FilterCx,
    filters: Vec<(std::sync::Arc<str>, Box<dyn HttpFilter>)>,
}

impl UpstreamFilters {
    /// The cluster's filters, or else the router's; none when there is nothing to run.
    pub(super) fn create(request: &Request<'_>, stream: &FilterCx) -> Option<Self> {
        let chain: &UpstreamHttpFilters = match &request.cluster.info.http.filters {
            own if !own.is_empty() => own,
            _ => &request.config.upstream_filters,
        };
        if chain.is_empty() {
            return None;
        }
        let mut filters = Vec::new();
        for entry in chain.iter() {
            let route = stream.route.as_ref();
            let disabled = route.and_then(|r| r.filter_disabled(&entry.name));
            if disabled.unwrap_or(entry.disabled) {
                continue;
            }
            let cx = StreamCx {
                worker: &stream.worker,
                filter_name: &entry.name,
            };
            filters.extend(entry.config.create(&cx).map(|filter| (entry.name.clone(), filter)));
        }
        if filters.is_empty() {
            return None;
        }
        Some(Self {
            cx: FilterCx {
                overload: None,
                info: info_of(&stream.info),
                route: stream.route.clone(),
                clear_route_cache: false,
                override_host: None,
                on_demand_routes: None,
                newer_routes: None,
                span: stream.span.clone(),
                worker: stream.worker.clone(),
                filter_name: "".into(),
                informational: stream.informational.clone(),
            },
            filters,
        })
    }

    /// Runs the request's head through; a reply ends the attempt.
    pub(super) async fn request_headers(&mut self, head: &mut RequestHead, end: bool) -> Option<Box<LocalReply>> {
        for (name, filter) in &mut self.filters {
            self.cx.filter_name = name.clone();
            let reply = settle(filter.request_headers(&mut self.cx, head, end)).await;
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    /// Lets the filters at the request's body; those that want the whole of it have it read first.
    pub(super) async fn request_body(
        &mut self,
        head: &mut RequestHead,
        mut body: Body,
    ) -> Result<Body, Box<LocalReply>> {
        if matches!(body, Body::Empty) {
            return Ok(body);
        }
        for (name, filter) in &mut self.filters {
            self.cx.filter_name = name.clone();
            if let Some(limit) = filter.buffer_request() {
                let mut bytes = whole(body, limit).await?;
                if let Some(reply) = settle(filter.request_buffered(&mut self.cx, head, &mut bytes)).await {
                    return Err(reply);
                }
                body = Body::full(bytes);
            }
            body = filter.request_body(&mut self.cx, body);
        }
        Ok(body)
    }

    /// Runs the response through, in the opposite order.
    pub(super) async fn response(mut self, request: &RequestHead, answer: &mut Answer) {
        let mut body = std::mem::take(&mut answer.body);
        let mut replied: Option<Box<LocalReply>> = None;
        for (name, filter) in self.filters.iter_mut().rev() {
            self.cx.filter_name = name.clone();
            let end = matches!(body, Body::Empty);
            let reply = settle(filter.response_headers(&mut self.cx, request, &mut answer.head, end)).await;
            if let (Some(reply), None) = (reply, &replied) {
                answer.head = ResponseHead::new(reply.status);
                body = Body::Empty;
                replied = Some(reply);
            }
            if !matches!(body, Body::Empty) {
                body = filter.response_body(&mut self.cx, body);
            }
        }
        answer.local = replied;
        answer.body = match body {
            Body::Empty => Body::Empty,
            body => Body::boxed(Filtered {
                inner: body,
                _filters: self,
            }),
        };
    }
}

/// The whole body, without its trailers.
async fn whole(mut body: Body, limit: u64) -> Result<Bytes, Box<LocalReply>> {
    let mut whole = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { break };
        whole.extend_from_slice(&data);
        if whole.len() as u64 > limit {
            return Err(Box::new(LocalReply::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Payload Too Large",
                "request_payload_too_large",
            )));
        }
    }
    Ok(whole.freeze())
}

/// A response's body, with the filters that are not done before its end.
struct Filtered {
    inner: Body,
    _filters: UpstreamFilters,
}

impl HttpBody for Filtered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The answer that a filter gave instead of the upstream.
pub(super) fn answer_of(reply: Box<LocalReply>) -> Answer {
    Answer {
        head: ResponseHead::new(reply.status),
        body: Body::Empty,
        upgrade: None,
        ready: std::time::Instant::now(),
        local: Some(reply),
    }
}

impl Drop for UpstreamFilters {
    fn drop(&mut self) {
        for (name, filter) in &mut self.filters {
            self.cx.filter_name = name.clone();
            filter.on_complete(&mut self.cx);
        }
    }
}

/// What an attempt's filters know of its stream.
fn info_of(stream: &StreamInfo) -> StreamInfo {
    let mut info = StreamInfo::new(stream.connection.clone(), stream.protocol);
    info.start = stream.start;
    info.start_time = stream.start_time;
    info.request_id.clone_from(&stream.request_id);
    info.remote_address.clone_from(&stream.remote_address);
    info.route_name.clone_from(&stream.route_name);
    info.route_metadata.clone_from(&stream.route_metadata);
    info.virtual_host_metadata.clone_from(&stream.virtual_host_metadata);
    info.metadata.clone_from(&stream.metadata);
    info.filter_state.clone_from(&stream.filter_state);
    let (to, from) = (&mut info.upstream, &stream.upstream);
    to.cluster.clone_from(&from.cluster);
    to.cluster_observability_name
        .clone_from(&from.cluster_observability_name);
    to.cluster_metadata.clone_from(&from.cluster_metadata);
    to.host.clone_from(&from.host);
    to.attempts = from.attempts;
    info
}
