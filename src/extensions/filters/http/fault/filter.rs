//! One stream that may be hurt.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::{HeaderName, StatusCode};

use super::{
    config::{Abort, Caller, Settings},
    rate::Slices,
};
use crate::{
    extensions::filters::common::paced::Paced,
    http::{
        Body, Flag, LocalReply, RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    stats::{Scope, Stats},
};

const DOWNSTREAM_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");
const DOWNSTREAM_NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.fault.` statistics
    pub(super) struct FaultStats {
        counter aborts_injected, "Requests that were aborted";
        counter delays_injected, "Requests that were delayed";
        counter faults_overflow, "Faults left out because of max_active_faults";
        counter response_rl_injected, "Responses that were slowed down";
        gauge active_faults, "Streams with a fault now";
    }
}

/// The filter's configuration.
pub(super) struct FaultFilter(pub Arc<Shared>);

/// What all streams of the filter share, whatever their route's settings.
pub(super) struct Shared {
    pub settings: Arc<Settings>,
    pub stats: Stats<FaultStats>,
    /// Streams with a fault, of all workers.
    pub active: AtomicU64,
    /// Of counters per downstream cluster.
    pub scope: Scope,
}

impl HttpFilterConfig for FaultFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            settings: self.0.settings.clone(),
            shared: self.0.clone(),
            active: false,
            rate: None,
        }))
    }
}

struct Filter {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    /// Whether this stream counts as an active fault.
    active: bool,
    /// KiB per second of the response.
    rate: Option<u64>,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        if let Some(of_route) = cx.route_config::<Arc<Settings>>() {
            self.settings = of_route.clone();
        }
        let stats = self.shared.stats.clone();
        if self.shared.active.load(Relaxed) >= self.settings.max_active_faults() {
            stats.local().faults_overflow.inc();
            return Step::Continue;
        }
        if !self.concerns(cx, head) {
            return Step::Continue;
        }
        if let Some(rate) = self.settings.rate(head) {
            self.rate = Some(rate);
            self.start();
            stats.local().response_rl_injected.inc();
        }
        let Some(delay) = self.settings.delay(head, &caller(cx, head)) else {
            return self.maybe_abort(cx, head);
        };
        self.start();
        stats.local().delays_injected.inc();
        self.count_for_cluster("delays_injected", head);
        cx.info.flags.set(Flag::DelayInjected);
        self.note(cx);
        Step::Wait(Box::pin(async move {
            tokio::time::sleep(delay).await;
            self.maybe_abort(cx, head)
        }))
    }

    fn response_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match self.rate {
            Some(rate) => Body::boxed(Paced::new(body, Slices::new(rate))),
            None => body,
        }
    }

    fn on_complete(&mut self, _: &mut FilterCx) {
        if std::mem::take(&mut self.active) {
            self.shared.active.fetch_sub(1, Relaxed);
            self.shared.stats.local().active_faults.dec();
        }
    }
}

impl Filter {
    /// Whether the settings are for this request.
    fn concerns(&self, cx: &FilterCx, head: &RequestHead) -> bool {
        let settings = &*self.settings;
        let cluster = cx.route.as_ref().map_or("", |r| r.cluster_name());
        let node = || {
            head.headers.get(DOWNSTREAM_NODE).is_some_and(|node| {
                settings
                    .downstream_nodes
                    .iter()
                    .any(|n| n.as_bytes() == node.as_bytes())
            })
        };
        (settings.upstream_cluster.is_empty() || settings.upstream_cluster == cluster)
            && (settings.downstream_nodes.is_empty() || node())
            && settings.headers.iter().all(|m| m.matches(head))
    }

    fn maybe_abort(&mut self, cx: &mut FilterCx, head: &RequestHead) -> Step<'static> {
        let Some(abort) = self.settings.abort(head, &caller(cx, head)) else {
            return Step::Continue;
        };
        self.start();
        self.shared.stats.local().aborts_injected.inc();
        self.count_for_cluster("aborts_injected", head);
        self.note(cx);
        let (status, grpc_status) = match abort {
            Abort::Http(status) => (status, None),
            Abort::Grpc(status) => (StatusCode::OK, Some(status)),
        };
        let body = self.settings.abort_body.clone();
        let mut reply = LocalReply::new(status, body, "fault_filter_abort").flag(Flag::FaultInjected);
        reply.grpc_status = grpc_status;
        Step::Reply(Box::new(reply))
    }

    /// Counts the stream once, whatever faults it gets.
    fn start(&mut self) {
        if !std::mem::replace(&mut self.active, true) {
            self.shared.active.fetch_add(1, Relaxed);
            self.shared.stats.local().active_faults.inc();
        }
    }

    /// `http.<stat_prefix>.fault.<downstream cluster>.<name>`: a short lock, on a stream that is hurt anyway.
    fn count_for_cluster(&self, name: &str, head: &RequestHead) {
        let cluster = downstream_cluster(head);
        if !cluster.is_empty() && self.settings.downstream_cluster_stats {
            self.shared.scope.counter(&format!("{cluster}.{name}")).inc();
        }
    }

    /// `filter_metadata`, under the filter's name.
    fn note(&self, cx: &mut FilterCx) {
        if let Some(metadata) = &self.settings.metadata {
            let of_filter = cx.info.metadata.entry(cx.filter_name.to_string()).or_default();
            of_filter.fields.extend(metadata.fields.clone());
        }
    }
}

fn caller<'a>(cx: &'a FilterCx, head: &'a RequestHead) -> Caller<'a> {
    Caller {
        cluster: downstream_cluster(head),
        runtime: &cx.worker.server.runtime,
    }
}

/// Empty when it is not known.
fn downstream_cluster(head: &RequestHead) -> &str {
    let value = head.headers.get(DOWNSTREAM_CLUSTER);
    value.and_then(|v| v.to_str().ok()).unwrap_or_default()
}
