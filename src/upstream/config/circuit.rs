//! `CircuitBreakers` to the limits of both priorities.

use std::sync::Arc;

use xds_protos::envoy::config::{
    cluster::v3::{CircuitBreakers, circuit_breakers::Thresholds, circuit_breakers::thresholds::RetryBudget},
    core::v3::RoutingPriority,
};

use crate::{
    config::{BuildCx, ConfigResult, percent},
    stats::{Scope, Stats},
    upstream::{
        ClusterStats, ResourceManager, ResourcePriority,
        circuit::{Limits, RetryBudget as Budget},
    },
};

const DEFAULT_BUDGET_PERCENT: f64 = 20.0;
const DEFAULT_MIN_RETRY_CONCURRENCY: u64 = 3;

/// The limits of the default and of the high priority.
pub fn build(
    proto: Option<CircuitBreakers>,
    stats: &Stats<ClusterStats>,
    scope: &Scope,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<[Arc<ResourceManager>; 2]> {
    let mut limits = [Limits::default(), Limits::default()];
    if let Some(proto) = proto {
        cx.field("circuit_breakers", |cx| {
            coverage!(cx, proto => CircuitBreakers {
                supported { thresholds }
                ignored { per_host_thresholds: "connections are limited per cluster" }
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
            Ok(())
        })?;
    }
    let [default, high] = limits;
    Ok([
        Arc::new(ResourceManager::new(default, ResourcePriority::Default, stats, scope)),
        Arc::new(ResourceManager::new(high, ResourcePriority::High, stats, scope)),
    ])
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
            supported { budget_percent, min_retry_concurrency }
            ignored { budget_interval: "the budget is taken of the requests in flight" }
        });
        Ok(Budget {
            percent: budget_percent.as_ref().map_or(DEFAULT_BUDGET_PERCENT, percent),
            min_concurrency: min_retry_concurrency.map_or(DEFAULT_MIN_RETRY_CONCURRENCY, |v| v.value.into()),
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
        track_remaining,
    })
}
