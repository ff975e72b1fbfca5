//! What is expected was observed on Envoy 1.40.

use std::time::{Duration, Instant};

use xds_protos::load::{LoadOptions, Syntax, typed};

use super::{
    Factory,
    bucket::Bucket,
    config::Config,
    limiter::{Limiter, Verdict},
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::HttpFilterFactory,
    route::{rate_limit::Descriptor, test_support::server},
};

const FULL: &str = "{max_tokens: 50, tokens_per_fill: 50, fill_interval: 600s}";

fn build(yaml: &str) -> ConfigResult<Config> {
    let server = server();
    let proto = typed(
        &format!("stat_prefix: s\n{yaml}"),
        Syntax::Yaml,
        &LoadOptions::default(),
    )
    .unwrap();
    Config::build(proto, &mut BuildCx::new(&server))
}

fn limiter(yaml: &str) -> Limiter {
    build(yaml).unwrap().limiter
}

fn reason(yaml: &str) -> String {
    build(yaml).err().expect("refused").to_string()
}

fn descriptor(entries: &[(&str, &str)]) -> Descriptor {
    Descriptor {
        entries: entries.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..Descriptor::default()
    }
}

/// Limit, tokens left, seconds until the next.
fn shown(verdict: &Verdict, now: Instant) -> (u64, u64, u64) {
    let bucket = verdict.bucket.as_ref().unwrap();
    (bucket.max(), bucket.remaining(now), bucket.reset_seconds(now))
}

#[test]
fn a_bucket_fills_continuously_up_to_its_size() {
    let bucket = Bucket::new(2, 1, Duration::from_secs(2));
    let now = Instant::now();
    let later = |seconds| now + Duration::from_millis(seconds);
    assert!(bucket.take(1.0, now) && bucket.take(1.0, now) && !bucket.take(1.0, now));
    assert_eq!((bucket.remaining(now), bucket.reset_seconds(now)), (0, 2));
    assert!(!bucket.take(1.0, later(1200)));
    assert_eq!(bucket.reset_seconds(later(1200)), 1);
    assert!(bucket.take(1.0, later(2200)));
    assert_eq!(bucket.remaining(later(60_000)), 2);
    assert!(!bucket.take(3.0, later(60_000)));
}

#[test]
fn threads_share_a_bucket_exactly() {
    let bucket = Bucket::new(500, 1, Duration::from_secs(3600));
    let now = Instant::now();
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..200).filter(|_| bucket.take(1.0, now)).count()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(taken, 500);
}

#[test]
fn the_slowest_descriptor_is_asked_first_and_shown() {
    let limiter = limiter(&format!(
        "token_bucket: {FULL}
descriptors:
- {{entries: [{{key: u, value: b}}], token_bucket: {{max_tokens: 3, tokens_per_fill: 3, fill_interval: 600s}}}}
- {{entries: [{{key: w, value: c}}], token_bucket: {{max_tokens: 2, tokens_per_fill: 2, fill_interval: 60s}}}}"
    ));
    let request = [descriptor(&[("w", "c")]), descriptor(&[("u", "b")])];
    let now = Instant::now();
    let answers: Vec<_> = (0..4)
        .map(|_| limiter.check(&request, now))
        .map(|v| (v.allowed, shown(&v, now)))
        .collect();
    // Shown after all of them.
    assert_eq!(
        answers.iter().map(|a| a.0).collect::<Vec<_>>(),
        [true, true, false, false]
    );
    assert_eq!(answers.iter().map(|a| a.1.0).collect::<Vec<_>>(), [3, 3, 2, 3]);
    assert_eq!(answers[2].1.2, 30);
    assert_eq!(answers[3].1, (3, 0, 200));
}

#[test]
fn the_default_bucket_is_spared_when_told() {
    let yaml = "always_consume_default_token_bucket: false
token_bucket: {max_tokens: 1, fill_interval: 600s}
descriptors: [{entries: [{key: u, value: b}], token_bucket: {max_tokens: 3, fill_interval: 600s}}]";
    let limiter = limiter(yaml);
    let now = Instant::now();
    let with = [descriptor(&[("u", "b")])];
    assert!((0..3).all(|_| limiter.check(&with, now).allowed));
    assert!(!limiter.check(&with, now).allowed);
    assert!(limiter.check(&[], now).allowed);
    assert!(!limiter.check(&[], now).allowed);
}

#[test]
fn hits_take_more_and_none_is_refused() {
    let yaml = format!(
        "token_bucket: {FULL}
descriptors: [{{entries: [{{key: u, value: b}}], token_bucket: {{max_tokens: 5, fill_interval: 600s}}}}]"
    );
    let limiter = limiter(&yaml);
    let now = Instant::now();
    let hits = |n| {
        [Descriptor {
            hits_addend: Some(n),
            ..descriptor(&[("u", "b")])
        }]
    };
    let allowed: Vec<_> = (0..3).map(|_| limiter.check(&hits(2), now).allowed).collect();
    assert_eq!(allowed, [true, true, false]);
    assert!(!limiter.check(&hits(0), now).allowed);
}

#[test]
fn a_wildcard_has_a_bucket_for_each_value() {
    let yaml = format!(
        "token_bucket: {FULL}
max_dynamic_descriptors: 2
descriptors: [{{entries: [{{key: u}}], token_bucket: {{max_tokens: 1, fill_interval: 600s}}}}]"
    );
    let limiter = limiter(&yaml);
    let start = Instant::now();
    let ask = |user: &str, at: u64| {
        let now = start + Duration::from_millis(at);
        limiter.check(&[descriptor(&[("u", user)])], now).allowed
    };
    assert!(ask("a", 1) && !ask("a", 2) && ask("b", 3) && !ask("b", 4));
    // Another value, another length: the default bucket alone.
    assert!(limiter.check(&[descriptor(&[("u", "a"), ("w", "x")])], start).allowed);
    // A third user takes the place of the one that was away longest.
    assert!(ask("c", 5) && !ask("b", 6) && ask("a", 7));
}

#[test]
fn a_bucket_of_nothing_refuses_everything_and_shows_nothing() {
    let verdict = limiter("token_bucket: {max_tokens: 0, fill_interval: 1s}").check(&[], Instant::now());
    assert!(!verdict.allowed && verdict.bucket.is_none());
}

#[test]
fn a_watched_limit_lets_the_others_decide() {
    let limiter = limiter(
        "token_bucket: {max_tokens: 2, fill_interval: 600s}
descriptors: [{entries: [{key: u, value: b}], shadow_mode: true, token_bucket: {max_tokens: 1, fill_interval: 600s}}]",
    );
    let now = Instant::now();
    let answers: Vec<_> = (0..3)
        .map(|_| limiter.check(&[descriptor(&[("u", "b")])], now))
        .map(|v| (v.allowed, v.shadow, v.bucket.unwrap().max()))
        .collect();
    assert_eq!(answers, [(true, true, 1), (false, true, 1), (false, false, 2)]);
}

#[test]
fn configurations_are_refused_in_envoys_words() {
    let short = "{max_tokens: 1, fill_interval: 0.01s}";
    assert!(
        reason(&format!("token_bucket: {short}")).contains("local rate limit token bucket fill timer must be >= 50ms")
    );
    let descriptor = |bucket: &str| format!("- {{entries: [{{key: a, value: b}}], token_bucket: {bucket}}}");
    let text = reason(&format!("token_bucket: {FULL}\ndescriptors:\n{}", descriptor(short)));
    assert!(
        text.contains("local rate limit descriptor token bucket fill timer must be >= 50ms"),
        "{text}"
    );
    let twice = format!("{0}\n{0}", descriptor(FULL));
    let text = reason(&format!("token_bucket: {FULL}\ndescriptors:\n{twice}"));
    assert!(
        text.contains("duplicate descriptor in the local rate descriptor: a=b"),
        "{text}"
    );
    let text = reason("rate_limits: [{stage: 1, actions: [{remote_address: {}}]}]");
    assert!(
        text.contains("'stage' field and 'disable_key' field are not supported"),
        "{text}"
    );
    let server = server();
    let proto = typed("stat_prefix: s", Syntax::Yaml, &LoadOptions::default()).unwrap();
    let text = Factory
        .build_route(proto, &mut BuildCx::new(&server))
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("token bucket must be set for per filter configs"),
        "{text}"
    );
}
