//! UDP listeners: datagrams go to the listener's filters; there are no connections and no filter chains.

mod filter;
mod receive;

use std::sync::Arc;

use xds_protos::{
    envoy::config::{
        core::v3::UdpSocketConfig,
        listener::v3::{ListenerFilter as FilterProto, UdpListenerConfig as Proto, listener_filter::ConfigType},
    },
    google::protobuf::Any,
};

pub use filter::{
    Datagram, DatagramNext, UdpDownstream, UdpFilterCx, UdpListenerFilter, UdpListenerFilterFactory, UdpReadFilter,
};
pub(super) use receive::spawn;

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    net::Address,
};

crate::stats_block! {
    /// `listener.<address or stat_prefix>.udp.*`
    pub struct UdpListenerStats {
        counter downstream_rx_datagram_dropped => "udp.downstream_rx_datagram_dropped", "Datagrams that were too long, or found no room in the socket";
    }
}

/// `max_rx_datagram_size` where none is given.
pub const MAX_DATAGRAM: usize = 1500;

/// How the datagrams of a socket are received: `envoy.config.core.v3.UdpSocketConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramOptions {
    /// `max_rx_datagram_size`, default 1500 bytes; longer ones are dropped.
    pub max: usize,
    /// `prefer_gro`
    pub gro: bool,
}

impl DatagramOptions {
    /// Reads the message; `gro` is the default of `prefer_gro`.
    pub fn build(proto: Option<UdpSocketConfig>, gro: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = proto.unwrap_or_default();
        coverage!(cx, proto => UdpSocketConfig { supported { max_rx_datagram_size, prefer_gro } });
        let max = match max_rx_datagram_size.map(|v| v.value) {
            None => MAX_DATAGRAM,
            Some(size @ 1..65536) => usize::try_from(size).unwrap_or(MAX_DATAGRAM),
            Some(_) => return Err(cx.error_at("max_rx_datagram_size", "value must be inside range (0, 65536)")),
        };
        Ok(Self {
            max,
            gro: prefer_gro.map_or(gro, |v| v.value),
        })
    }
}

/// What makes a listener a UDP listener.
pub struct UdpConfig {
    /// Its filters, in order: `listener_filters`.
    pub filters: Vec<Arc<dyn UdpListenerFilter>>,
    /// `downstream_socket_config`
    pub datagrams: DatagramOptions,
}

impl UdpConfig {
    /// Reads `udp_listener_config` and `listener_filters`.
    pub fn build(proto: Option<Proto>, filters: Vec<FilterProto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let datagrams = cx.field("udp_listener_config", |cx| {
            let proto = proto.unwrap_or_default();
            coverage!(cx, proto => Proto {
                supported { downstream_socket_config }
                ignored { udp_packet_packet_writer_config: "datagrams are sent one by one, at once" }
                rejected { quic_options: "QUIC" }
            });
            cx.field("downstream_socket_config", |cx| {
                DatagramOptions::build(downstream_socket_config, false, cx)
            })
        })?;
        Ok(Self {
            filters: cx.each("listener_filters", filters, filter)?,
            datagrams,
        })
    }

    /// Why a listener with so many filter chains is none of UDP, in Envoy's words.
    pub(super) fn refuses(address: &Address, chains: usize, default_chain: bool) -> Option<String> {
        (chains > 0 || default_chain).then(|| {
            format!(
                "error adding listener '{address}': {chains} filter chain(s) specified for connection-less UDP listener."
            )
        })
    }
}

fn filter(proto: FilterProto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpListenerFilter>> {
    coverage!(cx, proto => FilterProto {
        supported { name, config_type }
        ignored { filter_disabled: "there are no connections that a filter could pass over" }
    });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => plain(any, cx)?,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(cx.error(format!(
                "UDP listener filter: {name} is configured with unsupported dynamic configuration"
            )));
        }
        None => Any::default(),
    };
    let server = cx.server.clone();
    cx.field("typed_config", |cx| match server.registry.find_udp_filter(&any) {
        Some(factory) => factory.build(&any, cx),
        None => Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{}'",
            any.type_name()
        ))),
    })
}
