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

fn config(yaml: serde_json::Value) -> crate::config::ConfigResult<StatsConfig> {
    let message = xds_protos::message("envoy.config.metrics.v3.StatsConfig").unwrap();
    let dynamic = xds_protos::prost_reflect::DynamicMessage::deserialize(message, yaml).unwrap();
    StatsConfig::from_proto(dynamic.transcode_to().unwrap(), &[("pod".into(), "p1".into())])
}

#[test]
fn what_is_not_included_does_not_exist() {
    let included = serde_json::json!({"stats_matcher": {"inclusion_list": {"patterns": [
        {"prefix": "cluster.xds-grpc"}, {"suffix": "rq_active"}, {"safe_regex": {"regex": "vhost\\..*\\.route\\..*"}},
        {"exact": "SERVER.LIVE", "ignore_case": true}]}}});
    let store = Store::new(config(included).unwrap(), 1);
    let xds = store.scope("cluster.xds-grpc").block::<Demo>();
    let other = store.scope("cluster.other").block::<Demo>();
    let gone = store.scope("tcp.t").block::<Other>();
    let dynamic = [
        store.scope("vhost.v.route.r").counter("x"),
        store.scope("vhost.v.vcluster").counter("x"),
    ];
    let live = store.root().gauge("server.live");
    [&xds, &other].iter().for_each(|stats| stats.local().rq_total.inc());
    gone.local().rq_total.inc();
    dynamic.iter().for_each(Counter::inc);
    live.set(1);
    assert_eq!(store.counter_value("cluster.xds-grpc.rq_total"), Some(1));
    assert_eq!(store.counter_value("cluster.other.rq_total"), None);
    assert_eq!(store.gauge_value("cluster.other.rq_active"), Some(0));
    assert_eq!(store.counter_value("tcp.t.rq_total"), None);
    assert_eq!(store.counter_value("vhost.v.route.r.x"), Some(1));
    assert_eq!(store.counter_value("vhost.v.vcluster.x"), None);
    assert_eq!(store.gauge_value("server.live"), Some(1));
}

crate::stats_block! {
    struct Other {
        counter rq_total, "Requests";
    }
}

#[test]
fn exclusion_and_rejection() {
    let excluded = serde_json::json!({"stats_matcher": {"exclusion_list": {"patterns": [{"contains": "rq"}]}}});
    let store = Store::new(config(excluded).unwrap(), 1);
    let stats = store.scope("a").block::<Demo>();
    assert_eq!(store.counter_value("a.rq_total"), None);
    assert_eq!(store.counter_value("a.circuit_breakers.default.open"), Some(0));
    drop(stats);
    let nothing = Store::new(
        config(serde_json::json!({"stats_matcher": {"reject_all": true}})).unwrap(),
        1,
    );
    let stats = nothing.scope("a").block::<Demo>();
    stats.local().rq_total.inc();
    assert_eq!(nothing.counter_value("a.rq_total"), None);
}

#[test]
fn tags_and_buckets_of_the_configuration() {
    let store = Store::new(
        config(serde_json::json!({
            "use_all_default_tags": false,
            "stats_tags": [{"tag_name": "envoy.cluster_name"}, {"tag_name": "fixed", "fixed_value": "f"}],
            "histogram_bucket_settings": [{"match": {"prefix": "cluster.a"}, "buckets": [1, 20]}],
        }))
        .unwrap(),
        1,
    );
    let histogram = store.scope("cluster.a").histogram("h", Unit::Milliseconds);
    histogram.record(10);
    let query = render::Query::parse_prometheus("").unwrap();
    let mut text = Vec::new();
    render::prometheus(&store, &query, &mut |piece| text.extend_from_slice(&piece));
    let labels = "pod=\"p1\",fixed=\"f\",envoy_cluster_name=\"a\"";
    let expected = format!(
        "# TYPE envoy_cluster_h histogram\nenvoy_cluster_h_bucket{{{labels},le=\"1\"}} 0\n\
         envoy_cluster_h_bucket{{{labels},le=\"20\"}} 1\nenvoy_cluster_h_bucket{{{labels},le=\"+Inf\"}} 1\n"
    );
    assert!(String::from_utf8(text).unwrap().starts_with(&expected));
}

#[test]
fn errors_name_the_field() {
    let error = |json| config(json).unwrap_err().to_string();
    assert!(
        error(serde_json::json!({"stats_tags": [{"tag_name": "a", "regex": "("}]}))
            .starts_with("stats_tags[0].regex: Invalid regex")
    );
    assert_eq!(
        error(serde_json::json!({"stats_tags": [{"tag_name": "unknown"}]})),
        "stats_tags[0]: No regex specified for tag specifier and no default regex for name: 'unknown'"
    );
    let matcher =
        serde_json::json!({"stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": "["}}]}}});
    assert!(error(matcher).starts_with("stats_matcher.inclusion_list.patterns[0].safe_regex: "));
}

#[test]
fn histograms_keep_few_bins_one_by_one_and_many_all_the_same() {
    let (few, many) = (HistogramCell::default(), HistogramCell::default());
    for value in [0, 7, 7, 1500] {
        few.record(value);
    }
    let of = |cell: &HistogramCell| {
        let mut bins = histogram::Bins::default();
        cell.merge_into(&mut bins);
        bins.iter().map(|(from, _, count)| (from, count)).collect::<Vec<_>>()
    };
    assert_eq!(of(&few), [(0.0, 1), (7.0, 2), (1500.0, 1)]);
    // Twice, so that values of the bins that came first are recorded in both places.
    for value in (1..=50).chain(1..=50) {
        many.record(value);
    }
    assert_eq!(
        of(&many),
        (1..=50).map(|value| (f64::from(value), 2)).collect::<Vec<_>>()
    );
}
