use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::Instant;
use xds_protos::load::{LoadOptions, Syntax, typed};

use super::{
    config::{Abort, Caller, Settings},
    rate::Slices,
};
use crate::{
    config::BuildCx,
    extensions::filters::common::paced::Paced,
    http::Body,
    route::test_support::{request, server},
    server::ServerContext,
};

fn build(yaml: &str) -> Settings {
    let server = server();
    let proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Settings::build(proto, &mut BuildCx::new(&server)).unwrap()
}

fn caller(server: &ServerContext) -> Caller<'_> {
    Caller {
        cluster: "",
        runtime: &server.runtime,
    }
}

#[test]
fn without_a_percentage_nothing_happens() {
    let settings = build("{abort: {http_status: 503}, delay: {fixed_delay: 1s}}");
    let head = request("h", "/", &[]);
    let server = server();
    let caller = caller(&server);
    assert_eq!(
        (settings.abort(&head, &caller), settings.delay(&head, &caller)),
        (None, None)
    );
}

#[test]
fn headers_say_what_happens_and_can_only_lower_how_often() {
    let settings = build(
        "abort: {header_abort: {}, percentage: {numerator: 100}}
delay: {header_delay: {}, percentage: {numerator: 0}}
response_rate_limit: {header_limit: {}, percentage: {numerator: 100}}",
    );
    let with = |headers: &[(&str, &str)]| request("h", "/", headers);
    let server = server();
    let caller = caller(&server);
    let abort = |headers: &[(&str, &str)]| settings.abort(&with(headers), &caller);
    assert_eq!(abort(&[]), None);
    assert_eq!(
        abort(&[("x-envoy-fault-abort-request", "418")]),
        Some(Abort::Http(http::StatusCode::IM_A_TEAPOT))
    );
    assert_eq!(abort(&[("x-envoy-fault-abort-request", "199")]), None);
    assert_eq!(
        abort(&[("x-envoy-fault-abort-grpc-request", "5")]),
        Some(Abort::Grpc(5))
    );
    let lowered = [
        ("x-envoy-fault-abort-request", "418"),
        ("x-envoy-fault-abort-request-percentage", "0"),
    ];
    assert_eq!(abort(&lowered), None);
    let raised = [
        ("x-envoy-fault-delay-request", "10"),
        ("x-envoy-fault-delay-request-percentage", "100"),
    ];
    assert_eq!(settings.delay(&with(&raised), &caller), None);
    assert_eq!(
        settings.rate(&with(&[("x-envoy-fault-throughput-response", "7")])),
        Some(7)
    );
    assert_eq!(
        settings.rate(&with(&[("x-envoy-fault-throughput-response", "0")])),
        None
    );
}

#[test]
fn bytes_go_in_slices() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    // 2 KiB per second: slices of 102 bytes.
    let mut slices = Slices::new(2);
    assert_eq!(slices.take(1000, at(0)), Ok(102));
    assert!(slices.take(1000, at(20)).is_err_and(|wait| wait.as_millis() == 30));
    assert_eq!(slices.take(1000, at(51)), Ok(102));
    // What is not used is saved up, a second's at most.
    assert_eq!(slices.take(10_000, at(60_000)), Ok(2048));
}

#[tokio::test]
async fn all_bytes_arrive() {
    let body = Paced::new(Body::Full(Bytes::from(vec![b'x'; 3000])), Slices::new(1_000_000));
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 3000);
}
