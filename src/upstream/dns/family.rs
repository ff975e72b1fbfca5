//! Which kinds of addresses are wanted.

use xds_protos::envoy::config::cluster::v3::cluster::DnsLookupFamily;

use super::Resolved;

/// `dns_lookup_family`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsFamily {
    /// IPv6 if there are any, else IPv4.
    #[default]
    Auto,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// IPv4 if there are any, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

impl DnsFamily {
    /// From the field of `Cluster` and of DNS caches.
    pub fn from_proto(family: i32) -> Self {
        match DnsLookupFamily::try_from(family) {
            Ok(DnsLookupFamily::V4Only) => Self::V4Only,
            Ok(DnsLookupFamily::V6Only) => Self::V6Only,
            Ok(DnsLookupFamily::V4Preferred) => Self::V4Preferred,
            Ok(DnsLookupFamily::All) => Self::All,
            Ok(DnsLookupFamily::Auto) | Err(_) => Self::Auto,
        }
    }

    /// Those of `found` that are wanted, each once.
    pub fn choose(self, found: Vec<Resolved>) -> Vec<Resolved> {
        let has = |v4: bool| found.iter().any(|a| a.ip.is_ipv4() == v4);
        let wanted: fn(&Resolved) -> bool = match self {
            Self::All => |_| true,
            Self::V4Only => |a| a.ip.is_ipv4(),
            Self::V6Only => |a| a.ip.is_ipv6(),
            Self::V4Preferred if has(true) => |a| a.ip.is_ipv4(),
            Self::Auto if has(false) => |a| a.ip.is_ipv6(),
            Self::V4Preferred => |a| a.ip.is_ipv6(),
            Self::Auto => |a| a.ip.is_ipv4(),
        };
        let mut out: Vec<Resolved> = Vec::new();
        for address in found.into_iter().filter(wanted) {
            if out.iter().all(|a| a.ip != address.ip) {
                out.push(address);
            }
        }
        out
    }
}
