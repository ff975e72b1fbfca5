//! Listeners by the addresses they have, for connections whose destination was restored.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use crate::net::{Address, ListenOptions};

/// Who has an address; of several the first that came. `T` is what is kept of a listener.
#[derive(Debug)]
pub(super) struct ByAddress<T>(HashMap<Address, Vec<(Arc<str>, T)>>);

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone> ByAddress<T> {
    /// Adds a listener with all its addresses.
    pub fn insert(&mut self, name: &Arc<str>, addresses: &[(Address, ListenOptions)], listener: &T) {
        for address in all(addresses) {
            let having = self.0.entry(address).or_default();
            if having.iter().all(|(n, _)| n != name) {
                having.push((name.clone(), listener.clone()));
            }
        }
    }

    /// Takes a listener out; `addresses` are those it came with.
    pub fn remove(&mut self, name: &str, addresses: &[(Address, ListenOptions)]) {
        for address in all(addresses) {
            if let Some(having) = self.0.get_mut(&address) {
                having.retain(|(n, _)| **n != *name);
                if having.is_empty() {
                    self.0.remove(&address);
                }
            }
        }
    }

    /// The listener of exactly this address, else that of its port on all addresses of its family. Never the one called
    /// `not`.
    pub fn find(&self, to: &Address, not: &str) -> Option<&T> {
        let at = |address: &Address| {
            let mut others = self.0.get(address)?.iter().filter(|(name, _)| **name != *not);
            others.next().map(|(_, listener)| listener)
        };
        let any = to.ip().zip(to.port()).map(|(ip, port)| {
            let any = match ip {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            Address::Ip(SocketAddr::new(any, port))
        });
        at(to).or_else(|| at(&any?))
    }
}

/// The addresses, and that of IPv4 for those of IPv6 that take both.
fn all(addresses: &[(Address, ListenOptions)]) -> impl Iterator<Item = Address> {
    addresses.iter().flat_map(|(address, options)| {
        let ipv4 = match address {
            Address::Ip(SocketAddr::V6(v6)) if options.ipv4_compat => {
                let ip = match v6.ip().is_unspecified() {
                    true => Some(Ipv4Addr::UNSPECIFIED),
                    false => v6.ip().to_ipv4_mapped(),
                };
                ip.map(|ip| Address::Ip(SocketAddr::new(ip.into(), v6.port())))
            }
            _ => None,
        };
        std::iter::once(address.clone()).chain(ipv4)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> (Address, ListenOptions) {
        (Address::Ip(address.parse().unwrap()), ListenOptions::default())
    }

    fn find<'a>(all: &'a ByAddress<&'static str>, to: &str, not: &str) -> Option<&'a str> {
        all.find(&at(to).0, not).copied()
    }

    #[test]
    fn an_exact_address_is_better_than_any_address() {
        let mut all = ByAddress::default();
        all.insert(&"any".into(), &[at("0.0.0.0:80")], &"any");
        all.insert(&"exact".into(), &[at("1.2.3.4:80"), at("1.2.3.4:81")], &"exact");
        assert_eq!(find(&all, "1.2.3.4:80", ""), Some("exact"));
        assert_eq!(find(&all, "1.2.3.4:81", ""), Some("exact"));
        assert_eq!(find(&all, "1.2.3.5:80", ""), Some("any"));
        assert_eq!(find(&all, "1.2.3.4:80", "exact"), Some("any"));
        assert_eq!(find(&all, "1.2.3.5:81", ""), None);
        all.remove("exact", &[at("1.2.3.4:80"), at("1.2.3.4:81")]);
        assert_eq!(find(&all, "1.2.3.4:80", ""), Some("any"));
        assert_eq!(find(&all, "1.2.3.4:81", ""), None);
    }

    #[test]
    fn families_are_told_apart_unless_a_listener_takes_both() {
        let mut all = ByAddress::default();
        all.insert(&"v6".into(), &[at("[::]:80")], &"v6");
        assert_eq!(find(&all, "[1::2]:80", ""), Some("v6"));
        assert_eq!(find(&all, "1.2.3.4:80", ""), None);
        let mut both = at("[::]:81");
        both.1.ipv4_compat = true;
        all.insert(&"both".into(), &[both], &"both");
        assert_eq!(find(&all, "1.2.3.4:81", ""), Some("both"));
    }
}
