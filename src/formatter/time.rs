//! Moments: `%START_TIME(format)%` and its kin, and the points of `%COMMON_DURATION(..)%`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http::StreamInfo;

/// Which moment is printed.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimeSource {
    Start,
    Now,
    DownstreamCertStart,
    DownstreamCertEnd,
    UpstreamCertStart,
    UpstreamCertEnd,
}

impl TimeSource {
    pub(super) fn get(self, info: &StreamInfo) -> Option<SystemTime> {
        let downstream = || {
            info.connection
                .tls
                .as_ref()
                .filter(|t| t.peer_presented)
                .map(|t| &t.peer)
        };
        let upstream = || info.upstream.tls.as_ref().filter(|t| t.peer_presented).map(|t| &t.peer);
        match self {
            Self::Start => Some(info.start_time),
            Self::Now => Some(SystemTime::now()),
            Self::DownstreamCertStart => epoch(downstream()?.not_before),
            Self::DownstreamCertEnd => epoch(downstream()?.not_after),
            Self::UpstreamCertStart => epoch(upstream()?.not_before),
            Self::UpstreamCertEnd => epoch(upstream()?.not_after),
        }
    }
}

fn epoch(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// A point in a stream's life, by Envoy's names.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimePoint {
    DownstreamRxBegin,
    DownstreamRxEnd,
    UpstreamTxBegin,
    UpstreamTxEnd,
    UpstreamRxBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
    UpstreamConnectBegin,
    UpstreamConnectEnd,
    UpstreamHandshakeEnd,
    UpstreamRxBodyBegin,
    /// A point that is not noted down, or a name only filters set.
    Unknown,
}

impl TimePoint {
    pub(super) fn parse(name: &str) -> Self {
        match name {
            "DS_RX_HDR_END" => Self::DownstreamRxBegin,
            "US_CX_BEG" => Self::UpstreamConnectBegin,
            "US_CX_END" => Self::UpstreamConnectEnd,
            "US_HS_END" => Self::UpstreamHandshakeEnd,
            "US_RX_BODY_BEG" => Self::UpstreamRxBodyBegin,
            "DS_RX_BEG" => Self::DownstreamRxBegin,
            "DS_RX_END" => Self::DownstreamRxEnd,
            "US_TX_BEG" => Self::UpstreamTxBegin,
            "US_TX_END" => Self::UpstreamTxEnd,
            "US_RX_BEG" => Self::UpstreamRxBegin,
            "US_RX_END" => Self::UpstreamRxEnd,
            "DS_TX_BEG" => Self::DownstreamTxBegin,
            "DS_TX_END" => Self::DownstreamTxEnd,
            _ => Self::Unknown,
        }
    }

    pub(super) fn get(self, info: &StreamInfo) -> Option<Instant> {
        let progress = &info.progress;
        match self {
            Self::DownstreamRxBegin => Some(info.start),
            Self::DownstreamRxEnd => progress.last_downstream_rx.get(),
            Self::UpstreamTxBegin => progress.first_upstream_tx.get(),
            Self::UpstreamTxEnd => progress.last_upstream_tx.get(),
            Self::UpstreamRxBegin => progress.first_upstream_rx.get(),
            Self::UpstreamRxEnd => progress.last_upstream_rx.get(),
            Self::DownstreamTxBegin => progress.first_downstream_tx.get(),
            Self::DownstreamTxEnd => progress.last_downstream_tx.get(),
            Self::UpstreamConnectBegin => info.upstream.connect.map(|c| c.start),
            Self::UpstreamConnectEnd => info.upstream.connect.map(|c| c.end),
            Self::UpstreamHandshakeEnd => info.upstream.connect.and_then(|c| c.handshake),
            Self::UpstreamRxBodyBegin => progress.first_upstream_rx_body.get(),
            Self::Unknown => None,
        }
    }
}
