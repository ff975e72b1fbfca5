use super::*;
use crate::{
    net::Address,
    upstream::{HealthFlag, HostAttributes},
};

fn hosts(numbers: std::ops::Range<u16>) -> HostList {
    numbers
        .map(|n| {
            let address = Address::Ip(([10, 0, 0, 1], n).into());
            Arc::new(Host::new(address, "", 1, HostAttributes::default()))
        })
        .collect()
}

fn locality(zone: &str, hosts: HostList) -> LocalityHosts {
    let place = Locality {
        zone: zone.into(),
        ..Locality::default()
    };
    LocalityHosts::new(Arc::new(place), 1, hosts)
}

#[test]
fn a_change_of_health_leaves_everything_else_as_it_was() {
    let set = Arc::new(HostSet::new(
        vec![locality("a", hosts(0..2)), locality("b", hosts(2..4))],
        140,
        false,
    ));
    assert!(Arc::ptr_eq(&set, &set.refreshed()));

    set.hosts[3].set_flag(HealthFlag::FailedActiveHc, true);
    let now = set.refreshed();
    assert_eq!((now.hosts.len(), now.healthy.len()), (4, 3));
    assert_eq!(now.localities[1].healthy.len(), 1);
    assert!(Arc::ptr_eq(&now.hosts, &set.hosts));
    assert!(Arc::ptr_eq(&now.localities[0].healthy, &set.localities[0].healthy));

    // A drained host does not count any more, besides not being healthy.
    set.hosts[0].set_flag(HealthFlag::EdsStatusDraining, true);
    let now = now.refreshed();
    assert_eq!((now.healthy.len(), now.excluded.len()), (2, 1));
}

#[test]
fn a_single_locality_costs_nothing_more() {
    let set = HostSet::new(vec![locality("a", hosts(0..3))], 140, false);
    assert!(Arc::ptr_eq(&set.hosts, &set.localities[0].hosts) && Arc::ptr_eq(&set.hosts, &set.healthy));
}

#[test]
fn a_host_that_goes_takes_its_empty_locality_along() {
    let set = HostSet::new(vec![locality("a", hosts(0..1)), locality("b", hosts(1..3))], 140, false);
    let set = Arc::new(HostSet {
        has_local_locality: true,
        ..set
    });
    let now = set.without(&set.hosts[0]);
    assert_eq!(
        (now.hosts.len(), now.localities.len(), now.has_local_locality),
        (2, 1, false)
    );
    let now = set.without(&set.hosts[1]);
    assert_eq!(
        (now.hosts.len(), now.localities.len(), now.has_local_locality),
        (2, 2, true)
    );
    assert!(Arc::ptr_eq(&now, &now.without(&set.hosts[1])));
}
