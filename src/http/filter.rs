//! The HTTP filter traits: what an extension author writes, and what the chain runs.
//!
//! Decoder order is A, B, C; encoder order C, B, A. A filter is synchronous unless it waits: a
//! suspended future *is* Envoy's stopped iteration, and dropping it cancels. Bodies are wrapped, not
//! called back, so back-pressure costs nothing.

use std::{any::Any, rc::Rc, sync::Arc, time::Instant};

use futures_util::future::LocalBoxFuture;
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;
use xds_protos::prost::{Message, Name};

use super::{Body, Informational, LocalReply, RequestHead, ResponseHead, StreamInfo};
use crate::{
    config::{BuildCx, ConfigResult},
    route::{RouteMatch, RouteOutcome, RouteTable},
    server::{OverloadManager, Worker},
    tracing::Span,
};

/// A filter's per-route configuration, opened again with `downcast_ref` by the filter that made it.
pub type RouteConfig = Arc<dyn Any + Send + Sync>;

/// What an HTTP filter extension is, typed for its author. One zero-sized type per extension implements it.
pub trait HttpFilterFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.filters.http.rbac`.
    const NAME: &'static str;
    /// The filter's configuration message.
    type Proto: Message + Name + Default;
    /// The message under `typed_per_filter_config`; the same as `Proto` where Envoy has only one.
    type RouteProto: Message + Name + Default;

    /// Builds the configuration that all streams of a chain share.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>>;

    /// Builds a per-route configuration; refused by filters that have none.
    fn build_route(&self, _: Self::RouteProto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Err(cx.error(format!(
            "The filter {} doesn't support virtual host or route specific configurations",
            Self::NAME
        )))
    }
}

/// A built filter: immutable, shared by all workers.
pub trait HttpFilterConfig: Send + Sync {
    /// A filter for one stream; none when it has nothing to do on this stream.
    fn create(&self, cx: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>>;
}

/// What a filter is created with.
pub struct StreamCx<'a> {
    /// The worker that runs the stream.
    pub worker: &'a Rc<Worker>,
    /// The name under which the filter stands in the chain: the key of its per-route configuration.
    pub filter_name: &'a Arc<str>,
}

/// What a filter may read and change while it runs.
pub struct FilterCx {
    /// The overload manager, unless there is none or the listener bypasses it.
    pub overload: Option<Arc<OverloadManager>>,
    /// Everything known of the stream: addresses, flags, metadata, filter state, timing.
    pub info: StreamInfo,
    /// The chosen route; none when nothing matched (the router answers 404) or before it was chosen.
    pub route: Option<RouteMatch>,
    /// Set to make the connection manager choose the route again before the next filter (`clearRouteCache`).
    pub clear_route_cache: bool,
    /// The host that a filter wants for the request (`setUpstreamOverrideHost`).
    pub override_host: Option<OverrideHost>,
    /// The worker that runs the stream.
    pub worker: Rc<Worker>,
    /// Name of the filter that is running now: the key of its per-route configuration.
    pub filter_name: Arc<str>,
    /// Where the routes come from, if none was found and more may be asked for.
    pub on_demand_routes: Option<Arc<dyn OnDemandRoutes>>,
    /// Routes that replace those of the stream from now on.
    pub newer_routes: Option<Arc<RouteTable>>,
    /// Where informational responses go.
    pub informational: Informational,
    /// The request's span, where it is traced.
    pub span: Option<Span>,
}

/// Routes that come when they are asked for (VHDS).
pub trait OnDemandRoutes: Send + Sync {
    /// Asks for the virtual host of this host. The receiver changes with every answer; none when nothing can be
    /// asked for.
    fn demand(&self, host: &str) -> Option<watch::Receiver<u64>>;
    /// The routes as of now.
    fn load(&self) -> Option<Arc<RouteTable>>;
}

/// A host asked for by its address, whatever the load balancer says. Holds for the first attempt.
#[derive(Debug, Clone)]
pub struct OverrideHost {
    /// The host's address as text, with its port.
    pub address: Rc<str>,
    /// Whether no other host will do.
    pub strict: bool,
    /// The status of the answer if no other will do and there is no such host.
    pub not_found: StatusCode,
}

impl FilterCx {
    /// Looks the route up; without one the router answers 404.
    pub fn choose_route(&mut self, head: &RequestHead, table: Option<&Arc<RouteTable>>) {
        self.route = None;
        let upstream = &mut self.info.upstream;
        (upstream.cluster, upstream.cluster_observability_name) = (None, None);
        self.info.route_name = None;
        let Some(table) = table else { return };
        // As in Envoy, where routes cannot tell then whether TLS is required.
        if head.headers.get("x-forwarded-proto").is_some_and(HeaderValue::is_empty) {
            return;
        }
        let asked = Instant::now();
        let found = table.find(head, &self.info, fastrand::u64(..));
        let (times, took) = &mut self.info.route_resolutions;
        *times += 1;
        *took += asked.elapsed();
        let RouteOutcome::Match(found) = found else {
            return;
        };
        self.info.route_name = (!found.name.is_empty()).then(|| found.name.clone());
        self.info.route_metadata = found.metadata.clone();
        self.info.virtual_host_metadata = found.virtual_host().metadata.clone();
        // Known from here on, so that a request a filter answers is logged with the cluster it was meant for.
        if let Some(cluster) = self.worker.clusters.get(found.cluster_name()) {
            let upstream = &mut self.info.upstream;
            upstream.cluster = Some(cluster.info.name.clone());
            upstream.cluster_observability_name = Some(cluster.info.observability_name.clone());
        }
        self.route = Some(found);
    }

    /// The running filter's most specific per-route configuration of type `T`: route, then virtual host,
    /// then route configuration.
    pub fn route_config<T: 'static>(&self) -> Option<&T> {
        self.route
            .as_ref()?
            .filter_config(&self.filter_name)
            .and_then(|c| c.downcast_ref::<T>())
    }

    /// All per-route configurations of the running filter of type `T`, least specific first: for filters that merge
    /// them.
    pub fn route_configs<T: 'static>(&self) -> impl Iterator<Item = &T> {
        let all = self
            .route
            .as_ref()
            .into_iter()
            .flat_map(|r| r.filter_configs_all(&self.filter_name));
        all.filter_map(|c| c.downcast_ref::<T>())
    }
}

/// What a filter answers.
pub enum Step<'a> {
    /// On to the next filter.
    Continue,
    /// Stop here: this reply goes through the encoder filters.
    Reply(Box<LocalReply>),
    /// Not yet known: the chain waits.
    Wait(LocalBoxFuture<'a, Step<'static>>),
}

/// Waits as long as the filter does; its reply, if it gave one.
pub async fn settle(mut step: Step<'_>) -> Option<Box<LocalReply>> {
    loop {
        match step {
            Step::Continue => return None,
            Step::Reply(reply) => return Some(reply),
            Step::Wait(wait) => step = wait.await,
        }
    }
}

/// One filter of one stream. Every method has a default that passes on.
#[allow(unused_variables)]
pub trait HttpFilter {
    /// The request's head; `end` when no body follows.
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        Step::Continue
    }

    /// Whether the filter needs the whole request body before `request_buffered` and the filters after it;
    /// asked after `request_headers`. The limit in bytes; past it the reply is 413.
    fn buffer_request(&self) -> Option<u64> {
        None
    }

    /// The whole request body, when [`Self::buffer_request`] asked for it.
    fn request_buffered<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        head: &'a mut RequestHead,
        body: &'a mut bytes::Bytes,
    ) -> Step<'a> {
        Step::Continue
    }

    /// Whether the filter takes the request's body into its own hands; asked after `request_headers`, with or without
    /// a body.
    fn takes_request(&self) -> bool {
        false
    }

    /// The request's body, when [`Self::takes_request`] asked for it: to be read, replaced or wrapped. The filters
    /// after this one see the head when it is done.
    fn request_taken<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        head: &'a mut RequestHead,
        body: &'a mut Body,
    ) -> Step<'a> {
        Step::Continue
    }

    /// The request's body as it streams: wrap it, or hand it on.
    fn request_body(&mut self, cx: &mut FilterCx, body: Body) -> Body {
        body
    }

    /// The response's head; `end` when no body follows. A reply replaces the response. `request` is the request's
    /// head as the filters and the router left it.
    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        request: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        Step::Continue
    }

    /// Whether the filter needs the whole response body before `response_buffered` and the filters after it; asked
    /// after `response_headers`. The limit in bytes; past it the reply is 500.
    fn buffer_response(&self) -> Option<u64> {
        None
    }

    /// The whole response body, when [`Self::buffer_response`] asked for it.
    fn response_buffered<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        head: &'a mut ResponseHead,
        body: &'a mut bytes::Bytes,
    ) -> Step<'a> {
        Step::Continue
    }

    /// Whether the filter takes the response's body into its own hands; asked after `response_headers`, with or
    /// without a body.
    fn takes_response(&self) -> bool {
        false
    }

    /// The response's body, when [`Self::takes_response`] asked for it: to be read, replaced or wrapped. The filters
    /// after this one see the head when it is done.
    fn response_taken<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        request: &'a RequestHead,
        head: &'a mut ResponseHead,
        body: &'a mut Body,
    ) -> Step<'a> {
        Step::Continue
    }

    /// The response's body as it streams: wrap it, or hand it on.
    fn response_body(&mut self, cx: &mut FilterCx, body: Body) -> Body {
        body
    }

    /// Every filter has seen the response's head: what filters before this one found out of it is known.
    fn response_begun(&mut self, cx: &mut FilterCx, request: &RequestHead) {}

    /// The stream is over, well or not, also when it was cancelled: the last chance to count and to log.
    fn on_complete(&mut self, cx: &mut FilterCx) {}

    /// After every filter's [`Self::on_complete`]: the moment of access logs, with both heads as they were left.
    fn log(&mut self, cx: &mut FilterCx, request: &RequestHead, response: Option<&ResponseHead>) {}
}
