//! The extensions: one folder each, at the paths of Envoy's `source/extensions`.

mod registry;

pub use registry::Registry;

/// Everything that is built in. One line per extension.
pub fn register_all() -> Registry {
    Registry::default()
}
