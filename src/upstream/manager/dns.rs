//! STRICT_DNS and LOGICAL_DNS: resolves names again and again on the control thread.
//!
//! The system's resolver is used (`getaddrinfo`), so `/etc/hosts`, search domains and `nsswitch` hold as for every
//! other program of the machine. It tells no TTL: with `respect_dns_ttl` names are refreshed at `dns_refresh_rate`.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};

use super::discovery::Source;
use crate::{
    config::InitTarget,
    net::Address,
    server::ServerContext,
    stats::Stats,
    upstream::{
        config::{Assignment, DnsFamily, DnsOptions, DnsTarget},
        host_store::HostStore,
        stats::UpdateStats,
    },
};

/// The names of one cluster and what is known of them.
pub struct Resolving {
    store: Arc<HostStore>,
    stats: Stats<UpdateStats>,
    options: DnsOptions,
    targets: Vec<DnsTarget>,
    assignment: Assignment,
    /// One host, however many addresses.
    logical: bool,
    known: HashMap<Address, Vec<SocketAddr>>,
    failures: u32,
}

impl Resolving {
    pub fn new(
        store: Arc<HostStore>,
        options: DnsOptions,
        targets: Vec<DnsTarget>,
        assignment: Assignment,
        logical: bool,
    ) -> Self {
        Self {
            stats: store.cluster().info.scope.block(),
            store,
            options,
            targets,
            assignment,
            logical,
            known: HashMap::new(),
            failures: 0,
        }
    }

    pub fn name(&self) -> &str {
        &self.store.cluster().info.name
    }

    /// Resolves until it is dropped. `ready` is set after the first round, whatever it brought.
    pub async fn run(mut self, ready: watch::Sender<bool>, server: Arc<ServerContext>) {
        loop {
            let all_failed = self.round(&server).await;
            ready.send_replace(true);
            tokio::time::sleep(self.pause(all_failed)).await;
        }
    }

    /// Resolves every name once; tells whether all failed.
    async fn round(&mut self, server: &Arc<ServerContext>) -> bool {
        let stats = self.stats.clone();
        stats.local().update_attempt.add(self.targets.len() as u64);
        let family = self.options.family;
        let answers = join_all(self.targets.iter().map(|t| resolve(&t.name, t.port, family))).await;
        let mut failed = 0;
        for (target, answer) in self.targets.iter().zip(answers) {
            match answer {
                Ok(addresses) => {
                    stats.local().update_success.inc();
                    if addresses.is_empty() {
                        self.store.cluster().info.membership.local().update_empty.inc();
                    }
                    let known = self.known.entry(target.placeholder.clone()).or_default();
                    *known = match self.logical {
                        true => logical(known, addresses),
                        false => addresses,
                    };
                }
                // What was known stays.
                Err(error) => {
                    failed += 1;
                    stats.local().update_failure.inc();
                    tracing::debug!(cluster = self.name(), name = target.name, %error, "cannot resolve");
                }
            }
        }
        if !self.store.apply(self.expanded(), server).published {
            self.store.cluster().info.membership.local().update_no_rebuild.inc();
        }
        failed > 0 && failed == self.targets.len()
    }

    /// The assignment with addresses in place of the placeholders.
    fn expanded(&self) -> Assignment {
        let mut out = self.assignment.clone();
        for locality in &mut out.localities {
            let endpoints = std::mem::take(&mut locality.endpoints);
            for spec in endpoints {
                for address in self.known.get(&spec.address).into_iter().flatten() {
                    let mut spec = spec.clone();
                    spec.address = Address::Ip(*address);
                    locality.endpoints.push(spec);
                }
            }
        }
        out
    }

    fn pause(&mut self, all_failed: bool) -> Duration {
        let base = match (all_failed, self.options.failure) {
            (true, Some((base, max))) => {
                let longest = base.saturating_mul(1 << self.failures.min(16)).min(max);
                self.failures += 1;
                longest.mul_f64(fastrand::f64())
            }
            _ => {
                self.failures = 0;
                self.options.refresh
            }
        };
        base.max(Duration::from_millis(1)) + self.options.jitter.mul_f64(fastrand::f64())
    }
}

/// Starts resolving. The target is ready after the first round.
pub fn start(resolving: Resolving, server: &Arc<ServerContext>) -> (Source, Option<InitTarget>) {
    let (stop, stopped) = oneshot::channel();
    let (ready, receiver) = watch::channel(false);
    let target = InitTarget {
        name: format!("Cluster {}", resolving.name()),
        ready: receiver,
    };
    let server = server.clone();
    server.clone().mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = stopped => {}
                () = resolving.run(ready, server) => {}
            }
        });
    });
    (Source::Dns { _stop: stop }, Some(target))
}

/// One address: the one before as long as it is among the answers.
fn logical(known: &[SocketAddr], answer: Vec<SocketAddr>) -> Vec<SocketAddr> {
    match known.first() {
        Some(present) if answer.is_empty() || answer.contains(present) => vec![*present],
        _ => answer.into_iter().take(1).collect(),
    }
}

/// The addresses of a name, without duplicates, in the order of the resolver.
async fn resolve(name: &str, port: u16, family: DnsFamily) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match name.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((name, port)).await?.collect(),
    };
    Ok(of_family(found, family))
}

fn of_family(found: Vec<SocketAddr>, family: DnsFamily) -> Vec<SocketAddr> {
    let has = |v4: bool| found.iter().any(|a| a.is_ipv4() == v4);
    let wanted: fn(&SocketAddr) -> bool = match family {
        DnsFamily::All => |_| true,
        DnsFamily::V4Only => SocketAddr::is_ipv4,
        DnsFamily::V6Only => SocketAddr::is_ipv6,
        DnsFamily::V4Preferred if has(true) => SocketAddr::is_ipv4,
        DnsFamily::Auto if has(false) => SocketAddr::is_ipv6,
        DnsFamily::V4Preferred => SocketAddr::is_ipv6,
        DnsFamily::Auto => SocketAddr::is_ipv4,
    };
    let mut out: Vec<SocketAddr> = Vec::new();
    for address in found.into_iter().filter(wanted) {
        if !out.contains(&address) {
            out.push(address);
        }
    }
    out
}

#[cfg(test)]
mod tests;
