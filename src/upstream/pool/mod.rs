//! Connection pools of one worker: HTTP/1.1 and HTTP/2 connections per host, and single TCP connections.
//!
//! A [`Pool`](core::Pool) belongs to one host, priority, protocol and set of transport socket options. A request
//! takes a ready connection (the one used last, so that surplus ones become idle), or waits in the pool's queue
//! while a new one is opened. Every connection is driven by one local task, which ends with it.

mod body;
mod capacity;
mod conn;
mod connect;
mod core;
mod h1;
mod h2;
mod happy_eyeballs;
mod io;
mod key;
mod lease;
mod open;
mod options;
mod tcp;
mod tunnel;
mod waiter;

use std::{rc::Rc, sync::Arc, time::Duration};

use http::Version;

use super::ConnectFailure;
use crate::{
    http::stream_info::{Findings, TlsInfo},
    net::Address,
};

pub use body::UpstreamBody;
pub use lease::{Informed, Lease, UpstreamResponse};
pub use options::{PoolOptions, TransportOptions};
pub use tcp::{TcpCounted, TcpLease};
pub use tunnel::{OpenTunnel, TunnelFailure};

pub(super) use self::{
    capacity::Load,
    connect::{Dial, open},
    core::Pool,
    key::PoolKey,
    tcp::connect as tcp,
};

/// Facts of an upstream connection.
#[derive(Debug)]
pub struct UpstreamConnInfo {
    /// Unique in the process: `%UPSTREAM_CONNECTION_ID%`.
    pub id: u64,
    /// `%UPSTREAM_LOCAL_ADDRESS%`
    pub local_address: Address,
    /// `%UPSTREAM_REMOTE_ADDRESS%`
    pub remote_address: Address,
    /// TLS facts; none for plain text.
    pub tls: Option<Arc<TlsInfo>>,
    /// Protocol spoken.
    pub protocol: Version,
    /// When it was made.
    pub times: crate::http::stream_info::ConnectTimes,
    /// Time from connect to established.
    pub connect_time: Duration,
    /// What the network filters of the cluster find out about it; none without such filters.
    pub found: Option<Arc<Findings>>,
}

/// The pool of one host, priority and transport socket. Cheap to make: a handle.
pub struct HttpPool(pub(super) Option<Rc<Pool>>);

impl HttpPool {
    /// There is no pool: `max_connection_pools` is reached.
    pub fn is_refused(&self) -> bool {
        self.0.is_none()
    }

    /// Waits for a connection, as far as breakers allow. Dropping the future gives the place in the queue back.
    pub async fn acquire(&self) -> Result<Lease, ConnectFailure> {
        // No pool: `max_connection_pools` is reached.
        let Some(pool) = &self.0 else {
            return Err(ConnectFailure::Overflow);
        };
        pool.acquire().await
    }
}

#[cfg(test)]
mod tests;
