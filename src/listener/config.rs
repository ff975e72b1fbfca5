//! `envoy.config.listener.v3.Listener` -> [`ListenerConfig`].

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use xds_protos::{
    envoy::config::{
        core::v3::{SocketOptionsOverride, TrafficDirection},
        listener::v3::{
            AdditionalAddress, Listener as Proto,
            listener::{ConnectionBalanceConfig, DrainType, ListenerSpecifier, connection_balance_config::BalanceType},
        },
    },
    google::protobuf::{BoolValue, UInt32Value},
};

use super::{Kept, balance::ExactBalance, chain_match::ChainMatcher, filter::ConfiguredFilter, udp::UdpConfig};
use crate::{
    access_log::AccessLogs,
    config::{AnyExt, BuildCx, ConfigResult, DurationExt},
    net::{Address, Keepalive, ListenOptions, SocketOption, address_from_proto},
    runtime::Key,
};

/// A listener as configured: immutable, shared by all workers.
pub struct ListenerConfig {
    /// `name`; never empty here.
    pub name: Arc<str>,
    /// `metadata`, for `%METADATA(LISTENER:..)%`.
    pub metadata: Option<Arc<xds_protos::envoy::config::core::v3::Metadata>>,
    /// Addresses bound, the main one first, with their socket options.
    pub addresses: Vec<(Address, ListenOptions)>,
    /// `bind_to_port`: false leaves the listener without a socket of its own.
    pub bind_to_port: bool,
    /// `internal_listener`: takes connections of this process, by its name.
    pub internal: bool,
    /// Set for UDP listeners, which have filters in place of chains.
    pub udp: Option<UdpConfig>,
    /// Finds the chain of a connection.
    pub chains: ChainMatcher,
    /// Listener filters, in order.
    pub filters: Vec<ConfiguredFilter>,
    /// `use_original_dst`: the listener of that address, if there is one, takes the connection over.
    pub hand_off: bool,
    /// `listener_filters_timeout`, default 15 s; none waits for ever.
    pub filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`
    pub continue_on_filters_timeout: bool,
    /// `per_connection_buffer_limit_bytes`, default 1 MiB.
    pub buffer_limit: u32,
    /// `traffic_direction`
    pub direction: TrafficDirection,
    /// `drain_type: MODIFY_ONLY` does not drain on `/healthcheck/fail` and `/drain_listeners`.
    pub drain_modify_only: bool,
    /// `access_log`: a line for each connection.
    pub access_log: AccessLogs,
    /// Prefix of its statistics without the dot: `listener.<stat_prefix or address>`.
    pub stat_prefix: String,
    /// `ignore_global_conn_limit`
    pub ignore_global_limit: bool,
    /// `bypass_overload_manager`: overload neither refuses its connections nor their requests.
    pub bypass_overload: bool,
    /// Runtime key `envoy.resource_limits.listener.<name>.connection_limit`.
    pub connection_limit: Key,
    /// `connection_balance_config.exact_balance`; otherwise the kernel spreads connections over the workers' sockets.
    pub balance: Option<Arc<ExactBalance>>,
    /// `max_connections_to_accept_per_socket_event`; without a limit all that wait.
    pub accepts_per_event: u32,
    /// Connections of this configuration, of all workers.
    pub open: Arc<AtomicU64>,
    /// What the resource looked like, to tell an update from a repetition.
    pub fingerprint: u64,
}

impl ListenerConfig {
    /// Builds a listener. Route tables and secrets it waits for are left in `cx.init`.
    /// Filter chains that are there already are taken from `kept`.
    pub fn build(proto: Proto, fingerprint: u64, kept: &Kept<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        if proto.fcds_config.is_some() && proto.filter_chain_matcher.is_none() {
            return Err(cx.error("FCDS requires a filter chain matcher."));
        }
        coverage!(cx, proto => Proto {
            supported {
                name, address, additional_addresses, stat_prefix, filter_chains, default_filter_chain,
                per_connection_buffer_limit_bytes, metadata, drain_type, listener_filters, listener_filters_timeout,
                continue_on_listener_filters_timeout, transparent, freebind, tcp_fast_open_queue_length,
                traffic_direction, connection_balance_config, reuse_port, enable_reuse_port, access_log,
                tcp_backlog_size, bind_to_port, ignore_global_conn_limit, tcp_keepalive, deprecated_v1,
                use_original_dst, listener_specifier, filter_chain_matcher, socket_options, enable_mptcp,
                max_connections_to_accept_per_socket_event, udp_listener_config,
                bypass_overload_manager
            }
            ignored {
                per_connection_buffer_high_watermark_timeout: "a connection whose peer does not read is ended by its idle timers",
                stats_matcher: "the server's matcher holds for all statistics",
            }
            rejected {
                fcds_config: "filter chain discovery",
                api_listener: "missing the API listener extension",
            }
        });
        let balance_type = match connection_balance_config {
            Some(ConnectionBalanceConfig { balance_type: None }) => {
                return Err(cx.error_at("connection_balance_config.balance_type", "value is required"));
            }
            config => config.and_then(|c| c.balance_type),
        };
        let internal = matches!(listener_specifier, Some(ListenerSpecifier::InternalListener(_)));
        if internal {
            let is_set = |v: Option<BoolValue>| v.is_some_and(|v| v.value);
            let of_sockets = matches!(balance_type, Some(BalanceType::ExactBalance(_)))
                || enable_mptcp
                || enable_reuse_port.is_some()
                || is_set(freebind)
                || tcp_backlog_size.is_some()
                || tcp_fast_open_queue_length.is_some()
                || is_set(transparent);
            let given = Given {
                address: address.is_some() || !additional_addresses.is_empty(),
                of_sockets,
                socket_options: !socket_options.is_empty(),
            };
            check_internal(&name, &given, cx)?;
        }
        let balance = match balance_type {
            None => None,
            Some(BalanceType::ExactBalance(_)) => Some(
                kept.balance()
                    .unwrap_or_else(|| ExactBalance::new(cx.server.concurrency)),
            ),
            Some(BalanceType::CpuLocalityBalance(_)) => {
                cx.ignored(
                    "connection_balance_config.cpu_locality_balance",
                    "the kernel balances connections over the workers' sockets",
                );
                None
            }
            Some(BalanceType::ExtendBalance(extension)) => {
                let any = extension.typed_config.unwrap_or_default();
                return Err(cx.error(format!(
                    "Didn't find a registered implementation for type: '{}'",
                    any.type_name()
                )));
            }
        };
        let flag = |v: Option<BoolValue>, default| v.map_or(default, |v| v.value);
        let number = |v: Option<UInt32Value>| v.map(|v| v.value);
        let bind_to_port = flag(
            bind_to_port,
            deprecated_v1.and_then(|d| d.bind_to_port).is_none_or(|v| v.value),
        );

        let datagram = is_udp(address.as_ref());
        let options = ListenOptions {
            datagram,
            reuse_port: flag(enable_reuse_port, true),
            backlog: number(tcp_backlog_size),
            transparent: flag(transparent, false),
            freebind: flag(freebind, false),
            fast_open: number(tcp_fast_open_queue_length),
            keepalive: cx.opt("tcp_keepalive", tcp_keepalive, Keepalive::build)?,
            mptcp: enable_mptcp,
            socket_options: cx.each("socket_options", socket_options, SocketOption::build)?,
            ..ListenOptions::default()
        };
        // The same as the default.
        let _ = reuse_port;
        let mut addresses = vec![match address {
            Some(address) => cx.field("address", |cx| bound(address, &options, cx))?,
            None if internal => (Address::internal(&name), options.clone()),
            None => {
                return Err(cx.error(format!("error adding listener named '{name}': address is necessary")));
            }
        }];
        if !internal && matches!(addresses[0].0, Address::Internal { .. }) {
            return Err(cx.error(format!(
                "error adding listener named '{name}': use internal_listener field instead of address for internal listeners"
            )));
        }
        addresses.extend(cx.each("additional_addresses", additional_addresses, |a, cx| {
            coverage!(cx, a => AdditionalAddress { supported { address, socket_options, tcp_keepalive } });
            if is_udp(address.as_ref()) != datagram {
                return Err(cx.error(format!(
                    "listener {name}: has different socket type. The listener only support same socket type for all the addresses."
                )));
            }
            let mut options = options.clone();
            if let Some(own) = socket_options {
                coverage!(cx, own => SocketOptionsOverride { supported { socket_options } });
                options.socket_options = cx.each("socket_options.socket_options", socket_options, SocketOption::build)?;
            }
            if let Some(own) = cx.opt("tcp_keepalive", tcp_keepalive, Keepalive::build)? {
                options.keepalive = Some(own);
            }
            cx.required("address", address, |a, cx| bound(a, &options, cx))
        })?);
        if enable_mptcp && addresses.iter().any(|(a, _)| a.ip().is_none()) {
            return Err(cx.error(format!(
                "listener {name}: enable_mptcp can only be used with IP addresses"
            )));
        }
        if datagram {
            check_udp(&name, bind_to_port, options.reuse_port, cx)?;
        }

        let stat_prefix = if stat_prefix.is_empty() {
            match internal {
                true => format!("envoy_internal_{name}"),
                false => addresses[0].0.to_string(),
            }
        } else {
            stat_prefix
        };
        cx.listener_prefix = Some(format!("listener.{stat_prefix}."));
        let hand_off = flag(use_original_dst, false);
        // The filters of a UDP listener are of a kind of their own.
        let (listener_filters, udp) = match datagram {
            false => (listener_filters, None),
            true => (
                Vec::new(),
                Some(UdpConfig::build(udp_listener_config, listener_filters, cx)?),
            ),
        };
        let mut filters = cx.each("listener_filters", listener_filters, ConfiguredFilter::build)?;
        // As in Envoy, the first chain decides for all.
        let first = filter_chains.first().or(default_filter_chain.as_ref());
        let use_proxy_proto = first.and_then(|c| c.use_proxy_proto).is_some_and(|v| v.value);
        if hand_off && !datagram {
            filters.push(ConfiguredFilter::original_dst(cx)?);
        }
        if use_proxy_proto && !datagram {
            filters.push(ConfiguredFilter::proxy_protocol(cx)?);
        }
        let chains = cx.each("filter_chains", filter_chains, |chain, cx| kept.chain(chain, cx))?;
        let default_chain = cx.opt("default_filter_chain", default_filter_chain, |chain, cx| {
            kept.default_chain(chain, cx)
        })?;
        if let Some(why) = udp
            .as_ref()
            .and_then(|_| UdpConfig::refuses(&addresses[0].0, chains.len(), default_chain.is_some()))
        {
            return Err(cx.error(why));
        }
        if chains.is_empty() && default_chain.is_none() && udp.is_none() {
            return Err(cx.error(format!(
                "error adding listener '{}': no filter chains specified",
                addresses[0].0
            )));
        }
        Ok(Self {
            metadata: metadata.map(Arc::new),
            chains: ChainMatcher::build(chains, default_chain, filter_chain_matcher, &addresses[0].0, cx)?,
            filters,
            hand_off,
            filters_timeout: listener_filters_timeout.enabled_or(Duration::from_secs(15)),
            continue_on_filters_timeout: continue_on_listener_filters_timeout,
            buffer_limit: number(per_connection_buffer_limit_bytes).unwrap_or(1024 * 1024),
            direction: TrafficDirection::try_from(traffic_direction).unwrap_or_default(),
            drain_modify_only: drain_type == DrainType::ModifyOnly as i32,
            access_log: cx.field("access_log", |cx| AccessLogs::build(access_log, cx))?,
            ignore_global_limit: ignore_global_conn_limit,
            bypass_overload: bypass_overload_manager,
            connection_limit: cx
                .server
                .runtime
                .key(&format!("envoy.resource_limits.listener.{name}.connection_limit")),
            balance,
            accepts_per_event: number(max_connections_to_accept_per_socket_event).unwrap_or(u32::MAX),
            open: kept.open(),
            stat_prefix,
            name: name.into(),
            addresses,
            bind_to_port: bind_to_port && !internal,
            internal,
            udp,
            fingerprint,
        })
    }
}

/// What a listener says of its address and its sockets, which internal listeners have not.
struct Given {
    address: bool,
    of_sockets: bool,
    socket_options: bool,
}

fn check_internal(name: &str, given: &Given, cx: &BuildCx<'_>) -> ConfigResult<()> {
    let refused = |why: &str| Err(cx.error(format!("error adding listener named '{name}': {why}")));
    if cx.server.internal_buffer.is_none() {
        return refused("InternalListener bootstrap extension is mandatory");
    }
    if given.address {
        return refused("address should not be used when an internal listener config is provided");
    }
    if given.of_sockets {
        return refused("has unsupported tcp listener feature");
    }
    match given.socket_options {
        true => refused("does not support socket option"),
        false => Ok(()),
    }
}

/// What a UDP listener must have, in Envoy's words.
fn check_udp(name: &str, bind_to_port: bool, reuse_port: bool, cx: &BuildCx<'_>) -> ConfigResult<()> {
    if !bind_to_port {
        return Err(cx.error(format!(
            "listener {name}: bind_to_port: false is not supported for UDP listeners"
        )));
    }
    if !reuse_port && cx.server.concurrency > 1 {
        return Err(cx.error(
            "Listening on UDP when concurrency is > 1 without the SO_REUSEPORT socket option results in unstable \
             packet proxying. Configure the reuse_port listener option or set concurrency = 1.",
        ));
    }
    Ok(())
}

/// Whether an address is one of datagrams (`SocketAddress.protocol`).
fn is_udp(address: Option<&xds_protos::envoy::config::core::v3::Address>) -> bool {
    use xds_protos::envoy::config::core::v3::{address::Address as Kind, socket_address::Protocol};
    match address.and_then(|a| a.address.as_ref()) {
        Some(Kind::SocketAddress(a)) => a.protocol == Protocol::Udp as i32,
        _ => false,
    }
}

fn bound(
    mut proto: xds_protos::envoy::config::core::v3::Address,
    options: &ListenOptions,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Address, ListenOptions)> {
    use xds_protos::envoy::config::core::v3::address::Address as Kind;
    let mut options = options.clone();
    match &mut proto.address {
        Some(Kind::SocketAddress(a)) => {
            options.ipv4_compat = a.ipv4_compat;
            let namespace = std::mem::take(&mut a.network_namespace_filepath);
            options.namespace = (!namespace.is_empty()).then(|| namespace.into());
        }
        Some(Kind::Pipe(p)) => options.pipe_mode = p.mode,
        _ => {}
    }
    let address = address_from_proto(proto, cx)?;
    let takes_ipv4 = match address.ip() {
        Some(IpAddr::V6(ip)) => ip.is_unspecified() || ip.to_ipv4_mapped().is_some(),
        _ => false,
    };
    match options.ipv4_compat && !takes_ipv4 {
        true => Err(cx.error(format!(
            "Only IPv6 address '::' or valid IPv4-mapped IPv6 address can set ipv4_compat: {address}"
        ))),
        false => Ok((address, options)),
    }
}
