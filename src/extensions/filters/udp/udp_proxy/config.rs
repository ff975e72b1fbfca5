//! `UdpProxyConfig` -> [`Config`].

use std::{net::IpAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use twox_hash::XxHash64;
use xds_protos::envoy::extensions::filters::udp::udp_proxy::v3::{
    UdpProxyConfig as Proto,
    udp_proxy_config::{
        HashPolicy as HashProto, RouteSpecifier, SessionFilter as SessionFilterProto, UdpAccessLogOptions,
        hash_policy::PolicySpecifier, session_filter::ConfigType,
    },
};

use super::{route::Route, session_filter::UdpSessionFilter};
use crate::{
    access_log::AccessLogs,
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, plain},
    listener::DatagramOptions,
    stats::{Scope, Stats},
    stats_block,
};

stats_block! {
    /// `udp.<stat_prefix>.*`
    pub struct UdpProxyStats {
        gauge downstream_sess_active, "Sessions";
        counter downstream_sess_no_route, "Datagrams without a cluster";
        counter downstream_sess_rx_bytes, "Bytes received from clients";
        counter downstream_sess_rx_datagrams, "Datagrams received from clients";
        counter downstream_sess_rx_errors, "Errors while datagrams of clients were received";
        counter downstream_sess_total, "Sessions begun";
        counter downstream_sess_tx_bytes, "Bytes sent to clients";
        counter downstream_sess_tx_datagrams, "Datagrams sent to clients";
        counter downstream_sess_tx_errors, "Datagrams that could not be sent to clients";
        counter idle_timeout, "Sessions that ended because they were idle";
        counter session_filter_config_missing, "Sessions that ended because a session filter's configuration was missing";
    }
}

stats_block! {
    /// `cluster.<name>.udp.*`
    pub struct UdpClusterStats {
        counter sess_rx_datagrams => "udp.sess_rx_datagrams", "Datagrams received from hosts";
        counter sess_rx_datagrams_dropped => "udp.sess_rx_datagrams_dropped", "Datagrams of hosts that were too long, or found no room in the socket";
        counter sess_rx_errors => "udp.sess_rx_errors", "Errors while datagrams of hosts were received";
        counter sess_tx_datagrams => "udp.sess_tx_datagrams", "Datagrams sent to hosts";
        counter sess_tx_errors => "udp.sess_tx_errors", "Datagrams that could not be sent to hosts";
        counter sess_tunnel_success => "udp.sess_tunnel_success", "Tunnels made";
        counter sess_tunnel_failure => "udp.sess_tunnel_failure", "Tunnels that failed";
        counter sess_tunnel_buffer_overflow => "udp.sess_tunnel_buffer_overflow", "Datagrams that found no room while a tunnel was made";
    }
}

/// `idle_timeout` where none is given.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The configuration of one UDP proxy.
pub(super) struct Config {
    /// `udp.<stat_prefix>.`
    pub(super) scope: Scope,
    pub(super) stats: Stats<UdpProxyStats>,
    pub(super) route: Route,
    /// `idle_timeout`, default 1 min.
    pub(super) idle_timeout: Duration,
    /// `use_original_src_ip`: hosts see the client's address.
    pub(super) original_source: bool,
    /// `hash_policies`, of which there is one at most.
    pub(super) hash: Option<HashPolicy>,
    /// `upstream_socket_config`; GRO unless told otherwise.
    pub(super) datagrams: DatagramOptions,
    /// `use_per_packet_load_balancing`: every datagram chooses its host.
    pub(super) per_packet: bool,
    /// `access_log`: a line for each session.
    pub(super) access_log: AccessLogs,
    /// `access_log_options.access_log_flush_interval`: one more so often.
    pub(super) flush_interval: Option<Duration>,
    /// `proxy_access_log`: a line when the filter ends.
    pub(super) proxy_access_log: AccessLogs,
    /// `session_filters`
    pub(super) session_filters: Vec<Arc<dyn UdpSessionFilter>>,
}

impl Config {
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                stat_prefix, route_specifier, idle_timeout, use_original_src_ip, hash_policies, upstream_socket_config,
                use_per_packet_load_balancing, access_log, proxy_access_log, session_filters, access_log_options
            }
            rejected { tunneling_config: "UDP over HTTP" }
        });
        if use_per_packet_load_balancing && !session_filters.is_empty() {
            return Err(cx.error("Only one of use_per_packet_load_balancing or session_filters can be used."));
        }
        if use_original_src_ip && !may_be_transparent() {
            return Err(cx.error_at(
                "use_original_src_ip",
                "The platform does not support either IP_TRANSPARENT or IPV6_TRANSPARENT. Or the envoy is not running \
                 with the CAP_NET_ADMIN capability.",
            ));
        }
        let route = match route_specifier {
            Some(RouteSpecifier::Cluster(cluster)) => Route::Cluster(cluster.into()),
            Some(RouteSpecifier::Matcher(matcher)) => cx.field("matcher", |cx| Route::build(matcher, cx))?,
            None => return Err(cx.error_at("route_specifier", "is required")),
        };
        let hash = cx
            .each("hash_policies", hash_policies, HashPolicy::build)?
            .into_iter()
            .next();
        let scope = cx.server.stats.scope(&format!("udp.{stat_prefix}."));
        Ok(Self {
            stats: scope.block(),
            scope,
            route,
            idle_timeout: idle_timeout.or_duration(IDLE_TIMEOUT),
            original_source: use_original_src_ip,
            hash,
            datagrams: cx.field("upstream_socket_config", |cx| {
                DatagramOptions::build(upstream_socket_config, true, cx)
            })?,
            per_packet: use_per_packet_load_balancing,
            access_log: cx.field("access_log", |cx| AccessLogs::build(access_log, cx))?,
            flush_interval: cx
                .opt("access_log_options", access_log_options, flush_interval)?
                .flatten(),
            proxy_access_log: cx.field("proxy_access_log", |cx| AccessLogs::build(proxy_access_log, cx))?,
            session_filters: cx.each("session_filters", session_filters, session_filter)?,
        })
    }
}

fn flush_interval(proto: UdpAccessLogOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Duration>> {
    coverage!(cx, proto => UdpAccessLogOptions {
        supported { access_log_flush_interval }
        ignored { flush_access_log_on_tunnel_connected: "there are no tunnels" }
    });
    Ok(access_log_flush_interval.enabled_or(Duration::ZERO))
}

fn session_filter(proto: SessionFilterProto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpSessionFilter>> {
    coverage!(cx, proto => SessionFilterProto { supported { name, config_type } });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => plain(any, cx)?,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(cx.error_at("config_discovery", "not supported: discovered session filters"));
        }
        None => Default::default(),
    };
    let server = cx.server.clone();
    cx.field("typed_config", |cx| {
        match server.registry.find_udp_session_filter(&any) {
            Some(factory) => factory.build(&any, cx),
            None => Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                any.type_name()
            ))),
        }
    })
}

/// `hash_policies`
pub(super) enum HashPolicy {
    SourceIp,
    /// The hash of a key that all sessions have.
    Key(u64),
}

impl HashPolicy {
    fn build(proto: HashProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HashProto { supported { policy_specifier } });
        match policy_specifier {
            Some(PolicySpecifier::SourceIp(_)) => Ok(Self::SourceIp),
            Some(PolicySpecifier::Key(key)) => Ok(Self::Key(XxHash64::oneshot(0, key.as_bytes()))),
            None => Err(cx.error_at("policy_specifier", "is required")),
        }
    }

    pub(super) fn hash(&self, peer: IpAddr) -> u64 {
        match self {
            Self::SourceIp => XxHash64::oneshot(0, peer.to_string().as_bytes()),
            Self::Key(hash) => *hash,
        }
    }
}

/// Whether this process may send from addresses that are not its own.
fn may_be_transparent() -> bool {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
    socket.and_then(|s| s.set_ip_transparent_v4(true)).is_ok()
}
