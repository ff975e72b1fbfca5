//! The `nuncio` binary: allocator, command line, [`nuncio::server::run`].

use std::process::ExitCode;

/// jemalloc halves idle memory against the alternatives at the same speed; huge pages would undo that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc at start: no transparent huge pages, few arenas, memory given back soon. What is left of a peak
/// (the start, a large update) is given back by a thread of jemalloc's own: without it an idle process would keep it
/// until its next allocations.
#[allow(non_upper_case_globals)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static malloc_conf: &[u8] =
    b"thp:never,narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true,max_background_threads:1\0";

fn main() -> ExitCode {
    nuncio::server::run(std::env::args_os())
}
