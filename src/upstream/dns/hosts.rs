//! Names that need no name server: addresses, this machine, and `/etc/hosts`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::SystemTime,
};

use hickory_resolver::{
    Hosts,
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
};

const FILE: &str = "/etc/hosts";

/// What the file of hosts says, read again when it has changed.
#[derive(Default)]
pub(super) struct HostsFile {
    read: Option<SystemTime>,
    hosts: Arc<Hosts>,
}

impl HostsFile {
    /// Its present content.
    pub fn current(&mut self) -> &Arc<Hosts> {
        let changed = fs::metadata(FILE).and_then(|m| m.modified()).ok();
        if changed.is_none() || changed != self.read {
            self.read = changed;
            self.hosts = Arc::new(Hosts::from_system().unwrap_or_default());
        }
        &self.hosts
    }
}

/// The addresses of a name in the file.
pub(super) fn in_file(hosts: &Hosts, name: &Name, kind: RecordType) -> Vec<IpAddr> {
    let found = hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let records = found.iter().flat_map(|l| l.answers());
    records.filter_map(|r| r.data.ip_addr()).collect()
}

/// An address that is written as a name. As with c-ares, one of IPv4 answers both kinds of questions.
pub(super) fn literal(name: &str, kind: RecordType) -> Option<IpAddr> {
    match name.parse::<IpAddr>() {
        Ok(ip @ IpAddr::V4(_)) => Some(ip),
        Ok(ip @ IpAddr::V6(_)) => (kind == RecordType::AAAA).then_some(ip),
        Err(_) => None,
    }
}

/// `localhost` and all below it are this machine (RFC 6761).
pub(super) fn loopback(name: &str, kind: RecordType) -> Option<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let local = name == "localhost" || name.ends_with(".localhost");
    local.then_some(match kind {
        RecordType::AAAA => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    })
}
