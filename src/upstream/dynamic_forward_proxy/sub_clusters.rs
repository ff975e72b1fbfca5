//! Sub-clusters: a STRICT_DNS cluster for each name, made when the first request asks for it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, LazyLock, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use xds_protos::{
    any,
    envoy::config::{
        cluster::v3::{
            Cluster as Proto,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
        endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
    },
};

use super::Authority;
use crate::server::ServerContext;

/// What sub-clusters are made with.
#[derive(Debug)]
pub struct SubClusterOptions {
    /// The cluster they are made after, with their balancing policy.
    pub template: Proto,
    /// `max_sub_clusters`, 1024
    pub max: usize,
    /// `sub_cluster_ttl`, 5 minutes: those that no request uses go.
    pub ttl: Duration,
}

type Known = HashMap<Arc<str>, Arc<AtomicU64>, foldhash::fast::RandomState>;

/// The sub-clusters of a cluster, with the time of their last use.
pub struct SubClusters {
    options: SubClusterOptions,
    known: ArcSwap<Known>,
    /// Held while the map is replaced: by workers that make a cluster, and by control.
    changing: Mutex<()>,
    server: Weak<ServerContext>,
}

/// What becomes of a request for a name.
pub enum SubCluster {
    /// There is such a cluster, or there will be when this says so.
    Warming(oneshot::Receiver<()>),
    /// There are too many.
    Overflow,
}

impl SubClusters {
    /// Without any.
    pub fn new(options: SubClusterOptions, server: &Arc<ServerContext>) -> Arc<Self> {
        Arc::new(Self {
            options,
            known: ArcSwap::default(),
            changing: Mutex::default(),
            server: Arc::downgrade(server),
        })
    }

    /// The name of a host's cluster.
    pub fn name(host: &str, default_port: u16) -> String {
        let Authority { host, port } = Authority::parse(host);
        format!("DFPCluster:{host}:{}", port.unwrap_or(default_port))
    }

    /// A request uses a cluster. False: there is none of this name any more.
    pub fn touch(&self, name: &str) -> bool {
        let known = self.known.load();
        let used = known.get(name);
        if let Some(used) = used {
            used.store(now(), Relaxed);
        }
        used.is_some()
    }

    /// Has the cluster of a host made where it is new, and waits until it is warm.
    pub fn create(self: &Arc<Self>, host: &str, default_port: u16, server: &Arc<ServerContext>) -> SubCluster {
        let name: Arc<str> = Self::name(host, default_port).into();
        let mut proto = None;
        if !self.touch(&name) {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let known = self.known.load();
            if !known.contains_key(&name) {
                if known.len() >= self.options.max {
                    return SubCluster::Overflow;
                }
                let mut known = Known::clone(&known);
                known.insert(name.clone(), Arc::new(AtomicU64::new(now())));
                self.known.store(Arc::new(known));
                proto = Some(self.proto(&name, host, default_port));
            }
        }
        let (done, warm) = oneshot::channel();
        let server = server.clone();
        server.clone().mailboxes.run_on_control(move |_| {
            if let Some(proto) = proto {
                let packed = any::pack(&proto);
                if let Err(error) = server.clusters.add_or_update(proto, "", packed, &server) {
                    tracing::warn!(cluster = %name, %error, "a sub-cluster cannot be made");
                }
            }
            tokio::task::spawn_local(async move {
                server.clusters.wait_warm(&name).await;
                // Whoever waited may be gone.
                let _ = done.send(());
            });
        });
        SubCluster::Warming(warm)
    }

    fn proto(&self, name: &str, host: &str, default_port: u16) -> Proto {
        let Authority { host, port } = Authority::parse(host);
        let address = SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port.unwrap_or(default_port).into())),
            ..SocketAddress::default()
        };
        let endpoint = Endpoint {
            address: Some(Address {
                address: Some(address::Address::SocketAddress(address)),
            }),
            ..Endpoint::default()
        };
        let endpoints = LocalityLbEndpoints {
            lb_endpoints: vec![LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
                ..LbEndpoint::default()
            }],
            ..LocalityLbEndpoints::default()
        };
        Proto {
            name: name.to_owned(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into())),
            load_assignment: Some(ClusterLoadAssignment {
                cluster_name: name.to_owned(),
                endpoints: vec![endpoints],
                ..ClusterLoadAssignment::default()
            }),
            ..self.options.template.clone()
        }
    }

    /// From now on those that are not used go. Control side.
    pub fn start(self: &Arc<Self>, server: &Arc<ServerContext>) {
        let (clusters, ttl) = (Arc::downgrade(self), self.options.ttl);
        server.mailboxes.run_on_control(move |_| {
            tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(ttl).await;
                    let Some(clusters) = clusters.upgrade() else { return };
                    clusters.sweep(|used| Duration::from_millis(now().saturating_sub(used)) > clusters.options.ttl);
                }
            });
        });
    }

    fn sweep(&self, gone: impl Fn(u64) -> bool) {
        let Some(server) = self.server.upgrade() else { return };
        let names: Vec<Arc<str>> = {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let (old, kept): (Known, Known) = self
                .known
                .load()
                .iter()
                .map(|(n, u)| (n.clone(), u.clone()))
                .partition(|(_, u)| gone(u.load(Relaxed)));
            self.known.store(Arc::new(kept));
            old.into_keys().collect()
        };
        for name in names {
            server.clusters.remove(&name, &server);
        }
    }
}

impl Drop for SubClusters {
    fn drop(&mut self) {
        // Not here: whoever drops the last one may hold the cluster manager's lock.
        let (Some(server), known) = (self.server.upgrade(), self.known.load_full()) else {
            return;
        };
        let shared = server.clone();
        server.mailboxes.run_on_control(move |_| {
            for name in known.keys() {
                shared.clusters.remove(name, &shared);
            }
        });
    }
}

impl fmt::Debug for SubClusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.known.load().keys()).finish()
    }
}

/// Milliseconds since the first call.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
