//! `istio.stats` of requests: counted when they are over, and the messages of gRPC calls while they go on.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::task::AbortHandle;
use xds_protos::stats::PluginConfig as Proto;

use super::grpc_stats::MessageCounts;
use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::common::istio_stats::{IstioStats, Series, metadata_of_cluster},
    http::{
        RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, HttpFilterFactory, Step, StreamCx},
    },
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.istio_stats";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(StatsFilter(IstioStats::build(proto, cx)?)))
    }
}

struct StatsFilter(Arc<IstioStats>);

impl HttpFilterConfig for StatsFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            stats: self.0.clone(),
            call: None,
        }))
    }
}

struct Filter {
    stats: Arc<IstioStats>,
    /// Set for a gRPC call.
    call: Option<Rc<Call>>,
}

/// A gRPC call whose messages are told while it goes on.
#[derive(Default)]
struct Call {
    series: RefCell<Option<Rc<Series>>>,
    /// What the filter `grpc_stats` counts, where it is asked to.
    counts: RefCell<Option<MessageCounts>>,
    /// Messages of the request and of the response that were told.
    told: Cell<(u64, u64)>,
    begun: Cell<bool>,
    timer: RefCell<Option<AbortHandle>>,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        if head.is_grpc() {
            let call = Rc::new(Call::default());
            call.learn(&self.stats, cx, head);
            if let Some(every) = self.stats.reporting {
                let ticking = tokio::task::spawn_local(call.clone().tick(every));
                *call.timer.borrow_mut() = Some(ticking.abort_handle());
            }
            self.call = Some(call);
        }
        Step::Continue
    }

    fn response_begun(&mut self, cx: &mut FilterCx, request: &RequestHead) {
        if let Some(call) = &self.call {
            call.learn(&self.stats, cx, request);
        }
    }

    fn log(&mut self, cx: &mut FilterCx, request: &RequestHead, response: Option<&ResponseHead>) {
        let cluster = metadata_of_cluster(&cx.info, &cx.worker);
        if let Some(call) = &self.call {
            call.learn(&self.stats, cx, request);
            if call.series.borrow().is_none() {
                *call.series.borrow_mut() = Some(self.stats.messages(&cx.info, request, cluster.as_deref()));
            }
            call.tell();
        }
        let is_grpc = self.call.is_some();
        self.stats
            .request_ended(&cx.info, request, response, is_grpc, cluster.as_deref());
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(timer) = self.call.as_ref().and_then(|call| call.timer.take()) {
            timer.abort();
        }
    }
}

impl Call {
    /// Finds out where to count, as long as nothing was told: labels of one call do not change.
    fn learn(&self, stats: &IstioStats, cx: &FilterCx, request: &RequestHead) {
        let mut counts = self.counts.borrow_mut();
        if counts.is_none() {
            *counts = MessageCounts::of(&cx.info.filter_state);
        }
        if counts.is_some() && !self.begun.get() && stats.is_settled(&cx.info) {
            let cluster = metadata_of_cluster(&cx.info, &cx.worker);
            *self.series.borrow_mut() = Some(stats.messages(&cx.info, request, cluster.as_deref()));
        }
    }

    async fn tick(self: Rc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.tell();
        }
    }

    /// Counts what came since the last time.
    fn tell(&self) {
        let (mut series, counts) = (self.series.borrow_mut(), self.counts.borrow());
        let (Some(series), Some(counts)) = (series.as_mut(), counts.as_ref()) else {
            return;
        };
        let now = counts.messages();
        let told = self.told.replace(now);
        self.begun.set(true);
        Series::add_messages(series, now.0 - told.0, now.1 - told.1);
    }
}
