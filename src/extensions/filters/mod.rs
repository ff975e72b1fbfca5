//! Filters, by where they stand.

pub mod http;
pub mod network;
