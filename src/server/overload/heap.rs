//! `shrink_heap`: while it is saturated, free memory is given back to the system now and then.

use std::{ffi::CStr, ptr, time::Duration};

use tokio::task::JoinHandle;
use xds_protos::{envoy::config::overload::v3::ShrinkHeapConfig as Proto, google::protobuf::Any};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    stats::{Counter, Scope},
};

/// Gives memory back.
pub(super) struct HeapShrinker {
    interval: Duration,
    shrink_count: Counter,
    running: Option<JoinHandle<()>>,
}

impl HeapShrinker {
    /// `typed_config` of the action; every 10 s without.
    pub(super) fn build(any: Option<Any>, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mut interval = None;
        if let Some(any) = any {
            let any = plain(any, cx)?;
            if any.type_name() != "envoy.config.overload.v3.ShrinkHeapConfig" {
                return Err(cx.error(format!(
                    "typed_config resolves to {} instead of envoy.config.overload.v3.ShrinkHeapConfig",
                    any.type_name()
                )));
            }
            let proto: Proto = unpack(&any, cx)?;
            coverage!(cx, proto => Proto {
                supported { timer_interval }
                ignored { max_unfreed_memory_bytes: "the allocator gives back all that is free" }
            });
            interval = timer_interval.as_ref().map(crate::config::duration);
        }
        Ok(Self {
            interval: interval.unwrap_or(Duration::from_secs(10)),
            shrink_count: scope.counter("envoy.overload_actions.shrink_heap.shrink_count"),
            running: None,
        })
    }

    /// Starts or ends it, on the control thread.
    pub(super) fn set(&mut self, saturated: bool) {
        if !saturated {
            if let Some(running) = self.running.take() {
                running.abort();
            }
        } else if self.running.is_none() {
            let (interval, count) = (self.interval, self.shrink_count.clone());
            self.running = Some(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    release_free_memory();
                    count.inc();
                }
            }));
        }
    }
}

/// Gives free pages of all arenas back to the system. The allocator does so by itself a second after they were freed;
/// this is for what it has not come to.
fn release_free_memory() {
    /// `arena.<MALLCTL_ARENAS_ALL>.purge`
    const PURGE_ALL: &CStr = c"arena.4096.purge";
    // SAFETY: the name is a C string, and the command takes and gives no value.
    let failed =
        unsafe { tikv_jemalloc_sys::mallctl(PURGE_ALL.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) };
    if failed != 0 {
        tracing::warn!(code = failed, "free memory could not be given back");
    }
}
