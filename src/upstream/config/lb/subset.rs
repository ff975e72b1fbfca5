//! `lb_subset_config` and the `subset` load balancing policy to one [`SubsetConfig`].

use std::collections::{BTreeMap, BTreeSet};

use xds_protos::{
    envoy::{
        config::cluster::v3::cluster::{
            LbSubsetConfig,
            lb_subset_config::{LbSubsetSelector, lb_subset_selector::LbSubsetSelectorFallbackPolicy as OldFallback},
        },
        extensions::load_balancing_policies::subset::v3::{Subset, subset},
    },
    google::protobuf::{Struct, Value},
};

use super::{LbConfig, list};
use crate::config::{BuildCx, ConfigResult};

/// What a request asks of its host's metadata under `envoy.lb`, by name.
pub type Criteria = BTreeMap<String, Value>;

/// How a cluster's hosts are divided into subsets.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetConfig {
    /// `fallback_policy`: who serves a request that no subset serves.
    pub fallback: SubsetFallback,
    /// `default_subset`
    pub default: Criteria,
    /// `subset_selectors`, in their order.
    pub selectors: Vec<SubsetSelector>,
    /// `locality_weight_aware`
    pub locality_weight_aware: bool,
    /// `scale_locality_weight`
    pub scale_locality_weight: bool,
    /// `panic_mode_any`
    pub panic_mode_any: bool,
    /// `list_as_any`: a host whose value is a list belongs to the subset of each of its elements.
    pub list_as_any: bool,
    /// `metadata_fallback_policy: FALLBACK_LIST`
    pub fallback_list: bool,
    /// `allow_redundant_keys`
    pub allow_redundant_keys: bool,
}

/// What to do where no subset fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubsetFallback {
    /// No host.
    None,
    /// Any host.
    Any,
    /// The default subset.
    Default,
}

/// One way to divide the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetSelector {
    /// `keys`
    pub keys: BTreeSet<String>,
    /// `single_host_per_subset`
    pub single_host: bool,
    /// Its own fallback; none means the common one.
    pub fallback: Option<SelectorFallback>,
}

/// The fallback of requests that ask for the keys of one selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As for all.
    To(SubsetFallback),
    /// `KEYS_SUBSET`: as if these keys alone had been asked for.
    Keys(BTreeSet<String>),
}

/// `Cluster.lb_subset_config`; none without selectors.
pub fn legacy(proto: LbSubsetConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Option<SubsetConfig>> {
    coverage!(cx, proto => LbSubsetConfig {
        supported {
            fallback_policy, default_subset, subset_selectors, locality_weight_aware, scale_locality_weight,
            panic_mode_any, list_as_any, metadata_fallback_policy
        }
    });
    let selectors = cx.each("subset_selectors", subset_selectors, |proto, cx| {
        coverage!(cx, proto => LbSubsetSelector {
            supported { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
        });
        selector(keys, single_host_per_subset, fallback_policy, fallback_keys_subset, cx)
    })?;
    Ok(finish(SubsetConfig {
        fallback: fallback(fallback_policy),
        default: criteria(default_subset),
        selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        fallback_list: metadata_fallback_policy == 1,
        allow_redundant_keys: false,
    }))
}

/// The `subset` policy, with the policy that balances within a subset.
pub fn build(proto: Subset, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Subset {
        supported {
            fallback_policy, default_subset, subset_selectors, allow_redundant_keys, locality_weight_aware,
            scale_locality_weight, panic_mode_any, list_as_any, metadata_fallback_policy, subset_lb_policy
        }
    });
    let selectors = cx.each("subset_selectors", subset_selectors, |proto, cx| {
        coverage!(cx, proto => subset::LbSubsetSelector {
            supported { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
        });
        selector(keys, single_host_per_subset, fallback_policy, fallback_keys_subset, cx)
    })?;
    let mut config = cx.required("subset_lb_policy", subset_lb_policy, list::build)?;
    config.subsets = finish(SubsetConfig {
        fallback: fallback(fallback_policy),
        default: criteria(default_subset),
        selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        fallback_list: metadata_fallback_policy == 1,
        allow_redundant_keys,
    });
    Ok(config)
}

/// Without selectors there are no subsets. In Envoy's tree of keys a selector whose keys begin those of one before it
/// loses its fallback: it finds its place taken.
fn finish(mut config: SubsetConfig) -> Option<SubsetConfig> {
    for i in 1..config.selectors.len() {
        let (before, rest) = config.selectors.split_at_mut(i);
        let selector = &mut rest[0];
        if before
            .iter()
            .any(|b| b.keys.iter().take(selector.keys.len()).eq(&selector.keys))
        {
            selector.fallback = None;
        }
    }
    (!config.selectors.is_empty()).then_some(config)
}

fn criteria(proto: Option<Struct>) -> Criteria {
    proto.unwrap_or_default().fields.into_iter().collect()
}

fn fallback(policy: i32) -> SubsetFallback {
    match policy {
        1 => SubsetFallback::Any,
        2 => SubsetFallback::Default,
        _ => SubsetFallback::None,
    }
}

fn selector(
    keys: Vec<String>,
    single_host: bool,
    policy: i32,
    keys_subset: Vec<String>,
    cx: &BuildCx<'_>,
) -> ConfigResult<SubsetSelector> {
    let keys: BTreeSet<String> = keys.into_iter().collect();
    let keys_subset: BTreeSet<String> = keys_subset.into_iter().collect();
    // Both APIs number these policies alike.
    let policy = OldFallback::try_from(policy).unwrap_or(OldFallback::NotDefined);
    if policy != OldFallback::KeysSubset {
        if !keys_subset.is_empty() {
            return Err(cx.error("fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy"));
        }
    } else if keys_subset.is_empty() {
        return Err(cx.error("fallback_keys_subset cannot be empty"));
    } else if !keys_subset.is_subset(&keys) {
        return Err(cx.error("fallback_keys_subset must be a subset of selector keys"));
    } else if keys_subset.len() == keys.len() {
        return Err(cx.error("fallback_keys_subset cannot be equal to keys"));
    }
    Ok(SubsetSelector {
        keys,
        single_host,
        fallback: match policy {
            OldFallback::NotDefined => None,
            OldFallback::NoFallback => Some(SelectorFallback::To(SubsetFallback::None)),
            OldFallback::AnyEndpoint => Some(SelectorFallback::To(SubsetFallback::Any)),
            OldFallback::DefaultSubset => Some(SelectorFallback::To(SubsetFallback::Default)),
            OldFallback::KeysSubset => Some(SelectorFallback::Keys(keys_subset)),
        },
    })
}
