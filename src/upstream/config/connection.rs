//! How upstream sockets are opened: source addresses, socket options, keepalive, the order of addresses.

use std::net::SocketAddr;

use xds_protos::envoy::config::{
    cluster::v3::{
        UpstreamConnectionOptions,
        upstream_connection_options::{FirstAddressFamilyVersion, HappyEyeballsConfig},
    },
    core::v3::{BindConfig, ExtraSourceAddress, SocketAddress, SocketOption as OptionProto, SocketOptionsOverride},
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult},
    net::{Address, Keepalive, SocketOption, socket_address},
};

/// Options of every upstream socket of a cluster.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// `upstream_bind_config`, the cluster's or else the bootstrap's; the source of the peer's family is used.
    pub sources: Vec<Source>,
    /// Options of sockets without a source.
    pub socket_options: Vec<SocketOption>,
    /// `upstream_bind_config.freebind`
    pub freebind: bool,
    /// `tcp_keepalive`
    pub keepalive: Option<Keepalive>,
    /// `happy_eyeballs_config`
    pub order: AddressOrder,
}

/// A local address to connect from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where from.
    pub address: SocketAddr,
    /// Options of its sockets.
    pub socket_options: Vec<SocketOption>,
}

/// In which order an endpoint's addresses are tried (RFC 8305, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressOrder {
    /// `first_address_family_version`: IPv4 or not; none for the family of the first address.
    pub first_is_ipv4: Option<bool>,
    /// `first_address_family_count`, 1: how many of the first family before the other has its turn.
    pub first_count: usize,
}

impl Default for AddressOrder {
    fn default() -> Self {
        Self {
            first_is_ipv4: None,
            first_count: 1,
        }
    }
}

impl ConnectOptions {
    /// The source for a peer: the first of its family, or else the first.
    pub fn source(&self, to: SocketAddr) -> Option<&Source> {
        let of_family = self.sources.iter().find(|s| s.address.is_ipv4() == to.is_ipv4());
        of_family.or(self.sources.first())
    }
}

/// `upstream_connection_options` and `upstream_bind_config`
pub type Parts = (Option<UpstreamConnectionOptions>, Option<BindConfig>);

/// Reads the messages of a cluster, and of the bootstrap what the cluster does not say.
pub fn build(
    cluster: &str,
    options: Option<UpstreamConnectionOptions>,
    bind: Option<BindConfig>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<ConnectOptions> {
    let mut out = ConnectOptions::default();
    if let Some(options) = options {
        cx.field("upstream_connection_options", |cx| {
            connection_options(options, &mut out, cx)
        })?;
    }
    let bootstrap = cx.server.bootstrap.cluster_manager.as_ref();
    let common = bootstrap.and_then(|m| m.upstream_bind_config.clone());
    let flag = |bind: Option<&BindConfig>| bind.and_then(|b| b.freebind).map(|v| v.value);
    out.freebind = flag(bind.as_ref()).or(flag(common.as_ref())).unwrap_or_default();
    let of_bootstrap = bind.is_none();
    let options_of = |bind: Option<&BindConfig>| bind.map(|b| b.socket_options.clone()).unwrap_or_default();
    let mut socket_options = options_of(bind.as_ref());
    if socket_options.is_empty() {
        socket_options = options_of(common.as_ref());
    }
    let Some(bind) = bind.or(common) else {
        return Ok(out);
    };
    cx.field("upstream_bind_config", |cx| {
        out.socket_options = socket_options_of(socket_options, cx)?;
        let whose = match of_bootstrap {
            true => "Bootstrap".to_owned(),
            false => format!("Cluster {cluster}"),
        };
        out.sources = sources(bind, &whose, &out.socket_options, cx)?;
        Ok(())
    })?;
    Ok(out)
}

fn connection_options(
    proto: UpstreamConnectionOptions,
    out: &mut ConnectOptions,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<()> {
    coverage!(cx, proto => UpstreamConnectionOptions {
        supported { tcp_keepalive, happy_eyeballs_config }
        ignored { set_local_interface_name_on_upstream_connections: "nothing reads the interface name" }
    });
    if let Some(config) = happy_eyeballs_config {
        coverage!(cx, config => HappyEyeballsConfig {
            supported { first_address_family_version, first_address_family_count }
        });
        out.order = AddressOrder {
            first_is_ipv4: match FirstAddressFamilyVersion::try_from(first_address_family_version) {
                Ok(FirstAddressFamilyVersion::V4) => Some(true),
                Ok(FirstAddressFamilyVersion::V6) => Some(false),
                _ => None,
            },
            first_count: first_address_family_count.map_or(1, |n| usize::try_from(n.value).unwrap_or(usize::MAX)),
        };
    }
    out.keepalive = cx.opt("tcp_keepalive", tcp_keepalive, Keepalive::build)?;
    Ok(())
}

fn socket_options_of(options: Vec<OptionProto>, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<SocketOption>> {
    cx.each("socket_options", options, SocketOption::build)
}

const DEFAULT_SELECTOR: &str = "envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector";

fn sources(
    proto: BindConfig,
    whose: &str,
    options: &[SocketOption],
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Vec<Source>> {
    coverage!(cx, proto => BindConfig {
        supported {
            source_address, freebind, extra_source_addresses, additional_source_addresses, socket_options,
            local_address_selector
        }
        ignored { validate_network_namespaces: "there are no network namespaces here" }
    });
    let _ = (freebind, socket_options);
    if let Some(selector) = local_address_selector {
        let type_name = selector.typed_config.as_ref().map_or("", |any| any.type_name());
        if type_name != DEFAULT_SELECTOR {
            return Err(cx.error_at(
                "local_address_selector",
                format!(
                    "Didn't find a registered implementation for '{}' with type URL: '{type_name}'",
                    selector.name
                ),
            ));
        }
    }
    if !extra_source_addresses.is_empty() && !additional_source_addresses.is_empty() {
        return Err(cx.error(format!(
            "Can't specify both `extra_source_addresses` and `additional_source_addresses` in the {whose}'s upstream \
             binding config"
        )));
    }
    let others = extra_source_addresses.len() + additional_source_addresses.len();
    let Some(first) = source_address else {
        return match others {
            0 => Ok(Vec::new()),
            _ => Err(cx.error(format!(
                "{whose}'s upstream binding config has extra/additional source addresses but no source_address. \
                 Extra/additional addresses cannot be specified if source_address is not set."
            ))),
        };
    };
    if others > 1 {
        return Err(cx.error(format!(
            "{whose}'s upstream binding config has more than one extra/additional source addresses. Only one \
             extra/additional source can be supported in BindConfig's extra_source_addresses/additional_source_addresses \
             field"
        )));
    }
    let source = |address: SocketAddress, cx: &mut BuildCx<'_>| -> ConfigResult<Source> {
        Ok(Source {
            address: socket_address(address, cx)?,
            socket_options: options.to_vec(),
        })
    };
    let mut sources = vec![cx.field("source_address", |cx| source(first, cx))?];
    sources.extend(cx.each("additional_source_addresses", additional_source_addresses, source)?);
    sources.extend(cx.each("extra_source_addresses", extra_source_addresses, |proto, cx| {
        coverage!(cx, proto => ExtraSourceAddress { supported { address, socket_options } });
        let mut extra = cx.required("address", address, source)?;
        if let Some(SocketOptionsOverride { socket_options }) = socket_options {
            extra.socket_options = cx.field("socket_options", |cx| socket_options_of(socket_options, cx))?;
        }
        Ok(extra)
    })?);
    if let [one, other] = &sources[..]
        && one.address.is_ipv4() == other.address.is_ipv4()
    {
        return Err(cx.error(format!(
            "{whose}'s upstream binding config has two same IP version source addresses. Only two different IP version \
             source addresses can be supported in BindConfig's source_address and \
             extra_source_addresses/additional_source_addresses fields"
        )));
    }
    Ok(sources)
}

impl AddressOrder {
    /// The addresses as they are tried: both families in turn, with the first one ahead. Without a choice of families
    /// they stay as they are.
    pub fn sort(&self, addresses: Vec<Address>) -> Vec<Address> {
        let is_ipv4 = |address: &Address| match address {
            Address::Ip(ip) => Some(ip.is_ipv4()),
            Address::Pipe(_) | Address::Internal { .. } => None,
        };
        let Some(first) = self.first_is_ipv4.or_else(|| is_ipv4(addresses.first()?)) else {
            return addresses;
        };
        let total = addresses.len();
        let (mine, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| is_ipv4(a) == Some(first));
        let (mut mine, mut others) = (mine.into_iter(), others.into_iter());
        let mut sorted: Vec<_> = mine.by_ref().take(self.first_count).collect();
        while sorted.len() < total {
            sorted.extend(others.next());
            sorted.extend(mine.next());
        }
        sorted
    }
}

#[cfg(test)]
mod tests;
