//! One connection's life: opened, driven by its codec, retired by the clock, and counted at each of these.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use http::Version;

use super::{
    conn::{Conn, Sender},
    connect::{Connected, Dial, connect},
    core::Pool,
    h1, h2,
};
use crate::upstream::{ConnectFailure, config::HttpProtocol};

/// One connection's life as the breakers and statistics see it, from the attempt to open it to its end.
pub(super) struct OpenGuard {
    pub(super) pool: Rc<Pool>,
    started: Instant,
    conn: Option<Rc<Conn>>,
    failed: Option<ConnectFailure>,
}

impl OpenGuard {
    pub(super) fn new(pool: Rc<Pool>) -> Self {
        let stats = pool.cluster.stats.local();
        stats.upstream_cx_total.inc();
        stats.upstream_cx_active.inc();
        match pool.key.protocol {
            HttpProtocol::Http2 => stats.upstream_cx_http2_total.inc(),
            HttpProtocol::Auto => {}
            HttpProtocol::Http1 | HttpProtocol::Downstream => stats.upstream_cx_http1_total.inc(),
        }
        pool.host.stats.cx_total.fetch_add(1, Relaxed);
        pool.host.stats.cx_active.fetch_add(1, Relaxed);
        pool.breakers().connections.inc();
        Self {
            pool,
            started: Instant::now(),
            conn: None,
            failed: None,
        }
    }

    /// Opens the connection and drives it to its end.
    pub(super) async fn run(mut self) {
        let pool = self.pool.clone();
        let id = pool.server.next_connection_id();
        let opened = connect(
            Dial {
                cluster: &pool.cluster,
                host: &pool.host,
                options: pool.key.transport.as_deref(),
                alpn: pool.alpn(),
                internal: &pool.internal,
                source: pool.key.source,
                shared: pool.key.shared.as_deref(),
                told: None,
            },
            id,
        )
        .await;
        let Connected { stream, mut info } = match opened {
            Ok(connected) => connected,
            Err(failure) => return self.fail(failure),
        };
        let stats = pool.cluster.stats.local();
        stats.upstream_cx_connect_ms.record(millis(info.connect_time));
        let http2 = match pool.key.protocol {
            HttpProtocol::Http2 => true,
            HttpProtocol::Auto => info.protocol == Version::HTTP_2,
            HttpProtocol::Http1 | HttpProtocol::Downstream => false,
        };
        if pool.key.protocol == HttpProtocol::Auto {
            // Envoy makes a second client of such a connection once its protocol is settled, and counts it.
            stats.upstream_cx_total.inc();
            pool.host.stats.cx_total.fetch_add(1, Relaxed);
            match http2 {
                true => stats.upstream_cx_http2_total.inc(),
                false => stats.upstream_cx_http1_total.inc(),
            }
        }
        info.protocol = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let conn = Rc::new(Conn::new(Arc::new(info)));
        let driven = match http2 {
            true => h2::drive(&mut self, stream, conn).await,
            false => h1::drive(&mut self, stream, conn).await,
        };
        if let Err(failure) = driven {
            self.fail(failure);
        }
    }

    /// The handshake of the codec is done: requests may come.
    pub(super) fn ready(&mut self, sender: Sender, conn: Rc<Conn>) {
        self.conn = Some(conn.clone());
        self.pool.connected(sender, &conn);
    }

    fn fail(&mut self, failure: ConnectFailure) {
        let stats = self.pool.cluster.stats.local();
        if failure == ConnectFailure::Timeout {
            stats.upstream_cx_connect_timeout.inc();
        }
        stats.upstream_cx_connect_fail.inc();
        self.pool.host.stats.cx_connect_fail.fetch_add(1, Relaxed);
        tracing::debug!(cluster = %self.pool.cluster.name, host = %self.pool.host.address, %failure, "cannot connect");
        self.pool.stopped_connecting();
        self.pool.connect_failed(&failure);
        self.failed = Some(failure);
    }

    /// The upstream allows so many streams at once: those who wait may go on.
    pub(super) fn streams_allowed(&self, conn: &Conn, streams: usize) {
        if conn.max_streams.replace(streams) < streams {
            self.pool.serve_pending();
        }
    }

    /// Follows the clock of a connection. Returns when to look again; none when there is nothing to look for.
    pub(super) fn check_timers(&self, conn: &Rc<Conn>) -> Option<Instant> {
        let http = &self.pool.cluster.http;
        if conn.retired.get() {
            return None;
        }
        let now = Instant::now();
        let stats = self.pool.cluster.stats.local();
        let age_limit = http.max_connection_duration.map(|d| conn.created + d);
        if age_limit.is_some_and(|at| at <= now) {
            stats.upstream_cx_max_duration_reached.inc();
            self.pool.retire(conn);
            return None;
        }
        let idle_limit = http.idle_timeout.map(|d| match conn.active.get() {
            0 => conn.idle_since.get() + d,
            _ => now + d,
        });
        if idle_limit.is_some_and(|at| at <= now) {
            stats.upstream_cx_idle_timeout.inc();
            self.pool.retire(conn);
            return None;
        }
        match (age_limit, idle_limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let pool = &self.pool;
        let stats = pool.cluster.stats.local();
        stats.upstream_cx_active.dec();
        stats.upstream_cx_destroy.inc();
        let locally = match (&self.conn, &self.failed) {
            (Some(conn), _) => conn.closed_locally.get(),
            (None, Some(failure)) => !matches!(failure, ConnectFailure::Remote { .. }),
            (None, None) => true,
        };
        match locally {
            true => stats.upstream_cx_destroy_local.inc(),
            false => stats.upstream_cx_destroy_remote.inc(),
        }
        pool.host.stats.cx_active.fetch_sub(1, Relaxed);
        pool.breakers().connection_ends();
        match &self.conn {
            Some(conn) => {
                if conn.active.get() > 0 || conn.cut.get() {
                    stats.upstream_cx_destroy_with_active_rq.inc();
                    match locally {
                        true => stats.upstream_cx_destroy_local_with_active_rq.inc(),
                        false => stats.upstream_cx_destroy_remote_with_active_rq.inc(),
                    }
                }
                stats.upstream_cx_length_ms.record(millis(self.started.elapsed()));
                stats.upstream_rq_per_cx.record(conn.requests.get().into());
                conn.retired.set(true);
                pool.closed(conn);
            }
            // The task was dropped while it connected: the runtime ends.
            None if self.failed.is_none() => pool.stopped_connecting(),
            None => {}
        }
        pool.settle();
    }
}

pub(super) fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
