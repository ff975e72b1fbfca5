//! `envoy.network.dns_resolver.getaddrinfo`: the system's resolver, with whatever `nsswitch.conf` says. It tells no
//! TTL.

use std::{net::IpAddr, time::Duration};

use tokio::sync::Semaphore;

use super::{Answer, DnsFamily, Resolved};

/// What Envoy assumes where the system tells none.
const TTL: Duration = Duration::from_secs(60);

/// Between two attempts while the system's name servers cannot be reached.
const RETRY: Duration = Duration::from_millis(500);

/// The resolver.
pub struct GetAddrInfo {
    /// `num_retries`: how often a temporary failure is tried again; without it for ever.
    pub retries: Option<u32>,
    /// `num_resolver_threads`: questions at a time.
    pub(super) permits: Semaphore,
}

impl GetAddrInfo {
    /// Asks the system.
    pub async fn resolve(&self, name: &str, family: DnsFamily) -> Answer {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Answer::found(family.choose(vec![Resolved { ip, ttl: TTL }]), "getaddrinfo_success");
        }
        let mut left = self.retries;
        loop {
            let found = {
                let _permit = self.permits.acquire().await;
                tokio::net::lookup_host((name, 0)).await
            };
            let error = match found {
                Ok(found) => {
                    let found = found.map(|a| Resolved { ip: a.ip(), ttl: TTL }).collect();
                    return Answer::found(family.choose(found), "getaddrinfo_success");
                }
                Err(error) => error.to_string(),
            };
            // The library tells the reason only as a text.
            if error.contains("not known") || error.contains("No address") {
                return Answer::found(Vec::new(), "getaddrinfo_norecords");
            }
            if !error.contains("Temporary failure") || left == Some(0) {
                return Answer {
                    completed: false,
                    addresses: Vec::new(),
                    details: format!("getaddrinfo_failed:{error}").into(),
                };
            }
            left = left.map(|n| n - 1);
            tokio::time::sleep(RETRY).await;
        }
    }
}
