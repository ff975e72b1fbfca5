//! STRICT_DNS and LOGICAL_DNS: resolves names again and again on the control thread, each at its own pace.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};

use super::discovery::Source;
use crate::{
    config::InitTarget,
    net::Address,
    server::ServerContext,
    stats::Stats,
    upstream::{
        config::{Assignment, DnsOptions, DnsTarget, EndpointSpec},
        dns::{Answer, Backoff},
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
    /// By the placeholders of the targets.
    known: RefCell<HashMap<Address, Vec<SocketAddr>>>,
    /// Shared by all names, as in Envoy.
    backoff: RefCell<Backoff>,
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
            backoff: RefCell::new(Backoff::new(options.failure, options.refresh)),
            store,
            options,
            targets,
            assignment,
            logical,
            known: RefCell::default(),
        }
    }

    /// Resolves all names until it is dropped. `ready` is set after the first answer to any of them.
    async fn run(self, ready: watch::Sender<bool>, server: Arc<ServerContext>) {
        if self.targets.is_empty() || !self.options.wait {
            ready.send_replace(true);
        }
        join_all(self.targets.iter().map(|target| self.follow(target, &ready, &server))).await;
    }

    /// Resolves one name again and again.
    async fn follow(&self, target: &DnsTarget, ready: &watch::Sender<bool>, server: &Arc<ServerContext>) {
        loop {
            self.stats.local().update_attempt.inc();
            let answer = self.options.resolver.resolve(&target.name, self.options.family).await;
            let pause = self.take(target, &answer, server);
            ready.send_replace(true);
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes an answer in; tells how long it holds.
    fn take(&self, target: &DnsTarget, answer: &Answer, server: &Arc<ServerContext>) -> Duration {
        let stats = self.stats.local();
        // Without an address there is no logical host; otherwise it means that there is none.
        if !answer.completed || self.logical && answer.addresses.is_empty() {
            stats.update_failure.inc();
            tracing::debug!(cluster = %self.store.cluster().info.name, name = target.name, details = %answer.details, "cannot resolve");
            // What was known stays.
            return self.backoff.borrow_mut().pause();
        }
        stats.update_success.inc();
        if self.learn(target, answer) {
            self.store.apply(self.expanded(), server);
        } else {
            self.store.cluster().info.membership.local().update_no_rebuild.inc();
        }
        self.backoff.borrow_mut().reset();
        self.pause(answer)
    }

    /// Remembers the addresses of a name; tells whether they are others than before. Their order means nothing, but
    /// for the first one of a logical host.
    fn learn(&self, target: &DnsTarget, answer: &Answer) -> bool {
        let addresses: Vec<SocketAddr> = answer
            .addresses
            .iter()
            .map(|a| SocketAddr::new(a.ip, target.port))
            .collect();
        let mut known = self.known.borrow_mut();
        let before = known.entry(target.placeholder.clone()).or_default();
        let others = before.len() != addresses.len() || addresses.iter().any(|a| !before.contains(a));
        let changed = others || self.logical && before.first() != addresses.first();
        if changed {
            *before = addresses;
        }
        changed
    }

    /// How long to wait after an answer.
    fn pause(&self, answer: &Answer) -> Duration {
        let ttl = match self.logical {
            true => answer.addresses.first().map(|a| a.ttl),
            false => answer.ttl(),
        };
        let rate = match ttl.filter(|ttl| self.options.respect_ttl && !ttl.is_zero()) {
            Some(ttl) => ttl.max(self.options.min_refresh),
            None => self.options.refresh,
        };
        rate.max(Duration::from_millis(1)) + self.options.jitter.mul_f64(fastrand::f64())
    }

    /// The assignment with addresses in place of the placeholders.
    fn expanded(&self) -> Assignment {
        let mut out = self.assignment.clone();
        let known = self.known.borrow();
        for locality in &mut out.localities {
            for spec in std::mem::take(&mut locality.endpoints) {
                let addresses = known.get(&spec.address).map_or(&[][..], Vec::as_slice);
                match (self.logical, addresses) {
                    (true, [first, others @ ..]) => {
                        let mut spec = at(&spec, *first);
                        spec.attributes.additional_addresses = others.iter().copied().map(Address::Ip).collect();
                        locality.endpoints.push(spec);
                    }
                    _ => locality.endpoints.extend(addresses.iter().map(|a| at(&spec, *a))),
                }
            }
        }
        out
    }
}

/// The endpoint at one of its name's addresses.
fn at(spec: &EndpointSpec, address: SocketAddr) -> EndpointSpec {
    let mut spec = spec.clone();
    spec.address = Address::Ip(address);
    // A port of its own for health checks came with the placeholder's address.
    if let Some(Address::Ip(checked)) = &mut spec.attributes.health_check_address
        && checked.ip().is_unspecified()
    {
        checked.set_ip(address.ip());
    }
    spec
}

/// Starts it on the control thread. The target is ready with the first answer.
pub fn start(resolving: Resolving, server: &Arc<ServerContext>) -> (Source, Option<InitTarget>) {
    let (stop, stopped) = oneshot::channel();
    let (ready, receiver) = watch::channel(false);
    let target = InitTarget {
        name: format!("Cluster {}", resolving.store.cluster().info.name),
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
