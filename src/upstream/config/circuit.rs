//! `CircuitBreakers` to the limits of both priorities.

use xds_protos::envoy::config::{
    cluster::v3::{CircuitBreakers, circuit_breakers::Thresholds, circuit_breakers::thresholds::RetryBudget},
    core::v3::RoutingPriority,
};

use crate::{
    config::{BuildCx, ConfigResult, duration, percent},
    upstream::circuit::{Limits, RetryBudget as Budget},
};

/// The limits of the default and of the high priority.
pub fn build(proto: Option<CircuitBreakers>, cx: &mut BuildCx<'_>) -> ConfigResult<[Limits; 2]> {
    let mut limits = [Limits::default(), Limits::default()];
    if let Some(proto) = proto {
        cx.field("circuit_breakers", |cx| {
            coverage!(cx, proto => CircuitBreakers {
                supported { thresholds, per_host_thresholds }
            });
            let mut seen = [false; 2];
            for threshold in thresholds {
                let index = usize::from(threshold.priority() == RoutingPriority::High);
                let built = self::thresholds(threshold, cx)?;
                // Envoy takes the first of a priority.
                if !std::mem::replace(&mut seen[index], true) {
                    limits[index] = built;
                }
            }
            let mut seen = [false; 2];
            for threshold in per_host_thresholds {
                let index = usize::from(threshold.priority() == RoutingPriority::High);
                let others = threshold.max_pending_requests.is_some()
                    || threshold.max_requests.is_some()
                    || threshold.max_retries.is_some()
                    || threshold.max_connection_pools.is_some()
                    || threshold.retry_budget.is_some();
                if others || threshold.track_remaining {
                    return Err(cx.error("Unsupported field in per_host_thresholds, only max_connections is supported"));
                }
                if let Some(max) = threshold.max_connections
                    && !std::mem::replace(&mut seen[index], true)
                {
                    limits[index].connections_per_host = max.value.into();
                }
            }
            Ok(())
        })?;
    }
    Ok(limits)
}

fn thresholds(proto: Thresholds, cx: &mut BuildCx<'_>) -> ConfigResult<Limits> {
    coverage!(cx, proto => Thresholds {
        supported {
            priority, max_connections, max_pending_requests, max_requests, max_retries, retry_budget, track_remaining,
            max_connection_pools
        }
    });
    let _ = priority;
    let retry_budget = cx.opt("retry_budget", retry_budget, |budget, cx| {
        coverage!(cx, budget => RetryBudget {
            supported { budget_percent, min_retry_concurrency, budget_interval }
        });
        let defaults = Budget::default();
        Ok(Budget {
            percent: budget_percent.as_ref().map_or(defaults.percent, percent),
            min_concurrency: min_retry_concurrency.map_or(defaults.min_concurrency, |v| v.value.into()),
            interval: budget_interval.as_ref().map(duration).filter(|d| !d.is_zero()),
        })
    })?;
    let defaults = Limits::default();
    Ok(Limits {
        connections: max_connections.map_or(defaults.connections, |v| v.value.into()),
        pending_requests: max_pending_requests.map_or(defaults.pending_requests, |v| v.value.into()),
        requests: max_requests.map_or(defaults.requests, |v| v.value.into()),
        retries: max_retries.map_or(defaults.retries, |v| v.value.into()),
        connection_pools: max_connection_pools.map_or(defaults.connection_pools, |v| v.value.into()),
        retry_budget,
        connections_per_host: defaults.connections_per_host,
        track_remaining,
    })
}
