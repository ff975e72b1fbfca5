//! How many workers a process should have: the CPUs it may use, not the CPUs the machine has.

/// The smaller of the CPU affinity and the cgroup's CPU quota (rounded up), at least 1.
pub fn available() -> usize {
    // The standard library reads sched_getaffinity and both versions of cgroup quotas, rounding down.
    let affinity_and_quota = std::thread::available_parallelism().map_or(1, usize::from);
    affinity_and_quota.max(1)
}
