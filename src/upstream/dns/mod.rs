//! Name resolution: what finds the addresses of a name, for clusters whose endpoints are names and for the caches of
//! the dynamic forward proxy. Runs on the control thread.
//!
//! Resolvers are extensions, as in Envoy: [`Cares`] asks name servers itself and knows how long answers hold,
//! [`GetAddrInfo`] asks the system's resolver. Neither keeps answers: who asks decides when to ask again.

mod backoff;
mod cares;
mod config;
mod family;
mod getaddrinfo;
mod hosts;
mod runtime;

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc, time::Duration};

pub use backoff::Backoff;
pub use cares::Cares;
pub use config::Resolvers;
pub use family::DnsFamily;
pub use getaddrinfo::GetAddrInfo;

/// One address of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// The address.
    pub ip: IpAddr,
    /// How long it holds, of all names on the way to it the shortest.
    pub ttl: Duration,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether name servers told what they know, be it that there is no such name. If not, what was known before may
    /// still hold.
    pub completed: bool,
    /// The addresses, in the order of the answer.
    pub addresses: Vec<Resolved>,
    /// What happened, in Envoy's words.
    pub details: Cow<'static, str>,
}

impl Answer {
    /// An answer with these addresses.
    pub fn found(addresses: Vec<Resolved>, details: &'static str) -> Self {
        Self {
            completed: true,
            addresses,
            details: details.into(),
        }
    }

    /// The earliest time any of the addresses runs out.
    pub fn ttl(&self) -> Option<Duration> {
        self.addresses.iter().map(|a| a.ttl).min()
    }
}

/// A configured resolver.
#[derive(Clone)]
pub enum DnsResolver {
    /// `envoy.network.dns_resolver.cares`
    Cares(Arc<Cares>),
    /// `envoy.network.dns_resolver.getaddrinfo`
    GetAddrInfo(Arc<GetAddrInfo>),
}

impl DnsResolver {
    /// Finds the addresses of a name. An address is its own name.
    pub async fn resolve(&self, name: &str, family: DnsFamily) -> Answer {
        match self {
            Self::Cares(resolver) => resolver.resolve(name, family).await,
            Self::GetAddrInfo(resolver) => resolver.resolve(name, family).await,
        }
    }
}

impl fmt::Debug for DnsResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cares(_) => "Cares",
            Self::GetAddrInfo(_) => "GetAddrInfo",
        })
    }
}

#[cfg(test)]
mod tests;
