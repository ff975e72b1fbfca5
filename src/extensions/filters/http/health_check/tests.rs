use std::time::{Duration, Instant};

use http::StatusCode;
use xds_protos::load::{LoadOptions, Syntax, typed};

use super::{cache::Cache, config::Config};
use crate::{
    config::{BuildCx, ConfigResult},
    route::test_support::server,
};

fn build(yaml: &str) -> ConfigResult<Config> {
    let server = server();
    let proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Config::build(proto, &mut BuildCx::new(&server))
}

#[test]
fn percentages_are_whole_and_only_of_use_without_pass_through() {
    let clusters = "cluster_min_healthy_percentages: {b: {value: 12.9}, a: {value: 100}}";
    let config = build(&format!("pass_through_mode: false\n{clusters}")).unwrap();
    assert_eq!(config.clusters, [("a".to_owned(), 100), ("b".to_owned(), 12)]);
    let config = build(&format!("pass_through_mode: true\n{clusters}")).unwrap();
    assert!(config.clusters.is_empty());
}

#[test]
fn only_what_passes_through_is_cached() {
    assert!(
        build("{pass_through_mode: true, cache_time: 1s}")
            .unwrap()
            .cache
            .is_some()
    );
    assert!(
        build("{pass_through_mode: true, cache_time: 0s}")
            .unwrap()
            .cache
            .is_none()
    );
    let error = build("{pass_through_mode: false, cache_time: 1s}").err().unwrap();
    assert_eq!(error.path(), "cache_time");
}

#[test]
fn an_answer_lives_to_the_end_of_its_period() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let cache = Cache::new(Duration::from_millis(100), start);
    assert_eq!(cache.get(start), None);
    cache.set(StatusCode::SERVICE_UNAVAILABLE, true, at(50));
    assert_eq!(cache.get(at(99)), Some((StatusCode::SERVICE_UNAVAILABLE, true)));
    assert_eq!(cache.get(at(100)), None);
    cache.set(StatusCode::OK, false, at(101));
    assert_eq!(cache.get(at(150)), Some((StatusCode::OK, false)));
}
