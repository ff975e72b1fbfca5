//! The runtime: values that change while the proxy runs, in layers that override one another.
//!
//! The bootstrap lists the layers ([`layer`]); each holds texts by key. Whenever a layer changes, the control side
//! merges all of them into an immutable [`Snapshot`] and publishes it. What a request reads is found at configuration
//! time: a [`Key`] is interned once, and each new snapshot writes its value into the key's slot, so that a read is an
//! atomic load or two. The types of the API that name a key stand in [`values`]: [`RuntimeFractionalPercent`],
//! [`RuntimeFeatureFlag`], [`RuntimeUInt32`], [`RuntimeDouble`], [`RuntimePercent`].

mod entry;
mod key;
mod layer;
mod loader;
mod snapshot;
mod values;

pub use entry::Entry;
pub use key::Key;
pub use loader::{KnownKeys, ModifyError, OutlierKeys, Runtime};
pub use snapshot::{Layer, Snapshot};
pub use values::{RuntimeDouble, RuntimeFeatureFlag, RuntimeFractionalPercent, RuntimePercent, RuntimeUInt32};

#[cfg(test)]
mod tests;
