//! Listeners: the manager on the control side, the active listener on each worker, and the way of
//! a connection from accept to its network filters.

mod accept;
mod accepted;
mod active;
mod arrive;
mod balance;
mod by_address;
mod chain;
mod chain_match;
mod config;
mod connection;
mod filter;
mod manager;
mod overload;
mod predicate;
mod stats;
mod udp;

pub use accept::Handed;
pub use accepted::Accepted;
pub use active::{ListenerMsg, WorkerListeners};
pub use balance::ExactBalance;
pub use chain::{DownstreamTransport, FilterChain};
pub use config::ListenerConfig;
pub use filter::{ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused};
pub use manager::{Kept, ListenerManager, ListenerSnapshot, ListenersDump, RefusedListener};
pub use stats::{HandlerStats, ListenerStats};
pub use udp::{
    Datagram, DatagramNext, DatagramOptions, UdpDownstream, UdpFilterCx, UdpListenerFilter, UdpListenerFilterFactory,
    UdpReadFilter,
};
