//! The listener manager: keeps the listeners that control planes and the bootstrap ask for, warms
//! them, binds their sockets, and tells the workers.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use indexmap::IndexMap;
use xds_protos::{envoy::config::listener::v3::Listener as Proto, google::protobuf::Any, prost::Message};

use super::{ListenerConfig, active::ListenerMsg, stats::ListenerManagerStats};
use crate::{
    cli::Mode,
    config::{BuildCx, ConfigError, ConfigResult, InitTarget},
    net::{Address, ListenOptions, ListenSocket},
    server::{ServerContext, WorkerMsg},
    stats::{Stats, Store},
};

/// One listener as `/config_dump` and `/listeners` show it.
#[derive(Clone)]
pub struct ListenerSnapshot {
    /// As configured.
    pub config: Arc<ListenerConfig>,
    /// The resource as it came.
    pub resource: Any,
    /// Version of the response it came in; empty for static listeners.
    pub version: Arc<str>,
    /// When it was last changed.
    pub last_updated: SystemTime,
    /// From the bootstrap.
    pub is_static: bool,
    /// Addresses bound, with the ports the kernel chose.
    pub bound: Vec<Address>,
}

#[derive(Default)]
struct State {
    /// In the order in which they became active, as Envoy lists them; an update keeps its place.
    active: IndexMap<String, ListenerSnapshot>,
    warming: BTreeMap<String, Warming>,
    generation: u64,
    /// False until the server starts its workers: until then sockets are bound but nobody is told.
    open: bool,
    waiting: Vec<(Arc<ListenerConfig>, Vec<Vec<ListenSocket>>)>,
    stopped: bool,
}

struct Warming {
    snapshot: ListenerSnapshot,
    generation: u64,
    targets: Vec<InitTarget>,
}

/// The listener manager. One per process; a lock guards it, which no worker ever takes.
pub struct ListenerManager {
    state: Mutex<State>,
    /// `listener_manager.*`
    pub stats: Stats<ListenerManagerStats>,
}

impl ListenerManager {
    /// A manager without listeners.
    pub fn new(store: &Arc<Store>) -> Self {
        Self {
            state: Mutex::default(),
            stats: store.scope("listener_manager.").block(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a listener or replaces the one of its name; the same resource again changes nothing.
    ///
    /// What the listener waits for (route tables, secrets) is awaited on the control thread; until then
    /// the listener of the same name that serves goes on. Sockets are bound here, so that an address in use
    /// is the caller's error.
    pub fn add_or_update(
        &self,
        mut proto: Proto,
        version: &str,
        resource: Any,
        is_static: bool,
        server: &Arc<ServerContext>,
    ) -> ConfigResult<()> {
        if proto.name.is_empty() {
            proto.name = uuid::Uuid::new_v4().to_string();
        }
        let name = proto.name.clone();
        let fingerprint = fingerprint(&proto);
        let previous = {
            let state = self.state();
            let current = state
                .warming
                .get(&name)
                .map(|w| &w.snapshot)
                .or_else(|| state.active.get(&name));
            if current.is_some_and(|c| c.config.fingerprint == fingerprint) {
                return Ok(());
            }
            if current.is_some_and(|c| c.is_static) && !is_static {
                return Err(ConfigError::new(
                    "",
                    format!("error updating listener: '{name}' cannot be updated: it is static"),
                ));
            }
            state.active.get(&name).cloned()
        };

        let mut cx = BuildCx::new(server);
        let config = Arc::new(ListenerConfig::build(proto, fingerprint, &mut cx)?);
        for ignored in &cx.ignored {
            tracing::warn!(listener = %name, field = %ignored.path, "field has no effect: {}", ignored.why);
        }
        self.check_addresses(&config)?;

        let keeps_sockets = previous
            .as_ref()
            .is_some_and(|p| p.config.addresses == config.addresses && p.config.bind_to_port == config.bind_to_port);
        let (sockets, bound) = if keeps_sockets {
            (None, previous.map(|p| p.bound).unwrap_or_default())
        } else if !config.bind_to_port || server.cli.mode == Mode::Validate {
            // Without sockets of its own it takes connections that another listener hands on. Validation binds nothing:
            // the addresses may be another machine's.
            let none = (0..server.concurrency.max(1)).map(|_| Vec::new()).collect();
            let bound = match config.internal {
                true => config.addresses.iter().map(|(a, _)| a.clone()).collect(),
                false => Vec::new(),
            };
            (Some(none), bound)
        } else {
            let opened = open(&config, server);
            // Configurations that are refused before are counted with LDS.
            let (sockets, bound) = opened.inspect_err(|_| self.stats.local().listener_create_failure.inc())?;
            (Some(sockets), bound)
        };
        let snapshot = ListenerSnapshot {
            config,
            resource,
            version: version.into(),
            last_updated: SystemTime::now(),
            is_static,
            bound,
        };
        self.warm(snapshot, sockets, cx.init, server);
        Ok(())
    }

    /// Two listeners may not have the same address, unless the port is 0 or one of them is not bound.
    fn check_addresses(&self, config: &ListenerConfig) -> ConfigResult<()> {
        let state = self.state();
        let others = state.active.values().chain(state.warming.values().map(|w| &w.snapshot));
        for other in others.filter(|o| o.config.name != config.name && o.config.bind_to_port && config.bind_to_port) {
            for (address, options) in &config.addresses {
                // The ports of TCP and of UDP are apart.
                let same = |(a, o): &(Address, ListenOptions)| a == address && o.datagram == options.datagram;
                if address.port() != Some(0) && other.config.addresses.iter().any(same) {
                    return Err(ConfigError::new(
                        "",
                        format!(
                            "error adding listener: '{}' has duplicate address '{address}' as existing listener, to check if the listener has duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for the listener",
                            config.name
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn warm(
        &self,
        snapshot: ListenerSnapshot,
        sockets: Option<Vec<Vec<ListenSocket>>>,
        targets: Vec<InitTarget>,
        server: &Arc<ServerContext>,
    ) {
        if targets.iter().all(|t| *t.ready.borrow()) {
            self.publish(snapshot, sockets, server);
            return;
        }
        let name = snapshot.config.name.to_string();
        let mut readies: Vec<_> = targets.iter().map(|t| t.ready.clone()).collect();
        let generation = {
            let mut state = self.state();
            state.generation += 1;
            let generation = state.generation;
            if state
                .warming
                .insert(
                    name.clone(),
                    Warming {
                        snapshot: snapshot.clone(),
                        generation,
                        targets,
                    },
                )
                .is_none()
            {
                self.stats.local().total_listeners_warming.inc();
            }
            generation
        };
        let server = server.clone();
        server.clone().mailboxes.run_on_control(move |_| {
            tokio::task::spawn_local(async move {
                for ready in &mut readies {
                    // An ended sender means its subscription is gone: nothing more will come of it.
                    let _ = ready.wait_for(|r| *r).await;
                }
                let manager = &server.listeners;
                let still_wanted = {
                    let mut state = manager.state();
                    let current = state.warming.get(&name).is_some_and(|w| w.generation == generation);
                    if current {
                        state.warming.remove(&name);
                        manager.stats.local().total_listeners_warming.dec();
                    }
                    current
                };
                if still_wanted {
                    manager.publish(snapshot, sockets, &server);
                }
            });
        });
    }

    fn publish(
        &self,
        snapshot: ListenerSnapshot,
        sockets: Option<Vec<Vec<ListenSocket>>>,
        server: &Arc<ServerContext>,
    ) {
        let mut state = self.state();
        let config = snapshot.config.clone();
        let stats = self.stats.local();
        tracing::info!(listener = %config.name, addresses = ?snapshot.bound.iter().map(ToString::to_string).collect::<Vec<_>>(), "listener ready");
        match state.active.insert(config.name.to_string(), snapshot) {
            Some(_) => stats.listener_modified.inc(),
            None => {
                stats.listener_added.inc();
                stats.total_listeners_active.inc();
            }
        }
        if state.stopped {
            return;
        }
        if state.open {
            send_listener(&config, sockets, server);
        } else if let Some(sockets) = sockets {
            state.waiting.push((config, sockets));
        } else if let Some(waiting) = state.waiting.iter_mut().find(|(c, _)| c.name == config.name) {
            waiting.0 = config;
        }
    }

    /// Removes a listener: it stops accepting, and its connections drain.
    pub fn remove(&self, name: &str, server: &Arc<ServerContext>) -> bool {
        let mut state = self.state();
        let stats = self.stats.local();
        let warming = state.warming.remove(name).is_some();
        if warming {
            stats.total_listeners_warming.dec();
        }
        let active = state.active.shift_remove(name);
        if let Some(active) = &active {
            stats.listener_removed.inc();
            stats.total_listeners_active.dec();
            state.waiting.retain(|(c, _)| *c.name != *name);
            for chain in active.config.chains.chains() {
                chain.drain.start();
            }
            let name: Arc<str> = name.into();
            server
                .mailboxes
                .to_traffic(|_| WorkerMsg::Listener(ListenerMsg::Remove(name.clone())));
        }
        warming || active.is_some()
    }

    /// Lets the workers accept: called once, when the server is initialised.
    pub fn start(&self, server: &Arc<ServerContext>) {
        let mut state = self.state();
        state.open = true;
        for (config, sockets) in std::mem::take(&mut state.waiting) {
            send_listener(&config, Some(sockets), server);
        }
        self.stats.local().workers_started.set(1);
    }

    /// Stops accepting (`/drain_listeners`): all listeners, or those of inbound direction.
    pub fn stop(&self, inbound_only: bool, server: &Arc<ServerContext>) {
        use xds_protos::envoy::config::core::v3::TrafficDirection;
        let state = self.state();
        for listener in state.active.values() {
            if inbound_only && listener.config.direction != TrafficDirection::Inbound {
                continue;
            }
            self.stats.local().listener_stopped.inc();
            let name = listener.config.name.clone();
            server
                .mailboxes
                .to_traffic(|_| WorkerMsg::Listener(ListenerMsg::Remove(name.clone())));
        }
    }

    /// Tells connections that their listener wants them gone, without closing its sockets.
    pub fn drain(&self, inbound_only: bool) {
        use xds_protos::envoy::config::core::v3::TrafficDirection;
        for listener in self.state().active.values() {
            if listener.config.drain_modify_only
                || (inbound_only && listener.config.direction != TrafficDirection::Inbound)
            {
                continue;
            }
            for chain in listener.config.chains.chains() {
                chain.drain.start();
            }
        }
    }

    /// The listeners that serve.
    pub fn active(&self) -> Vec<ListenerSnapshot> {
        self.state().active.values().cloned().collect()
    }

    /// The listeners that wait, each with what it waits for.
    pub fn warming(&self) -> Vec<(ListenerSnapshot, Vec<String>)> {
        let state = self.state();
        let open = |w: &Warming| {
            w.targets
                .iter()
                .filter(|t| !*t.ready.borrow())
                .map(|t| t.name.clone())
                .collect()
        };
        state.warming.values().map(|w| (w.snapshot.clone(), open(w))).collect()
    }

    /// Names of listeners that came by LDS, for removing what a full update no longer has.
    pub fn dynamic_names(&self) -> Vec<String> {
        let state = self.state();
        let active = state.active.iter().filter(|(_, l)| !l.is_static).map(|(n, _)| n);
        let warming = state
            .warming
            .iter()
            .filter(|(_, w)| !w.snapshot.is_static)
            .map(|(n, _)| n);
        let mut names: Vec<_> = active.chain(warming).cloned().collect();
        names.sort();
        names.dedup();
        names
    }
}

fn send_listener(config: &Arc<ListenerConfig>, sockets: Option<Vec<Vec<ListenSocket>>>, server: &Arc<ServerContext>) {
    let mut sockets = sockets.map(Vec::into_iter);
    server.mailboxes.to_traffic(|_| {
        WorkerMsg::Listener(ListenerMsg::Set {
            config: config.clone(),
            sockets: sockets.as_mut().map(|s| s.next().unwrap_or_default()),
        })
    });
}

/// Binds every address once per worker, or takes the sockets of the process before this one; the outer vector is by
/// worker.
fn open(config: &ListenerConfig, server: &ServerContext) -> ConfigResult<(Vec<Vec<ListenSocket>>, Vec<Address>)> {
    let workers = server.concurrency;
    let mut by_worker: Vec<Vec<ListenSocket>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for (address, options) in &config.addresses {
        let sockets = server.hot_restart.listen(address, options, workers).map_err(|e| {
            ConfigError::new(
                "",
                format!(
                    "error adding listener '{}': cannot bind '{address}': {}",
                    config.name,
                    errno_text(&e)
                ),
            )
        })?;
        if let Some(first) = sockets.iter().flatten().next() {
            bound.push(first.local_address(address));
        }
        for (worker, socket) in by_worker.iter_mut().zip(sockets) {
            worker.extend(socket);
        }
    }
    Ok((by_worker, bound))
}

/// The system's words without Rust's `(os error N)`.
fn errno_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A hash of the resource. Encoding is stable within one process but for maps, whose order may make a
/// repetition look like a change, never the other way round.
fn fingerprint(proto: &Proto) -> u64 {
    let mut hasher = DefaultHasher::new();
    proto.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}
