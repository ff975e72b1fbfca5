//! A listener on one worker: its sockets and its accept loops.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use tokio::sync::Notify;

use super::{
    ListenerConfig,
    accept::{self, Handed},
    by_address::ByAddress,
    stats::{HandlerStats, ListenerExtensionStats, ListenerStats},
};
use crate::{
    net::{Address, ListenSocket},
    server::{DrainSignal, Worker},
    stats::Stats,
};

/// What the manager tells a worker about listeners.
pub enum ListenerMsg {
    /// A new listener, or a new configuration of one. No sockets: those that are open stay, and with
    /// them the connections that wait in their queues.
    Set {
        /// The configuration for connections accepted from now on.
        config: Arc<ListenerConfig>,
        /// This worker's sockets, when the addresses are new, each with the number of its address.
        sockets: Option<Vec<(usize, ListenSocket)>>,
    },
    /// Stops accepting; what waits in the queue is still taken.
    Remove(Arc<str>),
    /// A connection that another worker has accepted.
    Take {
        /// Whose connection it is.
        listener: Arc<str>,
        /// The connection.
        handed: Handed,
    },
}

/// The listeners of one worker.
#[derive(Default)]
pub struct WorkerListeners {
    by_name: RefCell<HashMap<Arc<str>, Rc<Active>>>,
    by_address: RefCell<ByAddress<Rc<Active>>>,
}

/// One listener on one worker.
pub(super) struct Active {
    config: RefCell<Arc<ListenerConfig>>,
    pub(super) stop: DrainSignal,
    /// Told when `config` is another one: UDP sockets go on with that.
    pub(super) changed: Notify,
    pub(super) stats: Stats<ListenerStats>,
    pub(super) handler: Stats<HandlerStats>,
    _extensions: Stats<ListenerExtensionStats>,
}

impl Active {
    /// The configuration that a connection accepted now gets.
    pub(super) fn config(&self) -> Arc<ListenerConfig> {
        self.config.borrow().clone()
    }
}

impl WorkerListeners {
    /// The listener that takes over connections to this address: its own, or that of its port on all addresses. Never
    /// the one called `not`.
    pub(super) fn by_destination(&self, to: &Address, not: &str) -> Option<Rc<Active>> {
        self.by_address.borrow().find(to, not).cloned()
    }

    /// Carries out what the manager tells.
    pub fn handle(&self, message: ListenerMsg, worker: &Rc<Worker>) {
        match message {
            ListenerMsg::Set { config, sockets: None } => {
                if let Some(active) = self.by_name.borrow().get(&config.name) {
                    let old = active.config.replace(config.clone());
                    active.changed.notify_waiters();
                    let mut by_address = self.by_address.borrow_mut();
                    by_address.remove(&old.name, &old.addresses);
                    by_address.insert(&config.name, &config.addresses, active);
                    worker.server.listeners.stats.local().listener_create_success.inc();
                }
            }
            ListenerMsg::Set {
                config,
                sockets: Some(sockets),
            } => {
                let scope = worker.server.stats.scope(&format!("listener.{}.", config.stat_prefix));
                let name = config.name.clone();
                let active = Rc::new(Active {
                    config: RefCell::new(config),
                    stop: DrainSignal::default(),
                    changed: Notify::new(),
                    stats: scope.block(),
                    handler: scope.scope(&format!("worker_{}", worker.id)).block(),
                    _extensions: scope.block(),
                });
                if active.config().internal {
                    accept::listen_internal(&active, worker);
                }
                for (at, socket) in sockets {
                    accept::spawn(socket, at, active.clone(), worker.clone());
                }
                worker.server.listeners.stats.local().listener_create_success.inc();
                let old = self.by_name.borrow_mut().insert(name.clone(), active.clone());
                let mut by_address = self.by_address.borrow_mut();
                if let Some(old) = old {
                    by_address.remove(&name, &old.config().addresses);
                    old.stop.start();
                }
                by_address.insert(&name, &active.config().addresses, &active);
            }
            ListenerMsg::Remove(name) => {
                worker.internal.remove(&name);
                if let Some(active) = self.by_name.borrow_mut().remove(&name) {
                    self.by_address.borrow_mut().remove(&name, &active.config().addresses);
                    active.stop.start();
                }
            }
            ListenerMsg::Take { listener, handed } => {
                // Gone meanwhile: its connections are closed, as those in its queue are.
                let active = self.by_name.borrow().get(&listener).cloned();
                if let Some(active) = active {
                    accept::take(handed, &active, worker);
                }
            }
        }
    }
}
