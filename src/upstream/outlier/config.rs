//! `envoy.config.cluster.v3.OutlierDetection` to [`Config`].

use std::{
    sync::{Mutex, atomic::AtomicU64},
    time::Duration,
};

use xds_protos::{envoy::config::cluster::v3::OutlierDetection as Proto, google::protobuf::UInt32Value};

use super::{
    OutlierDetector,
    penalty::Times,
    rates::{Comparison, Threshold},
};
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    runtime::{Key, OutlierKeys},
    stats::Scope,
};

/// A limit of failures in a row, and how surely it ejects.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// 0: none.
    pub after: u32,
    /// Percent.
    pub enforcing: u32,
}

/// How surely a comparison ejects, percent.
#[derive(Debug, Clone, Copy)]
pub struct Enforcing {
    /// `enforcing_success_rate`, 100
    pub success_rate: u32,
    /// `enforcing_local_origin_success_rate`, 100
    pub local_success_rate: u32,
    /// `enforcing_failure_percentage`, 0
    pub failure_percentage: u32,
    /// `enforcing_failure_percentage_local_origin`, 0
    pub local_failure_percentage: u32,
}

/// `outlier_detection` of a cluster. The runtime may override every number.
#[derive(Debug, Clone)]
pub struct Config {
    /// `consecutive_5xx`, 5
    pub consecutive_5xx: Limit,
    /// `consecutive_gateway_failure`, 5, of which none ejects
    pub gateway: Limit,
    /// `consecutive_local_origin_failure`, 5
    pub local: Limit,
    /// What compares hosts with one another.
    pub comparison: Comparison,
    /// How surely that ejects.
    pub enforcing: Enforcing,
    /// `split_external_local_origin_errors`
    pub split: bool,
    /// `detect_degraded_hosts`
    pub detect_degraded: bool,
    interval: Duration,
    times: Times,
    /// `max_ejection_percent`, 10
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`
    pub always_eject_one: bool,
    /// `successful_active_health_check_uneject_host`, true
    pub readmit_checked: bool,
}

impl Config {
    /// `interval`, 10 s: the time between two sweeps.
    pub fn interval(&self, keys: &OutlierKeys) -> Duration {
        time(&keys.interval_ms, self.interval).max(Duration::from_millis(1))
    }

    /// How long hosts are ejected.
    pub fn times(&self, keys: &OutlierKeys) -> Times {
        Times {
            base: time(&keys.base_ejection_time_ms, self.times.base),
            longest: time(&keys.max_ejection_time_ms, self.times.longest),
            jitter: time(&keys.max_ejection_time_jitter_ms, self.times.jitter),
        }
    }
}

impl OutlierDetector {
    /// Builds `outlier_detection`; statistics stand below the cluster's `scope`.
    pub fn build(proto: Proto, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Ok(Self {
            config: build(proto, cx)?,
            stats: scope.block(),
            ejected: AtomicU64::new(0),
            compared: Mutex::new([Threshold::default(); 2]),
        })
    }
}

fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Config> {
    coverage!(cx, proto => Proto {
        supported {
            consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
            consecutive_gateway_failure, enforcing_consecutive_gateway_failure,
            split_external_local_origin_errors, consecutive_local_origin_failure,
            enforcing_consecutive_local_origin_failure, max_ejection_time, max_ejection_time_jitter,
            always_eject_one_host, successful_active_health_check_uneject_host, enforcing_success_rate,
            success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
            enforcing_local_origin_success_rate, failure_percentage_threshold, enforcing_failure_percentage,
            enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts,
            failure_percentage_request_volume, detect_degraded_hosts
        }
        // Envoy has the field, and no monitor that could be named in it.
        rejected { monitors: "outlier detection monitors" }
    });
    let base = base_ejection_time.or_duration(Duration::from_secs(30));
    let longest = max_ejection_time.or_duration(Duration::from_secs(300).max(base));
    if longest < base {
        return Err(cx.error("outlier detector's max_ejection_time cannot be smaller than base_ejection_time"));
    }
    let limit = |after, enforcing, default| Limit {
        after: number(after, 5),
        enforcing: number(enforcing, default),
    };
    Ok(Config {
        consecutive_5xx: limit(consecutive_5xx, enforcing_consecutive_5xx, 100),
        gateway: limit(consecutive_gateway_failure, enforcing_consecutive_gateway_failure, 0),
        local: limit(
            consecutive_local_origin_failure,
            enforcing_consecutive_local_origin_failure,
            100,
        ),
        comparison: Comparison {
            minimum_hosts: number(success_rate_minimum_hosts, 5),
            request_volume: number(success_rate_request_volume, 100),
            stdev_factor: number(success_rate_stdev_factor, 1900),
            failure_threshold: number(failure_percentage_threshold, 85),
            failure_minimum_hosts: number(failure_percentage_minimum_hosts, 5),
            failure_request_volume: number(failure_percentage_request_volume, 50),
        },
        enforcing: Enforcing {
            success_rate: number(enforcing_success_rate, 100),
            local_success_rate: number(enforcing_local_origin_success_rate, 100),
            failure_percentage: number(enforcing_failure_percentage, 0),
            local_failure_percentage: number(enforcing_failure_percentage_local_origin, 0),
        },
        split: split_external_local_origin_errors,
        detect_degraded: detect_degraded_hosts.is_some_and(|v| v.value),
        interval: interval.or_duration(Duration::from_secs(10)),
        times: Times {
            base,
            longest,
            jitter: max_ejection_time_jitter.or_duration(Duration::ZERO),
        },
        max_ejection_percent: number(max_ejection_percent, 10).min(100),
        always_eject_one: always_eject_one_host.is_some_and(|v| v.value),
        readmit_checked: successful_active_health_check_uneject_host.is_none_or(|v| v.value),
    })
}

/// A wrapped number or its default.
fn number(value: Option<UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |v| v.value)
}

fn time(key: &Key, own: Duration) -> Duration {
    Duration::from_millis(key.integer(u64::try_from(own.as_millis()).unwrap_or(u64::MAX)))
}
