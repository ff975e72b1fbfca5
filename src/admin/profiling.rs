//! Profilers: this build has none, and says so where Envoy's build without them does.

use http::StatusCode;

use super::{AdminRequest, Reply};

/// `/cpuprofiler` and `/allocprofiler`: `enable=y` cannot be done.
pub(super) fn profiler(request: &AdminRequest) -> Reply {
    match request.param("enable").as_deref() {
        Some("y") => Reply::error(StatusCode::NOT_IMPLEMENTED, "The current build has no such profiler\n"),
        Some("n") => Reply::text("OK\n"),
        _ => Reply::error(StatusCode::BAD_REQUEST, "?enable=<y|n>\n"),
    }
}

/// `/heapprofiler`, `/heap_dump`, `/peak_heap_dump`
pub(super) fn heap(_: &AdminRequest) -> Reply {
    Reply::error(
        StatusCode::NOT_IMPLEMENTED,
        "The current build does not support heap profiler",
    )
}

/// `/contention`: locks are not traced.
pub(super) fn contention(_: &AdminRequest) -> Reply {
    Reply::text("Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.")
}

/// `/memory/tcmalloc`: what the allocator says; it is another one.
pub(super) fn allocator(_: &AdminRequest) -> Reply {
    let memory = crate::server::memory();
    Reply::text(format!(
        "allocated: {}\nheap: {}\nresident: {}\n",
        memory.allocated, memory.heap, memory.physical
    ))
}
