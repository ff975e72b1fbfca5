//! The criteria of all chains as one tree, one level for each criterion in Envoy's order.
//!
//! On every level the most specific value that the connection has is followed, and there is no way back: a chain that
//! fits less well is not tried when a better one fails on a later level. The cost of a look-up does not depend on how
//! many chains there are.

use super::{
    criteria::Criteria,
    levels::{Level, Prefixes},
};
use crate::http::{ConnectionInfo, stream_info::Inspected};

type BySourcePort = Level<u16, Option<usize>>;
type BySource = Prefixes<BySourcePort>;
type BySourceType = Level<bool, BySource>;
type ByDirectSource = Prefixes<BySourceType>;
type ByApplicationProtocol = Level<Box<str>, ByDirectSource>;
type ByTransportProtocol = Level<Box<str>, ByApplicationProtocol>;
type ByServerName = Level<Box<str>, ByTransportProtocol>;
type ByDestination = Prefixes<ByServerName>;
type ByDestinationPort = Level<u16, ByDestination>;

/// The tree; a leaf is the number of a chain.
#[derive(Default)]
pub(super) struct CriteriaTree(ByDestinationPort);

/// Some connections would fit two chains equally well.
#[derive(Debug)]
pub(super) struct Overlap;

impl CriteriaTree {
    /// Adds a chain under every combination of its values.
    pub fn insert(&mut self, criteria: &Criteria, chain: usize) -> Result<(), Overlap> {
        let by_destination = self.0.entry(criteria.destination_port);
        for net in values(&criteria.destination) {
            let by_name = by_destination.entry(net);
            for name in values(&criteria.server_names) {
                let by_protocol = by_name.entry(name).entry(criteria.transport_protocol.clone());
                for protocol in values(&criteria.application_protocols) {
                    insert_sources(by_protocol.entry(protocol), criteria, chain)?;
                }
            }
        }
        Ok(())
    }

    /// The chain of a connection.
    pub fn find(&self, info: &ConnectionInfo, inspected: &Inspected) -> Option<usize> {
        let by_destination = self.0.find(info.local_address.port().as_ref())?;
        let by_name = by_destination.find(info.local_address.ip())?;
        let by_transport = find_name(by_name, inspected.server_name.as_deref().unwrap_or_default())?;
        let by_protocol = by_transport.find(Some(inspected.transport_protocol()))?;
        // The client's order decides.
        let mut offered = inspected.protocols.iter().filter_map(|p| by_protocol.exact(p.as_str()));
        let by_direct = offered.next().or(by_protocol.any())?;
        let by_type = by_direct.find(info.direct_remote_address.ip())?;
        let by_source = by_type.find(Some(&info.is_local()))?;
        let by_port = by_source.find(info.remote_address.ip())?;
        *by_port.find(info.remote_address.port().as_ref())?
    }
}

fn insert_sources(tree: &mut ByDirectSource, criteria: &Criteria, chain: usize) -> Result<(), Overlap> {
    for net in values(&criteria.direct_source) {
        let by_source = tree.entry(net).entry(criteria.local_source);
        for net in values(&criteria.source) {
            let by_port = by_source.entry(net);
            for port in values(&criteria.source_ports) {
                match by_port.entry(port) {
                    Some(_) => return Err(Overlap),
                    leaf => *leaf = Some(chain),
                }
            }
        }
    }
    Ok(())
}

/// The name, then wildcards from the longest one on, then no name.
fn find_name<'a>(level: &'a ByServerName, name: &str) -> Option<&'a ByTransportProtocol> {
    // As in Envoy, a name that starts with a dot is a wildcard's.
    if let Some(found) = level.exact(name) {
        return Some(found);
    }
    // A wildcard stands for at least one character, and does not match what ends in a dot.
    let mut wildcards = name.match_indices('.').filter(|(at, _)| *at > 0 && at + 1 < name.len());
    let found = wildcards.find_map(|(at, _)| level.exact(name.get(at..)?));
    found.or(level.any())
}

/// Each of the values; once none, when nothing is asked.
fn values<K: Clone>(of: &[K]) -> impl Iterator<Item = Option<K>> {
    let unasked = of.is_empty().then_some(None);
    of.iter().cloned().map(Some).chain(unasked)
}
