//! Listeners: the manager on the control side, the active listener on each worker, and the way of
//! a connection from accept to its network filters.

mod active;
mod chain;
mod chain_match;
mod config;
mod connection;
mod inspect;
mod manager;
mod proxy_protocol;
mod stats;

pub use active::{ListenerMsg, WorkerListeners};
pub use chain::{DownstreamTransport, FilterChain};
pub use config::{ListenerConfig, ListenerFilter};
pub use manager::{ListenerManager, ListenerSnapshot};
pub use stats::{HandlerStats, ListenerStats};
