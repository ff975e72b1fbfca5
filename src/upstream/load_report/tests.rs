use super::*;
use crate::upstream::tests::{server, static_cluster};

#[test]
fn a_report_has_what_happened_since_the_one_before() {
    let server = server();
    let proto = static_cluster(&[([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()]);
    let resource = xds_protos::any::pack(&proto);
    server.clusters.add_static(proto, resource, &server).unwrap();
    let find = |name: &str| server.clusters.get(name);
    let cluster = find("test").unwrap();
    let hosts: Vec<_> = cluster.hosts.load().hosts().cloned().collect();
    hosts[0].stats.rq_total.fetch_add(7, Relaxed);

    let start = Instant::now();
    let mut reports = LoadReports::default();
    reports.track(["test".to_owned(), "unknown".to_owned()], true, find, start);
    // What was before does not count, and nothing is nothing.
    let report = reports.report(find, start);
    assert_eq!((report.len(), report[0].upstream_locality_stats.len()), (1, 0));

    hosts[0].stats.rq_total.fetch_add(3, Relaxed);
    hosts[0].stats.rq_success.fetch_add(2, Relaxed);
    hosts[0].stats.rq_error.fetch_add(1, Relaxed);
    cluster.info.drops.dropped.fetch_add(4, Relaxed);
    let later = start + std::time::Duration::from_millis(1500);
    let report = &reports.report(find, later)[0];
    let stats = &report.upstream_locality_stats[0];
    assert_eq!(
        (
            stats.total_issued_requests,
            stats.total_successful_requests,
            stats.total_error_requests
        ),
        (3, 2, 1)
    );
    assert_eq!(
        (stats.upstream_endpoint_stats.len(), report.total_dropped_requests),
        (1, 4)
    );
    let interval = report.load_report_interval.as_ref().unwrap();
    assert_eq!((interval.seconds, interval.nanos), (1, 500_000_000));

    // A cluster that is asked for again goes on where it was.
    hosts[1].stats.rq_total.fetch_add(1, Relaxed);
    reports.track(["test".to_owned()], false, find, later);
    let report = &reports.report(find, later)[0];
    assert_eq!(report.upstream_locality_stats[0].total_issued_requests, 1);
    assert!(report.upstream_locality_stats[0].upstream_endpoint_stats.is_empty());
}
