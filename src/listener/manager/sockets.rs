//! The listen sockets of a listener as long as it serves, for the next one at the same address: it goes on with them and
//! with the connections that wait in their queues.

use std::sync::Arc;

use crate::{
    config::{ConfigError, ConfigResult},
    listener::ListenerConfig,
    net::{Address, ListenError, ListenOptions, ListenSocket},
    server::ServerContext,
};

/// One address, bound once per worker.
#[derive(Debug)]
pub struct Held {
    asked: Address,
    options: ListenOptions,
    /// With the port that the kernel chose.
    pub bound: Address,
    /// One for each worker, but for the sockets of a process with more or fewer of them.
    by_worker: Vec<Vec<ListenSocket>>,
}

impl Held {
    /// Binds an address, or takes the sockets of the process before this one.
    fn open(
        config: &ListenerConfig,
        address: &Address,
        options: &ListenOptions,
        server: &ServerContext,
    ) -> ConfigResult<Self> {
        let name = &config.name;
        let opened = server.hot_restart.listen(address, options, server.concurrency, name);
        let by_worker = opened.map_err(|error| {
            tracing::error!("listener '{name}' failed to bind or apply socket options: {error}");
            ConfigError::new("", error.to_string())
        })?;
        Ok(Self {
            asked: address.clone(),
            options: options.clone(),
            bound: by_worker
                .iter()
                .flatten()
                .next()
                .map_or_else(|| address.clone(), |first| first.local_address(address)),
            by_worker,
        })
    }
}

/// Whether a socket of these options is one of those: the queue's length and keepalive can be changed on a socket that
/// is there.
fn alike(a: &ListenOptions, b: &ListenOptions) -> bool {
    let b = ListenOptions {
        backlog: a.backlog,
        keepalive: a.keepalive,
        ..b.clone()
    };
    *a == b
}

/// The sockets of one listener, an entry for each address.
pub(super) type Sockets = Vec<Arc<Held>>;

/// Whether all sockets of a listener go on under a new configuration, in whatever order.
pub(super) fn same_addresses(a: &ListenerConfig, b: &ListenerConfig) -> bool {
    let mut left: Vec<_> = a.addresses.iter().collect();
    let found = b.addresses.iter().all(|(address, options)| {
        match left.iter().position(|(a, o)| a == address && alike(o, options)) {
            Some(at) => {
                left.swap_remove(at);
                true
            }
            None => false,
        }
    });
    found && left.is_empty()
}

/// The sockets of a configuration: those of `before` that are at its addresses, and new ones. Nothing is changed when one
/// cannot be bound.
pub(super) fn take_over_or_open(
    config: &ListenerConfig,
    before: &[Arc<Held>],
    server: &ServerContext,
) -> ConfigResult<Sockets> {
    let mut left: Vec<_> = before.to_vec();
    let mut sockets = Vec::with_capacity(config.addresses.len());
    for (address, options) in &config.addresses {
        let at = left
            .iter()
            .position(|held| held.asked == *address && alike(&held.options, options));
        sockets.push(match at {
            Some(at) => left.swap_remove(at),
            None => Arc::new(Held::open(config, address, options, server)?),
        });
    }
    Ok(sockets)
}

/// Lets all of them take connections: the listener serves from now on.
pub(super) fn listen(sockets: &[Arc<Held>], config: &ListenerConfig) -> Result<(), ListenError> {
    for (held, (address, options)) in sockets.iter().zip(&config.addresses) {
        for socket in held.by_worker.iter().flatten() {
            socket.listen(address, options)?;
        }
    }
    Ok(())
}

/// Sockets of a listener by worker, each with the number of its address.
pub(super) type ByWorker = Vec<Vec<(usize, ListenSocket)>>;

/// A handle of each socket for each worker.
pub(super) fn for_workers(sockets: &[Arc<Held>], config: &ListenerConfig, workers: usize) -> ByWorker {
    let of = |worker: usize| {
        let by_address = sockets.iter().enumerate();
        by_address.flat_map(move |(at, held)| held.by_worker.get(worker).into_iter().flatten().map(move |s| (at, s)))
    };
    (0..workers.max(1))
        .map(|worker| {
            of(worker).filter_map(|(at, socket)| match socket.try_clone() {
                Ok(socket) => Some((at, socket)),
                Err(error) => {
                    tracing::error!(listener = %config.name, %error, "a listen socket could not be handed to a worker");
                    None
                }
            })
            .collect()
        })
        .collect()
}
