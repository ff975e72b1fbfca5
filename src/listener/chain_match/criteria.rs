//! `envoy.config.listener.v3.FilterChainMatch` -> [`Criteria`].

use ipnet::IpNet;
use xds_protos::envoy::config::listener::v3::{FilterChainMatch as Proto, filter_chain_match::ConnectionSourceType};

use crate::{
    config::{BuildCx, ConfigResult},
    net::cidr_range,
};

/// What a connection must be like; an empty list asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Criteria {
    pub destination_port: Option<u16>,
    pub destination: Vec<IpNet>,
    /// Lower-case; a wildcard without its star: `.example.com`.
    pub server_names: Vec<Box<str>>,
    pub transport_protocol: Option<Box<str>>,
    pub application_protocols: Vec<Box<str>>,
    pub direct_source: Vec<IpNet>,
    /// Whether the client is on this machine.
    pub local_source: Option<bool>,
    pub source: Vec<IpNet>,
    pub source_ports: Vec<u16>,
}

impl Criteria {
    pub(super) fn build(proto: &Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto.clone() => Proto {
            supported {
                destination_port, prefix_ranges, direct_source_prefix_ranges, source_type, source_prefix_ranges,
                source_ports, server_names, transport_protocol, application_protocols
            }
            rejected { address_suffix: "not implemented in Envoy either", suffix_len: "not implemented in Envoy either" }
        });
        let port = |p: u32| u16::try_from(p).ok();
        Ok(Self {
            destination_port: destination_port.and_then(|v| port(v.value)),
            destination: cx.each("prefix_ranges", prefix_ranges, cidr_range)?,
            server_names: cx.each("server_names", server_names, server_name)?,
            transport_protocol: (!transport_protocol.is_empty()).then(|| transport_protocol.into()),
            application_protocols: application_protocols.into_iter().map(Into::into).collect(),
            direct_source: cx.each("direct_source_prefix_ranges", direct_source_prefix_ranges, cidr_range)?,
            local_source: match ConnectionSourceType::try_from(source_type) {
                Ok(ConnectionSourceType::SameIpOrLoopback) => Some(true),
                Ok(ConnectionSourceType::External) => Some(false),
                _ => None,
            },
            source: cx.each("source_prefix_ranges", source_prefix_ranges, cidr_range)?,
            source_ports: source_ports.into_iter().filter_map(port).collect(),
        })
    }
}

fn server_name(name: String, cx: &mut BuildCx<'_>) -> ConfigResult<Box<str>> {
    let name = name.to_ascii_lowercase();
    let rest = match name.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => rest,
        _ => &name,
    };
    match rest.contains('*') {
        true => Err(cx.error("partial wildcards are not supported in \"server_names\"")),
        false => Ok(rest.into()),
    }
}
