//! Resource monitors: how much of a resource is used, for the overload manager.

pub mod cgroup_memory;
pub mod cpu_utilization;
pub mod downstream_connections;
pub mod fixed_heap;
pub mod injected_resource;

use std::{fs, path::Path};

use crate::server::overload::MonitorError;

/// Reads a small file of the system, without the white space around its content.
fn read(path: &Path) -> Result<String, MonitorError> {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|source| MonitorError::Io {
            path: path.display().to_string(),
            source,
        })
}

/// The file does not hold what it should.
fn unexpected(path: &Path, content: &str) -> MonitorError {
    MonitorError::Content {
        path: path.display().to_string(),
        content: content.chars().take(100).collect(),
    }
}
