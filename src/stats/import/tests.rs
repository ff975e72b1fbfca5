use std::sync::Arc;

use crate::{
    stats::{Exporter, ScopeValues, Stats, Store},
    stats_block,
};

stats_block! {
    struct Traffic {
        counter rq_total, "Requests";
        gauge rq_active, "Open requests";
        gauge(never_import) version, "Of the configuration";
        counter(lazy) rare, "Seldom";
    }
}

/// A process that has served: 7 requests, 2 of them open.
fn parent() -> (Arc<Store>, Stats<Traffic>) {
    let store = Store::new(Default::default(), 2);
    let traffic: Stats<Traffic> = store.scope("http.a.").block();
    traffic.local().rq_total.add(7);
    traffic.local().rq_active.add(2);
    traffic.local().version.set(99);
    (store, traffic)
}

fn child() -> Arc<Store> {
    Store::with_imports(Default::default(), 2, true)
}

fn changed(exporter: &mut Exporter, store: &Store) -> Vec<ScopeValues> {
    let mut all = Vec::new();
    exporter.changed(store, |scope, _| all.push(scope));
    all
}

fn pass(exporter: &mut Exporter, from: &Store, to: &Store) {
    changed(exporter, from).into_iter().for_each(|scope| to.import(scope));
}

#[test]
fn values_are_added_and_open_things_end_with_their_process() {
    let (store, traffic) = parent();
    let child = child();
    let own: Stats<Traffic> = child.scope("http.a.").block();
    own.local().rq_total.inc();
    own.local().rq_active.inc();
    own.local().version.set(1);
    let mut exporter = Exporter::default();
    pass(&mut exporter, &store, &child);
    assert_eq!(child.counter_value("http.a.rq_total"), Some(8));
    assert_eq!(child.gauge_value("http.a.rq_active"), Some(3));
    assert_eq!(child.gauge_value("http.a.version"), Some(1));

    traffic.local().rq_total.inc();
    traffic.local().rq_active.sub(2);
    pass(&mut exporter, &store, &child);
    assert_eq!(child.counter_value("http.a.rq_total"), Some(9));
    assert_eq!(child.gauge_value("http.a.rq_active"), Some(1));

    traffic.local().rq_active.add(5);
    pass(&mut exporter, &store, &child);
    assert_eq!(child.gauge_value("http.a.rq_active"), Some(6));
    child.end_import();
    assert_eq!(child.gauge_value("http.a.rq_active"), Some(1));
    assert_eq!(child.counter_value("http.a.rq_total"), Some(9));
}

#[test]
fn only_what_changed_is_sent_and_a_second_child_gets_everything() {
    let (store, traffic) = parent();
    let mut exporter = Exporter::default();
    assert_eq!(changed(&mut exporter, &store).len(), 1);
    assert!(changed(&mut exporter, &store).is_empty());
    traffic.local().rq_total.inc();
    let again = changed(&mut exporter, &store);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].numbers.len(), 1);
    assert_eq!(changed(&mut Exporter::default(), &store)[0].numbers.len(), 2);
}

#[test]
fn what_is_made_later_finds_its_value() {
    let (store, traffic) = parent();
    traffic.local().rare.inc();
    let codes = store.scope("cluster.b.").codes("");
    codes.charge(503, false);
    let dynamic = store.scope("cluster.b.").counter("by.name");
    dynamic.add(4);
    let tagged = store.scope("http.a.").counter_tagged("hits", &[("who", "me")]);
    tagged.add(2);
    let child = child();
    pass(&mut Exporter::default(), &store, &child);
    assert_eq!(child.counter_value("http.a.rq_total"), None);

    let _own: Stats<Traffic> = child.scope("http.a.").block();
    assert_eq!(child.counter_value("http.a.rq_total"), Some(7));
    assert_eq!(child.counter_value("http.a.rare"), Some(1));
    let own = child.scope("cluster.b.").codes("");
    own.charge(503, false);
    assert_eq!(child.counter_value("cluster.b.upstream_rq_5xx"), Some(2));
    assert_eq!(child.counter_value("cluster.b.external.upstream_rq_503"), Some(2));
    assert_eq!(child.scope("cluster.b.").counter("by.name").value(), 4);
    let own = child.scope("http.a.").counter_tagged("hits", &[("who", "me")]);
    assert_eq!(own.value(), 2);
}

#[test]
fn counters_that_were_reset_stay_so() {
    let (store, traffic) = parent();
    let child = child();
    let _own: Stats<Traffic> = child.scope("http.a.").block();
    let mut exporter = Exporter::default();
    pass(&mut exporter, &store, &child);
    child.reset_counters();
    traffic.local().rq_total.inc();
    pass(&mut exporter, &store, &child);
    assert_eq!(child.counter_value("http.a.rq_total"), Some(0));
    assert_eq!(child.gauge_value("http.a.rq_active"), Some(2));
}
