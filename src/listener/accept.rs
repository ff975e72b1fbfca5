//! Accepting: connections are taken off a listen socket and given to the worker that serves them.

use std::{
    io,
    net::{SocketAddr, TcpStream as StdTcp},
    os::unix::net::UnixStream as StdUnix,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{
    Accepted,
    active::{Active, ListenerMsg},
    balance::Balanced,
    connection, udp,
};
use crate::{
    net::{Address, ListenSocket},
    server::{Drain, Worker, WorkerMsg, hot_restart::SocketKind, overload::Accepting},
};

/// How a connection came.
#[derive(Default)]
pub(super) struct Arrival {
    /// Which of the listener's addresses it came to.
    pub address: usize,
    /// Counts it with `exact_balance`.
    pub balanced: Option<Balanced>,
}

/// A connection on its way from the worker that has accepted it to the one that serves it.
pub struct Handed {
    socket: HandedSocket,
    arrival: Arrival,
}

enum HandedSocket {
    Tcp(StdTcp, SocketAddr),
    Unix(StdUnix, Address),
}

/// Accepts on a socket of this worker until its listener stops. `at` is the number of its address.
pub(super) fn spawn(socket: ListenSocket, at: usize, active: Rc<Active>, worker: Rc<Worker>) {
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
        let ended = match socket {
            ListenSocket::Tcp(s) => match TcpListener::from_std(s) {
                Ok(listener) => {
                    let accept = || async { listener.accept().await.map(|(s, peer)| Accepted::Tcp(s, peer)) };
                    accept_loop(stop, accept, at, &active, &worker).await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            ListenSocket::Unix(s) => match UnixListener::from_std(s) {
                Ok(listener) => {
                    let address = active.config().addresses.get(at).map(|(a, _)| a.clone());
                    let address = address.unwrap_or_else(|| Address::Pipe("".into()));
                    let accept = || async { listener.accept().await.map(|(s, _)| Accepted::Unix(s, address.clone())) };
                    accept_loop(stop, accept, at, &active, &worker).await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            ListenSocket::Udp(_) => Ok(()),
        };
        if let Err(error) = ended {
            tracing::error!(listener = %name, %error, "a listen socket could not be used");
        }
    });
}

/// Accepts until told to stop, then takes what the kernel has queued, so that no client that was
/// answered by the kernel is left without an answer by us.
async fn accept_loop<F: Future<Output = io::Result<Accepted>>>(
    stop: Drain,
    accept: impl Fn() -> F,
    at: usize,
    active: &Rc<Active>,
    worker: &Rc<Worker>,
) {
    let mut accepting = Accepting::of(&worker.server, active.config().bypass_overload);
    loop {
        let first = tokio::select! {
            biased;
            accepted = accepting.run(&accept) => accepted,
            () = stop.wait() => break,
        };
        match first {
            Ok(accepted) => place(accepted, at, active, worker),
            Err(error) => {
                // Out of descriptors or a connection that was reset while queued: neither ends the listener.
                tracing::warn!(listener = %active.config().name, %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        }
        let limit = active.config().accepts_per_event;
        let mut count = 1;
        // An error shows itself again.
        while count < limit
            && let Some(Ok(accepted)) = accepting.run(&accept).now_or_never()
        {
            count += 1;
            place(accepted, at, active, worker);
        }
        let histogram = &active.stats.local().connections_accepted_per_socket_event;
        histogram.record(count.into());
        // Others have their turn before the next ones are taken.
        tokio::task::yield_now().await;
    }
    while let Some(Ok(accepted)) = accept().now_or_never() {
        place(accepted, at, active, worker);
    }
}

/// Serves a connection here, or has it served by the worker with the fewest.
fn place(accepted: Accepted, at: usize, active: &Rc<Active>, worker: &Rc<Worker>) {
    let config = active.config();
    let balanced = config.balance.as_ref().map(|b| b.pick());
    let to = balanced.as_ref().map_or(worker.id, |b| b.worker);
    let arrival = Arrival { address: at, balanced };
    if to == worker.id {
        return connection::spawn(accepted, arrival, active, worker);
    }
    let socket = match accepted {
        Accepted::Tcp(s, peer) => s.into_std().map(|s| HandedSocket::Tcp(s, peer)),
        Accepted::Unix(s, address) => s.into_std().map(|s| HandedSocket::Unix(s, address)),
        Accepted::Internal(_) => return,
    };
    match socket {
        Ok(socket) => {
            let listener = config.name.clone();
            let handed = Handed { socket, arrival };
            let message = WorkerMsg::Listener(ListenerMsg::Take { listener, handed });
            worker.server.mailboxes.to_worker(to, message);
        }
        Err(error) => tracing::error!(listener = %config.name, %error, "a connection could not be handed on"),
    }
}

/// Serves a connection that another worker has accepted.
pub(super) fn take(handed: Handed, active: &Rc<Active>, worker: &Rc<Worker>) {
    let accepted = match handed.socket {
        HandedSocket::Tcp(s, peer) => TcpStream::from_std(s).map(|s| Accepted::Tcp(s, peer)),
        HandedSocket::Unix(s, address) => UnixStream::from_std(s).map(|s| Accepted::Unix(s, address)),
    };
    match accepted {
        Ok(accepted) => connection::spawn(accepted, handed.arrival, active, worker),
        Err(error) => {
            let listener: Arc<str> = active.config().name.clone();
            tracing::error!(%listener, %error, "a connection could not be taken over");
        }
    }
}

/// Connections of this worker to the listener's name are its own from now on.
pub(super) fn listen_internal(active: &Rc<Active>, worker: &Rc<Worker>) {
    let (listener, of) = (active.clone(), Rc::downgrade(worker));
    let accept = move |connection| {
        if let Some(worker) = of.upgrade() {
            connection::spawn(Accepted::Internal(connection), Arrival::default(), &listener, &worker);
        }
    };
    worker.internal.listen(active.config().name.clone(), Rc::new(accept));
}
