//! One stream that may be a gRPC call.

use std::{any::Any, borrow::Cow, cell::Cell, rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{Config, Methods};
use crate::{
    extensions::filters::http::grpc::{CallStats, Frames, cluster, service_and_method},
    http::{
        Body, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        head::is_grpc_content_type,
        observe::{Observer, observe},
        stream_info::{FilterState, FilterStateObject, Progress, Sharing},
    },
};

/// Name of the filter state.
const FILTER_STATE: &str = "envoy.filters.http.grpc_stats";

/// The filter's configuration.
pub(super) struct GrpcStatsFilter(pub Arc<Config>);

impl HttpFilterConfig for GrpcStatsFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            request: false,
            response: false,
            stats: None,
            messages: Rc::default(),
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    /// The request is a gRPC request.
    request: bool,
    /// The response is a gRPC response.
    response: bool,
    /// None when the call has no cluster or no method.
    stats: Option<CallStats>,
    messages: Rc<Messages>,
}

/// `FilterObject`: messages so far.
#[derive(Debug, Default)]
struct Messages {
    request: Cell<u64>,
    response: Cell<u64>,
}

impl Messages {
    fn any(&self) -> bool {
        self.request.get() + self.response.get() > 0
    }
}

/// What filter state holds; it is there only once a message passed.
#[derive(Debug)]
struct State(Rc<Messages>);

/// The messages of a call so far, for filters beside this one.
#[derive(Debug, Clone)]
pub struct MessageCounts(Rc<Messages>);

impl MessageCounts {
    /// Those of a stream; none where nobody counts them.
    pub fn of(state: &FilterState) -> Option<Self> {
        let state = state.get(FILTER_STATE)?.as_any().downcast_ref::<State>()?;
        Some(Self(state.0.clone()))
    }

    /// Of the request and of the response.
    pub fn messages(&self) -> (u64, u64) {
        (self.0.request.get(), self.0.response.get())
    }
}

impl FilterStateObject for State {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        let Messages { request, response } = &*self.0;
        self.0
            .any()
            .then(|| format!("{},{}", request.get(), response.get()).into())
    }

    fn as_json(&self) -> Option<String> {
        let fields = [
            ("requestMessageCount", self.0.request.get()),
            ("responseMessageCount", self.0.response.get()),
        ];
        let fields: Vec<_> = fields
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(name, n)| format!("\"{name}\":\"{n}\""))
            .collect();
        self.0.any().then(|| format!("{{{}}}", fields.join(",")))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        if self.config.filter_state {
            let state = Rc::new(State(self.messages.clone()));
            cx.info
                .filter_state
                .set(FILTER_STATE.into(), state, Sharing::None, false);
        }
        self.request = head.is_grpc();
        if !self.request {
            return Step::Continue;
        }
        if let (Some(cluster), Some((service, method))) = (cluster(cx), service_and_method(head.path_only())) {
            let named = match &self.config.methods {
                Methods::All => true,
                Methods::Listed(methods) => {
                    !methods.is_empty() && methods.contains(&(service.to_owned(), method.to_owned()))
                }
            };
            let service = match self.config.replace_dots && matches!(self.config.methods, Methods::All) {
                true => Cow::Owned(service.replace('.', "_")),
                false => Cow::Borrowed(service),
            };
            let method = named.then_some((&*service, method));
            self.stats = Some(CallStats::new(cluster, "grpc", method));
        }
        Step::Continue
    }

    fn request_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        if !self.request {
            return body;
        }
        observe(
            body,
            RequestMessages {
                frames: Frames::default(),
                messages: self.messages.clone(),
                stats: self.stats.clone(),
            },
        )
    }

    fn response_headers<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        self.response = is_grpc(head, end);
        if let Some(stats) = &self.stats {
            stats.status(&head.headers);
        }
        Step::Continue
    }

    fn response_body(&mut self, cx: &mut FilterCx, body: Body) -> Body {
        if !self.response && self.stats.is_none() {
            return body;
        }
        observe(
            body,
            ResponseMessages {
                is_grpc: self.response,
                frames: Frames::default(),
                messages: self.messages.clone(),
                stats: self.stats.clone(),
                progress: self.config.upstream_times.then(|| cx.info.progress.clone()),
            },
        )
    }
}

/// Whether the response is one of gRPC: 200 and its content type, or only headers with a status.
fn is_grpc(head: &ResponseHead, end: bool) -> bool {
    if end {
        return head.headers.contains_key("grpc-status");
    }
    head.status == StatusCode::OK
        && head
            .headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|v| is_grpc_content_type(v.as_bytes()))
}

struct RequestMessages {
    frames: Frames,
    messages: Rc<Messages>,
    stats: Option<CallStats>,
}

impl Observer for RequestMessages {
    fn data(&mut self, data: &Bytes) {
        let begun = self.frames.count(data);
        if begun > 0 {
            self.messages.request.set(self.messages.request.get() + begun);
            if let Some(stats) = &self.stats {
                stats.count("request_message_count", begun);
            }
        }
    }
}

struct ResponseMessages {
    is_grpc: bool,
    frames: Frames,
    messages: Rc<Messages>,
    stats: Option<CallStats>,
    /// Set when upstream times are recorded.
    progress: Option<Rc<Progress>>,
}

impl Observer for ResponseMessages {
    fn data(&mut self, data: &Bytes) {
        let begun = if self.is_grpc { self.frames.count(data) } else { 0 };
        if begun > 0 {
            self.messages.response.set(self.messages.response.get() + begun);
            if let Some(stats) = &self.stats {
                stats.count("response_message_count", begun);
            }
        }
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) {
        let Some(stats) = &self.stats else { return };
        stats.status(trailers);
        let sent = self.progress.as_ref().and_then(|p| p.last_upstream_tx.get());
        if let Some(sent) = sent {
            stats.upstream_time(Instant::now().duration_since(sent));
        }
    }
}
