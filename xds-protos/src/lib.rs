//! Envoy's API for nuncio: its types, and what is done with them before any of them means something.
//!
//! ```text
//! text (YAML, JSON, protobuf text)            bytes (xDS, an Any)
//!   -> node tree with line and column           |
//!   -> DynamicMessage  <------------------------+
//!   -> unknown fields, deprecated fields, validation rules
//!   -> bytes -> typed message (prost)           -> the rest of nuncio
//!   -> JSON as Envoy's /config_dump prints it
//! ```
//!
//! - [`load`] reads text, [`dynamic`] goes between bytes, typed and dynamic messages, [`any`] unpacks what extensions are
//!   configured with;
//! - [`check`] finds unknown, deprecated and unfinished fields, [`pgv`] runs the validation rules;
//! - [`mod@print`] writes what the admin endpoints show.
//!
//! The typed messages are those of `envoy-types`, re-exported under their protobuf packages together with the gRPC
//! clients and servers; what Envoy 1.40 accepts and that crate lacks is in `overlay/`. Everything generic works on the
//! descriptors in [`pool()`], so a new API version needs no new code here. Maps in typed and dynamic messages have no
//! order: never hash or compare encoded bytes of either, but the bytes that came.
//!
//! ```
//! use xds_protos::any;
//! use xds_protos::envoy::config::cluster::v3::Cluster;
//!
//! let cluster = Cluster { name: "backend".into(), ..Default::default() };
//! let packed = any::pack(&cluster);
//! assert_eq!(packed.type_url, xds_protos::type_url::<Cluster>());
//! assert_eq!(any::decode::<Cluster>(&packed)?.name, "backend");
//! # Ok::<(), any::AnyError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod any;
pub mod check;
mod descriptors;
pub mod dynamic;
pub mod load;
mod overlay;
pub mod pgv;
pub mod print;

pub use descriptors::{TYPE_URL_PREFIX, message, pool, type_url};
pub use envoy_types::pb::{cel, google, opentelemetry, ratelimit, validate};
pub use overlay::{envoy, io, istio, stats, udpa, xds};
/// The crates whose types stand in this crate's signatures.
pub use {prost, prost_reflect};
