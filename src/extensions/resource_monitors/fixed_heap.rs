//! `envoy.resource_monitors.fixed_heap`: the heap against a fixed size.
//!
//! The heap is what the kernel has given the process for itself. The allocator gives free pages back within a second,
//! so that this is what is in use, but for the stacks and the program's own data.

use xds_protos::envoy::{
    config::core::v3::RuntimeUInt64, extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig as Proto,
};

use crate::{
    config::{BuildCx, ConfigResult},
    runtime::Key,
    server::{
        memory,
        overload::{Monitor, MonitorError, ResourceMonitor, ResourceMonitorFactory},
    },
};

/// The extension.
pub struct Factory;

impl ResourceMonitorFactory for Factory {
    const NAME: &'static str = "envoy.resource_monitors.fixed_heap";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor> {
        coverage!(cx, proto => Proto { supported { max_heap_size_bytes, max_heap_size_bytes_runtime } });
        if max_heap_size_bytes > 0 && max_heap_size_bytes_runtime.is_some() {
            return Err(
                cx.error("fixed_heap: exactly one of max_heap_size_bytes or max_heap_size_bytes_runtime must be set")
            );
        }
        let (max, key) = match max_heap_size_bytes_runtime {
            None => (max_heap_size_bytes, Key::NONE),
            Some(proto) => {
                coverage!(cx, proto => RuntimeUInt64 { supported { default_value, runtime_key } });
                (default_value, cx.server.runtime.key(&runtime_key))
            }
        };
        if key.integer(max) == 0 {
            return Err(cx.error("fixed_heap: max heap size must be greater than 0"));
        }
        Ok(Monitor::Sampled(Box::new(FixedHeap { max, key })))
    }
}

struct FixedHeap {
    max: u64,
    key: Key,
}

impl ResourceMonitor for FixedHeap {
    fn pressure(&mut self) -> Result<f64, MonitorError> {
        let max = self.key.integer(self.max).max(1);
        Ok(memory().heap as f64 / max as f64)
    }
}
