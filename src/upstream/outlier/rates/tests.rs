use super::*;
use crate::{net::Address, upstream::HostAttributes};

fn comparison() -> Comparison {
    Comparison {
        minimum_hosts: 5,
        request_volume: 10,
        stdev_factor: 1900,
        failure_threshold: 85,
        failure_minimum_hosts: 5,
        failure_request_volume: 10,
    }
}

/// Hosts that had so many good answers of a hundred.
fn hosts(good: &[u32]) -> Vec<Arc<Host>> {
    let host = |(i, good): (usize, &u32)| {
        let address = Address::Ip(([127, 0, 0, 1], u16::try_from(i + 1).unwrap()).into());
        let host = Arc::new(Host::new(address, "", 1, HostAttributes::default()));
        for n in 0..100 {
            host.outlier().rate(false).count(n < *good);
        }
        host
    };
    good.iter().enumerate().map(host).collect()
}

fn causes(hosts: &[Arc<Host>], comparison: &Comparison) -> Vec<(usize, Cause)> {
    let (ejected, _) = comparison.finish(hosts, false, &OutlierKeys::default());
    let number = |host: &Arc<Host>| hosts.iter().position(|h| Arc::ptr_eq(h, host)).unwrap();
    ejected.iter().map(|(host, cause)| (number(host), *cause)).collect()
}

#[test]
fn who_lies_far_below_the_average_is_an_outlier() {
    let hosts = hosts(&[50, 100, 100, 100, 100]);
    let (ejected, threshold) = comparison().finish(&hosts, false, &OutlierKeys::default());
    assert_eq!((threshold.average, threshold.ejection), (90.0, 52.0));
    assert!(Arc::ptr_eq(&ejected[0].0, &hosts[0]));
    assert_eq!(ejected[0].1, Cause::SuccessRate);
    assert_eq!(hosts[0].outlier().success_rate(false), 50.0);
    // The next interval starts at nothing.
    assert!(causes(&hosts, &comparison()).is_empty());
    assert_eq!(hosts[0].outlier().success_rate(false), -1.0);
}

#[test]
fn too_many_failures_are_too_many_whatever_the_others_do() {
    let bad = hosts(&[10, 10, 10, 10, 10]);
    let all: Vec<_> = (0..5).map(|i| (i, Cause::FailurePercentage)).collect();
    assert_eq!(causes(&bad, &comparison()), all);
}

#[test]
fn too_few_hosts_or_answers_say_nothing() {
    assert!(causes(&hosts(&[0, 100, 100, 100]), &comparison()).is_empty());
    let mut many = comparison();
    (many.request_volume, many.failure_request_volume) = (101, 101);
    assert!(causes(&hosts(&[0, 100, 100, 100, 100]), &many).is_empty());
}
