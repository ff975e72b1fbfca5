//! `envoy.config.core.v3.Address` to [`Address`].

use std::net::{IpAddr, SocketAddr};

use xds_protos::envoy::config::core::v3::{
    Address as Proto, EnvoyInternalAddress, Pipe, SocketAddress, address::Address as Kind,
    envoy_internal_address::AddressNameSpecifier, socket_address::PortSpecifier,
};

use super::Address;
use crate::config::{BuildCx, ConfigResult};

/// The address of a listener or of an endpoint that needs no name resolution.
pub fn from_proto(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Address> {
    let Proto { address } = proto;
    match address {
        Some(Kind::SocketAddress(a)) => cx.field("socket_address", |cx| socket_address(a, cx)).map(Address::Ip),
        Some(Kind::Pipe(a)) => {
            coverage!(cx, a => Pipe { supported { path, mode } });
            // `sun_path`, which Envoy fills to its end for neither kind.
            if path.len() >= 108 {
                return Err(cx.error(format!(
                    "Path \"{path}\" exceeds maximum UNIX domain socket path size of 108."
                )));
            }
            if path.starts_with('@') && mode != 0 {
                return Err(cx.error("Cannot set mode for Abstract AF_UNIX sockets"));
            }
            Ok(Address::Pipe(path.into()))
        }
        Some(Kind::EnvoyInternalAddress(a)) => {
            coverage!(cx, a => EnvoyInternalAddress { supported { endpoint_id, address_name_specifier } });
            let Some(AddressNameSpecifier::ServerListenerName(listener)) = address_name_specifier else {
                return Err(cx.error_at("server_listener_name", "value is required"));
            };
            Ok(Address::Internal {
                listener: listener.into(),
                endpoint: endpoint_id.into(),
            })
        }
        None => Err(cx.error("an address is required")),
    }
}

/// A literal IP address with its port; 0 without one.
pub fn socket_address(proto: SocketAddress, cx: &mut BuildCx<'_>) -> ConfigResult<SocketAddr> {
    coverage!(cx, proto => SocketAddress {
        supported { protocol, address, port_specifier, ipv4_compat, resolver_name }
        rejected { network_namespace_filepath: "network namespaces" }
    });
    let _ = (protocol, ipv4_compat);
    if !matches!(resolver_name.as_str(), "" | "envoy.ip") {
        return Err(cx.error(format!("Unknown address resolver: {resolver_name}")));
    }
    let ip: IpAddr = address
        .parse()
        .map_err(|_| cx.error_at("address", format!("malformed IP address: {address}")))?;
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(p)) => {
            u16::try_from(p).map_err(|_| cx.error_at("port_value", "value must be less than or equal to 65535"))?
        }
        Some(PortSpecifier::NamedPort(_)) => {
            // 4 is the field's number.
            return Err(cx.error("IP resolver can't handle port specifier type 4"));
        }
        None => 0,
    };
    Ok(SocketAddr::new(ip, port))
}
