//! The admin server: sees everything, on a thread of its own, so that neither traffic nor xDS ever
//! waits for somebody who looks.
//!
//! Every endpoint is a row of [`endpoints::TABLE`]; `/help` and the home page are made from it.

mod clusters;
mod config_dump;
mod connection_stats;
mod endpoints;
mod home;
mod lifecycle;
mod listeners;
mod logging;
mod mask;
mod profiling;
mod reply;
mod runtime;
mod serve;
mod server_info;
mod stats;

pub use reply::{AdminRequest, Reply};
pub use serve::{start, write_address};
