//! The expected texts have the shape Envoy 1.40 gives the same statistics.

use std::sync::Arc;

use super::*;
use crate::stats::{Scope, Stats, StatsConfig, Unit};

crate::stats_block! {
    struct ClusterDemo {
        counter upstream_cx_total, "Connections";
        counter upstream_rq_503, "A field with a tag in it";
        counter(lazy) rare, "Not listed before use";
        gauge upstream_cx_active, "Active connections";
        gauge(hidden) internals, "Hidden";
        histogram(ms) upstream_cx_connect_ms, "Time to connect";
        counter default_match => "default.total_match_count", "Dotted";
    }
}

struct Demo {
    store: Arc<Store>,
    _be: Stats<ClusterDemo>,
    _dotted: Stats<ClusterDemo>,
    _root: Scope,
}

fn demo() -> Demo {
    let store = Store::new(StatsConfig::default(), 1);
    let be = store.scope("cluster.be").block::<ClusterDemo>();
    let dotted = store.scope("cluster.a.b.c").block::<ClusterDemo>();
    let root = store.root();
    be.local().upstream_cx_total.add(3);
    be.local().upstream_cx_active.set(0);
    root.gauge("server.state").set(0);
    root.gauge("cluster_manager.active_clusters").set(2);
    root.text_readout("control_plane.identifier").set("pilot \"x\"\\1");
    Demo {
        store,
        _be: be,
        _dotted: dotted,
        _root: root,
    }
}

fn rendered(store: &Store, query: &str) -> String {
    let mut out = String::new();
    let query = Query::parse(query).unwrap();
    render(store, &query, &mut |piece| {
        out.push_str(std::str::from_utf8(&piece).unwrap())
    });
    out
}

#[test]
fn text_is_sorted_by_name_and_kind() {
    let expected = "\
control_plane.identifier: \"pilot \"x\"\\1\"
cluster.a.b.c.default.total_match_count: 0
cluster.a.b.c.upstream_cx_active: 0
cluster.a.b.c.upstream_cx_total: 0
cluster.a.b.c.upstream_rq_503: 0
cluster.be.default.total_match_count: 0
cluster.be.upstream_cx_active: 0
cluster.be.upstream_cx_total: 3
cluster.be.upstream_rq_503: 0
cluster_manager.active_clusters: 2
server.state: 0
cluster.a.b.c.upstream_cx_connect_ms: No recorded values
cluster.be.upstream_cx_connect_ms: No recorded values
";
    assert_eq!(rendered(&demo().store, ""), expected);
}

#[test]
fn queries_narrow_the_text() {
    let store = demo().store;
    assert_eq!(rendered(&store, "usedonly&type=Gauges"), "");
    let demo = demo();
    let get = |query: &str| rendered(&demo.store, query);
    assert_eq!(
        get("usedonly&filter=^(server|cluster.be).*(state|active)$"),
        "cluster.be.upstream_cx_active: 0\nserver.state: 0\n"
    );
    assert_eq!(
        get("type=Counters&filter=be.*total"),
        "cluster.be.default.total_match_count: 0\ncluster.be.upstream_cx_total: 3\n"
    );
    assert_eq!(get("type=Gauges&filter=cluster.&invert_filter"), "server.state: 0\n");
    assert_eq!(get("hidden=only&filter=be"), "cluster.be.internals: 0\n");
    assert_eq!(get("filter=nothing"), "");
}

#[test]
fn queries_are_read_as_envoy_reads_them() {
    let query = Query::parse("usedonly=1&filter=a%2Eb+&filter=other&type=&format=json&format=text").unwrap();
    assert!(query.used_only);
    assert_eq!(query.filter.unwrap().as_str(), "a.b+");
    assert_eq!((query.types, query.format), (TypeFilter::All, Format::Json));
    assert_eq!(Query::parse("type=Foo").unwrap_err(), InvalidQuery::Type);
    assert_eq!(Query::parse("format=xml").unwrap_err(), InvalidQuery::Format);
    assert_eq!(Query::parse("histogram_buckets=x").unwrap_err(), InvalidQuery::Buckets);
    assert!(matches!(Query::parse("filter=[").unwrap_err(), InvalidQuery::Filter(_)));
    assert_eq!(
        Query::parse("format=prometheus&histogram_buckets=detailed").unwrap_err(),
        InvalidQuery::PrometheusBuckets
    );
    assert_eq!(
        Query::parse_prometheus("format=json").unwrap().format,
        Format::Prometheus
    );
    assert!(Query::parse("filter=%").unwrap().filter.unwrap().is_match("%"));
}

#[test]
fn prometheus_groups_by_extracted_name() {
    let expected = "\
# TYPE envoy_cluster_b_c_default_total_match_count counter
envoy_cluster_b_c_default_total_match_count{envoy_cluster_name=\"a\"} 0
# TYPE envoy_cluster_b_c_upstream_cx_total counter
envoy_cluster_b_c_upstream_cx_total{envoy_cluster_name=\"a\"} 0
# TYPE envoy_cluster_b_c_upstream_rq counter
envoy_cluster_b_c_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"a\"} 0
# TYPE envoy_cluster_default_total_match_count counter
envoy_cluster_default_total_match_count{envoy_cluster_name=\"be\"} 0
# TYPE envoy_cluster_upstream_cx_total counter
envoy_cluster_upstream_cx_total{envoy_cluster_name=\"be\"} 3
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"be\"} 0
# TYPE envoy_cluster_b_c_upstream_cx_active gauge
envoy_cluster_b_c_upstream_cx_active{envoy_cluster_name=\"a\"} 0
# TYPE envoy_cluster_upstream_cx_active gauge
envoy_cluster_upstream_cx_active{envoy_cluster_name=\"be\"} 0
# TYPE envoy_cluster_manager_active_clusters gauge
envoy_cluster_manager_active_clusters{} 2
# TYPE envoy_server_state gauge
envoy_server_state{} 0
";
    let demo = demo();
    assert_eq!(
        rendered(&demo.store, "format=prometheus&filter=connect&invert_filter"),
        expected
    );
    let text = rendered(&demo.store, "format=prometheus&text_readouts&filter=control");
    let line = "envoy_control_plane_identifier{text_value=\"pilot \\\"x\\\"\\\\1\"} 0\n";
    assert_eq!(text, format!("# TYPE envoy_control_plane_identifier gauge\n{line}"));
    let used = rendered(&demo.store, "format=prometheus&usedonly&filter=cluster.be");
    assert!(
        used.contains("cx_active{") && used.contains("cx_total{") && !used.contains("503") && !used.contains("connect")
    );
}

#[test]
fn members_of_a_family_are_in_order_wherever_they_come_from() {
    let store = Store::new(StatsConfig::default(), 1);
    let kept = ["b", "a", "c_c", "c"].map(|name| store.scope(&format!("cluster.{name}")));
    let blocks = [kept[0].block::<ClusterDemo>(), kept[2].block::<ClusterDemo>()];
    let counters = [
        kept[1].counter("upstream_cx_total"),
        kept[3].counter("upstream_cx_total"),
    ];
    let names = "{envoy_cluster_name=\"a\"} 0,{envoy_cluster_name=\"b\"} 0,{envoy_cluster_name=\"c\"} 0,{envoy_cluster_name=\"c_c\"} 0";
    let text = rendered(&store, "format=prometheus&filter=cx_total");
    let lines: Vec<_> = text
        .lines()
        .skip(1)
        .map(|line| line.trim_start_matches("envoy_cluster_upstream_cx_total"))
        .collect();
    assert_eq!(lines.join(","), names);
    drop((blocks, counters));
}

#[test]
fn histograms_of_blocks_are_read_by_group() {
    let store = Store::new(StatsConfig::default(), 1);
    let blocks = ["a", "b", "c"].map(|name| store.scope(&format!("cluster.{name}")).block::<ClusterDemo>());
    blocks[0].local().upstream_cx_connect_ms.record(3);
    blocks[1].local().upstream_cx_total.inc();
    assert_eq!(rendered(&store, "format=prometheus&usedonly&filter=connect"), "");
    store.flush();
    let used = rendered(&store, "format=prometheus&usedonly&filter=connect");
    assert!(used.contains("_bucket{envoy_cluster_name=\"a\",le=\"5\"} 1\n") && !used.contains("\"b\""));
    let all = rendered(&store, "format=prometheus&filter=connect");
    assert!(all.contains("_count{envoy_cluster_name=\"b\"} 0\n") && all.contains("_sum{envoy_cluster_name=\"c\"} 0\n"));
}

#[test]
fn given_tags_and_namespaces() {
    let store = Store::new(StatsConfig::default(), 1);
    store.register_namespace("istiocustom");
    let scope = store.scope("istiocustom");
    let requests = scope.counter_tagged("istio_requests_total", &[("reporter", "source"), ("app", "a\"b")]);
    requests.inc();
    let tagged = store.scope_tagged("cluster.x.y", &[("envoy.cluster_name", "x.y")], "cluster.");
    let counters = [tagged.counter("upstream_cx_total"), tagged.counter("upstream_rq_200")];
    let expected = "\
# TYPE envoy_cluster_upstream_cx_total counter
envoy_cluster_upstream_cx_total{envoy_cluster_name=\"x.y\"} 0
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"x.y\"} 0
# TYPE istio_requests_total counter
istio_requests_total{reporter=\"source\",app=\"a\\\"b\"} 1
";
    assert_eq!(rendered(&store, "format=prometheus"), expected);
    assert_eq!(
        rendered(&store, "filter=istio"),
        "istiocustom.istio_requests_total.reporter.source.app.a\"b: 1\n"
    );
    drop(counters);
}

/// A store with one histogram that recorded 0 twenty-one times, 1 thirteen times and so on; the second flush ends an
/// interval of one more value.
fn histogram() -> (Arc<Store>, crate::stats::Histogram) {
    let store = Store::new(StatsConfig::default(), 1);
    let histogram = store.root().histogram("h", Unit::Milliseconds);
    for (value, count) in [(0, 21), (1, 13), (4, 2), (8, 1), (10, 2), (15, 1)] {
        (0..count).for_each(|_| histogram.record(value));
    }
    store.flush();
    histogram.record(1299);
    store.flush();
    (store, histogram)
}

#[test]
fn histograms_in_text() {
    let (store, _histogram) = histogram();
    let get = |mode: &str| rendered(&store, &format!("histogram_buckets={mode}"));
    assert_eq!(
        get("summary"),
        "h: P0(1250,0) P25(1250,0) P50(1250,0) P75(1250,1.0714285714285714) P90(1250,8.05) P95(1250,10.666666666666666) \
         P99(1250,1250) P99.5(1250,1250) P99.9(1250,1250) P100(1250,1250)\n"
    );
    assert_eq!(
        get("cumulative"),
        "h: B0.5(0,21) B1(0,34) B5(0,36) B10(0,39) B25(0,40) B50(0,40) B100(0,40) B250(0,40) B500(0,40) B1000(0,40) \
         B2500(1,41) B5000(1,41) B10000(1,41) B30000(1,41) B60000(1,41) B300000(1,41) B600000(1,41) B1.8e+06(1,41) \
         B3.6e+06(1,41)\n"
    );
    assert!(get("disjoint").starts_with("h: B0.5(0,21) B1(0,13) B5(0,2) B10(0,3) B25(0,1) B50(0,0)"));
    assert!(get("detailed").starts_with(
        "h:\n  totals=0,0:21, 1,0.1:13, 4,0.1:2, 8,0.1:1, 10,1:2, 15,1:1, 1200,100:1\n  intervals=1200,100:1\n  summary=P0("
    ));
}

#[test]
fn histograms_in_json() {
    let (store, _histogram) = histogram();
    let json: serde_json::Value = serde_json::from_str(&rendered(&store, "format=json")).unwrap();
    let histograms = &json["stats"][0]["histograms"];
    assert_eq!(
        histograms["supported_quantiles"].to_string(),
        "[0,25,50,75,90,95,99,99.5,99.9,100]"
    );
    assert_eq!(
        histograms["computed_quantiles"][0]["values"][3]["cumulative"],
        1.0714285714285714
    );
    let text = rendered(&store, "format=json&histogram_buckets=cumulative");
    assert!(text.contains("{\"upper_bound\":3e+05,\"interval\":1,\"cumulative\":41},{\"upper_bound\":6e+05,"));
    assert!(text.ends_with("{\"upper_bound\":3600000,\"interval\":1,\"cumulative\":41}]}]}]}"));
    let detailed: serde_json::Value =
        serde_json::from_str(&rendered(&store, "format=json&histogram_buckets=detailed")).unwrap();
    let details = &detailed["stats"][0]["histograms"]["details"][0];
    assert_eq!(
        details["intervals"].to_string(),
        "[{\"lower_bound\":1200,\"width\":100,\"count\":1}]"
    );
}

#[test]
fn json_without_histograms_and_without_anything() {
    let demo = demo();
    assert_eq!(rendered(&demo.store, "format=json&filter=nothing"), "{\"stats\":[]}");
    assert_eq!(
        rendered(&demo.store, "format=json&filter=server|control"),
        "{\"stats\":[{\"name\":\"control_plane.identifier\",\"value\":\"pilot \\\"x\\\"\\\\1\"},\
         {\"name\":\"server.state\",\"value\":0}]}"
    );
    let unused = rendered(&demo.store, "format=json&filter=be.*connect");
    assert!(unused.contains("\"values\":[{\"cumulative\":null,\"interval\":null},"));
}

#[test]
fn histograms_in_prometheus() {
    let (store, _histogram) = histogram();
    let text = rendered(&store, "format=prometheus");
    assert!(text.starts_with("# TYPE envoy_h histogram\nenvoy_h_bucket{le=\"0.5\"} 21\nenvoy_h_bucket{le=\"1\"} 34\n"));
    assert!(text.contains("envoy_h_bucket{le=\"3600000\"} 41\nenvoy_h_bucket{le=\"+Inf\"} 41\nenvoy_h_sum{} 13"));
    assert!(text.ends_with("envoy_h_count{} 41\n"));
    let summary = rendered(&store, "format=prometheus&histogram_buckets=summary");
    assert!(
        summary.starts_with("# TYPE envoy_h summary\nenvoy_h{quantile=\"0\"} 1250\nenvoy_h{quantile=\"0.25\"} 1250\n")
    );
    assert!(summary.ends_with("envoy_h_sum{} 1248\nenvoy_h_count{} 1\n"));
}

#[test]
fn numbers() {
    use super::number::{general, json, shortest};
    assert_eq!(shortest(1.0083333333333333), "1.0083333333333333");
    assert_eq!(
        [shortest(99.5), shortest(1e16), shortest(f64::NAN), shortest(0.0)],
        ["99.5", "1e+16", "nan", "0"]
    );
    assert_eq!(
        [json(300000.0), json(1800000.0), json(0.5), json(10000.0)],
        ["3e+05", "1800000", "0.5", "10000"]
    );
    assert_eq!(
        [general(1.8e6, 6), general(300000.0, 6), general(0.5, 6)],
        ["1.8e+06", "300000", "0.5"]
    );
    assert_eq!(general(4.049382716049383, 32), "4.0493827160493829353526962222531");
    assert_eq!([general(0.0, 32), general(999999.5, 6)], ["0", "1e+06"]);
}

#[test]
fn large_stores_come_in_pieces() {
    let store = Store::new(StatsConfig::default(), 1);
    let blocks: Vec<_> = (0..3000)
        .map(|i| store.scope(&format!("cluster.c{i}")).block::<ClusterDemo>())
        .collect();
    for format in ["text", "json", "prometheus"] {
        let (mut pieces, mut largest) = (0, 0);
        let query = Query::parse(&format!("format={format}")).unwrap();
        render(&store, &query, &mut |piece| {
            pieces += 1;
            largest = largest.max(piece.len());
        });
        assert!(
            pieces > 2 && largest < PIECE + PIECE / 4,
            "{format}: {pieces} pieces, largest {largest}"
        );
    }
    drop(blocks);
}
