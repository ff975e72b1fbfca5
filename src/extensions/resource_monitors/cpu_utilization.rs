//! `envoy.resource_monitors.cpu_utilization`: the CPU time used since the last refresh, of the machine (`HOST`) or of
//! the process's cgroup (`CONTAINER`), smoothed over refreshes as in Envoy.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use xds_protos::envoy::extensions::resource_monitors::cpu_utilization::v3::{
    CpuUtilizationConfig as Proto, cpu_utilization_config::UtilizationComputeStrategy as Mode,
};

use super::{read, unexpected};
use crate::{
    config::{BuildCx, ConfigResult},
    server::overload::{Monitor, MonitorError, ResourceMonitor, ResourceMonitorFactory},
};

/// The weight of the newest value.
const WEIGHT: f64 = 0.05;
/// CPU shares of one core, in version 1.
const SHARES_PER_CORE: f64 = 1000.0;

/// The extension.
pub struct Factory;

impl ResourceMonitorFactory for Factory {
    const NAME: &'static str = "envoy.resource_monitors.cpu_utilization";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor> {
        coverage!(cx, proto => Proto { supported { mode } });
        let source = match Mode::try_from(mode) {
            Ok(Mode::Container) => Source::of_cgroup(Path::new("/sys/fs/cgroup"))
                .ok_or_else(|| cx.error("No supported cgroup CPU implementation found"))?,
            _ => Source::Host(PathBuf::from("/proc/stat")),
        };
        Ok(Monitor::Sampled(Box::new(CpuUtilization {
            last: source.times(Instant::now()).ok(),
            started: Instant::now(),
            source,
            utilization: 0.0,
        })))
    }
}

/// Where CPU times are read.
enum Source {
    /// `/proc/stat`
    Host(PathBuf),
    /// `cpu.shares` and `cpuacct.usage`
    V1 { shares: PathBuf, usage: PathBuf },
    /// `cpu.stat`, `cpu.max` and `cpuset.cpus.effective`
    V2 { stat: PathBuf, max: PathBuf, cpus: PathBuf },
}

/// Times so far, both in the same unit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Times {
    work: f64,
    total: f64,
}

impl Source {
    fn of_cgroup(root: &Path) -> Option<Self> {
        let v2 = Self::V2 {
            stat: root.join("cpu.stat"),
            max: root.join("cpu.max"),
            cpus: root.join("cpuset.cpus.effective"),
        };
        let v1 = Self::V1 {
            shares: root.join("cpu/cpu.shares"),
            usage: root.join("cpuacct/cpuacct.usage"),
        };
        [v2, v1].into_iter().find(|source| match source {
            Self::Host(stat) => stat.exists(),
            Self::V1 { shares, usage } => shares.exists() && usage.exists(),
            Self::V2 { stat, cpus, .. } => stat.exists() && cpus.exists(),
        })
    }

    /// The times now, `started` being when the clock of cgroups began.
    fn times(&self, started: Instant) -> Result<Times, MonitorError> {
        let clock = started.elapsed().as_secs_f64();
        match self {
            Self::Host(path) => {
                let text = read(path)?;
                let line = text.lines().next().unwrap_or_default();
                let fields: Vec<f64> = match line.strip_prefix("cpu ") {
                    Some(rest) => rest.split_whitespace().map_while(|n| n.parse().ok()).collect(),
                    None => Vec::new(),
                };
                // user, nice, system; then idle and the rest.
                match fields.get(..3) {
                    Some(work) if fields.len() > 3 => Ok(Times {
                        work: work.iter().sum(),
                        total: fields.iter().sum(),
                    }),
                    _ => Err(unexpected(path, line)),
                }
            }
            Self::V1 { shares, usage } => {
                let cores = number(shares)? / SHARES_PER_CORE;
                Ok(Times {
                    work: number(usage)? / 1e9 / cores,
                    total: clock,
                })
            }
            Self::V2 { stat, max, cpus } => {
                let text = read(stat)?;
                let usage = text.lines().find_map(|l| l.strip_prefix("usage_usec "));
                let usage: f64 = usage
                    .and_then(|n| n.trim().parse().ok())
                    .ok_or_else(|| unexpected(stat, &text))?;
                let of_set = read(cpus)?;
                let mut cores = count_cpus(&of_set).ok_or_else(|| unexpected(cpus, &of_set))?;
                // Not in a cgroup at the root, which has no quota.
                if let Ok(quota) = read(max) {
                    cores = cores.min(quota_cores(&quota).ok_or_else(|| unexpected(max, &quota))?);
                }
                Ok(Times {
                    work: usage / 1e6 / cores,
                    total: clock,
                })
            }
        }
    }
}

fn number(path: &Path) -> Result<f64, MonitorError> {
    let text = read(path)?;
    text.parse().map_err(|_| unexpected(path, &text))
}

/// How many there are in a list such as `0-3,6`.
fn count_cpus(list: &str) -> Option<f64> {
    let mut count = 0_u32;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count.into())
}

/// `QUOTA PERIOD`, or `max PERIOD`.
fn quota_cores(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    if quota == "max" {
        return Some(f64::INFINITY);
    }
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0 && quota > 0.0).then_some(quota / period)
}

struct CpuUtilization {
    source: Source,
    started: Instant,
    last: Option<Times>,
    utilization: f64,
}

impl ResourceMonitor for CpuUtilization {
    fn pressure(&mut self) -> Result<f64, MonitorError> {
        let now = self.source.times(self.started)?;
        let Some(last) = self.last.replace(now) else {
            return Ok(self.utilization);
        };
        let (work, total) = (now.work - last.work, now.total - last.total);
        if work < 0.0 || total <= 0.0 {
            return Err(MonitorError::NoTime);
        }
        let current = (work / total).clamp(0.0, 1.0);
        self.utilization = current * WEIGHT + self.utilization * (1.0 - WEIGHT);
        Ok(self.utilization)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_machine_is_smoothed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        fs::write(&path, "cpu  10 10 10 70 0 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let source = Source::Host(path.clone());
        let started = Instant::now();
        let mut monitor = CpuUtilization {
            last: source.times(started).ok(),
            source,
            started,
            utilization: 0.0,
        };
        assert!(matches!(monitor.pressure(), Err(MonitorError::NoTime)));
        fs::write(&path, "cpu  60 10 10 120 0 0 0 0 0 0\n").unwrap();
        assert_eq!(monitor.pressure().unwrap(), 0.5 * WEIGHT);
        fs::write(&path, "cpu  110 10 10 120 0 0 0 0 0 0\n").unwrap();
        assert_eq!(monitor.pressure().unwrap(), WEIGHT + 0.5 * WEIGHT * (1.0 - WEIGHT));
        fs::write(&path, "intr 5\n").unwrap();
        assert!(matches!(monitor.pressure(), Err(MonitorError::Content { .. })));
    }

    #[test]
    fn a_cgroup_has_its_quota_or_its_cpus() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert!(Source::of_cgroup(dir.path()).is_none());
        write("cpu.stat", "usage_usec 6000000\nuser_usec 1\n");
        write("cpuset.cpus.effective", "0-2,7\n");
        let source = Source::of_cgroup(dir.path()).unwrap();
        let work = |source: &Source| source.times(Instant::now()).unwrap().work;
        assert_eq!(work(&source), 6.0 / 4.0);
        write("cpu.max", "max 100000\n");
        assert_eq!(work(&source), 6.0 / 4.0);
        write("cpu.max", "150000 100000\n");
        assert_eq!(work(&source), 6.0 / 1.5);
    }

    #[test]
    fn version_1_counts_shares() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cpu")).unwrap();
        fs::create_dir(dir.path().join("cpuacct")).unwrap();
        fs::write(dir.path().join("cpu/cpu.shares"), "2000\n").unwrap();
        fs::write(dir.path().join("cpuacct/cpuacct.usage"), "4000000000\n").unwrap();
        let source = Source::of_cgroup(dir.path()).unwrap();
        assert_eq!(source.times(Instant::now()).unwrap().work, 2.0);
    }
}
