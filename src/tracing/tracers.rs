//! The tracers of a server: one for each configuration, however many connection managers have it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use xds_protos::google::protobuf::Any;

use super::Tracer;
use crate::config::ConfigResult;

/// Tracers by their configuration, for as long as somebody uses them.
#[derive(Default)]
pub struct Tracers(Mutex<Vec<(Any, Weak<dyn Tracer>)>>);

impl Tracers {
    /// The tracer of this configuration.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn find_or_build(
        &self,
        any: &Any,
        build: impl FnOnce() -> ConfigResult<Arc<dyn Tracer>>,
    ) -> ConfigResult<Arc<dyn Tracer>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, tracer)| tracer.strong_count() > 0);
        if let Some(tracer) = known.iter().find(|(k, _)| k == any).and_then(|(_, t)| t.upgrade()) {
            return Ok(tracer);
        }
        let built = build()?;
        known.push((any.clone(), Arc::downgrade(&built)));
        Ok(built)
    }
}
