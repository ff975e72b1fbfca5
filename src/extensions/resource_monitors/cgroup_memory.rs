//! `envoy.resource_monitors.cgroup_memory`: the memory of the process's cgroup against its limit.

use std::path::{Path, PathBuf};

use xds_protos::envoy::extensions::resource_monitors::cgroup_memory::v3::CgroupMemoryConfig as Proto;

use super::{read, unexpected};
use crate::{
    config::{BuildCx, ConfigResult},
    server::overload::{Monitor, MonitorError, ResourceMonitor, ResourceMonitorFactory},
};

/// The extension.
pub struct Factory;

impl ResourceMonitorFactory for Factory {
    const NAME: &'static str = "envoy.resource_monitors.cgroup_memory";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor> {
        coverage!(cx, proto => Proto { supported { max_memory_bytes } });
        CgroupMemory::below(Path::new("/sys/fs/cgroup"), max_memory_bytes)
            .map(|monitor| Monitor::Sampled(Box::new(monitor)))
            .ok_or_else(|| cx.error("No supported cgroup memory implementation found"))
    }
}

struct CgroupMemory {
    usage: PathBuf,
    limit: PathBuf,
    /// `max_memory_bytes`; no further limit when 0.
    max: u64,
}

impl CgroupMemory {
    /// The files of version 2, or else of version 1.
    fn below(root: &Path, max: u64) -> Option<Self> {
        let files = [
            ("memory.current", "memory.max"),
            ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"),
        ];
        let (usage, limit) = files
            .map(|(usage, limit)| (root.join(usage), root.join(limit)))
            .into_iter()
            .find(|(usage, limit)| usage.exists() && limit.exists())?;
        Some(Self { usage, limit, max })
    }
}

impl ResourceMonitor for CgroupMemory {
    fn pressure(&mut self) -> Result<f64, MonitorError> {
        let usage = bytes(&self.usage)?;
        let limit = bytes(&self.limit)?;
        let limit = if self.max > 0 { limit.min(self.max) } else { limit };
        Ok(match limit {
            // Without a limit there is no pressure.
            u64::MAX => 0.0,
            0 => 1.0,
            limit => usage as f64 / limit as f64,
        })
    }
}

/// A number of bytes; `max` and version 1's `-1` are no limit.
fn bytes(path: &Path) -> Result<u64, MonitorError> {
    match read(path)?.as_str() {
        "max" | "-1" => Ok(u64::MAX),
        text => text.parse().map_err(|_| unexpected(path, text)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn usage_against_the_lower_limit() {
        let dir = tempfile::tempdir().unwrap();
        assert!(CgroupMemory::below(dir.path(), 0).is_none());
        fs::write(dir.path().join("memory.current"), "512\n").unwrap();
        fs::write(dir.path().join("memory.max"), "1024\n").unwrap();
        let mut own = CgroupMemory::below(dir.path(), 0).unwrap();
        let mut lower = CgroupMemory::below(dir.path(), 600).unwrap();
        assert_eq!(own.pressure().unwrap(), 0.5);
        assert_eq!(lower.pressure().unwrap(), 512.0 / 600.0);
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(own.pressure().unwrap(), 0.0);
        assert_eq!(lower.pressure().unwrap(), 512.0 / 600.0);
        fs::write(dir.path().join("memory.max"), "much\n").unwrap();
        assert!(own.pressure().is_err());
    }

    #[test]
    fn version_1_is_found_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("memory")).unwrap();
        fs::write(dir.path().join("memory/memory.usage_in_bytes"), "3\n").unwrap();
        fs::write(dir.path().join("memory/memory.limit_in_bytes"), "4\n").unwrap();
        assert_eq!(CgroupMemory::below(dir.path(), 0).unwrap().pressure().unwrap(), 0.75);
    }
}
