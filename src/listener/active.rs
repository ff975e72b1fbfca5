//! A listener on one worker: its sockets and its accept loops.

use std::{cell::RefCell, collections::HashMap, io, rc::Rc, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Notify,
};

use super::{
    Accepted, ListenerConfig, connection,
    stats::{HandlerStats, ListenerExtensionStats, ListenerStats},
    udp,
};
use crate::{
    net::{Address, ListenSocket},
    server::{Drain, DrainSignal, Worker, hot_restart::SocketKind, overload::Accepting},
    stats::Stats,
};

/// What the manager tells a worker about listeners.
pub enum ListenerMsg {
    /// A new listener, or a new configuration of one. No sockets: those that are open stay, and with
    /// them the connections that wait in their queues.
    Set {
        /// The configuration for connections accepted from now on.
        config: Arc<ListenerConfig>,
        /// This worker's sockets, when the addresses are new.
        sockets: Option<Vec<ListenSocket>>,
    },
    /// Stops accepting; what waits in the queue is still taken.
    Remove(Arc<str>),
}

/// The listeners of one worker.
#[derive(Default)]
pub struct WorkerListeners(RefCell<HashMap<Arc<str>, Rc<Active>>>);

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
        let all = self.0.borrow();
        let having = |matches: &dyn Fn(&Address) -> bool| {
            let mut others = all.values().filter(|active| *active.config().name != *not);
            others
                .find(|active| active.config().addresses.iter().any(|(a, _)| matches(a)))
                .cloned()
        };
        let unspecified = |a: &Address| a.port() == to.port() && a.ip().is_some_and(|ip| ip.is_unspecified());
        having(&|a| a == to).or_else(|| having(&unspecified))
    }

    /// Carries out what the manager tells.
    pub fn handle(&self, message: ListenerMsg, worker: &Rc<Worker>) {
        match message {
            ListenerMsg::Set { config, sockets: None } => {
                if let Some(active) = self.0.borrow().get(&config.name) {
                    active.config.replace(config);
                    active.changed.notify_waiters();
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
                    listen_internal(&active, worker);
                }
                for socket in sockets {
                    spawn_accept(socket, active.clone(), worker.clone());
                }
                worker.server.listeners.stats.local().listener_create_success.inc();
                if let Some(old) = self.0.borrow_mut().insert(name, active) {
                    old.stop.start();
                }
            }
            ListenerMsg::Remove(name) => {
                worker.internal.remove(&name);
                if let Some(active) = self.0.borrow_mut().remove(&name) {
                    active.stop.start();
                }
            }
        }
    }
}

/// Connections of this worker to the listener's name are its own from now on.
fn listen_internal(active: &Rc<Active>, worker: &Rc<Worker>) {
    let (listener, of) = (active.clone(), Rc::downgrade(worker));
    let accept = move |connection| {
        if let Some(worker) = of.upgrade() {
            connection::spawn(Accepted::Internal(connection), &listener, &worker);
        }
    };
    worker.internal.listen(active.config().name.clone(), Rc::new(accept));
}

fn spawn_accept(socket: ListenSocket, active: Rc<Active>, worker: Rc<Worker>) {
    let shared = worker.server.hot_restart.share(SocketKind::of(&socket), &socket);
    let socket = match socket {
        ListenSocket::Udp(socket) => return udp::spawn(socket, shared, active, worker),
        other => other,
    };
    let stop = active.stop.listen();
    tokio::task::spawn_local(async move {
        // The next process may have the socket for as long as this one accepts on it.
        let _shared = shared;
        let name = active.config().name.clone();
        let result = match socket {
            ListenSocket::Tcp(s) => match TcpListener::from_std(s) {
                Ok(listener) => {
                    accept_loop(
                        stop,
                        || async { listener.accept().await.map(|(s, peer)| Accepted::Tcp(s, peer)) },
                        &active,
                        &worker,
                    )
                    .await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            ListenSocket::Unix(s) => match UnixListener::from_std(s) {
                Ok(listener) => {
                    let address = active
                        .config()
                        .addresses
                        .iter()
                        .map(|(a, _)| a.clone())
                        .find(|a| matches!(a, Address::Pipe(_)));
                    let address = address.unwrap_or_else(|| Address::Pipe("".into()));
                    accept_loop(
                        stop,
                        || async { listener.accept().await.map(|(s, _)| Accepted::Unix(s, address.clone())) },
                        &active,
                        &worker,
                    )
                    .await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            ListenSocket::Udp(_) => Ok(()),
        };
        if let Err(error) = result {
            tracing::error!(listener = %name, %error, "a listen socket could not be used");
        }
    });
}

/// Accepts until told to stop, then takes what the kernel has queued, so that no client that was
/// answered by the kernel is left without an answer by us.
async fn accept_loop<F: Future<Output = io::Result<Accepted>>>(
    stop: Drain,
    accept: impl Fn() -> F,
    active: &Rc<Active>,
    worker: &Rc<Worker>,
) {
    let mut accepting = Accepting::of(&worker.server, active.config().bypass_overload);
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = accepting.run(&accept) => accepted,
            () = stop.wait() => break,
        };
        match accepted {
            Ok(accepted) => connection::spawn(accepted, active, worker),
            Err(error) => {
                // Out of descriptors or a connection that was reset while queued: neither ends the listener.
                tracing::warn!(listener = %active.config().name, %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    while let Some(Ok(accepted)) = accept().now_or_never() {
        connection::spawn(accepted, active, worker);
    }
}
