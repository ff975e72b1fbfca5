use super::*;
use crate::stats::Store;

#[test]
fn gauges_follow_the_limits() {
    let store = Store::new(Default::default(), 1);
    let scope = store.scope("cluster.c.");
    let stats: Stats<ClusterStats> = scope.block();
    let limits = Limits {
        requests: 2,
        retries: 1,
        track_remaining: true,
        ..Limits::default()
    };
    let manager = Arc::new(ResourceManager::new(limits, ResourcePriority::Default, &stats, &scope));
    let open = || store.gauge_value("cluster.c.circuit_breakers.default.rq_open");
    let remaining = || store.gauge_value("cluster.c.circuit_breakers.default.remaining_rq");
    assert_eq!(
        (manager.requests.can_create(), open(), remaining()),
        (true, Some(0), Some(2))
    );
    manager.requests.inc();
    manager.requests.inc();
    assert_eq!(
        (manager.requests.can_create(), open(), remaining()),
        (false, Some(1), Some(0))
    );
    // More than allowed happens when two workers look at once.
    manager.requests.inc();
    assert_eq!((open(), remaining()), (Some(1), Some(0)));
    manager.requests.dec();
    manager.requests.dec();
    assert_eq!(
        (manager.requests.can_create(), open(), remaining()),
        (true, Some(0), Some(1))
    );

    let retry = manager.try_retry();
    assert!(retry.is_some() && manager.try_retry().is_none());
    drop(retry);
    assert!(manager.try_retry().is_some());
    drop(manager);
    assert_eq!(remaining(), Some(0));
}

#[test]
fn retry_budget_is_a_share_of_what_is_in_flight() {
    let store = Store::new(Default::default(), 1);
    let scope = store.scope("cluster.c.");
    let limits = Limits {
        retry_budget: Some(RetryBudget {
            percent: 20.0,
            min_concurrency: 3,
            interval: None,
        }),
        ..Limits::default()
    };
    let manager = ResourceManager::new(limits, ResourcePriority::High, &scope.block(), &scope);
    assert_eq!(manager.max_retries(), 3);
    (0..50).for_each(|_| manager.requests.inc());
    assert_eq!(manager.max_retries(), 10);
}
