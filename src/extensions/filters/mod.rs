//! Filters, by where they stand.

pub mod common;
pub mod http;
pub mod listener;
pub mod network;
pub mod udp;
