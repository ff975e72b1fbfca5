//! `envoy.config.listener.v3.Listener` -> [`ListenerConfig`].

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use xds_protos::{
    envoy::config::{
        core::v3::TrafficDirection,
        listener::v3::{
            AdditionalAddress, Listener as Proto,
            listener::{ConnectionBalanceConfig, DrainType, ListenerSpecifier},
        },
    },
    google::protobuf::UInt32Value,
};

use super::{Kept, chain_match::ChainMatcher, filter::ConfiguredFilter, udp::UdpConfig};
use crate::{
    access_log::AccessLogs,
    config::{BuildCx, ConfigResult, DurationExt},
    net::{Address, Keepalive, ListenOptions, address_from_proto},
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
    /// Connections of this configuration, of all workers.
    pub open: Arc<AtomicU64>,
    /// What the resource looked like, to tell an update from a repetition.
    pub fingerprint: u64,
}

impl ListenerConfig {
    /// Builds a listener. Route tables and secrets it waits for are left in `cx.init`.
    /// Filter chains that are there already are taken from `kept`.
    pub fn build(proto: Proto, fingerprint: u64, kept: &Kept<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                name, address, additional_addresses, stat_prefix, filter_chains, default_filter_chain,
                per_connection_buffer_limit_bytes, metadata, drain_type, listener_filters, listener_filters_timeout,
                continue_on_listener_filters_timeout, transparent, freebind, tcp_fast_open_queue_length,
                traffic_direction, connection_balance_config, reuse_port, enable_reuse_port, access_log,
                tcp_backlog_size, bind_to_port, ignore_global_conn_limit, tcp_keepalive, deprecated_v1,
                use_original_dst, listener_specifier, filter_chain_matcher, udp_listener_config,
                bypass_overload_manager
            }
            ignored {
                max_connections_to_accept_per_socket_event: "accepting is fair among listeners without it",
                per_connection_buffer_high_watermark_timeout: "a connection whose peer does not read is ended by its idle timers",
                enable_mptcp: "plain TCP serves the same clients",
                stats_matcher: "the server's matcher holds for all statistics",
            }
            rejected {
                fcds_config: "filter chain discovery",
                socket_options: "raw socket options",
                api_listener: "API listeners",
            }
        });
        let internal = matches!(listener_specifier, Some(ListenerSpecifier::InternalListener(_)));
        if internal {
            let of_sockets = connection_balance_config.is_some()
                || enable_mptcp
                || enable_reuse_port.is_some()
                || freebind.is_some()
                || tcp_backlog_size.is_some()
                || tcp_fast_open_queue_length.is_some()
                || transparent.is_some();
            check_internal(&name, address.is_some(), of_sockets, cx)?;
        }
        match connection_balance_config {
            None | Some(ConnectionBalanceConfig { balance_type: None }) => {}
            // One SO_REUSEPORT socket a worker spreads connections by hash; exact balance is a matter of degree.
            Some(_) => cx.ignored(
                "connection_balance_config",
                "the kernel balances connections over the workers' sockets",
            ),
        }
        let flag = |v: Option<xds_protos::google::protobuf::BoolValue>, default| v.map_or(default, |v| v.value);
        let number = |v: Option<UInt32Value>| v.map(|v| v.value);
        let bind_to_port = flag(
            bind_to_port,
            deprecated_v1.and_then(|d| d.bind_to_port).is_none_or(|v| v.value),
        );

        let datagram = is_udp(address.as_ref());
        let options = ListenOptions {
            datagram,
            reuse_port: flag(enable_reuse_port, true) || reuse_port,
            backlog: number(tcp_backlog_size).map_or(4096, |n| i32::try_from(n).unwrap_or(i32::MAX)),
            transparent: flag(transparent, false),
            freebind: flag(freebind, false),
            fast_open: number(tcp_fast_open_queue_length),
            ipv4_compat: false,
            keepalive: cx.opt("tcp_keepalive", tcp_keepalive, Keepalive::build)?,
            pipe_mode: 0,
        };
        let mut addresses = vec![match address {
            Some(address) => cx.field("address", |cx| bound(address, &options, cx))?,
            None if internal => (Address::internal(&name), options.clone()),
            None => return Err(cx.error_at("address", "value is required")),
        }];
        if !internal && matches!(addresses[0].0, Address::Internal { .. }) {
            return Err(cx.error(format!(
                "error adding listener named '{name}': use internal_listener field instead of address for internal listeners"
            )));
        }
        addresses.extend(cx.each("additional_addresses", additional_addresses, |a, cx| {
            coverage!(cx, a => AdditionalAddress {
                supported { address }
                rejected { socket_options: "raw socket options", tcp_keepalive: "a keepalive of its own" }
            });
            if is_udp(address.as_ref()) != datagram {
                return Err(cx.error(format!(
                    "listener {name}: has different socket type. The listener only support same socket type for all the addresses."
                )));
            }
            cx.required("address", address, |a, cx| bound(a, &options, cx))
        })?);
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
        if hand_off && !datagram {
            filters.push(ConfiguredFilter::original_dst(cx)?);
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

/// What an internal listener must not have: an address, and what only sockets have.
fn check_internal(name: &str, address: bool, of_sockets: bool, cx: &BuildCx<'_>) -> ConfigResult<()> {
    let refused = |why: &str| Err(cx.error(format!("error adding listener named '{name}': {why}")));
    if cx.server.internal_buffer.is_none() {
        return refused("InternalListener bootstrap extension is mandatory");
    }
    if address {
        return refused("address should not be used when an internal listener config is provided");
    }
    match of_sockets {
        true => refused("has unsupported tcp listener feature"),
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
    proto: xds_protos::envoy::config::core::v3::Address,
    options: &ListenOptions,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Address, ListenOptions)> {
    use xds_protos::envoy::config::core::v3::address::Address as Kind;
    let mut options = options.clone();
    match &proto.address {
        Some(Kind::SocketAddress(a)) => options.ipv4_compat = a.ipv4_compat,
        Some(Kind::Pipe(p)) => options.pipe_mode = p.mode,
        _ => {}
    }
    Ok((address_from_proto(proto, cx)?, options))
}
