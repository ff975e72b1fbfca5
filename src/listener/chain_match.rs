//! Which filter chain takes a connection (`envoy.config.listener.v3.FilterChainMatch`).
//!
//! Envoy narrows the chains criterion by criterion in a fixed order, each time keeping only the most
//! specific match, and never goes back: destination port, destination IP, server name, transport
//! protocol, application protocols, direct source IP, source type, source IP, source port.

use std::sync::Arc;

use ipnet::IpNet;
use xds_protos::envoy::config::listener::v3::{FilterChainMatch as Proto, filter_chain_match::ConnectionSourceType};

use super::chain::FilterChain;
use crate::{
    config::{BuildCx, ConfigError, ConfigResult},
    net::{Address, cidr_range},
};

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Default)]
pub struct ChainInput<'a> {
    /// Address the client connected to.
    pub destination: Option<&'a Address>,
    /// The client's address.
    pub source: Option<&'a Address>,
    /// The socket's peer.
    pub direct_source: Option<&'a Address>,
    /// SNI, lower-case.
    pub server_name: Option<&'a str>,
    /// `tls`, `raw_buffer`; empty when no inspector has looked.
    pub transport_protocol: &'a str,
    /// ALPN offered by the client, or found by an inspector.
    pub application_protocols: &'a [String],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Criteria {
    destination_port: Option<u32>,
    destination: Vec<IpNet>,
    server_names: Vec<String>,
    transport_protocol: String,
    application_protocols: Vec<String>,
    direct_source: Vec<IpNet>,
    source_type: ConnectionSourceType,
    source: Vec<IpNet>,
    source_ports: Vec<u32>,
}

/// The chains of a listener and how to choose among them.
pub struct ChainMatcher {
    chains: Vec<(Criteria, Arc<FilterChain>)>,
    default: Option<Arc<FilterChain>>,
    /// Whether any chain looks at more than nothing: one unconditional chain needs no work.
    trivial: bool,
}

impl ChainMatcher {
    /// Checks the chains' criteria against each other.
    pub fn build(
        chains: Vec<FilterChain>,
        default: Option<FilterChain>,
        address: &Address,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let mut built: Vec<(Criteria, Arc<FilterChain>)> = Vec::with_capacity(chains.len());
        for (i, chain) in chains.into_iter().enumerate() {
            let criteria = cx.item("filter_chains", i, |cx| {
                cx.field("filter_chain_match", |cx| criteria(&chain.criteria, cx))
            })?;
            if let Some((_, other)) = built.iter().find(|(c, _)| *c == criteria) {
                return Err(ConfigError::new(
                    "",
                    format!(
                        "error adding listener '{address}': filter chain '{}' has the same matching rules defined as '{}'",
                        chain.name, other.name
                    ),
                ));
            }
            built.push((criteria, Arc::new(chain)));
        }
        let trivial = built.len() == 1 && built.first().is_some_and(|(c, _)| c.is_unconditional());
        Ok(Self {
            chains: built,
            default: default.map(Arc::new),
            trivial,
        })
    }

    /// Every chain, the default one last.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.iter().map(|(_, c)| c).chain(&self.default)
    }

    /// Whether choosing needs what a TLS client says first (SNI, ALPN, or that it speaks TLS at all).
    pub fn needs_client_hello(&self) -> bool {
        self.chains.iter().any(|(c, _)| {
            !c.server_names.is_empty() || !c.transport_protocol.is_empty() || !c.application_protocols.is_empty()
        })
    }

    /// The chain of a connection; none when no chain matches and there is no default.
    pub fn find(&self, input: &ChainInput<'_>) -> Option<&Arc<FilterChain>> {
        if self.trivial {
            return self.chains.first().map(|(_, c)| c);
        }
        let mut left: Vec<&(Criteria, Arc<FilterChain>)> = self.chains.iter().collect();
        narrow(&mut left, |c| {
            exact(
                c.destination_port,
                input.destination.and_then(Address::port).map(u32::from),
            )
        });
        narrow(&mut left, |c| prefix(&c.destination, input.destination));
        narrow(&mut left, |c| {
            server_name(&c.server_names, input.server_name.unwrap_or_default())
        });
        narrow(&mut left, |c| text(&c.transport_protocol, input.transport_protocol));
        narrow(&mut left, |c| {
            protocols(&c.application_protocols, input.application_protocols)
        });
        narrow(&mut left, |c| prefix(&c.direct_source, input.direct_source));
        narrow(&mut left, |c| source_type(c.source_type, input));
        narrow(&mut left, |c| prefix(&c.source, input.source));
        narrow(&mut left, |c| {
            ports(&c.source_ports, input.source.and_then(Address::port))
        });
        left.first().map(|(_, c)| c).or(self.default.as_ref())
    }
}

/// Keeps the entries of the highest rank; none when no entry has one.
fn narrow(left: &mut Vec<&(Criteria, Arc<FilterChain>)>, rank: impl Fn(&Criteria) -> Option<u32>) {
    if let Some(best) = left.iter().filter_map(|(c, _)| rank(c)).max() {
        left.retain(|(c, _)| rank(c) == Some(best));
    } else {
        left.clear();
    }
}

/// Rank 0: the criterion is unset and matches everything. Higher: more specific. None: no match.
fn exact(want: Option<u32>, got: Option<u32>) -> Option<u32> {
    match want {
        None => Some(0),
        Some(w) => (got == Some(w)).then_some(1),
    }
}

fn prefix(ranges: &[IpNet], address: Option<&Address>) -> Option<u32> {
    if ranges.is_empty() {
        return Some(0);
    }
    let ip = address.and_then(Address::ip)?;
    ranges
        .iter()
        .filter(|r| r.contains(&ip))
        .map(|r| u32::from(r.prefix_len()) + 1)
        .max()
}

fn server_name(names: &[String], sni: &str) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    names
        .iter()
        .filter_map(|n| match n.strip_prefix('*') {
            // `*.example.com` is kept as `*` and `.example.com`: any number of labels, at least one.
            Some(suffix) => (sni.len() > suffix.len() && sni.ends_with(suffix)).then_some(suffix.len() as u32 + 1),
            None => (n == sni).then_some(u32::MAX),
        })
        .max()
}

fn text(want: &str, got: &str) -> Option<u32> {
    if want.is_empty() {
        Some(0)
    } else {
        (want == got).then_some(1)
    }
}

fn protocols(want: &[String], got: &[String]) -> Option<u32> {
    if want.is_empty() {
        return Some(0);
    }
    // The client's order decides, as in Envoy.
    got.iter().position(|g| want.contains(g)).map(|i| u32::MAX - i as u32)
}

fn source_type(want: ConnectionSourceType, input: &ChainInput<'_>) -> Option<u32> {
    let local = || match (input.source, input.destination) {
        (Some(Address::Ip(s)), Some(Address::Ip(d))) => s.ip().is_loopback() || s.ip() == d.ip(),
        (Some(Address::Pipe(_)), _) => true,
        _ => false,
    };
    match want {
        ConnectionSourceType::Any => Some(0),
        ConnectionSourceType::SameIpOrLoopback => local().then_some(1),
        ConnectionSourceType::External => (!local()).then_some(1),
    }
}

fn ports(want: &[u32], got: Option<u16>) -> Option<u32> {
    if want.is_empty() {
        Some(0)
    } else {
        want.contains(&u32::from(got?)).then_some(1)
    }
}

impl Criteria {
    fn is_unconditional(&self) -> bool {
        *self
            == Self {
                destination_port: None,
                destination: Vec::new(),
                server_names: Vec::new(),
                transport_protocol: String::new(),
                application_protocols: Vec::new(),
                direct_source: Vec::new(),
                source_type: ConnectionSourceType::Any,
                source: Vec::new(),
                source_ports: Vec::new(),
            }
    }
}

fn criteria(proto: &Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Criteria> {
    coverage!(cx, proto.clone() => Proto {
        supported {
            destination_port, prefix_ranges, direct_source_prefix_ranges, source_type, source_prefix_ranges,
            source_ports, server_names, transport_protocol, application_protocols
        }
        rejected { address_suffix: "not implemented in Envoy either", suffix_len: "not implemented in Envoy either" }
    });
    let server_names = server_names
        .into_iter()
        .enumerate()
        .map(|(i, name)| {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some(rest) if rest.contains('*') || (!rest.is_empty() && !rest.starts_with('.')) => Err(cx.error_at(
                    &format!("server_names[{i}]"),
                    "partial wildcards are not supported in \"server_names\"",
                )),
                // A lone `*` is what Envoy treats as no name at all.
                Some("") => Ok(String::from("*")),
                None if name.contains('*') => Err(cx.error_at(
                    &format!("server_names[{i}]"),
                    "partial wildcards are not supported in \"server_names\"",
                )),
                _ => Ok(name),
            }
        })
        .collect::<ConfigResult<Vec<_>>>()?;
    Ok(Criteria {
        destination_port: destination_port.map(|v| v.value),
        destination: cx.each("prefix_ranges", prefix_ranges, cidr_range)?,
        server_names,
        transport_protocol,
        application_protocols,
        direct_source: cx.each("direct_source_prefix_ranges", direct_source_prefix_ranges, cidr_range)?,
        source_type: ConnectionSourceType::try_from(source_type).unwrap_or(ConnectionSourceType::Any),
        source: cx.each("source_prefix_ranges", source_prefix_ranges, cidr_range)?,
        source_ports,
    })
}
