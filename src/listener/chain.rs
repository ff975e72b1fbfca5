//! `envoy.config.listener.v3.FilterChain` -> [`FilterChain`].

use std::{sync::Arc, time::Duration};

use xds_protos::envoy::config::{
    core::v3::{Metadata, TransportSocket, transport_socket::ConfigType as SocketConfig},
    listener::v3::{Filter as FilterProto, FilterChain as Proto, FilterChainMatch, filter::ConfigType},
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, plain},
    network_filter::NetworkFilter,
    server::DrainSignal,
    tls::ServerTls,
};

/// What turns accepted bytes into the connection's bytes.
#[derive(Clone)]
pub enum DownstreamTransport {
    /// `envoy.transport_sockets.raw_buffer`, or no transport socket.
    RawBuffer,
    /// `envoy.transport_sockets.tls`
    Tls(Arc<ServerTls>),
}

/// A filter chain: how a matching connection is decrypted and who serves it.
pub struct FilterChain {
    /// `name`; empty when unnamed.
    pub name: Arc<str>,
    /// When it applies, kept for the matcher.
    pub criteria: FilterChainMatch,
    /// Transport socket.
    pub transport: DownstreamTransport,
    /// `transport_socket_connect_timeout`; none waits for ever.
    pub transport_timeout: Option<Duration>,
    /// Network filters, the terminal one last. Empty: the connection is closed at once, as Envoy does.
    pub filters: Vec<NetworkFilter>,
    /// Started when the chain is replaced or removed.
    pub drain: DrainSignal,
    /// `metadata`, for `%METADATA(LISTENER_FILTER_CHAIN:..)%`.
    pub metadata: Option<Arc<Metadata>>,
}

impl FilterChain {
    /// Builds a chain and all its filters.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                filter_chain_match, filters, metadata, transport_socket, transport_socket_connect_timeout, name,
                use_proxy_proto
            }
        });
        // The listener has put the filter in.
        let _ = use_proxy_proto;
        let transport = cx
            .opt("transport_socket", transport_socket, transport)?
            .unwrap_or(DownstreamTransport::RawBuffer);
        let count = filters.len();
        let mut last = 0;
        let filters = cx.each("filters", filters, |f, cx| {
            last += 1;
            let name = f.name.clone();
            let filter = network_filter(f, cx)?;
            match &filter {
                NetworkFilter::Terminal(_) if last < count => Err(cx.error(format!(
                    "Error: terminal filter named {name} of type {name} must be the last filter in a network filter chain."
                ))),
                NetworkFilter::Gate(_) if last == count => Err(cx.error(format!(
                    "Error: non-terminal filter named {name} of type {name} is the last filter in a network filter chain."
                ))),
                _ => Ok(filter),
            }
        })?;
        Ok(Self {
            name: name.into(),
            criteria: filter_chain_match.unwrap_or_default(),
            transport,
            transport_timeout: transport_socket_connect_timeout.enabled_or(Duration::ZERO),
            filters,
            drain: DrainSignal::default(),
            metadata: metadata.map(Arc::new),
        })
    }
}

fn transport(proto: TransportSocket, cx: &mut BuildCx<'_>) -> ConfigResult<DownstreamTransport> {
    coverage!(cx, proto => TransportSocket { supported { name, config_type } });
    let Some(SocketConfig::TypedConfig(any)) = config_type else {
        return match name.as_str() {
            "envoy.transport_sockets.raw_buffer" | "raw_buffer" => Ok(DownstreamTransport::RawBuffer),
            _ => Err(cx.error_at("typed_config", "value is required")),
        };
    };
    let any = plain(any, cx)?;
    cx.field("typed_config", |cx| match any.type_name() {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(DownstreamTransport::RawBuffer),
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            ServerTls::build(&any, cx).map(DownstreamTransport::Tls)
        }
        other => Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{other}'"
        ))),
    })
}

fn network_filter(proto: FilterProto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
    coverage!(cx, proto => FilterProto { supported { name, config_type } });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(cx.error_at("config_discovery", "not supported: discovered network filters"));
        }
        None => {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: ''"
            )));
        }
    };
    let server = cx.server.clone();
    let any = plain(any, cx)?;
    cx.field("typed_config", |cx| match server.registry.find_network_filter(&any) {
        Some(factory) => factory.build(&any, cx),
        None => Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{}'",
            any.type_name()
        ))),
    })
}
