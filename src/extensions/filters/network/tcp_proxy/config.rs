//! `TcpProxy` -> [`Config`].

use std::{sync::Arc, time::Duration};

use xds_protos::{
    envoy::{
        config::core::v3::BackoffStrategy,
        extensions::filters::network::tcp_proxy::v3::{
            TcpProxy as Proto, UpstreamConnectMode,
            tcp_proxy::{OnDemand, TcpAccessLogOptions},
        },
    },
    google::protobuf as pb,
};

use super::{
    choice::{Clusters, HashPolicy},
    tlvs::Tlvs,
    tunnel::Tunneling,
};
use crate::{
    access_log::AccessLogs,
    config::{BuildCx, ConfigResult, DurationExt, duration},
    stats::{Scope, Stats},
    stats_block,
    upstream::OnDemandClusters,
};

stats_block! {
    /// `tcp.<stat_prefix>.*`
    pub struct TcpProxyStats {
        counter downstream_cx_total, "Connections handled";
        counter downstream_cx_drain_close, "Connections closed because the listener drains";
        counter route_delayed_total, "Connections whose route was chosen late";
        counter downstream_cx_overload_close, "Connections closed because the server is overloaded";
        counter downstream_cx_no_route, "Connections without a cluster";
        counter downstream_cx_tx_bytes_total, "Bytes written to clients";
        gauge downstream_cx_tx_bytes_buffered, "Bytes to be written to clients";
        counter downstream_cx_rx_bytes_total, "Bytes read from clients";
        gauge downstream_cx_rx_bytes_buffered, "Bytes read from clients and not yet forwarded";
        counter downstream_flow_control_paused_reading_total, "Reading paused by flow control";
        counter downstream_flow_control_resumed_reading_total, "Reading resumed by flow control";
        counter early_data_received_count_total, "Connections with bytes before the upstream was connected";
        counter idle_timeout, "Connections closed because they were idle";
        counter max_downstream_connection_duration, "Connections closed because of their age";
        counter upstream_flush_total, "Upstream connections flushed after the client had gone";
        gauge upstream_flush_active, "Upstream connections being flushed";
    }
}

stats_block! {
    /// `tcp.<stat_prefix>.on_demand_*`, where there is `on_demand`.
    pub struct OnDemandStats {
        counter on_demand_cluster_attempt, "On-demand cluster requests";
        counter on_demand_cluster_missing, "On-demand clusters that do not exist";
        counter on_demand_cluster_success, "On-demand clusters found";
        counter on_demand_cluster_timeout, "On-demand cluster requests that timed out";
    }
}

/// `timeout` of `on_demand`
const ON_DEMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The configuration of one TCP proxy.
pub(super) struct Config {
    pub(super) stats: Stats<TcpProxyStats>,
    pub(super) clusters: Clusters,
    /// `hash_policy`
    pub(super) hash: Option<HashPolicy>,
    /// `idle_timeout`; default 1 h.
    pub(super) idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`
    pub(super) max_duration: Option<Duration>,
    /// `max_downstream_connection_duration_jitter_percentage`, in percent; default 0.
    pub(super) max_duration_jitter: f64,
    /// `max_connect_attempts`; default 1.
    pub(super) max_connect_attempts: u32,
    /// `backoff_options`: pauses between attempts; none without.
    pub(super) backoff: Option<Backoff>,
    /// `max_early_data_bytes`: how much is read before the upstream is connected; none: nothing.
    pub(super) max_early_data: Option<usize>,
    /// `upstream_connect_mode` is `ON_DOWNSTREAM_DATA`. The handshake of `ON_DOWNSTREAM_TLS_HANDSHAKE` is over when
    /// network filters see a connection.
    pub(super) waits_for_data: bool,
    /// `on_demand`: where clusters are asked for that are not there.
    pub(super) on_demand: Option<OnDemandSource>,
    /// `check_drain_close`: a connection of a listener that drains ends when bytes move.
    pub(super) check_drain_close: bool,
    /// `tunneling_config`
    pub(super) tunneling: Option<Tunneling>,
    /// `proxy_protocol_tlvs`
    pub(super) tlvs: Tlvs,
    pub(super) access_log: AccessLogs,
    pub(super) log_moments: LogMoments,
}

/// `on_demand`
pub(super) struct OnDemandSource {
    pub(super) clusters: Arc<OnDemandClusters>,
    pub(super) stats: Stats<OnDemandStats>,
}

/// When lines are written before the connection ends.
#[derive(Debug, Default)]
pub(super) struct LogMoments {
    /// `flush_access_log_on_start`: when the connection is taken.
    pub(super) on_start: bool,
    /// `flush_access_log_on_connected`: when the upstream is connected.
    pub(super) on_connected: bool,
    /// `access_log_flush_interval`: again and again.
    pub(super) every: Option<Duration>,
}

/// Growing pauses between attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// The next pause: up to the present one at random.
    pub(super) fn next(&mut self) -> Duration {
        let present = self.next;
        self.next = present.saturating_mul(2).min(self.longest);
        present.mul_f64(fastrand::f64())
    }

    fn build(proto: BackoffStrategy, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => BackoffStrategy { supported { base_interval, max_interval } });
        let base = base_interval.or_duration(Duration::ZERO);
        let longest = max_interval.or_duration(base.saturating_mul(10));
        if longest < base {
            return Err(cx.error("max_backoff_interval must be greater or equal to base_backoff_interval"));
        }
        Ok(Self { next: base, longest })
    }
}

impl Config {
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mode = proto.upstream_connect_mode();
        let merge = proto.proxy_protocol_tlv_merge_policy();
        coverage!(cx, proto => Proto {
            supported {
                stat_prefix, idle_timeout, access_log, max_connect_attempts, max_downstream_connection_duration,
                access_log_options, flush_access_log_on_connected, cluster_specifier, upstream_connect_mode, on_demand,
                metadata_match, hash_policy, access_log_flush_interval, max_early_data_bytes, backoff_options,
                max_downstream_connection_duration_jitter_percentage, tunneling_config, proxy_protocol_tlvs,
                proxy_protocol_tlv_merge_policy, check_drain_close
            }
            ignored {
                downstream_idle_timeout: "Envoy has no such timeout yet either: idle_timeout covers both sides",
                upstream_idle_timeout: "Envoy has no such timeout yet either: idle_timeout covers both sides",
            }
        });
        let _ = (upstream_connect_mode, proxy_protocol_tlv_merge_policy);
        if mode != UpstreamConnectMode::Immediate && max_early_data_bytes.is_none() {
            return Err(cx.error("max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE"));
        }
        let log_moments = LogMoments::build(
            access_log_options,
            flush_access_log_on_connected,
            access_log_flush_interval,
            cx,
        )?;
        let clusters = Clusters::build(cluster_specifier, metadata_match, cx)?;
        let hash = cx
            .each("hash_policy", hash_policy, HashPolicy::build)?
            .into_iter()
            .next();
        let scope = cx.server.stats.scope(&format!("tcp.{stat_prefix}."));
        Ok(Self {
            stats: scope.block(),
            clusters,
            hash,
            idle_timeout: idle_timeout.enabled_or(Duration::from_secs(3600)),
            max_duration: max_downstream_connection_duration.enabled_or(Duration::ZERO),
            max_duration_jitter: max_downstream_connection_duration_jitter_percentage.map_or(0.0, |p| p.value),
            max_connect_attempts: max_connect_attempts.map_or(1, |v| v.value).max(1),
            backoff: cx.opt("backoff_options", backoff_options, Backoff::build)?,
            max_early_data: max_early_data_bytes.map(|v| v.value as usize),
            waits_for_data: mode == UpstreamConnectMode::OnDownstreamData,
            access_log: cx.field("access_log", |cx| AccessLogs::build(access_log, cx))?,
            on_demand: cx.opt("on_demand", on_demand, |proto, cx| on_demand_source(proto, &scope, cx))?,
            check_drain_close: check_drain_close.is_some_and(|v| v.value),
            tunneling: cx.opt("tunneling_config", tunneling_config, Tunneling::build)?,
            tlvs: Tlvs::build(proxy_protocol_tlvs, merge, cx)?,
            log_moments,
        })
    }

    /// How long a connection may be there, each time at random.
    pub(super) fn duration_limit(&self) -> Option<Duration> {
        let longest = self.max_duration?;
        let more = longest.mul_f64(self.max_duration_jitter / 100.0 * fastrand::f64());
        Some(longest.saturating_add(more))
    }
}

fn on_demand_source(proto: OnDemand, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<OnDemandSource> {
    coverage!(cx, proto => OnDemand { supported { odcds_config, resources_locator, timeout } });
    let clusters = OnDemandClusters::build(odcds_config, &resources_locator, timeout, ON_DEMAND_TIMEOUT, cx)?;
    Ok(OnDemandSource {
        clusters: Arc::new(clusters),
        stats: scope.block(),
    })
}

impl LogMoments {
    fn build(
        options: Option<TcpAccessLogOptions>,
        on_connected: bool,
        every: Option<pb::Duration>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let Some(options) = options else {
            return Ok(Self {
                on_start: false,
                on_connected,
                every: every.as_ref().map(duration),
            });
        };
        let old = match (on_connected, every) {
            (true, _) => Some("flush_access_log_on_connected"),
            (false, Some(_)) => Some("access_log_flush_interval"),
            (false, None) => None,
        };
        if let Some(old) = old {
            return Err(cx.error(format!("Only one of {old} or access_log_options can be specified.")));
        }
        cx.field("access_log_options", |cx| {
            coverage!(cx, options => TcpAccessLogOptions {
                supported { flush_access_log_on_connected, flush_access_log_on_start, access_log_flush_interval }
            });
            Ok(Self {
                on_start: flush_access_log_on_start,
                on_connected: flush_access_log_on_connected,
                every: access_log_flush_interval.as_ref().map(duration),
            })
        })
    }
}
