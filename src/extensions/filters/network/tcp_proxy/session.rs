//! What is counted and logged of one proxied connection, however it ends.

use std::{
    borrow::Cow,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    alarm::Rang,
    config::{Config, TcpProxyStats},
};
use crate::{
    access_log::LogCx,
    http::{ConnectionInfo, Flag, StreamInfo, hcm::RequestIds},
    net::CopyProgress,
    upstream::ClusterInfo,
};

/// Why there is no upstream, by Envoy's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitFailure {
    ConnectFailed = 0,
    NoHealthyUpstream = 1,
    ResourceLimitExceeded = 2,
    NoRoute = 3,
}

/// One connection. The last line is written when it is dropped.
pub(super) struct Session {
    pub(super) info: StreamInfo,
    pub(super) progress: Rc<CopyProgress>,
    pub(super) config: Arc<Config>,
    /// Whose bytes are counted here; set once there is a connection of its own to it.
    pub(super) upstream: Option<Arc<ClusterInfo>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let (received, sent) = (self.progress.forward.get(), self.progress.back.get());
        let stats = self.config.stats.local();
        stats.downstream_cx_rx_bytes_total.add(received + self.held());
        stats.downstream_cx_tx_bytes_total.add(sent);
        if let Some(cluster) = &self.upstream {
            let stats = cluster.stats.local();
            stats.upstream_cx_tx_bytes_total.add(received);
            stats.upstream_cx_rx_bytes_total.add(sent);
        }
        self.info.end = Some(Instant::now());
        self.note_progress();
        // What filters before this one found out is the connection's, and so is the line.
        self.info.take_findings();
        self.log("TcpConnectionEnd");
        if let Some(outcome) = self.info.connection.outcome.borrow_mut().as_mut() {
            outcome.flags = self.info.flags;
            outcome.progress = self.info.progress.clone();
            outcome.upstream = std::mem::take(&mut self.info.upstream);
        }
    }
}

impl Session {
    pub(super) fn new(config: Arc<Config>, connection: Rc<ConnectionInfo>) -> Self {
        let mut info = StreamInfo::new(connection, None);
        info.metadata.clone_from(&info.connection.metadata.borrow());
        if !config.access_log.is_empty() {
            info.request_id = RequestIds::new_id();
        }
        let progress = Rc::<CopyProgress>::default();
        if let Some(outcome) = info.connection.outcome.borrow_mut().as_mut() {
            outcome.copied = Some(progress.clone());
        }
        Self {
            info,
            progress,
            config,
            upstream: None,
        }
    }

    /// Tells those who want to know while the connection runs what its upstream is.
    pub(super) fn tell_upstream(&self) {
        if let Some(outcome) = self.info.connection.outcome.borrow_mut().as_mut() {
            outcome.upstream = self.info.upstream.clone();
        }
    }

    pub(super) fn stats(&self) -> &TcpProxyStats {
        self.config.stats.local()
    }

    /// Bytes that filters before this one keep: received, and not forwarded.
    fn held(&self) -> u64 {
        self.info.connection.held.load(Ordering::Relaxed)
    }

    fn note_progress(&self) {
        let (received, sent) = (self.progress.forward.get(), self.progress.back.get());
        let progress = &self.info.progress;
        progress.bytes_received.set(received + self.held());
        progress.bytes_sent.set(sent);
        progress.upstream_bytes_sent.set(received);
        progress.upstream_bytes_received.set(sent);
    }

    /// Writes a line of this type (`%ACCESS_LOG_TYPE%`).
    pub(super) fn log(&mut self, kind: &'static str) {
        if self.config.access_log.is_empty() {
            return;
        }
        self.note_progress();
        self.info.metadata.clone_from(&self.info.connection.metadata.borrow());
        self.info.access_log_type = kind;
        self.config.access_log.log(&LogCx {
            request: None,
            response: None,
            info: &self.info,
        });
    }

    /// What the clock says. False: the connection ends.
    pub(super) fn rang(&mut self, rang: Rang) -> bool {
        let reason = match rang {
            Rang::Flush => {
                self.log("TcpPeriodic");
                return true;
            }
            Rang::Idle => {
                self.stats().idle_timeout.inc();
                "tcp_session_idle_timeout"
            }
            Rang::Duration => {
                self.stats().max_downstream_connection_duration.inc();
                self.info.flags.set(Flag::DurationTimeout);
                "max_connection_duration_reached"
            }
        };
        self.info.close.local_reason = Some(Cow::Borrowed(reason));
        if self.upstream.is_some() {
            self.info.upstream.close.local_reason = Some(Cow::Borrowed(reason));
        }
        false
    }

    /// There is no upstream for it.
    pub(super) fn failed(&mut self, failure: InitFailure) {
        let reason = format!("tcp_initializion_failure:{}", failure as u8);
        self.info.close.local_reason = Some(reason.into());
    }
}
