//! The descriptors of the whole API: the ground on which loading, checking and printing work.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prost::Name;
use prost_reflect::{DescriptorPool, MessageDescriptor};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// What Envoy and every control plane put before the full name of a message in a type URL.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// Every message, enum and service of Envoy's API, with their options.
///
/// The first call decodes the set (about 20 ms in a release build); later calls are free.
pub fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        // The set is part of the program and a test decodes it, so an empty pool is never met.
        DescriptorPool::decode(DESCRIPTORS).unwrap_or_default()
    });
    &POOL
}

/// The descriptor of a message by its full name (`envoy.config.cluster.v3.Cluster`).
pub fn message(full_name: &str) -> Option<MessageDescriptor> {
    pool().get_message_by_name(full_name)
}

/// The type URL under which xDS and `Any` carry `T`: `type.googleapis.com/` and the full name.
///
/// ```
/// use xds_protos::envoy::config::listener::v3::Listener;
/// assert_eq!(xds_protos::type_url::<Listener>(), "type.googleapis.com/envoy.config.listener.v3.Listener");
/// ```
pub fn type_url<T: Name>() -> String {
    format!("{TYPE_URL_PREFIX}{}", T::full_name())
}

/// What has been worked out about message types, each at its first use.
pub(crate) struct PerType<T>(LazyLock<Mutex<HashMap<String, Arc<T>>>>);

impl<T> PerType<T> {
    pub const fn new() -> PerType<T> {
        PerType(LazyLock::new(Mutex::default))
    }

    /// What is known about a type, or what `make` finds out now.
    pub fn get(&self, descriptor: &MessageDescriptor, make: fn(&MessageDescriptor) -> T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(descriptor.full_name()) {
            return known.clone();
        }
        let made = Arc::new(make(descriptor));
        known.insert(descriptor.full_name().to_owned(), made.clone());
        made
    }
}

#[cfg(test)]
mod tests;
