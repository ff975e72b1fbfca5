//! How upstream sockets are opened: source address, socket options, keepalive.

use std::net::SocketAddr;

use xds_protos::envoy::config::{
    cluster::v3::{UpstreamConnectionOptions, upstream_connection_options::HappyEyeballsConfig},
    core::v3::BindConfig,
};

use crate::{
    config::{BuildCx, ConfigResult},
    net::{Keepalive, socket_address},
};

/// A local address to connect from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceAddress(pub SocketAddr);

/// Options of every upstream socket of a cluster.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// `upstream_bind_config.source_address`, then its additional addresses; the first of the peer's family is used.
    pub sources: Vec<SourceAddress>,
    /// `upstream_bind_config.freebind`
    pub freebind: bool,
    /// `tcp_keepalive`
    pub keepalive: Option<Keepalive>,
}

/// Reads both messages.
pub fn build(
    options: Option<UpstreamConnectionOptions>,
    bind: Option<BindConfig>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<ConnectOptions> {
    let mut out = ConnectOptions::default();
    if let Some(options) = options {
        out.keepalive = cx.field("upstream_connection_options", |cx| connection_options(options, cx))?;
    }
    if let Some(bind) = bind {
        cx.field("upstream_bind_config", |cx| bind_config(bind, &mut out, cx))?;
    }
    Ok(out)
}

fn connection_options(proto: UpstreamConnectionOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Keepalive>> {
    coverage!(cx, proto => UpstreamConnectionOptions {
        supported { tcp_keepalive, happy_eyeballs_config }
        ignored { set_local_interface_name_on_upstream_connections: "nothing reads the interface name" }
    });
    if let Some(config) = happy_eyeballs_config {
        coverage!(cx, config => HappyEyeballsConfig {
            supported { }
            ignored {
                first_address_family_version: "addresses are tried in their order",
                first_address_family_count: "addresses are tried in their order"
            }
        });
    }
    cx.opt("tcp_keepalive", tcp_keepalive, Keepalive::build)
}

fn bind_config(proto: BindConfig, out: &mut ConnectOptions, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    coverage!(cx, proto => BindConfig {
        supported { source_address, freebind, extra_source_addresses, additional_source_addresses }
        ignored { validate_network_namespaces: "there are no network namespaces here" }
        rejected {
            socket_options: "raw socket options of upstream sockets",
            local_address_selector: "selectors of local addresses"
        }
    });
    out.freebind = freebind.is_some_and(|v| v.value);
    for (name, address) in source_address
        .into_iter()
        .map(|a| ("source_address", a))
        .chain(
            extra_source_addresses
                .into_iter()
                .filter_map(|a| a.address)
                .map(|a| ("extra_source_addresses", a)),
        )
        .chain(
            additional_source_addresses
                .into_iter()
                .map(|a| ("additional_source_addresses", a)),
        )
    {
        out.sources
            .push(SourceAddress(cx.field(name, |cx| socket_address(address, cx))?));
    }
    Ok(())
}
