//! `TcpProxy` -> [`Config`].

use std::{sync::Arc, time::Duration};

use xds_protos::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy as Proto,
    tcp_proxy::{OnDemand, TcpAccessLogOptions},
};

use super::choice::{Clusters, HashPolicy};
use crate::{
    access_log::AccessLogs,
    config::{BuildCx, ConfigResult, DurationExt},
    stats::Stats,
    stats_block,
    upstream::OnDemandClusters,
};

stats_block! {
    /// `tcp.<stat_prefix>.*`
    pub struct TcpProxyStats {
        counter downstream_cx_total, "Connections handled";
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
    /// `max_connect_attempts`; default 1.
    pub(super) max_connect_attempts: u32,
    /// `on_demand`: where clusters are asked for that are not there.
    pub(super) on_demand: Option<Arc<OnDemandClusters>>,
    pub(super) access_log: AccessLogs,
    /// `flush_access_log_on_start`: a line when the connection is taken.
    pub(super) log_on_start: bool,
    /// `flush_access_log_on_connected`: a line when the upstream is connected.
    pub(super) log_on_connected: bool,
}

impl Config {
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                stat_prefix, idle_timeout, access_log, max_connect_attempts, max_downstream_connection_duration,
                access_log_options, flush_access_log_on_connected, cluster_specifier, upstream_connect_mode, on_demand,
                metadata_match, hash_policy
            }
            ignored {
                access_log_flush_interval: "no lines are written while a connection runs",
                max_downstream_connection_duration_jitter_percentage: "connections end at the full duration",
                downstream_idle_timeout: "idle_timeout covers both sides",
                upstream_idle_timeout: "idle_timeout covers both sides",
                max_early_data_bytes: "bytes wait in the socket until the upstream is connected",
                check_drain_close: "draining connections end with the drain time",
                backoff_options: "connect attempts follow one another at once",
            }
            rejected {
                tunneling_config: "tunnels",
                proxy_protocol_tlvs: "PROXY protocol TLVs",
                proxy_protocol_tlv_merge_policy: "PROXY protocol TLVs",
            }
        });
        let _ = upstream_connect_mode;
        let (mut log_on_start, mut log_on_connected) = (false, flush_access_log_on_connected);
        if let Some(options) = access_log_options {
            (log_on_start, log_on_connected) = cx.field("access_log_options", |cx| log_options(options, cx))?;
        }
        let clusters = Clusters::build(cluster_specifier, metadata_match, cx)?;
        let hash = cx
            .each("hash_policy", hash_policy, HashPolicy::build)?
            .into_iter()
            .next();
        Ok(Self {
            stats: cx.server.stats.scope(&format!("tcp.{stat_prefix}.")).block(),
            clusters,
            hash,
            idle_timeout: idle_timeout.enabled_or(Duration::from_secs(3600)),
            max_duration: max_downstream_connection_duration.enabled_or(Duration::ZERO),
            max_connect_attempts: max_connect_attempts.map_or(1, |v| v.value).max(1),
            access_log: cx.field("access_log", |cx| AccessLogs::build(access_log, cx))?,
            on_demand: cx.opt("on_demand", on_demand, on_demand_clusters)?,
            log_on_start,
            log_on_connected,
        })
    }
}

fn on_demand_clusters(proto: OnDemand, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<OnDemandClusters>> {
    coverage!(cx, proto => OnDemand { supported { odcds_config, resources_locator, timeout } });
    let clusters = OnDemandClusters::build(odcds_config, &resources_locator, timeout, ON_DEMAND_TIMEOUT, cx)?;
    Ok(Arc::new(clusters))
}

/// Whether a line is written at the start, and when connected.
fn log_options(proto: TcpAccessLogOptions, cx: &mut BuildCx<'_>) -> ConfigResult<(bool, bool)> {
    coverage!(cx, proto => TcpAccessLogOptions {
        supported { flush_access_log_on_connected, flush_access_log_on_start }
        ignored { access_log_flush_interval: "no lines are written while a connection runs" }
    });
    Ok((flush_access_log_on_start, flush_access_log_on_connected))
}
