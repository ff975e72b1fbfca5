use xds_protos::google::protobuf::{ListValue, Struct};

use super::*;
use crate::{
    http::stream_info::Metadata,
    net::Address,
    upstream::{HostAttributes, config::SubsetSelector, host_set::LocalityHosts},
};

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.into())),
    }
}

fn criteria(pairs: &[(&str, &str)]) -> Criteria {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect()
}

fn host(port: u16, fields: Vec<(&str, Value)>) -> Arc<Host> {
    let fields = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let attributes = HostAttributes {
        metadata: Arc::new(Metadata::from_iter([("envoy.lb".into(), Struct { fields })])),
        ..HostAttributes::default()
    };
    Arc::new(Host::new(Address::Ip(([127, 0, 0, 1], port).into()), "", 1, attributes))
}

fn config(selectors: &[&[&str]]) -> SubsetConfig {
    SubsetConfig {
        fallback: SubsetFallback::None,
        default: Criteria::new(),
        selectors: selectors
            .iter()
            .map(|keys| SubsetSelector {
                keys: keys.iter().map(|k| (*k).to_owned()).collect(),
                single_host: false,
                fallback: None,
            })
            .collect(),
        locality_weight_aware: false,
        scale_locality_weight: false,
        panic_mode_any: false,
        list_as_any: false,
        fallback_list: false,
        allow_redundant_keys: false,
    }
}

fn set(localities: Vec<(u32, Vec<Arc<Host>>)>) -> Arc<HostSet> {
    let localities = localities
        .into_iter()
        .map(|(weight, hosts)| LocalityHosts::new(Arc::default(), weight, hosts.into()))
        .collect();
    Arc::new(HostSet::new(localities, 140, false))
}

fn hosts(subset: Option<(usize, &Subset)>) -> usize {
    match subset {
        Some((_, Subset::Hosts(sets))) => sets.hosts().count(),
        Some((_, Subset::Single(_))) => 1,
        None => 0,
    }
}

#[test]
fn hosts_are_divided_by_all_keys_of_a_selector() {
    let all = vec![
        host(1, vec![("v", text("1")), ("s", text("prod"))]),
        host(2, vec![("v", text("1"))]),
        host(3, vec![]),
    ];
    let subsets = Subsets::new(&config(&[&["v"], &["v", "s"]]), &[set(vec![(1, all)])], 50.0, &|_| None);
    assert_eq!(subsets.len(), 2);
    assert_eq!(hosts(subsets.find(&criteria(&[("v", "1")]))), 2);
    assert_eq!(hosts(subsets.find(&criteria(&[("v", "1"), ("s", "prod")]))), 1);
    assert_eq!(hosts(subsets.find(&criteria(&[("s", "prod")]))), 0);
    assert_eq!(hosts(subsets.find(&criteria(&[("v", "2")]))), 0);
    assert_eq!(subsets.any.hosts().count(), 3);
}

#[test]
fn each_element_of_a_list_counts_if_so_configured() {
    let list = Value {
        kind: Some(Kind::ListValue(ListValue {
            values: vec![text("1"), text("2")],
        })),
    };
    let mut config = config(&[&["v"]]);
    let sets = [set(vec![(1, vec![host(1, vec![("v", list)])])])];
    assert_eq!(
        hosts(Subsets::new(&config, &sets, 50.0, &|_| None).find(&criteria(&[("v", "2")]))),
        0
    );
    config.list_as_any = true;
    config.default = criteria(&[("v", "1")]);
    let subsets = Subsets::new(&config, &sets, 50.0, &|_| None);
    assert_eq!(hosts(subsets.find(&criteria(&[("v", "2")]))), 1);
    assert_eq!(subsets.default.hosts().count(), 1);
}

#[test]
fn a_single_host_is_the_first() {
    let mut config = config(&[&["v"]]);
    config.selectors[0].single_host = true;
    let all = vec![host(1, vec![("v", text("1"))]), host(2, vec![("v", text("1"))])];
    let subsets = Subsets::new(&config, &[set(vec![(1, all.clone())])], 50.0, &|_| None);
    assert_eq!(subsets.duplicates, 1);
    let found = subsets.find(&criteria(&[("v", "1")]));
    assert!(matches!(found, Some((_, Subset::Single(host))) if Arc::ptr_eq(host, &all[0])));
}

#[test]
fn weights_of_localities_shrink_with_their_hosts() {
    let mut config = config(&[&["v"]]);
    let localities = vec![
        (10, vec![host(1, vec![("v", text("1"))]), host(2, vec![])]),
        (90, vec![host(3, vec![("v", text("1"))])]),
    ];
    let sets = [set(localities)];
    let weights = |config: &SubsetConfig| -> Vec<u32> {
        let subsets = Subsets::new(config, &sets, 50.0, &|_| None);
        match subsets.find(&criteria(&[("v", "1")])) {
            Some((_, Subset::Hosts(found))) => found.priorities[0].localities.iter().map(|l| l.weight).collect(),
            _ => Vec::new(),
        }
    };
    assert_eq!(weights(&config), [0, 0]);
    config.locality_weight_aware = true;
    assert_eq!(weights(&config), [10, 90]);
    config.scale_locality_weight = true;
    assert_eq!(weights(&config), [5, 90]);
}
