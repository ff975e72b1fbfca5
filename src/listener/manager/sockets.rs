//! The listen sockets of a listener as long as it serves, for the next one at the same address: it goes on with them and
//! with the connections that wait in their queues.

use std::sync::Arc;

use crate::{
    config::{ConfigError, ConfigResult},
    listener::ListenerConfig,
    net::{Address, ListenOptions, ListenSocket},
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
        let opened = server.hot_restart.listen(address, options, server.concurrency);
        let by_worker = opened.map_err(|e| {
            let error = errno_text(&e);
            tracing::error!(
                "listener '{}' failed to bind: cannot bind '{address}': {error}",
                config.name
            );
            ConfigError::new("", format!("cannot bind '{address}': {error}"))
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

/// A handle of each socket for each worker; the outer list is by worker.
pub(super) fn for_workers(sockets: &[Arc<Held>], config: &ListenerConfig, workers: usize) -> Vec<Vec<ListenSocket>> {
    (0..workers.max(1))
        .map(|worker| {
            let mine = sockets.iter().filter_map(|held| held.by_worker.get(worker)).flatten();
            mine.filter_map(|socket| match socket.try_clone() {
                Ok(socket) => Some(socket),
                Err(error) => {
                    tracing::error!(listener = %config.name, %error, "a listen socket could not be handed to a worker");
                    None
                }
            })
            .collect()
        })
        .collect()
}

/// The system's words without Rust's `(os error N)`.
fn errno_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
