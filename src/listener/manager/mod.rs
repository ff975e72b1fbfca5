//! The listener manager: keeps the listeners that control planes and the bootstrap ask for, warms
//! them, binds their sockets, and tells the workers.
//!
//! A listener comes in by [`ListenerManager::add_or_update`] ([`update`] tells what is new in it), waits for what it needs
//! ([`warming`]), and is published to the workers. What it replaces drains ([`drain`]): the whole listener before it, or
//! those of its filter chains that changed. Sockets go from one to the next ([`sockets`]).

mod compare;
mod drain;
mod dump;
mod kept;
mod sockets;
mod update;
mod warming;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use indexmap::IndexMap;
use xds_protos::{
    envoy::config::{core::v3::TrafficDirection, listener::v3::Listener as Proto},
    google::protobuf::Any,
    prost::Message,
};

use self::{drain::Draining, sockets::Sockets, warming::Warming};
pub use self::{
    dump::{ListenersDump, RefusedListener},
    kept::Kept,
};
use super::{ListenerConfig, active::ListenerMsg, stats::ListenerManagerStats};
use crate::{
    net::Address,
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
    /// Version of the response it came in; empty for static listeners. One that is updated in place keeps its first.
    pub version: Arc<str>,
    /// When it was last changed.
    pub last_updated: SystemTime,
    /// From the bootstrap.
    pub is_static: bool,
    /// Addresses bound, with the ports the kernel chose.
    pub bound: Vec<Address>,
    /// What the workers accept on; an update in place keeps it.
    tag: u64,
    sockets: Sockets,
    /// When the server's drain reached it; chains that come later drain with it.
    drained: Option<Instant>,
}

impl ListenerSnapshot {
    fn proto(&self) -> Option<Proto> {
        Proto::decode(self.resource.value.as_slice()).ok()
    }
}

#[derive(Default)]
struct State {
    /// In the order in which they became active, as Envoy lists them; an update keeps its place.
    active: IndexMap<String, ListenerSnapshot>,
    warming: IndexMap<String, Warming>,
    /// The newest first.
    draining: Vec<Draining>,
    /// While a discovery response is applied: sockets of listeners that it removes, which another may want.
    leaving: Option<Sockets>,
    last_id: u64,
    /// False until the server starts its workers: until then sockets are bound but nobody is told.
    open: bool,
    stopped: Option<Scope>,
    stopped_tags: HashSet<u64>,
    draining_server: Option<Scope>,
    refused: Vec<RefusedListener>,
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// Which listeners a stop or a drain of the server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// `traffic_direction: INBOUND`
    Inbound,
    All,
}

impl Scope {
    fn of(inbound_only: bool) -> Self {
        if inbound_only { Self::Inbound } else { Self::All }
    }

    fn takes(self, config: &ListenerConfig) -> bool {
        self.takes_direction(config.direction as i32)
    }

    fn takes_direction(self, direction: i32) -> bool {
        self == Self::All || direction == TrafficDirection::Inbound as i32
    }
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

    fn count(&self, state: &State) {
        let stats = self.stats.local();
        stats.total_listeners_active.set(state.active.len() as u64);
        stats.total_listeners_warming.set(state.warming.len() as u64);
        stats.total_listeners_draining.set(state.draining.len() as u64);
    }

    /// Serves a listener that has all it needs.
    fn publish(&self, new: ListenerSnapshot, server: &Arc<ServerContext>) {
        let mut state = self.state();
        let state = &mut *state;
        let config = new.config.clone();
        let (tag, sockets) = (new.tag, new.sockets.clone());
        tracing::info!(listener = %config.name, addresses = ?new.bound.iter().map(ToString::to_string).collect::<Vec<_>>(), "listener ready");
        if state.open && !self.listens(&sockets, &config) {
            return self.count(state);
        }
        let old = state.active.insert(config.name.to_string(), new);
        if state.open {
            match old {
                Some(old) if old.tag == tag => {
                    send(&config, None, server);
                    self.drain_chains(&old, &config, server);
                }
                Some(old) => {
                    let goes_on = config.udp.is_some() && sockets::same_addresses(&old.config, &config);
                    let handles = sockets::for_workers(&sockets, &config, server.concurrency);
                    send(&config, (!goes_on).then_some(handles), server);
                    self.drain_listener(state, old, server);
                }
                None => send(
                    &config,
                    Some(sockets::for_workers(&sockets, &config, server.concurrency)),
                    server,
                ),
            }
        }
        self.count(state);
    }

    /// Lets the sockets of a listener take connections; one whose sockets cannot does not serve.
    fn listens(&self, sockets: &Sockets, config: &ListenerConfig) -> bool {
        let listening = sockets::listen(sockets, config);
        if let Err(error) = &listening {
            let name = &config.name;
            tracing::error!("final pre-worker listener init for listener '{name}' failed: {error}");
            self.stats.local().listener_create_failure.inc();
        }
        listening.is_ok()
    }

    /// Removes a listener: it stops accepting, and its connections drain. Static ones stay.
    pub fn remove(&self, name: &str, server: &Arc<ServerContext>) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let warms = state.warming.get(name).is_some_and(|w| !w.snapshot.is_static);
        let serves = state.active.get(name).is_some_and(|l| !l.is_static);
        if !warms && !serves {
            return false;
        }
        state.warming.shift_remove(name);
        if let Some(active) = state.active.shift_remove(name)
            && state.open
        {
            let name = active.config.name.clone();
            server
                .mailboxes
                .to_traffic(|_| WorkerMsg::Listener(ListenerMsg::Remove(name.clone())));
            self.drain_listener(state, active, server);
        }
        self.stats.local().listener_removed.inc();
        self.count(state);
        true
    }

    /// A discovery response comes: what it removes stays at hand for what it adds, and errors are those of this one.
    pub fn begin_update(&self) {
        let mut state = self.state();
        state.leaving = Some(Vec::new());
        state.refused.clear();
    }

    /// The response is applied: sockets that nobody has taken over close.
    pub fn end_update(&self) {
        self.state().leaving = None;
    }

    /// Lets the workers accept: called once, when the server is initialised.
    pub fn start(&self, server: &Arc<ServerContext>) {
        let mut state = self.state();
        state.open = true;
        state
            .active
            .retain(|_, listener| self.listens(&listener.sockets, &listener.config));
        self.count(&state);
        for listener in state.active.values() {
            let handles = sockets::for_workers(&listener.sockets, &listener.config, server.concurrency);
            send(&listener.config, Some(handles), server);
        }
        self.stats.local().workers_started.set(1);
    }

    /// The listeners that serve.
    pub fn active(&self) -> Vec<ListenerSnapshot> {
        self.state().active.values().cloned().collect()
    }
}

fn send(config: &Arc<ListenerConfig>, sockets: Option<sockets::ByWorker>, server: &Arc<ServerContext>) {
    let mut sockets = sockets.map(Vec::into_iter);
    server.mailboxes.to_traffic(|_| {
        WorkerMsg::Listener(ListenerMsg::Set {
            config: config.clone(),
            sockets: sockets.as_mut().map(|s| s.next().unwrap_or_default()),
        })
    });
}
