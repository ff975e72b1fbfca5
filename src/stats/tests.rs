use super::*;

crate::stats_block! {
    /// For the tests.
    struct Demo {
        counter rq_total, "Requests";
        gauge rq_active, "Requests in flight";
        histogram(ms) rq_time, "Time";
        counter open => "circuit_breakers.default.open", "Dotted";
        counter(lazy) rare, "Not listed before use";
    }
}

#[test]
fn shards_are_summed() {
    let store = Store::new(StatsConfig::default(), 2);
    let stats = store.scope("cluster.foo").block::<Demo>();
    assert_eq!(store.counter_value("cluster.foo.rq_total"), Some(0));
    std::thread::scope(|threads| {
        for worker in 0..2 {
            let stats = stats.clone();
            threads.spawn(move || {
                enter_shard(worker);
                stats.local().rq_total.add(5);
                if worker == 0 {
                    stats.local().rq_active.add(3)
                } else {
                    stats.local().rq_active.dec()
                }
            });
        }
    });
    stats.local().rq_total.inc();
    stats.local().open.inc();
    assert_eq!(store.counter_value("cluster.foo.rq_total"), Some(11));
    assert_eq!(
        store.counter_value("cluster.foo.circuit_breakers.default.open"),
        Some(1)
    );
    assert_eq!(store.gauge_value("cluster.foo.rq_active"), Some(2));
    assert_eq!(store.counter_value("cluster.foo.rare"), None);
    stats.local().rare.inc();
    assert_eq!(store.counter_value("cluster.foo.rare"), Some(1));
}

#[test]
fn a_name_has_one_scope_and_one_block() {
    let store = Store::new(StatsConfig::default(), 1);
    let first = store.scope("cluster.foo.");
    let second = store.scope("cluster").scope("foo");
    first.block::<Demo>().local().rq_total.inc();
    second.block::<Demo>().local().rq_total.inc();
    first.counter("x").inc();
    second.counter("x").add(2);
    assert_eq!(store.counter_value("cluster.foo.rq_total"), Some(2));
    assert_eq!(store.counter_value("cluster.foo.x"), Some(3));
    drop(first);
    assert_eq!(store.counter_value("cluster.foo.x"), Some(3));
    drop(second);
    assert_eq!(store.counter_value("cluster.foo.x"), None);
    assert_eq!(store.scope("cluster.foo").counter("x").value(), 0);
}

#[test]
fn a_handle_keeps_its_scope_listed() {
    let store = Store::new(StatsConfig::default(), 1);
    let stats = store.scope("a").block::<Demo>();
    let counter = store.scope("b").counter("c");
    let codes = store.scope("d").codes("");
    counter.inc();
    codes.charge(200, false);
    assert_eq!(store.counter_value("a.rq_total"), Some(0));
    assert_eq!(store.counter_value("b.c"), Some(1));
    assert_eq!(store.counter_value("d.upstream_rq_200"), Some(1));
    drop((stats, counter, codes));
    assert_eq!(store.counter_value("a.rq_total"), None);
    assert_eq!(store.counter_value("b.c"), None);
    assert_eq!(store.counter_value("d.upstream_rq_200"), None);
}

#[test]
fn names_of_configuration_are_cleaned() {
    let store = Store::new(StatsConfig::default(), 1);
    let counter = store.scope("cluster.").scope("http://a:b.").counter("x");
    counter.inc();
    assert_eq!(store.counter_value("cluster.http_a_b.x"), Some(1));
}

#[test]
fn kinds_of_one_name_do_not_disturb_each_other() {
    let store = Store::new(StatsConfig::default(), 1);
    let scope = store.scope("a");
    scope.counter("x").inc();
    scope.gauge("x").set(7);
    scope.gauge("x").inc();
    assert_eq!(store.counter_value("a.x"), Some(1));
    assert_eq!(store.gauge_value("a.x"), Some(8));
}

#[test]
fn response_codes() {
    let store = Store::new(StatsConfig::default(), 1);
    let scope = store.scope("cluster.c");
    let codes = scope.codes("");
    codes.charge(200, false);
    codes.charge(204, true);
    codes.charge_as(
        503,
        Charge {
            canary: true,
            completed_only: true,
            ..Charge::default()
        },
    );
    codes.charge(700, false);
    for code in 400..420 {
        codes.charge_basic(code);
    }
    let value = |name: &str| store.counter_value(&format!("cluster.c.{name}"));
    assert_eq!(value("upstream_rq_completed"), Some(24));
    assert_eq!(value("upstream_rq_2xx"), Some(2));
    assert_eq!(value("upstream_rq_200"), Some(1));
    assert_eq!(value("internal.upstream_rq_204"), Some(1));
    assert_eq!(value("internal.upstream_rq_200"), None);
    assert_eq!(value("external.upstream_rq_5xx"), Some(1));
    assert_eq!(value("canary.upstream_rq_503"), Some(1));
    assert_eq!(value("upstream_rq_503"), None);
    assert_eq!(value("upstream_rq_5xx"), None);
    assert_eq!(value("upstream_rq_unknown"), Some(1));
    assert_eq!(value("upstream_rq_4xx"), Some(20));
    assert_eq!(value("upstream_rq_419"), Some(1));
}
