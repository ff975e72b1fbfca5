use std::collections::BTreeMap;

use twox_hash::XxHash64;
use xds_protos::google::protobuf::{Struct, Value, value::Kind};

use super::*;
use crate::{
    net::Address,
    upstream::{
        HostAttributes, HostSets, LocalityHosts,
        config::{HashFunction, Hashing, Maglev, RingHash},
    },
};

/// Written by the differential suite (`--picks --record`), which says there how the hosts and policies are made.
const PICKS: &str = include_str!("envoy_picks.txt");

const REMOVED: [u16; 5] = [3, 17, 22, 41, 50];

const LETTERS: &[u8; 50] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwx";

fn host(placement: &str, number: u16, port: u16) -> Arc<Host> {
    let mut attributes = HostAttributes::default();
    if placement.ends_with("-key") {
        let key = Value {
            kind: Some(Kind::StringValue(format!("key of {number}"))),
        };
        let lb = Struct {
            fields: [("hash_key".to_owned(), key)].into(),
        };
        attributes.metadata = Arc::new(BTreeMap::from([("envoy.lb".to_owned(), lb)]));
    }
    let weight = match placement.ends_with("-equal") {
        true => 1,
        false => 1 + number * 7 % 10,
    };
    let address = Address::Ip(([127, 0, 0, number as u8], port).into());
    Arc::new(Host::new(
        address,
        format!("host-{number}.test"),
        weight.into(),
        attributes,
    ))
}

fn hosts(placement: &str, removed: bool, port: u16) -> HostSet {
    let localities = (0..3).map(|zone| {
        let hosts = (1..=50).filter(|n| n % 3 == zone && !(removed && REMOVED.contains(n)));
        let hosts = hosts.map(|n| host(placement, n, port)).collect();
        LocalityHosts::new(Default::default(), 1 << zone, hosts)
    });
    HostSet::new(localities.collect(), 140, false)
}

fn config(placement: &str) -> LbConfig {
    let hashing = Hashing {
        use_hostname: placement.ends_with("-hostname"),
        ..Default::default()
    };
    let ring = RingHash {
        hashing,
        ..Default::default()
    };
    let policy = match placement {
        "ring-murmur" | "legacy-ring" => LbPolicy::RingHash(RingHash {
            function: HashFunction::Murmur2,
            ..ring
        }),
        "ring-large" => LbPolicy::RingHash(RingHash { min: 20_000, ..ring }),
        "ring-small" => LbPolicy::RingHash(RingHash {
            min: 100,
            max: 137,
            ..ring
        }),
        name if name.starts_with("ring") => LbPolicy::RingHash(ring),
        name => LbPolicy::Maglev(Maglev {
            table_size: match name {
                "maglev-small" => 503,
                "maglev-tiny" => 47,
                _ => 65_537,
            },
            hashing,
        }),
    };
    let mut config = super::super::tests::config(policy);
    if placement.ends_with("-locality") || placement == "legacy-maglev" {
        config.locality = LocalityLb::Weighted;
    }
    config
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn every_key_lands_where_envoy_puts_it() {
    let mut lines = PICKS.lines().filter(|l| !l.starts_with('#'));
    let port: u16 = lines
        .next()
        .and_then(|l| l.strip_prefix("port "))
        .unwrap()
        .parse()
        .unwrap();
    let mut placements = 0;
    for line in lines {
        let [name, keys, checksum, first] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (placement, removed) = match name.strip_suffix("-45") {
            Some(placement) => (placement, true),
            None => (name, false),
        };
        let set = hosts(placement, removed, port);
        let config = config(placement);
        let table = HashTable::new(&set, false, &config);
        let letter = |key: u32| {
            let hash = XxHash64::oneshot(0, format!("key-{key}").as_bytes());
            let host = table.choose(hash, 0, [].into_iter()).unwrap();
            let number = host
                .address
                .ip()
                .unwrap()
                .to_string()
                .rsplit('.')
                .next()
                .unwrap()
                .parse::<usize>();
            char::from(LETTERS[number.unwrap() - 1])
        };
        let letters: String = (0..keys.parse().unwrap()).map(letter).collect();
        assert_eq!(&letters[..first.len()], first, "{name}");
        assert_eq!(format!("{:016x}", fnv(&letters)), checksum, "{name}");
        placements += 1;
    }
    assert!(placements >= 30);
}

#[test]
fn shares_are_those_of_the_table() {
    for placement in [
        "ring",
        "ring-small",
        "ring-equal",
        "maglev",
        "maglev-small",
        "maglev-tiny",
        "maglev-equal",
    ] {
        let set = hosts(placement, false, 80);
        let config = config(placement);
        let table = HashTable::new(&set, false, &config);
        let mut counts = vec![0_u64; set.hosts.len()];
        let indices: Vec<usize> = match &table.placement {
            Placement::Ring(ring) => ring.indices().collect(),
            Placement::Maglev(table) => table.indices().collect(),
        };
        indices.iter().for_each(|i| counts[*i] += 1);
        let shares = Shares::of(&set, false, &config).unwrap();
        assert_eq!(Some(shares.min), counts.iter().copied().min(), "{placement}");
        assert_eq!(Some(shares.max), counts.iter().copied().max(), "{placement}");
    }
}

#[test]
fn a_bound_passes_load_on() {
    let hosts: Vec<Arc<Host>> = (1..=4).map(|n| host("ring-equal", n, 80)).collect();
    let locality = LocalityHosts::new(Default::default(), 0, hosts.as_slice().into());
    let sets = HostSets::new(vec![HostSet::new(vec![locality], 140, false)], 50.0, None);
    let mut config = config("ring-equal");
    config.policy = LbPolicy::RingHash(RingHash {
        hashing: Hashing {
            balance_factor: Some(100),
            ..Default::default()
        },
        ..Default::default()
    });
    let table = HashTable::new(&sets.priorities[0], false, &config);
    let choose = || table.choose(12_345, 0, sets.hosts()).unwrap();
    let first = choose();
    // Each may have a quarter of the 4 requests.
    first.stats.rq_active.store(3, std::sync::atomic::Ordering::Relaxed);
    let second = choose();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &choose()), "the same key goes the same way");
}
