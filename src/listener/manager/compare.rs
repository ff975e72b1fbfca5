//! Whether two messages say the same: in what Envoy compares them with, a field that is not set equals one that has its
//! default, and maps have no order.

use std::collections::HashMap;

use xds_protos::{
    any, dynamic,
    envoy::config::listener::v3::{FilterChain, Listener},
    google::protobuf::Any,
    prost::Message,
    prost_reflect::{DynamicMessage, ReflectMessage, Value},
};

/// Whether two listeners differ in nothing but their filter chains and the choice among them.
pub(super) fn only_chains_differ(a: &Listener, b: &Listener) -> bool {
    let (a, b) = (without_chains(a), without_chains(b));
    a == b || equivalent(&a, &b, Lists::AsSets)
}

fn without_chains(listener: &Listener) -> Listener {
    Listener {
        filter_chains: Vec::new(),
        default_filter_chain: None,
        filter_chain_matcher: None,
        ..listener.clone()
    }
}

/// Whether two listeners are the same.
pub(super) fn same_listener(a: &Listener, b: &Listener) -> bool {
    // What only differs in the order of a map is as long.
    a.encoded_len() == b.encoded_len() && (a == b || equivalent(a, b, Lists::InOrder))
}

/// Whether two filter chains are the same.
pub(super) fn same_chain(a: &FilterChain, b: &FilterChain) -> bool {
    a == b || equivalent(a, b, Lists::InOrder)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    InOrder,
    AsSets,
}

fn equivalent<T: Message + xds_protos::prost::Name>(a: &T, b: &T, lists: Lists) -> bool {
    match (dynamic::from_typed(a), dynamic::from_typed(b)) {
        (Ok(a), Ok(b)) => messages(&a, &b, lists),
        // A type that is not known: the typed ones were told apart.
        _ => false,
    }
}

fn messages(a: &DynamicMessage, b: &DynamicMessage, lists: Lists) -> bool {
    if a == b {
        return true;
    }
    if a.descriptor().full_name() == "google.protobuf.Any" {
        return anys(a, b, lists);
    }
    a.descriptor()
        .fields()
        .all(|field| match (a.has_field(&field), b.has_field(&field)) {
            (false, false) => true,
            _ => values(&a.get_field(&field), &b.get_field(&field), lists),
        })
}

fn values(a: &Value, b: &Value, lists: Lists) -> bool {
    match (a, b) {
        (Value::Message(a), Value::Message(b)) => messages(a, b, lists),
        (Value::List(a), Value::List(b)) if a.len() != b.len() => false,
        (Value::List(a), Value::List(b)) if lists == Lists::InOrder => {
            a.iter().zip(b).all(|(a, b)| values(a, b, lists))
        }
        (Value::List(a), Value::List(b)) => {
            let mut left: Vec<_> = b.iter().collect();
            a.iter().all(|a| match left.iter().position(|b| values(a, b, lists)) {
                Some(at) => {
                    left.swap_remove(at);
                    true
                }
                None => false,
            })
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| values(a, b, lists)))
        }
        _ => a == b,
    }
}

/// What is packed counts, not how it was written.
fn anys(a: &DynamicMessage, b: &DynamicMessage, lists: Lists) -> bool {
    let typed = |m: &DynamicMessage| dynamic::to_typed::<Any>(m).ok();
    let (Some(a), Some(b)) = (typed(a), typed(b)) else {
        return false;
    };
    if a.type_url != b.type_url || a.value.len() != b.value.len() {
        return false;
    }
    match (any::resolve(&a), any::resolve(&b)) {
        (Ok(a), Ok(b)) => messages(&a, &b, lists),
        _ => false,
    }
}

/// Finds which of some chains are there already.
pub(super) struct Known<'a> {
    chains: &'a [FilterChain],
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(chains: &'a [FilterChain]) -> Self {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::with_capacity(chains.len());
        for (i, chain) in chains.iter().enumerate() {
            by_name.entry(&chain.name).or_default().push(i);
        }
        Self { chains, by_name }
    }

    /// The place of the chain that is the same.
    pub(super) fn find(&self, chain: &FilterChain) -> Option<usize> {
        let named = self.by_name.get(chain.name.as_str())?;
        let alike = named.iter().copied().filter(|i| {
            let known = self.chains.get(*i);
            known.is_some_and(|known| known.filter_chain_match == chain.filter_chain_match)
        });
        alike
            .into_iter()
            .find(|i| self.chains.get(*i).is_some_and(|known| same_chain(known, chain)))
    }
}

#[cfg(test)]
mod tests {
    use xds_protos::{
        envoy::config::{
            core::v3::Metadata,
            listener::v3::{FilterChainMatch, ListenerFilter},
        },
        google::protobuf::{BoolValue, Struct, UInt32Value},
    };

    use super::*;

    #[test]
    fn chains_and_defaults_do_not_count_and_filters_have_no_order() {
        let filter = |name: &str| ListenerFilter {
            name: name.to_owned(),
            ..Default::default()
        };
        let a = Listener {
            name: "l".to_owned(),
            listener_filters: vec![filter("a"), filter("b")],
            ..Default::default()
        };
        let b = Listener {
            filter_chains: vec![FilterChain::default()],
            default_filter_chain: Some(FilterChain::default()),
            bind_to_port: Some(BoolValue { value: false }),
            listener_filters: vec![filter("b"), filter("a")],
            ..a.clone()
        };
        assert!(only_chains_differ(&a, &b));
        let c = Listener {
            per_connection_buffer_limit_bytes: Some(UInt32Value { value: 1 }),
            ..a.clone()
        };
        assert!(!only_chains_differ(&a, &c));
        let d = Listener {
            listener_filters: vec![filter("a"), filter("a")],
            ..a.clone()
        };
        assert!(!only_chains_differ(&a, &d));
    }

    #[test]
    fn a_chain_is_found_whatever_the_order_of_its_maps() {
        let chain = |keys: &[&str], port| FilterChain {
            name: "c".to_owned(),
            metadata: Some(Metadata {
                filter_metadata: keys.iter().map(|k| ((*k).to_owned(), Struct::default())).collect(),
                ..Default::default()
            }),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(UInt32Value { value: port }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let known = [chain(&["a", "b", "c"], 1), chain(&["a"], 2)];
        let known = Known::new(&known);
        assert_eq!(known.find(&chain(&["c", "b", "a"], 1)), Some(0));
        assert_eq!(known.find(&chain(&["a"], 2)), Some(1));
        assert_eq!(known.find(&chain(&["b"], 2)), None);
        assert_eq!(known.find(&chain(&["a"], 3)), None);
    }
}
