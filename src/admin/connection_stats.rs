//! What Envoy counts of its admin listener: `http.admin.*` and `listener.admin.*`.

use std::{sync::Arc, time::Instant};

use http::StatusCode;

use crate::{
    http::hcm::{HcmListenerStats, HcmStats, count_response},
    listener::{HandlerStats, ListenerStats},
    stats::{Stats, Store},
    upstream::Http1CodecStats,
};

/// Listed as long as the admin server runs.
#[derive(Clone)]
pub(super) struct AdminStats {
    manager: Stats<HcmStats>,
    responses: Stats<HcmListenerStats>,
    listener: Stats<ListenerStats>,
    thread: Stats<HandlerStats>,
    // Every admin connection is one of HTTP/1, so `http1.*` is always there in Envoy.
    _codec: Stats<Http1CodecStats>,
}

/// An open connection.
pub(super) struct OpenConnection {
    stats: AdminStats,
    since: Instant,
}

/// A request that is not answered yet.
pub(super) struct OpenRequest {
    stats: AdminStats,
    since: Instant,
}

impl AdminStats {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        let listener = store.scope("listener.admin.");
        Self {
            manager: store.scope("http.admin.").block(),
            responses: listener.scope("http.admin").block(),
            thread: listener.scope("main_thread").block(),
            listener: listener.block(),
            _codec: store.root().block(),
        }
    }

    /// A connection opens.
    pub(super) fn connection(&self) -> OpenConnection {
        let (manager, listener, thread) = (self.manager.local(), self.listener.local(), self.thread.local());
        manager.downstream_cx_total.inc();
        manager.downstream_cx_active.inc();
        manager.downstream_cx_http1_total.inc();
        manager.downstream_cx_http1_active.inc();
        listener.downstream_cx_total.inc();
        listener.downstream_cx_active.inc();
        listener.connections_accepted_per_socket_event.record(1);
        thread.downstream_cx_total.inc();
        thread.downstream_cx_active.inc();
        OpenConnection {
            stats: self.clone(),
            since: Instant::now(),
        }
    }

    /// A request comes.
    pub(super) fn request(&self) -> OpenRequest {
        let manager = self.manager.local();
        manager.downstream_rq_total.inc();
        manager.downstream_rq_http1_total.inc();
        manager.downstream_rq_active.inc();
        OpenRequest {
            stats: self.clone(),
            since: Instant::now(),
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let AdminStats {
            manager,
            listener,
            thread,
            ..
        } = &self.stats;
        let (manager, listener) = (manager.local(), listener.local());
        manager.downstream_cx_active.dec();
        manager.downstream_cx_http1_active.dec();
        manager.downstream_cx_destroy.inc();
        manager.downstream_cx_destroy_remote.inc();
        manager.downstream_cx_length_ms.record(milliseconds(self.since));
        listener.downstream_cx_active.dec();
        listener.downstream_cx_destroy.inc();
        listener.downstream_cx_length_ms.record(milliseconds(self.since));
        thread.local().downstream_cx_active.dec();
    }
}

impl OpenRequest {
    /// Its answer has this status.
    pub(super) fn answered(&self, status: StatusCode) {
        count_response(
            self.stats.manager.local(),
            self.stats.responses.local(),
            status.as_u16(),
        );
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let manager = self.stats.manager.local();
        manager.downstream_rq_active.dec();
        manager.downstream_rq_time.record(milliseconds(self.since));
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
