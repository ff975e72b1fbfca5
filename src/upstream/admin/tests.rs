use super::*;
use crate::upstream::tests::{add, local, running_server, static_cluster};

#[test]
fn clusters_as_envoy_prints_them() {
    local(async {
        let (server, _worker) = running_server();
        add(&server, static_cluster(&["127.0.0.1:19555".parse().unwrap()]));
        let text = text(&server);
        let expected = "\
test::observability_name::test
test::default_priority::max_connections::1024
test::default_priority::max_pending_requests::1024
test::default_priority::max_requests::1024
test::default_priority::max_retries::3
test::high_priority::max_connections::1024
test::high_priority::max_pending_requests::1024
test::high_priority::max_requests::1024
test::high_priority::max_retries::3
test::added_via_api::false
test::127.0.0.1:19555::cx_active::0
test::127.0.0.1:19555::cx_connect_fail::0
test::127.0.0.1:19555::cx_total::0
test::127.0.0.1:19555::rq_active::0
test::127.0.0.1:19555::rq_error::0
test::127.0.0.1:19555::rq_pending_active::0
test::127.0.0.1:19555::rq_success::0
test::127.0.0.1:19555::rq_timeout::0
test::127.0.0.1:19555::rq_total::0
test::127.0.0.1:19555::hostname::
test::127.0.0.1:19555::health_flags::healthy
test::127.0.0.1:19555::weight::1
test::127.0.0.1:19555::region::
test::127.0.0.1:19555::zone::
test::127.0.0.1:19555::sub_zone::
test::127.0.0.1:19555::canary::false
test::127.0.0.1:19555::priority::0
test::127.0.0.1:19555::success_rate::-1
test::127.0.0.1:19555::local_origin_success_rate::-1
";
        assert_eq!(text, expected);
        let all = clusters(&server);
        let host = &all.cluster_statuses[0].host_statuses[0];
        let names: Vec<_> = host.stats.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names[..2], ["cx_connect_fail", "cx_total"]);
        assert_eq!(names[6..], ["cx_active", "rq_active", "rq_pending_active"]);
        assert_eq!(config_dump(&server, "").static_clusters.len(), 1);
        assert_eq!(endpoints_dump(&server).static_endpoint_configs.len(), 1);
    });
}
