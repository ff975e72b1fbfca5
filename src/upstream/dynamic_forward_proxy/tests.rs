use super::*;

#[test]
fn authorities_are_taken_apart_as_envoy_does() {
    for (text, host, port) in [
        ("up.test", "up.test", None),
        ("up.test:8080", "up.test", Some(8080)),
        ("up.test:", "up.test:", None),
        ("up.test:99999", "up.test:99999", None),
        ("up.test:+80", "up.test:+80", None),
        ("[::1]", "::1", None),
        ("[::1]:80", "::1", Some(80)),
        ("[name]:80", "[name]", Some(80)),
        ("1.2.3.4:80", "1.2.3.4", Some(80)),
        ("", "", None),
    ] {
        assert_eq!(Authority::parse(text), Authority { host, port }, "{text}");
    }
}

#[test]
fn hosts_are_known_with_their_ports() {
    assert_eq!(Authority::key("up.test", 443), "up.test:443");
    assert_eq!(Authority::key("up.test:1", 443), "up.test:1");
    assert_eq!(Authority::key("[::1]", 80), "[::1]:80");
    assert_eq!(Authority::key("up.test:99999", 80), "up.test:99999:80");
    assert_eq!(SubClusters::name("[::1]", 80), "DFPCluster:::1:80");
}

#[test]
fn the_order_of_further_addresses_means_nothing() {
    let host = CachedHost::new("up.test:80", 80);
    let at = |ips: &[&str]| {
        ips.iter()
            .map(|ip| format!("{ip}:80").parse().unwrap())
            .collect::<Vec<_>>()
    };
    assert!(!host.is_resolved() && !host.moves_to(&[]) && host.moves_to(&at(&["1.1.1.1"])));
    host.take(at(&["1.1.1.1", "2.2.2.2", "3.3.3.3"]), "found".into());
    assert!(!host.moves_to(&at(&["1.1.1.1", "3.3.3.3", "2.2.2.2"])));
    assert!(host.moves_to(&at(&["2.2.2.2", "1.1.1.1", "3.3.3.3"])) && host.moves_to(&at(&["1.1.1.1"])));
    // What does not resolve any more keeps its addresses.
    host.take(Vec::new(), "failed".into());
    assert_eq!(host.address(), Some("1.1.1.1:80".parse().unwrap()));
    assert_eq!(host.details(), "failed");
}
