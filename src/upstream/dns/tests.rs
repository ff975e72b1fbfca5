use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::*;
use crate::{
    config::BuildCx,
    upstream::tests::{local, running_server},
};

fn found(text: &[&str]) -> Vec<Resolved> {
    let ttl = Duration::from_secs(1);
    text.iter()
        .map(|t| Resolved {
            ip: t.parse().unwrap(),
            ttl,
        })
        .collect()
}

#[test]
fn families() {
    let only = |family: DnsFamily| family.choose(found(&["1.1.1.1", "::1", "1.1.1.1"]));
    assert_eq!(only(DnsFamily::All), found(&["1.1.1.1", "::1"]));
    assert_eq!(only(DnsFamily::Auto), found(&["::1"]));
    assert_eq!(only(DnsFamily::V4Only), found(&["1.1.1.1"]));
    assert_eq!(only(DnsFamily::V4Preferred), found(&["1.1.1.1"]));
    assert_eq!(DnsFamily::V4Preferred.choose(found(&["::1"])), found(&["::1"]));
    assert!(DnsFamily::V4Only.choose(found(&["::1"])).is_empty());
}

#[test]
fn failures_are_asked_again_ever_later() {
    let second = Duration::from_secs(1);
    let mut backoff = Backoff::new(Some((second, 3 * second)), 10 * second);
    let most = [1, 2, 3, 3].map(|n| n * second);
    assert!(most.iter().all(|most| backoff.pause() <= *most));
    backoff.reset();
    assert!(backoff.pause() <= second);
    assert_eq!(Backoff::new(None, 10 * second).pause(), 10 * second);
}

#[test]
fn names_of_this_machine_need_no_name_server() {
    local(async {
        let (server, _worker) = running_server();
        let mut cx = BuildCx::new(&server);
        // Nobody answers there.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let address = xds_protos::envoy::config::core::v3::Address {
            address: Some(xds_protos::envoy::config::core::v3::address::Address::SocketAddress(
                xds_protos::envoy::config::core::v3::SocketAddress {
                    address: nobody.ip().to_string(),
                    port_specifier: Some(
                        xds_protos::envoy::config::core::v3::socket_address::PortSpecifier::PortValue(9),
                    ),
                    ..Default::default()
                },
            )),
        };
        let resolver = DnsResolver::choose(None, None, vec![address], false, &mut cx).unwrap();
        let ips = |answer: &Answer| answer.addresses.iter().map(|a| a.ip.to_string()).collect::<Vec<_>>();
        for (name, family, want) in [
            ("127.0.0.7", DnsFamily::Auto, "127.0.0.7"),
            ("::1", DnsFamily::Auto, "::1"),
            ("some.localhost", DnsFamily::V4Only, "127.0.0.1"),
            ("LOCALHOST.", DnsFamily::V4Only, "127.0.0.1"),
        ] {
            let answer = resolver.resolve(name, family).await;
            assert!(answer.completed);
            assert_eq!(ips(&answer), [want], "{name}");
        }
        let answer = resolver.resolve("up.test", DnsFamily::V4Only).await;
        assert!(!answer.completed);
        assert_eq!(answer.details, "cares_failure:Could not contact DNS servers");
        let count = |name: &str| server.stats.counter_value(&format!("dns.cares.{name}"));
        assert_eq!(count("get_addr_failure"), Some(1));
        let _: Arc<Cares> = match resolver {
            DnsResolver::Cares(resolver) => resolver,
            DnsResolver::GetAddrInfo(_) => panic!("another resolver"),
        };
    });
}
