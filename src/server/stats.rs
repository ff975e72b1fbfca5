//! Statistics of the process (`server.*`), and what is read from the system only when somebody looks.

use std::sync::Arc;

use crate::{
    stats::{Stats, Store},
    stats_block,
};

stats_block! {
    /// `server.*`
    pub struct ServerStats {
        gauge(never_import) concurrency, "Number of workers";
        gauge(never_import) days_until_first_cert_expiring, "Days until the next certificate expires";
        counter debug_assertion_failures, "Failed debug assertions";
        counter dropped_stat_flushes, "Flushes dropped because the one before had not ended";
        counter dynamic_unknown_fields, "Unknown fields in dynamic configuration";
        counter envoy_bug_failures, "Violated invariants";
        counter envoy_notifications, "Notifications";
        gauge(never_import) hot_restart_epoch, "Restart epoch";
        gauge(never_import, lazy) hot_restart_generation, "Processes so far, each of which followed another";
        gauge(never_import) live, "1 if live and not failing health checks";
        gauge(never_import) memory_allocated, "Bytes allocated";
        gauge(never_import) memory_heap_size, "Bytes of heap reserved";
        gauge(never_import) memory_physical_size, "Bytes of physical memory";
        gauge(never_import) parent_connections, "Connections of the parent process";
        gauge(never_import) seconds_until_first_ocsp_response_expiring, "Seconds until the next OCSP response expires";
        gauge(never_import) state, "State: 0 live, 1 draining, 2 pre-initializing, 3 initializing";
        counter static_unknown_fields, "Unknown fields in static configuration";
        gauge(never_import) stats_recent_lookups, "Statistics looked up by name";
        gauge(never_import) total_connections, "Open connections";
        gauge(never_import) uptime, "Seconds since the start";
        gauge(never_import) version, "Version as a number";
        counter wip_protos, "Messages and fields that are work in progress";
        histogram(ms) initialization_time_ms, "Time from start to live";
    }
}

stats_block! {
    /// Of threads that a watchdog looks at; none does here: a worker that hangs is seen from outside.
    struct WatchdogStats {
        counter watchdog_mega_miss, "Times a thread was very late";
        counter watchdog_miss, "Times a thread was late";
    }
}

stats_block! {
    /// `server.compilation_settings.*`
    struct CompilationStats {
        gauge(never_import) fips_mode, "1 if only FIPS-approved cryptography is built in";
    }
}

stats_block! {
    /// `overload.*`
    pub struct OverloadStats {
        histogram(ms) refresh_interval_delay, "Lateness of the overload manager's refresh";
    }
}

/// Statistics that Envoy lists and that nothing changes here.
pub struct ConstantStats {
    _watchdogs: Vec<Stats<WatchdogStats>>,
    _compilation: Stats<CompilationStats>,
}

impl ConstantStats {
    /// Lists them for this number of workers.
    pub fn new(store: &Arc<Store>, workers: usize) -> Self {
        let of_threads = ["main_thread", "workers", "server.main_thread"].map(str::to_owned);
        let of_workers = (0..workers).map(|id| format!("server.worker_{id}"));
        let compilation: Stats<CompilationStats> = store.scope("server.compilation_settings.").block();
        compilation.local().fips_mode.set(0);
        Self {
            _watchdogs: of_threads
                .into_iter()
                .chain(of_workers)
                .map(|thread| store.scope(&thread).block())
                .collect(),
            _compilation: compilation,
        }
    }
}

/// Bytes of memory in use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// In live allocations.
    pub allocated: u64,
    /// Reserved by the allocator.
    pub heap: u64,
    /// Resident, as the kernel counts.
    pub physical: u64,
}

/// What the kernel says of this process; zeros where it says nothing.
pub fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split(' ').map(|n| n.parse::<u64>().unwrap_or(0) * 4096);
    let (_size, resident) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    let shared = pages.next().unwrap_or(0);
    let own = resident.saturating_sub(shared);
    Memory {
        allocated: own,
        heap: own,
        physical: resident,
    }
}
