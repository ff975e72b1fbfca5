//! From proto messages to runtime objects: errors with a field path, the three-way sorting of
//! fields, and the context that every conversion is given.
//!
//! A conversion reads `fn build(proto: P, cx: &mut BuildCx) -> ConfigResult<Runtime>`, destructures
//! its message with [`coverage!`](crate::coverage) and descends with [`BuildCx::field`].

#[macro_use]
mod coverage;
mod any;
mod convert;
mod cx;
mod data_source;
mod error;
mod shared;

pub use any::{AnyExt, plain, unpack};
pub use convert::{DurationExt, FractionalPercent, duration, fraction, millis, percent, positive};
pub use coverage::is_set;
pub use cx::{BuildCx, Ignored, InitTarget};
pub use data_source::read_data_source;
pub use error::{ConfigError, ConfigResult};
pub use shared::{Recent, Shared};

#[cfg(test)]
mod tests;
