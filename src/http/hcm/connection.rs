//! One downstream connection of a connection manager.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Version;

use super::{HcmConfig, complete::Active, refuse, request, stats::HcmStats};
use crate::{
    http::{
        Body, ConnectionInfo, ResponseHead, Scheme,
        codec::{self, CloseReason, CodecError, CodecRequest, Dispatch, Handler, Http2CodecStats, Reset},
    },
    network_filter::Connection,
    server::{
        Drain, HTTP_RAMP, OverloadManager, Worker,
        overload::{Action, Point, ScaledTimer, streams::Account},
    },
    stats::Stats,
};

/// A connection and what its requests share.
pub(super) struct HcmConnection {
    pub(super) config: Arc<HcmConfig>,
    pub(super) worker: Rc<Worker>,
    pub(super) info: Rc<ConnectionInfo>,
    drain: Drain,
    /// It has begun to end because of a drain.
    draining: Cell<bool>,
    pub(super) version: Cell<Version>,
    stats: Stats<HcmStats>,
    requests: Cell<u32>,
    active: Cell<u32>,
    idle_since: Cell<Instant>,
    closing: Cell<Option<CloseReason>>,
    /// Streams that were open when the connection began to close.
    pub(super) cut: Cell<u32>,
    max_duration_reached: Cell<bool>,
    /// Under overload; none where there is nothing to ask, or the listener bypasses it.
    pub(super) overload: Option<Arc<OverloadManager>>,
    /// A load-shed point wants the next response to be the last.
    told_to_go: Cell<bool>,
    started: Instant,
}

/// Serves a connection until it ends.
pub(super) async fn serve(config: Arc<HcmConfig>, worker: Rc<Worker>, connection: Connection) {
    let Connection {
        stream,
        info,
        listener,
        drain,
        guards: _,
    } = connection;
    let told = drain.clone();
    let server = worker.server.clone();
    let tls = info.tls.clone();
    let overload = worker.server.overload().filter(|_| !listener.bypass_overload).cloned();
    let hcm = Rc::new(HcmConnection {
        stats: config.stats.clone(),
        worker,
        drain,
        draining: Cell::new(false),
        version: Cell::new(Version::HTTP_11),
        requests: Cell::new(0),
        active: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        closing: Cell::new(None),
        cut: Cell::new(0),
        max_duration_reached: Cell::new(false),
        overload,
        told_to_go: Cell::new(false),
        started: Instant::now(),
        info,
        config: config.clone(),
    });
    let stats = hcm.stats();
    stats.downstream_cx_total.inc();
    stats.downstream_cx_active.inc();
    if tls.is_some() {
        stats.downstream_cx_ssl_total.inc();
        stats.downstream_cx_ssl_active.inc();
    }
    let _ended = Ended(hcm.clone());
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    codec::serve(
        stream,
        tls.as_ref().and_then(|t| t.alpn.as_deref()),
        scheme,
        &config.codec,
        told.due(&server, config.codec.drain_timeout),
        hcm,
    )
    .await;
}

/// Counts a connection that ended in its handshake, by the client as Envoy has it.
pub(super) fn not_secured(stats: &HcmStats, since: Instant) {
    stats.downstream_cx_total.inc();
    stats.downstream_cx_ssl_total.inc();
    stats.downstream_cx_destroy.inc();
    stats.downstream_cx_destroy_remote.inc();
    stats
        .downstream_cx_length_ms
        .record(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
}

/// Counts the end of a connection, however it comes.
struct Ended(Rc<HcmConnection>);

impl Drop for Ended {
    fn drop(&mut self) {
        let hcm = &self.0;
        let stats = hcm.stats();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        stats
            .downstream_cx_length_ms
            .record(u64::try_from(hcm.started.elapsed().as_millis()).unwrap_or(u64::MAX));
        if hcm.info.tls.is_some() {
            stats.downstream_cx_ssl_active.dec();
        }
        match hcm.version.get() {
            Version::HTTP_2 => stats.downstream_cx_http2_active.dec(),
            _ => stats.downstream_cx_http1_active.dec(),
        }
        let local = matches!(
            hcm.closing.get(),
            Some(
                CloseReason::Idle
                    | CloseReason::MaxDuration
                    | CloseReason::Drain
                    | CloseReason::ProtocolError
                    | CloseReason::Local
            )
        );
        if local || hcm.cut_by().is_some() {
            stats.downstream_cx_destroy_local.inc();
        } else {
            stats.downstream_cx_destroy_remote.inc();
        }
        if hcm.cut.get() > 0 || hcm.active.get() > 0 {
            stats.downstream_cx_destroy_active_rq.inc();
            if local {
                stats.downstream_cx_destroy_local_active_rq.inc();
            } else {
                stats.downstream_cx_destroy_remote_active_rq.inc();
            }
        }
    }
}

impl HcmConnection {
    /// `http.<stat_prefix>.*` of this thread.
    pub(super) fn stats(&self) -> &HcmStats {
        self.stats.local()
    }

    /// A stream starts.
    pub(super) fn stream_started(&self) {
        let stats = self.stats();
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        match self.version.get() {
            Version::HTTP_2 => stats.downstream_rq_http2_total.inc(),
            _ => stats.downstream_rq_http1_total.inc(),
        }
        self.requests.set(self.requests.get().saturating_add(1));
        self.active.set(self.active.get() + 1);
    }

    /// A stream has ended.
    pub(super) fn stream_ended(&self) {
        self.stats().downstream_rq_active.dec();
        self.active.set(self.active.get().saturating_sub(1));
        self.idle_since.set(Instant::now());
    }

    /// Why the connection is cut short from outside: its listener or its chain is gone, and its time is up. Envoy counts
    /// requests that end with it as ended by the client.
    pub(super) fn cut_by(&self) -> Option<&'static str> {
        self.drain.ended().filter(|_| self.closing.get().is_none())
    }

    /// Whether a drain wants the connection to end; it is asked with each response.
    pub(super) fn should_drain(&self) -> bool {
        if !self.draining.get() && self.drain.should_close(&self.worker.server, HTTP_RAMP) {
            self.drain_started();
        }
        self.draining.get()
    }

    /// Whether the connection has had its time or its requests, so that the response that goes out now is its last.
    pub(super) fn should_close(&self) -> bool {
        if self
            .config
            .codec
            .max_requests
            .is_some_and(|max| self.requests.get() >= max)
        {
            self.stats().downstream_cx_max_requests_reached.inc();
            return true;
        }
        if self
            .config
            .codec
            .max_connection_duration
            .is_some_and(|max| self.started.elapsed() >= max)
        {
            if !self.max_duration_reached.replace(true) {
                self.stats().downstream_cx_max_duration_reached.inc();
            }
            return true;
        }
        if let Some(overload) = &self.overload {
            if overload.takes(Action::DisableHttpKeepalive) {
                self.stats().downstream_cx_overload_disable_keepalive.inc();
                return true;
            }
            return self.told_to_go.get();
        }
        false
    }
}

impl Handler for HcmConnection {
    async fn handle(self: Rc<Self>, request: CodecRequest) -> (ResponseHead, Body) {
        request::handle(self, request).await
    }

    async fn refuse(self: Rc<Self>, error: CodecError) -> (ResponseHead, Body) {
        refuse::refuse(self, error).await
    }

    fn head_cut(self: Rc<Self>) {
        // Its drop logs that the client went away.
        drop(Active::without_request(self));
    }

    fn stream_refused(self: Rc<Self>, reset: Reset) {
        // Its drop logs the reset.
        drop(Active::refused(self, reset));
    }

    fn http2_stats(&self) -> Stats<Http2CodecStats> {
        self.worker.server.http2_stats().clone()
    }

    fn headers_dropped(&self, count: u32) {
        if count > 0 {
            let stats = self.config.http1_stats.local();
            stats.dropped_headers_with_underscores.add(count.into());
        }
    }

    fn count_bytes(&self, read: u64, written: u64) {
        let stats = self.stats();
        stats.downstream_cx_rx_bytes_total.add(read);
        stats.downstream_cx_tx_bytes_total.add(written);
    }

    fn protocol(&self, version: Version) {
        self.version.set(version);
        let stats = self.stats();
        match version {
            Version::HTTP_2 => {
                stats.downstream_cx_http2_total.inc();
                stats.downstream_cx_http2_active.inc();
            }
            _ => {
                // Listed from the first connection on.
                self.config.http1_stats.local();
                stats.downstream_cx_http1_total.inc();
                stats.downstream_cx_http1_active.inc();
            }
        }
    }

    fn closing(&self, reason: CloseReason) {
        let stats = self.stats();
        match reason {
            CloseReason::Idle => stats.downstream_cx_idle_timeout.inc(),
            CloseReason::MaxDuration => stats.downstream_cx_max_duration_reached.inc(),
            CloseReason::DelayedClose => {
                stats.downstream_cx_delayed_close_timeout.inc();
                return;
            }
            // HTTP/1 counts what it refuses.
            CloseReason::ProtocolError if self.version.get() == Version::HTTP_2 => {
                stats.downstream_cx_protocol_error.inc();
            }
            CloseReason::Drain | CloseReason::ProtocolError | CloseReason::Local | CloseReason::Remote => {}
        }
        self.cut.set(self.cut.get().max(self.active.get()));
        self.closing.set(Some(reason));
    }

    fn asks_first(&self) -> bool {
        self.overload.as_ref().is_some_and(|o| o.has(Point::HcmCodecCreation))
    }

    fn may_begin(&self) -> bool {
        let sheds = self.overload.as_ref().is_some_and(|o| o.sheds(Point::HcmCodecCreation));
        if sheds {
            self.stats().downstream_rq_overload_close.inc();
        }
        !sheds
    }

    fn dispatched(&self) -> Dispatch {
        let Some(overload) = &self.overload else {
            return Dispatch::Serve;
        };
        let http1 = self.version.get() < Version::HTTP_2;
        if overload.sheds(Point::GoAwayAndCloseOnDispatch) {
            return Dispatch::Close;
        }
        if overload.sheds(Point::GoAwayOnDispatch) && !self.told_to_go.replace(true) && !http1 {
            return Dispatch::GoAway;
        }
        if http1 && overload.sheds(Point::Http1AbortDispatch) {
            return Dispatch::Refuse;
        }
        Dispatch::Serve
    }

    fn scaled(&self, timer: ScaledTimer, full: Duration) -> Duration {
        match self.overload.as_ref().and_then(|o| o.timeouts.as_ref()) {
            Some(timeouts) => timeouts.scaled(timer, full),
            None => full,
        }
    }

    fn account(&self) -> Option<Rc<Account>> {
        let overload = self.overload.as_ref()?;
        overload.memory.as_ref().map(|_| Account::open())
    }

    fn drain_started(&self) {
        self.draining.set(true);
        self.stats().downstream_cx_drain_close.inc();
    }

    fn active_streams(&self) -> u32 {
        self.active.get()
    }

    fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }
}
