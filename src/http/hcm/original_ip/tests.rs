//! What is expected was observed on Envoy 1.40.

use http::HeaderValue;

use super::*;

fn peer(text: &str) -> Address {
    Address::Ip(text.parse().unwrap())
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs
        .iter()
        .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_str(v).unwrap()));
    pairs.collect()
}

fn proxies() -> IpDetection {
    IpDetection::Xff {
        hops: 0,
        proxies: Some(vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]),
        append: false,
    }
}

#[test]
fn the_last_address_that_is_no_proxy() {
    for (xff, from, expected) in [
        ("7.7.7.7, 8.8.8.8, 10.1.1.1", "127.0.0.1:1", Some("8.8.8.8")),
        ("10.1.1.1,10.2.2.2", "127.0.0.1:1", Some("10.1.1.1")),
        ("junk, 10.2.2.2", "127.0.0.1:1", None),
        ("8.8.8.8", "9.9.9.9:1", None),
    ] {
        let found = detect(&[proxies()], &headers(&[("x-forwarded-for", xff)]), &peer(from)).unwrap();
        assert_eq!(found.address.map(|a| a.to_string()).as_deref(), expected, "{xff}");
    }
}

#[test]
fn a_header_may_be_required() {
    let header = |reject| IpDetection::Header {
        name: HeaderName::from_static("x-real"),
        trusted: true,
        reject,
    };
    let local = peer("127.0.0.1:1");
    let found = detect(&[header(None)], &headers(&[("x-real", "10.0.0.1")]), &local).unwrap();
    assert_eq!(
        (found.address, found.trusted),
        (Some("10.0.0.1".parse().unwrap()), true)
    );
    let found = detect(&[header(None)], &headers(&[("x-real", "10.0.0.1:80")]), &local).unwrap();
    assert_eq!(found, Detected::default());
    let refused = detect(&[header(Some(StatusCode::FORBIDDEN))], &headers(&[]), &local).unwrap_err();
    assert_eq!(refused.details, "rejecting_because_detection_failed");
}

#[test]
fn the_first_extension_that_finds_one_decides() {
    let hops = IpDetection::Xff {
        hops: 1,
        proxies: None,
        append: true,
    };
    let found = detect(
        &[proxies(), hops],
        &headers(&[("x-forwarded-for", "7.7.7.7, 8.8.8.8")]),
        &peer("9.9.9.9:1"),
    )
    .unwrap();
    assert_eq!(found.address, Some("7.7.7.7".parse().unwrap()));
    assert!(found.append && !found.trusted);
}
