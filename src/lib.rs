//! nuncio: an Envoy-compatible xDS data plane.
//!
//! One picture holds the house: a control thread turns configuration into immutable objects,
//! worker threads run them. `docs/architecture.md` follows one request and one cluster update
//! through the files below.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// Envoy marks fields deprecated long before control planes stop sending them; every one must be named.
#![allow(deprecated)]

#[macro_use]
pub mod config;
#[macro_use]
pub mod stats;

pub mod access_log;
pub mod admin;
pub mod bootstrap;
pub mod cli;
pub mod extensions;
pub mod formatter;
pub mod http;
pub mod listener;
pub mod matching;
pub mod net;
pub mod network_filter;
pub mod route;
pub mod router;
pub mod runtime;
pub mod server;
pub mod tls;
pub mod tracing;
pub mod upstream;
pub mod xds;
