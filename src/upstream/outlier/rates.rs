//! Hosts compared with one another, and with a fixed share of failures, once in every interval.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Cause;
use crate::{
    runtime::{Key, OutlierKeys},
    upstream::{HealthFlag, Host},
};

/// Answers of one host in the present interval, and its rate in the last one.
#[derive(Debug)]
pub struct Rate {
    total: AtomicU64,
    success: AtomicU64,
    /// Bits of a number of percent; -1 for too few answers.
    last: AtomicU64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            total: AtomicU64::new(0),
            success: AtomicU64::new(0),
            last: AtomicU64::new((-1.0_f64).to_bits()),
        }
    }
}

impl Rate {
    /// Counts one answer.
    pub fn count(&self, success: bool) {
        self.total.fetch_add(1, Relaxed);
        if success {
            self.success.fetch_add(1, Relaxed);
        }
    }

    /// Success in percent, in the last interval; -1 if nothing can be said.
    pub fn last(&self) -> f64 {
        f64::from_bits(self.last.load(Relaxed))
    }

    fn set_last(&self, rate: f64) {
        self.last.store(rate.to_bits(), Relaxed);
    }

    /// Ends the interval: the rate and how many answers it stands for, if there were any.
    fn finish(&self) -> Option<(f64, u64)> {
        let (total, success) = (self.total.swap(0, Relaxed), self.success.swap(0, Relaxed));
        self.set_last(-1.0);
        (total > 0).then(|| (success.min(total) as f64 * 100.0 / total as f64, total))
    }
}

/// What success rates were compared with; -1 where they were not.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// The average of all hosts, percent.
    pub average: f64,
    /// Hosts below it are ejected, percent.
    pub ejection: f64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            average: -1.0,
            ejection: -1.0,
        }
    }
}

/// The numbers of `outlier_detection` for comparisons; the runtime may override each.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// `success_rate_minimum_hosts`, 5
    pub minimum_hosts: u32,
    /// `success_rate_request_volume`, 100
    pub request_volume: u32,
    /// `success_rate_stdev_factor`, 1900: thousandths
    pub stdev_factor: u32,
    /// `failure_percentage_threshold`, 85
    pub failure_threshold: u32,
    /// `failure_percentage_minimum_hosts`, 5
    pub failure_minimum_hosts: u32,
    /// `failure_percentage_request_volume`, 50
    pub failure_request_volume: u32,
}

impl Comparison {
    /// Ends the interval for all hosts, and says whom to eject, why, and what they were compared with.
    pub fn finish(&self, hosts: &[Arc<Host>], local: bool, keys: &OutlierKeys) -> (Vec<(Arc<Host>, Cause)>, Threshold) {
        let of = |key: &Key, own: u32| key.integer(own.into());
        let minimum_hosts = of(&keys.success_rate_minimum_hosts, self.minimum_hosts);
        let volume = of(&keys.success_rate_request_volume, self.request_volume);
        let failure_hosts = of(&keys.failure_percentage_minimum_hosts, self.failure_minimum_hosts);
        let failure_volume = of(&keys.failure_percentage_request_volume, self.failure_request_volume);
        let rates: Vec<_> = hosts
            .iter()
            .filter_map(|h| Some((h, h.outlier_if_any()?.rate(local).finish())))
            .collect();
        let (mut ejected, mut threshold) = (Vec::new(), Threshold::default());
        if (hosts.len() as u64) < minimum_hosts.min(failure_hosts) {
            return (ejected, threshold);
        }
        let (mut compared, mut judged) = (Vec::new(), Vec::new());
        for (host, rate) in rates {
            let Some((rate, answers)) = rate.filter(|_| !host.has_flag(HealthFlag::FailedOutlierCheck)) else {
                continue;
            };
            if answers >= volume.min(failure_volume) {
                host.outlier().rate(local).set_last(rate);
            }
            if answers >= volume {
                compared.push((host, rate));
            }
            if answers >= failure_volume {
                judged.push((host, rate));
            }
        }
        if !compared.is_empty() && compared.len() as u64 >= minimum_hosts {
            let factor = of(&keys.success_rate_stdev_factor, self.stdev_factor) as f64 / 1000.0;
            threshold = spread(&compared, factor);
            let cause = match local {
                false => Cause::SuccessRate,
                true => Cause::LocalOriginSuccessRate,
            };
            let low = compared.iter().filter(|(_, rate)| *rate < threshold.ejection);
            ejected.extend(low.map(|(host, _)| (Arc::clone(host), cause)));
        }
        if !judged.is_empty() && judged.len() as u64 >= failure_hosts {
            let most = of(&keys.failure_percentage_threshold, self.failure_threshold) as f64;
            let cause = match local {
                false => Cause::FailurePercentage,
                true => Cause::LocalOriginFailurePercentage,
            };
            let bad = judged.iter().filter(|(_, rate)| 100.0 - rate >= most);
            ejected.extend(bad.map(|(host, _)| (Arc::clone(host), cause)));
        }
        (ejected, threshold)
    }
}

/// The average, and what lies so many standard deviations below it.
fn spread(rates: &[(&Arc<Host>, f64)], factor: f64) -> Threshold {
    let count = rates.len() as f64;
    let average = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - average).powi(2)).sum::<f64>() / count;
    Threshold {
        average,
        ejection: average - factor * variance.sqrt(),
    }
}

#[cfg(test)]
mod tests;
