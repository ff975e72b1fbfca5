#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! The same requests through nuncio and the real Envoy, compared.
//!
//! A [`case::Case`] is a small YAML file below `cases/`. [`config`] turns it into the listeners and
//! clusters of a bootstrap, [`proxy`] runs that bootstrap in Envoy and in nuncio, [`upstream`] plays
//! the scripted backends, [`client`] sends the requests, [`outcome`] gathers what each side did with
//! everything volatile taken out, and [`diff`] says where the two differ. [`suite`] does this for
//! all cases with as few processes as possible. README.md tells how to write a case.

pub mod base;
pub mod case;
pub mod certs;
pub mod chaos;
pub mod cli;
pub mod client;
pub mod config;
pub mod diff;
pub mod distribution;
pub mod frames;
pub mod oracle;
pub mod outcome;
pub mod picks;
pub mod ports;
pub mod proxy;
pub mod smuggle;
pub mod spans;
pub mod stats;
pub mod substitute;
pub mod suite;
pub mod text;
pub mod tunnel;
pub mod upstream;
