use std::collections::HashMap;

use super::*;
use crate::{
    net::Address,
    upstream::{
        HealthFlag, HostAttributes, LocalityHosts,
        config::{LbPolicy, LeastRequest},
    },
};

fn host(number: u16, weight: u32) -> Arc<Host> {
    let address = Address::Ip(([10, 0, 0, 1], number).into());
    Arc::new(Host::new(address, "", weight, HostAttributes::default()))
}

/// A priority of so many healthy, degraded and unhealthy hosts.
fn set(healthy: u16, degraded: u16, unhealthy: u16) -> HostSet {
    let total = healthy + degraded + unhealthy;
    let hosts: Vec<_> = (0..total).map(|n| host(n, 1)).collect();
    for h in &hosts[healthy.into()..(healthy + degraded).into()] {
        h.set_flag(HealthFlag::DegradedEdsHealth, true);
    }
    for h in &hosts[(healthy + degraded).into()..] {
        h.set_flag(HealthFlag::FailedEdsHealth, true);
    }
    of(hosts)
}

fn of(hosts: Vec<Arc<Host>>) -> HostSet {
    let locality = LocalityHosts::new(Default::default(), 1, hosts.into());
    HostSet::new(vec![locality], 140, false)
}

pub(super) fn config(policy: LbPolicy) -> LbConfig {
    LbConfig {
        ignore_new_hosts_until_first_hc: false,
        policy,
        locality: LocalityLb::None,
        panic_threshold: 50.0,
        zone: Default::default(),
        fail_traffic_on_panic: false,
        subsets: None,
        slow_start: None,
        hash_policy: None,
        override_hosts: None,
        client_side: None,
        needs_hostnames: false,
        original_dst: None,
        override_statuses: Vec::new(),
    }
}

fn balancer(sets: Vec<HostSet>) -> Balancer {
    Balancer::new(Arc::new(HostSets::new(sets, 50.0, None)), fastrand::Rng::with_seed(7))
}

fn counts(balancer: &mut Balancer, config: &LbConfig, picks: usize) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        let host = balancer.pick(config, &LbContext::default()).0.unwrap();
        *counts.entry(host.address.port().unwrap()).or_default() += 1;
    }
    counts
}

// The tables of Envoy's documentation (load balancing, priority levels).
#[test]
fn priorities_spill_over() {
    for (p0, p1, expected) in [
        (100, 100, [100, 0]),
        (72, 100, [100, 0]),
        (71, 100, [99, 1]),
        (50, 100, [70, 30]),
        (25, 100, [35, 65]),
        (0, 100, [0, 100]),
    ] {
        let loads = PriorityLoads::new(&[set(p0, 0, 100 - p0), set(p1, 0, 100 - p1)], 50.0);
        assert_eq!(loads.healthy, expected, "{p0} {p1}");
        assert_eq!(loads.panic, [false, false]);
    }
}

#[test]
fn degraded_hosts_are_second_choice() {
    let loads = PriorityLoads::new(&[set(50, 50, 0)], 50.0);
    assert_eq!((loads.healthy, loads.degraded), (vec![70], vec![30]));
    let loads = PriorityLoads::new(&[set(0, 10, 0)], 50.0);
    assert_eq!((loads.healthy, loads.degraded), (vec![0], vec![100]));
}

#[test]
fn panic_when_health_does_not_suffice() {
    // 35 % of the load can be served: the others panic, and so does the first.
    let loads = PriorityLoads::new(&[set(25, 0, 75), set(0, 0, 50)], 50.0);
    assert_eq!(loads.panic, [true, true]);
    assert_eq!(loads.healthy, [67, 33]);
    // The second priority alone carries everything, so that nothing panics.
    let loads = PriorityLoads::new(&[set(0, 0, 10), set(10, 0, 0)], 50.0);
    assert_eq!(loads.panic, [false, false]);
    // Without panic there is nobody to send to.
    let loads = PriorityLoads::new(&[set(0, 0, 10)], 0.0);
    assert_eq!((loads.healthy, loads.panic), (vec![100], vec![false]));
    let mut none = balancer(vec![]);
    assert!(
        none.pick(&config(LbPolicy::RoundRobin), &LbContext::default())
            .0
            .is_none()
    );
}

#[test]
fn panicking_priority_offers_all_hosts() {
    let mut balancer = balancer(vec![set(1, 0, 3)]);
    let (_, picked) = balancer.pick(&config(LbPolicy::RoundRobin), &LbContext::default());
    assert_eq!(picked.panics, 1);
    assert_eq!(counts(&mut balancer, &config(LbPolicy::RoundRobin), 40).len(), 4);
    let mut fails = config(LbPolicy::RoundRobin);
    fails.fail_traffic_on_panic = true;
    assert!(balancer.pick(&fails, &LbContext::default()).0.is_none());
}

#[test]
fn round_robin_is_even_and_weighted() {
    let rr = config(LbPolicy::RoundRobin);
    let even = counts(&mut balancer(vec![set(4, 0, 0)]), &rr, 400);
    assert_eq!(even.values().copied().collect::<Vec<_>>(), [100; 4]);
    let weighted = counts(
        &mut balancer(vec![of(vec![host(1, 1), host(2, 2), host(3, 3)])]),
        &rr,
        600,
    );
    // A pick more or less, where the count begins within a cycle.
    for (host, wanted) in [(1, 100), (2, 200), (3, 300)] {
        assert!(weighted[&host].abs_diff(wanted) <= 1, "{weighted:?}");
    }
}

#[test]
fn unhealthy_hosts_get_nothing() {
    let picked = counts(&mut balancer(vec![set(3, 0, 1)]), &config(LbPolicy::RoundRobin), 300);
    assert!(!picked.contains_key(&3));
    assert_eq!(picked.len(), 3);
}

#[test]
fn least_request_prefers_the_idle() {
    let hosts = vec![host(1, 1), host(2, 1)];
    hosts[0].stats.rq_active.store(10, std::sync::atomic::Ordering::Relaxed);
    let lr = |full_scan| {
        config(LbPolicy::LeastRequest(LeastRequest {
            full_scan,
            ..Default::default()
        }))
    };
    // Two draws hit the busy one twice in a quarter of the cases.
    let picked = counts(&mut balancer(vec![of(hosts.clone())]), &lr(false), 1000);
    assert!((200..300).contains(&picked[&1]), "{picked:?}");
    let picked = counts(&mut balancer(vec![of(hosts)]), &lr(true), 100);
    assert_eq!(picked.get(&1), None);
    // With weights: 3 / (2 + 1) against 1 / (0 + 1).
    let hosts = vec![host(1, 3), host(2, 1)];
    hosts[0].stats.rq_active.store(2, std::sync::atomic::Ordering::Relaxed);
    let picked = counts(&mut balancer(vec![of(hosts)]), &lr(false), 100);
    assert!(picked[&1].abs_diff(50) <= 1, "{picked:?}");
}

#[test]
fn random_is_roughly_even() {
    let picked = counts(&mut balancer(vec![set(4, 0, 0)]), &config(LbPolicy::Random), 4000);
    assert!(picked.values().all(|n| (900..1100).contains(n)), "{picked:?}");
}

#[test]
fn localities_share_by_weight() {
    let locality = |zone: &str, weight, hosts: Vec<Arc<Host>>| {
        let place = crate::upstream::Locality {
            zone: zone.into(),
            ..Default::default()
        };
        LocalityHosts::new(Arc::new(place), weight, hosts.into())
    };
    let sick = host(3, 1);
    sick.set_flag(HealthFlag::FailedEdsHealth, true);
    let a = locality("a", 1, vec![host(1, 1)]);
    let b = locality("b", 3, vec![host(2, 1)]);
    let none = locality("c", 0, vec![host(9, 1)]);
    let mut weighted = config(LbPolicy::RoundRobin);
    weighted.locality = LocalityLb::Weighted;
    let picked = counts(
        &mut balancer(vec![HostSet::new(vec![a.clone(), b, none], 140, false)]),
        &weighted,
        400,
    );
    assert!(
        picked[&1].abs_diff(100) <= 1 && picked[&2].abs_diff(300) <= 1,
        "{picked:?}"
    );
    assert_eq!(picked.get(&9), None);
    // Half of b is sick: 3 * 1.4 * 0.5 = 2.1 against 1.
    let b = locality("b", 3, vec![host(2, 1), sick]);
    let picked = counts(
        &mut balancer(vec![HostSet::new(vec![a, b], 140, false)]),
        &weighted,
        310,
    );
    assert!(
        picked[&1].abs_diff(100) <= 1 && picked[&2].abs_diff(210) <= 1,
        "{picked:?}"
    );
}

#[test]
fn retries_pass_over_rejected_hosts_and_priorities() {
    let mut two = balancer(vec![set(2, 0, 0)]);
    let rejects = |h: &Host| h.address.port() == Some(0);
    let cx = LbContext {
        rejects: Some(&rejects),
        attempts: 3,
        ..Default::default()
    };
    for _ in 0..20 {
        let host = two.pick(&config(LbPolicy::RoundRobin), &cx).0.unwrap();
        assert_eq!(host.address.port(), Some(1));
    }
    let second = host(77, 1);
    let mut priorities = balancer(vec![set(2, 0, 0), of(vec![second])]);
    let cx = LbContext {
        avoid_priorities: &[0],
        ..Default::default()
    };
    let host = priorities.pick(&config(LbPolicy::RoundRobin), &cx).0.unwrap();
    assert_eq!(host.address.port(), Some(77));
}
