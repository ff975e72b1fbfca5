use super::*;
use crate::{
    net::Address,
    upstream::{HealthFlag, HostAttributes},
};

/// Zones of so many hosts, the first of them the own one; a zone of none is left out.
fn set(sizes: &[u16]) -> HostSet {
    let localities: Vec<_> = sizes
        .iter()
        .enumerate()
        .filter(|(_, n)| **n > 0)
        .map(|(zone, n)| {
            let host = |i| {
                let address = Address::Ip(([10, 0, 0, zone as u8], i).into());
                Arc::new(Host::new(address, "", 1, HostAttributes::default()))
            };
            let place = Locality {
                zone: zone.to_string(),
                ..Locality::default()
            };
            LocalityHosts::new(Arc::new(place), 0, (0..*n).map(host).collect())
        })
        .collect();
    HostSet {
        has_local_locality: sizes.first().is_some_and(|n| *n > 0),
        ..HostSet::new(localities, 140, false)
    }
}

fn plan(config: &ZoneAware, upstream: &[u16], local: &[u16]) -> Result<Plan, NotByZone> {
    let (upstream, local) = (set(upstream), set(local));
    ZoneRouting::new(config, &upstream, &local, 50.0, ZoneKeys::default()).map(|z| z.plan)
}

fn residual(to_local: u64, residual: &[u64]) -> Result<Plan, NotByZone> {
    Ok(Plan::Residual {
        to_local,
        residual: residual.to_vec(),
    })
}

#[test]
fn zones_count_only_where_they_can() {
    let config = ZoneAware::default();
    assert_eq!(plan(&config, &[9], &[1, 1]), Err(NotByZone::OneZone));
    assert_eq!(plan(&config, &[5, 5], &[2]), Err(NotByZone::OneZone));
    assert_eq!(plan(&config, &[5, 5], &[0, 1, 1]), Err(NotByZone::LocalClusterNotOk));
    assert_eq!(plan(&config, &[3, 2], &[1, 1]), Err(NotByZone::ClusterTooSmall));
}

#[test]
fn enough_hosts_in_the_own_zone_take_everything() {
    let config = ZoneAware::default();
    assert_eq!(plan(&config, &[3, 3], &[1, 1]), Ok(Plan::Direct));
    assert_eq!(plan(&config, &[4, 2], &[1, 1]), Ok(Plan::Direct));
    assert_eq!(plan(&config, &[2, 4], &[1, 1]), residual(6666, &[0, 1666]));
    let forced = ZoneAware {
        force_local_zone: Some(2),
        ..config
    };
    assert_eq!(plan(&forced, &[2, 4], &[1]), Ok(Plan::Direct));
    assert_eq!(plan(&forced, &[1, 5], &[1]), residual(1666, &[0, 8333]));
}

#[test]
fn what_is_left_goes_where_hosts_are_to_spare() {
    let config = ZoneAware::default();
    // 40, 40 and 20 percent of the proxies, 25, 50 and 25 percent of the hosts.
    assert_eq!(plan(&config, &[2, 4, 2], &[2, 2, 1]), residual(6250, &[0, 1000, 1500]));
    // Without hosts of its own everything crosses.
    assert_eq!(plan(&config, &[0, 3, 3], &[2, 1, 1]), residual(0, &[2500, 5000]));
}

#[test]
fn picks_follow_the_plan() {
    let mut random = fastrand::Rng::with_seed(3);
    let plan = Plan::Residual {
        to_local: 5000,
        residual: vec![0, 0, 1000, 1500],
    };
    let mut counts = [0_u32; 4];
    for _ in 0..3000 {
        match plan.pick(&mut random) {
            ZonePick::Sampled => counts[0] += 1,
            ZonePick::CrossZone(zone) => counts[zone] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        counts[1] == 0 && (1400..1600).contains(&counts[0]) && (900..1100).contains(&counts[2]),
        "{counts:?}"
    );
    let none = Plan::Residual {
        to_local: 0,
        residual: vec![0, 0],
    };
    assert!(matches!(none.pick(&mut random), ZonePick::NoCapacityLeft(0 | 1)));
}

#[test]
fn proxies_in_panic_know_nothing() {
    let local = set(&[2, 2]);
    for host in &local.hosts[..3] {
        host.set_flag(HealthFlag::FailedActiveHc, true);
    }
    let local = Arc::new(local).refreshed();
    let zone = ZoneRouting::new(&ZoneAware::default(), &set(&[3, 3]), &local, 50.0, ZoneKeys::default()).unwrap();
    assert_eq!(zone.pick(&mut fastrand::Rng::with_seed(1)), ZonePick::LocalClusterNotOk);
}
